"""The allocator of the cache of decoded images: which bytes are whose, and what lies where.

Theory of operation. The broker grants a producer extents, ranges of the cache for that producer
alone. The producer writes images into them from front to back, and reports which are complete. The
broker then has the daemon write their records; only from then on do producers find them. So no
process waits for another and no lock is held. What a killed producer was writing has no record: the
rest of its extents is free again once it was reaped.

Each producer gets a second extent before the first is full, so that filling never waits for a
message. An image too large for the first one goes to the next, and the rest of those before is
freed. Nothing is evicted: the first images stay, and when the cache is full all others are decoded
in every epoch. For samples drawn in random order nothing does better without knowing the order.
Eviction would replace images before the next epoch reads them.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from augd.pixels.headers.formats import DECODER
from augd.protocol.cache_table import ALIGNMENT, CacheFacts, Span, aligned, image_bytes
from augd.protocol.messages import CacheEntry

EXTENT_BYTES: Final = 64 << 20  # a hundred photos of ImageNet: seconds until the next is needed
EXTENT_MIN_BYTES: Final = 16 << 10  # less holds no image worth a message
_EXTENTS: Final = 2
_IMAGES_PER_EXTENT: Final = 8  # of the largest image that fitted nowhere
_EXTENTS_PER_PRODUCER: Final = 4  # at least, so that all producers can fill a small cache

DECODING: Final = ("kernels", "machine", "opencv", "pillow", "rendering")
"""The entries of a producer's environment that decide decoded pixels."""


@dataclass(slots=True)
class _Extent:
    at: int
    end: int


@dataclass(slots=True)
class CacheAllocator:
    """Free and granted extents of the cache; producers are named by their numbers."""

    facts: CacheFacts
    num_producers: int
    hits: int = 0
    misses: int = 0
    _extents: dict[int, list[_Extent]] = field(default_factory=dict)
    _extent_bytes: int = EXTENT_BYTES
    _is_stopped: bool = False

    def __post_init__(self) -> None:
        self._extent_bytes = min(self._extent_bytes, self._largest_extent())

    def _largest_extent(self) -> int:
        return max(
            EXTENT_MIN_BYTES,
            self.facts.size_bytes // (_EXTENTS_PER_PRODUCER * max(1, self.num_producers)),
        )

    def clear_if_other(self, environment: Mapping[str, str]) -> dict[str, str] | None:
        """Forget all images if producers decode otherwise than the images were decoded.

        Call it before the first extent is granted.

        Returns:
            The producers' decoding environment if all images were forgotten, else None.
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

    def grant(self, producer: int, wanted_bytes: int = 0) -> list[Span]:
        """Grant a producer the extents that it lacks; if `wanted_bytes`, one of at least that
        size."""
        extents = self._extents.setdefault(producer, [])
        given: list[Span] = []
        if wanted_bytes:
            large = min(_IMAGES_PER_EXTENT * wanted_bytes, self._largest_extent())
            self._extent_bytes = max(self._extent_bytes, large)
        while (wanted_bytes or len(extents) < _EXTENTS) and not self._is_stopped:
            span = self._take(max(self._extent_bytes, aligned(wanted_bytes)), wanted_bytes)
            if span is None:
                break
            extents.append(_Extent(*span))
            given.append(span)
            wanted_bytes = 0
        return given

    def put(self, producer: int, dataset: str, entry: CacheEntry) -> bool:
        """Add an image that a producer wrote; return whether its record is to be written.

        It is not if the sample is there already, by another producer, or if the bytes are not the
        producer's own.
        """
        end = entry.offset + image_bytes(entry)
        present = self.facts.present.get(dataset, b"")
        extents = self._extents.get(producer, [])
        number = next(
            (n for n, r in enumerate(extents) if r.at <= entry.offset and end <= r.end), None
        )
        if number is None or end == entry.offset or entry.sample >= len(present):
            return False
        for extent in extents[:number]:
            self._release(extent.at, extent.end)
        del extents[:number]
        extent = extents[0]
        extent.at = min(aligned(end), extent.end)
        if present[entry.sample] and not entry.replaces:
            self._release(entry.offset, extent.at)
            return False
        if not present[entry.sample]:
            # The replaced image stays until the next start: a producer may be reading it.
            self.facts.num_entries += 1
            self.facts.filled_bytes += end - entry.offset
        self.facts.present[dataset][entry.sample] = 1
        return True

    def free(self, producer: int) -> None:
        """Free the extents of a producer that was reaped."""
        for extent in self._extents.pop(producer, ()):
            self._release(extent.at, extent.end)

    def stop(self) -> None:
        """Grant no more extents: the disk has less space than expected."""
        self._is_stopped = True

    def describe(self) -> dict[str, Any]:
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
        """Take an extent from the first free span that holds it, or the largest span that
        suffices."""
        spans = self.facts.spans
        for number, (start, end) in enumerate(spans):
            if end - start >= size_bytes:
                cut = start + aligned(size_bytes)
                spans[number : number + 1] = [(cut, end)] if cut < end else []
                return start, min(cut, end)
        largest = max(spans, key=lambda span: span[1] - span[0], default=(0, 0))
        if largest[1] - largest[0] < max(least_bytes, EXTENT_MIN_BYTES):
            return None
        spans.remove(largest)
        return largest

    def _release(self, start: int, end: int) -> None:
        """Free a span, merged with its free neighbours."""
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
