"""Reads samples from shards: ranges of a few large files instead of files of their own.

The counterpart of `FolderSource` for datasets of tar shards. The bytes of a sample are at (shard,
offset, size). The index may hold a JPEG's restart segments. Then only the header and the rows of
segments under a region are read: two consecutive reads, however many segments there are.

Invariants: those of `FolderSource`. A shard that changed since it was indexed makes each of its
samples a bad one; nothing is read beyond a sample's range. Descriptors of shards stay open, up to a
limit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from augd.dataset.readers.open_beneath import Root
from augd.dataset.readers.source import IndexedSource, Samples
from augd.dataset.readers.transient_errors import does_pass
from augd.dataset.stores.range_reader import ShardFacts
from augd.pixels import native
from augd.pixels.headers.read_header import BadImage
from augd.pixels.headers.size_limits import max_file_bytes, max_pixels
from augd.pixels.jpeg_segments import Cut, Region, Span, Table
from augd.process.paths import time_of

_OPEN_MAX: Final = 256  # of the 1024 descriptors that a process usually has
# A part that is nearly all of the image costs as much to assemble as it saves.
_WORTH_SHARE: Final = 0.8


class ShardSamples(Samples, Protocol):
    """What `ShardSource` needs of the index beside `SourceIndex`. Positions in the arrays are
    sample ids.
    """

    @property
    def shards(self) -> Sequence[ShardFacts]: ...

    @property
    def shard_numbers(self) -> NDArray[np.int32]: ...

    @property
    def shard_offsets(self) -> NDArray[np.int64]: ...

    @property
    def links_to(self) -> Sequence[bytes]: ...

    def segments(self, sample: int) -> Table | None: ...


class ShardSource(IndexedSource):
    """Read the samples of a dataset of shards. Reads may come from several threads at once."""

    _samples: ShardSamples

    def __init__(self, root: str | bytes | os.PathLike[str], samples: ShardSamples) -> None:
        """Open the root folder. Raises OSError when it cannot be opened."""
        super().__init__(samples)
        self._root = Root(root, samples.links_to)
        self._fds: dict[int, int] = {}
        self._kernels: Any = native.kernels if native.has_own_entropy_decoder() else None

    def close(self) -> None:
        """Close the shards and the root folder; reads after this fail. Closing twice is fine."""
        self._root.close()
        while self._fds:
            os.close(self._fds.popitem()[1])

    def read(self, sample: int) -> bytearray:
        """Read a sample whole. The caller owns the bytes.

        Raises:
            BadImage: its shard is deleted, unreadable, outside the root or changed since it was
                indexed, or the sample is empty.
        """
        content = bytearray(size_of(self._samples, sample))
        self._read(sample, (0, content))
        return content

    def _reopen(self, number: int) -> None:
        """Open the root and a shard anew. Raises OSError, and BadImage."""
        path = self._samples.shards[number].path
        self._root.reopen(path)
        kept = self._fds.get(number)
        if kept is not None:
            fresh = self._root.open(path)
            try:
                os.dup2(fresh, kept, inheritable=False)  # other threads continue with this number
            finally:
                os.close(fresh)

    def read_region(self, sample: int, region: Region) -> bytearray | Cut:
        """Read what a region of the stored image needs; all of it if that is unknown.

        Raises:
            BadImage: as `read`, or the sample is not what the index says.
        """
        table = usable_table(self._samples, sample, region)
        if table is None:
            return self.read(sample)
        cells = table.around(region)
        if self._kernels is not None:
            found = self._read_cut(sample, table, cells)
            if found is not None:
                return Cut(found, table, cells)
        span = span_in(self._samples, sample, table, cells)
        if span is None:
            return self.read(sample)
        start = table.scan_offset
        data = bytearray(start + span.size)
        whole = memoryview(data)
        self._read(sample, (0, whole[:start]), (span.first, whole[start:]))
        return Cut(data, table, cells)

    def _read_cut(self, sample: int, table: Table, cells: Region) -> bytearray | None:
        """Read it in one call; None if the shard is not open yet, or something is wrong."""
        number = int(self._samples.shard_numbers[sample])
        fd = self._fds.get(number)
        if fd is None:
            return None
        shard = self._samples.shards[number]
        found: bytearray | None = self._kernels.read_cut(
            table.lengths, table.columns, table.rows, *cells, fd, table.scan_offset,
            int(self._samples.shard_offsets[sample]), int(self.sizes_bytes[sample]),
            shard.size_bytes, shard.mtime_ns,
        )  # fmt: skip
        return found

    def _read(self, sample: int, *reads: tuple[int, bytearray | memoryview]) -> None:
        """Fill buffers with the bytes that begin at an offset in a sample."""
        try:
            self._read_once(sample, reads)
        except OSError as error:
            number = int(self._samples.shard_numbers[sample])
            self.retries.again(
                error,
                _shown(self._samples.shards[number]),
                lambda: self._read_once(sample, reads),
                lambda: self._reopen(number),
            )

    def _read_once(self, sample: int, reads: Sequence[tuple[int, bytearray | memoryview]]) -> None:
        """Fill the buffers. Raises OSError for errors that pass."""
        number = int(self._samples.shard_numbers[sample])
        shard = self._samples.shards[number]
        offset = int(self._samples.shard_offsets[sample])
        try:
            fd, is_kept = self._fds.get(number, -1), True
            if fd < 0:
                fd, is_kept = self._open(number, shard)
            try:
                _check(shard, os.fstat(fd))
                for first, into in reads:
                    _fill(fd, offset + first, into)
                # Written to during the read: the bytes may be half old and half new.
                _check(shard, os.fstat(fd))
            finally:
                if not is_kept:
                    os.close(fd)
        except OSError as error:
            if does_pass(error):
                raise
            raise BadImage(f"its shard cannot be read: {error.strerror}") from None

    def _open(self, number: int, shard: ShardFacts) -> tuple[int, bool]:
        """Open a shard, and return whether it stays open; the number of open shards is limited."""
        try:
            fd = self._root.open(shard.path)
        except BadImage as bad:
            raise BadImage(f"its shard {_shown(shard)}: {bad}") from None
        if len(self._fds) >= _OPEN_MAX:
            return fd, False
        kept = self._fds.setdefault(number, fd)
        if kept != fd:  # another thread was faster
            os.close(fd)
        return kept, True


def usable_table(samples: ShardSamples, sample: int, region: Region) -> Table | None:
    """Return the table of a sample's segments; None if it is to be read whole."""
    table = samples.segments(sample)
    if table is None or not table.holds(region) or table.width * table.height > max_pixels():
        return None
    return table


def span_in(samples: ShardSamples, sample: int, table: Table, cells: Region) -> Span | None:
    """Return where a sample's segments lie; None if reading all of it is as good.

    Raises:
        BadImage: the sample is empty, too large, or not what its index says.
    """
    span = table.span(cells)
    size_bytes = size_of(samples, sample)
    is_most = table.scan_offset + span.kept > _WORTH_SHARE * size_bytes
    if is_most and not native.has_own_entropy_decoder():
        return None
    if span.first + span.size > size_bytes:
        raise BadImage(
            f"its index lists segments up to byte {span.first + span.size} of {size_bytes}. "
            f"Index the set again."
        )
    return span


def size_of(samples: ShardSamples, sample: int) -> int:
    """Return a sample's size in bytes. Raises BadImage when there is none, or it is too large."""
    size_bytes = int(samples.sizes_bytes[sample])
    if not size_bytes:
        raise BadImage("the file is empty")
    if size_bytes > max_file_bytes():
        raise BadImage(
            f"too large: expected at most {max_file_bytes():,} bytes, got {size_bytes:,}"
        )
    return size_bytes


def _fill(fd: int, start: int, into: bytearray | memoryview) -> None:
    size = len(into)
    num_read = os.preadv(fd, (into,), start)
    while num_read < size:
        more = os.preadv(fd, (memoryview(into)[num_read:],), start + num_read)
        if not more:
            raise BadImage(f"cut off: expected {size} bytes, got {num_read}")
        num_read += more


def _check(shard: ShardFacts, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise BadImage(f"its shard {_shown(shard)} is not a regular file")
    if found.st_size != shard.size_bytes or time_of(found) != shard.mtime_ns:
        raise BadImage(
            f"its shard {_shown(shard)} changed since it was indexed: expected {shard.size_bytes} "
            f"bytes of {shard.mtime_ns} ns, got {found.st_size} of {found.st_mtime_ns}"
        )


def _shown(shard: ShardFacts) -> str:
    return shard.path.decode("utf-8", "backslashreplace")
