"""Reads samples from shards in an object store.

The counterpart of `ShardSource`, with the same results: `shards` defines which ranges a sample
needs. The rows of a lease are read together, since a request costs a round trip, however small it
is. Ranges of a shard that lie close become one request, and all requests are sent at once.

Invariants: nothing is read beyond a sample's range except what lies between two. A failing store is
no bad sample, but an error of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from augd.dataset.readers.shards import ShardSamples, size_of, span_in, usable_table
from augd.dataset.readers.source import IndexedSource, Row
from augd.dataset.stores.range_reader import BUFFER_SLOT_BYTES, ByteRange, RangeReader
from augd.pixels.headers.read_header import BadImage
from augd.pixels.jpeg_segments import Cut, Region

GAP_BYTES: Final = 256 << 10
"""Ranges no farther apart are one request: fewer bytes than a round trip of 20 ms would bring."""


@dataclass(slots=True)
class _Want:
    """A range of a shard that a row needs, and the memory that it is copied to."""

    shard: int
    first: int
    into: memoryview

    @property
    def end(self) -> int:
        return self.first + len(self.into)


@dataclass(slots=True)
class _Span:
    """A range of a shard to request, with the wants that it serves, in order."""

    shard: int
    first: int
    end: int
    wants: list[_Want] = field(default_factory=list)


class RemoteSource(IndexedSource):
    """Read samples through a reader of ranges. Reads may come from several threads at once."""

    _samples: ShardSamples

    def __init__(self, samples: ShardSamples, reader: RangeReader) -> None:
        """Take both; `close` closes the reader."""
        super().__init__(samples)
        self._reader = reader

    def close(self) -> None:
        """Close the reader; reads after this fail. Closing twice is fine."""
        self._reader.close()

    def read(self, sample: int) -> bytearray:
        """Read a whole sample. The caller owns the bytes.

        Raises:
            BadImage: the sample is empty or too large.
            StoreError: the store fails or rejects a request, or its shard was replaced.
        """
        content = self._read_one(sample, None)
        assert isinstance(content, bytearray)
        return content

    def read_region(self, sample: int, region: Region) -> bytearray | Cut:
        """Read what a region of the stored image needs; all of it if that is unknown.

        Raises:
            BadImage: as `read`, or the sample is not what the index says.
            StoreError: as `read`.
        """
        return self._read_one(sample, region)

    def _read_one(self, sample: int, region: Region | None) -> bytearray | Cut:
        (row,) = self.read_rows([sample], [region])
        if isinstance(row, BadImage):
            raise row
        return row

    def read_rows(self, samples: Sequence[int], regions: Sequence[Region | None]) -> list[Row]:
        """Read samples together, whole or as their regions need. Bad ones are values.

        Raises:
            StoreError: the store fails or rejects a request, or a shard was replaced.
        """
        rows: list[Row] = []
        wants: list[_Want] = []
        for sample, region in zip(samples, regions, strict=True):
            try:
                rows.append(self._want(sample, region, wants))
            except BadImage as bad:
                rows.append(bad)
        self._fetch(wants)
        return rows

    def _want(self, sample: int, region: Region | None, wants: list[_Want]) -> bytearray | Cut:
        """Allocate memory for what is needed of a sample, and add to `wants` what belongs there."""
        table = None if region is None else usable_table(self._samples, sample, region)
        shard = int(self._samples.shard_numbers[sample])
        at = int(self._samples.shard_offsets[sample])
        if table is not None and region is not None:
            cells = table.around(region)
            span = span_in(self._samples, sample, table, cells)
            if span is not None:
                start = table.scan_offset
                data = bytearray(start + span.size)
                whole = memoryview(data)
                wants.append(_Want(shard, at, whole[:start]))
                wants.append(_Want(shard, at + span.first, whole[start:]))
                return Cut(data, table, cells)
        content = bytearray(size_of(self._samples, sample))
        wants.append(_Want(shard, at, memoryview(content)))
        return content

    def _fetch(self, wants: list[_Want]) -> None:
        for round_ in _rounds(_coalesce(wants)):
            pieces = [piece for piece, _ in round_]
            with self._reader.fetch(pieces) as memory:
                for piece, span in round_:
                    _copy(memory, piece, span)


def _coalesce(wants: list[_Want]) -> list[_Span]:
    """Merge wants into as few ranges as pays off, in the order of the shards."""
    spans: list[_Span] = []
    for want in sorted(wants, key=lambda it: (it.shard, it.first)):
        last = spans[-1] if spans else None
        if (
            last is None
            or last.shard != want.shard
            or want.first > last.end + GAP_BYTES
            or want.end - last.first > BUFFER_SLOT_BYTES
        ):
            last = _Span(want.shard, want.first, want.end)
            spans.append(last)
        last.end = max(last.end, want.end)
        last.wants.append(want)
    return spans


def _rounds(spans: list[_Span]) -> Iterator[list[tuple[ByteRange, _Span]]]:
    """Place ranges in the memory of one read, cut where they don't fit."""
    held: list[tuple[ByteRange, _Span]] = []
    at = 0
    for span in spans:
        first = span.first
        while first < span.end:
            if at == BUFFER_SLOT_BYTES or (
                at and first == span.first and span.end - first > BUFFER_SLOT_BYTES - at
            ):
                yield held
                held, at = [], 0
            size = min(span.end - first, BUFFER_SLOT_BYTES - at)
            held.append((ByteRange(span.shard, first, size, at), span))
            first, at = first + size, at + size
    if held:
        yield held


def _copy(memory: memoryview, piece: ByteRange, span: _Span) -> None:
    """Copy what was read to the wants."""
    end = piece.first + piece.size
    for want in span.wants:
        start, stop = max(want.first, piece.first), min(want.end, end)
        if start < stop:
            source = memory[piece.at + start - piece.first : piece.at + stop - piece.first]
            want.into[start - want.first : stop - want.first] = source
