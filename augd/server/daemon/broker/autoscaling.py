"""How many producers are enough: what the clients take, over what one producer makes.

The broker measures it every few seconds while streams are open, from the time that producers were
busy. `augd status` shows it, and a daemon with `--producers auto` starts and drains producers by
it. It starts them at once when producers are the limit. It drains them only after several looks
with too many, because a trainer that validates or saves takes nothing for a while. Pure: no I/O, no
clock.
"""

from __future__ import annotations

import math

LOOK_S = 2.0
BUSY = 0.9  # a share of busy time from which producers are the limit, as in `augd status`
QUIET_LOOKS = 5  # in a row with too many, before some are drained


class Autoscaler:
    """Adds up busy time between two looks. `needed` is None while it is unknown."""

    def __init__(self) -> None:
        self.needed: int | None = None
        self._busy_s = 0.0
        self._since: float | None = None
        self._num_quiet = 0

    def add_busy(self, busy_ns: int) -> None:
        """Add the time that a chunk took its producer."""
        self._busy_s += busy_ns / 1e9

    def next_look(self) -> float | None:
        """Return when the next look is due; None while no stream is open."""
        return None if self._since is None else self._since + LOOK_S

    def look(self, now: float, num_ready: int, *, has_streams: bool) -> bool:
        """Compute `needed` when it is due; return whether it is new.

        When producers are the limit, how much more would be taken is unknown: add a quarter.
        """
        if not has_streams or not num_ready:
            self.needed, self._since, self._busy_s, self._num_quiet = None, None, 0.0, 0
            return False
        if self._since is None:
            self._since, self._busy_s = now, 0.0
        span_s = now - self._since
        if span_s < LOOK_S:
            return False
        busy = self._busy_s / span_s
        is_limit = busy >= BUSY * num_ready
        self.needed = num_ready + -(-num_ready // 4) if is_limit else max(1, math.ceil(busy))
        self._since, self._busy_s = now, 0.0
        return True

    def change(self, size: int, most: int) -> int:
        """Return by how many producers the pool should change, after a look; 1 to `most` stay."""
        if self.needed is None:
            return 0
        surplus = size - min(most, self.needed)
        self._num_quiet = self._num_quiet + 1 if surplus > 0 else 0
        if surplus > 0:
            if self._num_quiet < QUIET_LOOKS:
                return 0
            self._num_quiet = 0
            return -((surplus + 1) // 2)
        return -surplus
