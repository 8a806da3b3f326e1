"""A stream's state as JSON data: written, read and checked.

Runs in the training process, below `augd/client/epoch_reader.py`. Knows no socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from augd.client.receipts import EpochDigest, read_sums
from augd.errors import OptionError
from augd.protocol.limits import QUARANTINE_MAX
from augd.protocol.messages import Layout, Opened, Quarantine

EPOCH_MAX = 2**31 - 2  # the next epoch is made ahead, and must fit 31 bits, too
_COUNT_MAX = 2**62


@dataclass(frozen=True, slots=True)
class Saved:
    """A state: its place, content, quarantine, rank and world; -1 if it lacks the last two."""

    epoch: int
    position: int
    content: dict[str, str]
    quarantine: Quarantine
    rank: int
    world: int
    sums: EpochDigest

    def sums_here(self, layout: Layout) -> EpochDigest:
        """Return the sums of the epoch up to the place, if they are this rank's.

        Another rank counted other samples, and in another world every rank has another share. Then
        the epoch is not counted from its start. The same holds for a state without rank and world,
        unless it counts every sample up to its place.
        """
        if not self.position:
            return EpochDigest()
        is_known = (self.rank, self.world) == (layout.rank, layout.world)
        if self.world < 0:
            is_known = layout.world == 1 and self.sums.samples == self.position
        return self.sums if is_known else EpochDigest(is_whole=False)


def write_state(
    place: tuple[int, int],
    layout: Layout,
    opened: Opened,
    quarantine: Quarantine,
    sums: EpochDigest | None,
) -> dict[str, Any]:
    """Write a state as JSON data; `sums` are of the epoch up to the place, if they are known."""
    state = {
        "version": 1,
        "epoch": place[0],
        "position": place[1],
        "rank": layout.rank,
        "world": layout.world,
        "content": dict(opened.content_fields),
        "stamp": opened.stamp,
        "quarantine": [list(entry) for entry in quarantine],
    }
    return state if sums is None else {**state, "receipt": sums.as_data()}


def read_state(state: Mapping[str, Any]) -> Saved:
    """Read what `state_dict` returned, also in versions that did not save rank and world.

    Raises:
        OptionError: this is no state of a stream.
    """
    try:
        numbers = (state["version"], state["epoch"], state["position"])
        whose = (state.get("rank", -1), state.get("world", -1))
        fields = dict(state["content"])
        entries = tuple((int(s), int(e), int(p)) for s, e, p in state.get("quarantine", ()))
    except (KeyError, TypeError, ValueError):
        raise OptionError(f"state: expected what state_dict() returned, got {state!r}") from None
    limits = (1, EPOCH_MAX + 1, _COUNT_MAX)
    if numbers[0] != 1 or not all(map(_is_within, numbers, limits)):
        raise OptionError(f"state: expected version 1 with epoch and position, got {numbers}")
    has_world = _is_within(whose[1], _COUNT_MAX) and _is_within(whose[0], whose[1] - 1)
    if whose != (-1, -1) and not has_world:
        raise OptionError(f"state: expected rank and world with 0 <= rank < world, got {whose}")
    if len(entries) > QUARANTINE_MAX or not all(map(_is_entry, entries)):
        raise OptionError(
            f"state: expected at most {QUARANTINE_MAX} entries (sample, epoch, position) in its "
            f"quarantine, got {len(entries)}: {entries[:3]}"
        )
    sums = read_sums(state.get("receipt"))
    return Saved(numbers[1], numbers[2], fields, entries, *whose, sums=sums)


def _is_within(number: Any, most: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= most


def _is_entry(entry: tuple[int, int, int]) -> bool:
    return all(map(_is_within, entry, (_COUNT_MAX, 2**31 - 1, _COUNT_MAX)))
