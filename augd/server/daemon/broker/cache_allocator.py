"""The books of the cache of decoded pictures: whose space is whose, and what lies where.

Theory of operation. Producers write pictures into rooms, ranges of the cache that the broker gave
to them alone, from the front to the back, and say which pictures are whole. The broker then has
the daemon write their records, and only from then on are they found. So nobody waits for anybody,
no lock is held, and what a killed producer was writing is in nobody's way: the rest of its rooms
is free again when it was reaped.

Each producer has a second room before the first is full, so that filling never waits for a message.
A picture too large for the first one goes to the next, and what is left of those before is given
back. Nothing is ever taken out: what came first stays, and when the cache is full the rest is
decoded in every epoch. For samples drawn in random order nothing does better without knowing the
order, and eviction would turn over what no epoch reads twice before it is gone.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from augd.pixels.headers.formats import DECODER
from augd.protocol.cache_table import ALIGNMENT, CacheFacts, Span, aligned, picture_bytes
from augd.protocol.messages import CacheEntry

ROOM_BYTES: Final = 64 << 20  # a hundred photos of ImageNet: seconds until the next is needed
ROOM_MIN_BYTES: Final = 16 << 10  # less holds no picture worth a message
_ROOMS: Final = 2
_PICTURES_PER_ROOM: Final = 8  # of the largest that fitted nowhere
_ROOMS_PER_PRODUCER: Final = 4  # at least so many, so that all producers can fill a small cache

DECODING: Final = ("kernels", "machine", "opencv", "pillow", "rendering")
"""What of a producer's environment decides decoded pixels."""


@dataclass(slots=True)
class _Room:
    at: int
    end: int


@dataclass(slots=True)
class CacheAllocator:
    """The books. Producers are known by their numbers."""

    facts: CacheFacts
    num_producers: int
    hits: int = 0
    misses: int = 0
    _rooms: dict[int, list[_Room]] = field(default_factory=dict)
    _room_bytes: int = ROOM_BYTES
    _is_stopped: bool = False

    def __post_init__(self) -> None:
        self._room_bytes = min(self._room_bytes, self._largest_room())

    def _largest_room(self) -> int:
        return max(
            ROOM_MIN_BYTES,
            self.facts.size_bytes // (_ROOMS_PER_PRODUCER * max(1, self.num_producers)),
        )

    def decodes_as(self, environment: Mapping[str, str]) -> dict[str, str] | None:
        """Compare with what producers decode by; returns it where what is there must go.

        Ask before the first producer gets a room.
        """
        facts, found = self.facts, {name: environment.get(name, "") for name in DECODING}
        found |= {name: of for name, of in environment.items() if name.startswith(DECODER)}
        if facts.environment == found:
            return None
        facts.environment = found
        facts.spans = [(ALIGNMENT, facts.size_bytes)]
        facts.num_entries = facts.filled_bytes = 0
        for present in facts.present.values():
            present[:] = bytes(len(present))
        return found

    def next_rooms(self, producer: int, wanted_bytes: int = 0) -> list[Span]:
        """Give a producer the rooms that it lacks; one of `wanted_bytes` at least, if any."""
        rooms = self._rooms.setdefault(producer, [])
        given: list[Span] = []
        if wanted_bytes:
            large = min(_PICTURES_PER_ROOM * wanted_bytes, self._largest_room())
            self._room_bytes = max(self._room_bytes, large)
        while (wanted_bytes or len(rooms) < _ROOMS) and not self._is_stopped:
            span = self._take(max(self._room_bytes, aligned(wanted_bytes)), wanted_bytes)
            if span is None:
                break
            rooms.append(_Room(*span))
            given.append(span)
            wanted_bytes = 0
        return given

    def put(self, producer: int, dataset: str, entry: CacheEntry) -> bool:
        """Take a picture that a producer wrote; say whether its record is to be written.

        Not when the sample is there already, by another producer, nor when the bytes are not the
        producer's own.
        """
        end = entry.offset + picture_bytes(entry)
        present = self.facts.present.get(dataset, b"")
        rooms = self._rooms.get(producer, [])
        number = next(
            (n for n, r in enumerate(rooms) if r.at <= entry.offset and end <= r.end), None
        )
        if number is None or end == entry.offset or entry.sample >= len(present):
            return False
        for room in rooms[:number]:
            self._release(room.at, room.end)
        del rooms[:number]
        room = rooms[0]
        room.at = min(aligned(end), room.end)
        if present[entry.sample] and not entry.replaces:
            self._release(entry.offset, room.at)
            return False
        if not present[entry.sample]:
            # One that is replaced stays where it is till the next start: somebody may look at it.
            self.facts.num_entries += 1
            self.facts.filled_bytes += end - entry.offset
        self.facts.present[dataset][entry.sample] = 1
        return True

    def leave(self, producer: int) -> None:
        """Take back the rooms of a producer that was reaped."""
        for room in self._rooms.pop(producer, ()):
            self._release(room.at, room.end)

    def stop(self) -> None:
        """Give out no more rooms: the disk has less space than was promised."""
        self._is_stopped = True

    def describe(self) -> dict[str, Any]:
        """Say what the cache is and does, for STATUS."""
        facts = self.facts
        return {
            "kind": facts.kind,
            "capacity_bytes": facts.size_bytes,
            "filled_bytes": facts.filled_bytes,
            "entries": facts.num_entries,
            "hits": self.hits,
            "misses": self.misses,
        }

    def _take(self, size_bytes: int, least_bytes: int) -> Span | None:
        """Cut a room out of the first free part that holds it, or take the largest that will do."""
        spans = self.facts.spans
        for number, (start, end) in enumerate(spans):
            if end - start >= size_bytes:
                cut = start + aligned(size_bytes)
                spans[number : number + 1] = [(cut, end)] if cut < end else []
                return start, min(cut, end)
        largest = max(spans, key=lambda span: span[1] - span[0], default=(0, 0))
        if largest[1] - largest[0] < max(least_bytes, ROOM_MIN_BYTES):
            return None
        spans.remove(largest)
        return largest

    def _release(self, start: int, end: int) -> None:
        """Make bytes free again, as one part with free neighbours."""
        if start >= end:
            return
        spans = self.facts.spans
        at = bisect(spans, (start, end))
        if at < len(spans) and spans[at][0] == end:
            end = spans.pop(at)[1]
        if at and spans[at - 1][1] == start:
            at -= 1
            start = spans.pop(at)[0]
        spans.insert(at, (start, end))
