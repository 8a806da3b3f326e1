"""How many producers are enough: what the consumers take, over what one producer makes.

Looked at every few seconds while streams are open, from the time that producers were at work. It is
shown by `augd status`, and a daemon with `--producers auto` hires and drains by it: at once when
producers are the limit, and only after some quiet when there are too many, because a trainer that
validates or saves takes nothing for a while. Pure: no I/O, no clock.
"""

from __future__ import annotations

import math

LOOK_S = 2.0
BUSY = 0.9  # a share of the time at work from which producers are the limit, as in `augd status`
QUIET_LOOKS = 5  # in a row with too many, before some are drained


class Autoscaler:
    """Counts work between two looks. `needed` is None where nothing can be told."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.needed: int | None = None
        self._busy_s = 0.0
        self._since: float | None = None
        self._num_quiet = 0

    def worked(self, busy_ns: int) -> None:
        """Count the time that a chunk took its producer."""
        self._busy_s += busy_ns / 1e9

    def next_look(self) -> float | None:
        """Return when the next look is due; None while no stream is open."""
        return None if self._since is None else self._since + LOOK_S

    def look(self, now: float, num_ready: int, *, has_streams: bool) -> bool:
        """Look if it is time; say whether `needed` is new.

        Where producers are the limit nobody knows how much more would be taken: a quarter more.
        """
        if not has_streams or not num_ready:
            self.needed, self._since, self._busy_s, self._num_quiet = None, None, 0.0, 0
            return False
        if self._since is None:
            self._since, self._busy_s = now, 0.0
        span_s = now - self._since
        if span_s < LOOK_S:
            return False
        at_work = self._busy_s / span_s
        is_limit = at_work >= BUSY * num_ready
        self.needed = num_ready + -(-num_ready // 4) if is_limit else max(1, math.ceil(at_work))
        self._since, self._busy_s = now, 0.0
        return True

    def change(self, size: int, most: int) -> int:
        """Return by how many producers the crew should change, after a look; 1 to `most` stay."""
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
