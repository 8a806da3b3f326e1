"""The cache of decoded images in a producer: pixels to read, and extents to fill.

It stands before a sample's source and decoder: an image that is found needs neither. It is returned
as a view of the mapped cache; nothing of its size is read, copied or allocated. An image that is
not found is decoded whole, straight into an extent of this producer. The daemon is told of it when
the chunk is done. augd/server/daemon/broker/cache_allocator.py has the theory of operation.

A file that is truncated while it is mapped reads as zeros up to the end of a page. Reading beyond
ends the process by SIGBUS. So its size is checked before and after each chunk (`is_whole`).

Invariants: a producer writes to its own extents only, and to no byte twice. Whatever a table
contains, no view leaves the cache. An image that does not decode whole is not cached; its region
is decoded instead.
"""

from __future__ import annotations

import mmap
import os
import weakref
from typing import Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from augd.pixels.decode import Pixels, decode_whole
from augd.pixels.exif_orientation import DecodedRegion
from augd.pixels.headers.read_header import BadImage, Header
from augd.protocol.cache_table import RECORD, TABLE_START, aligned, table_bytes
from augd.protocol.messages import Cached, CacheEntry, CacheMessage, Room

_RECORDS: Final = np.dtype(
    {
        "names": ["offset", "size", "is_fresh"],
        "formats": ["<i8", "(2,)<i4", "?"],
        "offsets": [0, 24, 33],
        "itemsize": RECORD.size,
    }
)
_NEVER: Final = 1 << 62


class PixelCache:
    """The mapped pixels of all datasets, and the extents that this producer may fill."""

    def __init__(self, fd: int, use: CacheMessage) -> None:
        """Map the cache. The fd stays the caller's and may be closed afterwards.

        Raises:
            ValueError: the file was truncated.
        """
        self.is_checked = use.is_checked
        self.size_bytes = use.size_bytes
        self._fd = os.dup(fd)
        weakref.finalize(self, os.close, self._fd)
        # Two mappings, so that cached images cannot be written by mistake.
        self.pixels = mmap.mmap(fd, use.size_bytes, mmap.MAP_SHARED, mmap.PROT_READ)
        self._own = mmap.mmap(fd, use.size_bytes)
        self._extents: list[list[int]] = []
        # The size of the smallest image that fitted into no extent: no need to ask for it again.
        self._refused_bytes = _NEVER
        self._wanted_bytes = 0

    def is_whole(self) -> bool:
        """Return whether the file still has its length; reading beyond its end is a SIGBUS."""
        return os.fstat(self._fd).st_size >= self.size_bytes

    def add_room(self, room: Room) -> None:
        """Add an extent of the daemon's ROOM."""
        self._extents.append([room.start, room.end])
        self._refused_bytes = _NEVER

    def place(self, width: int, height: int) -> tuple[int, Pixels] | None:
        """Return the position and the pixels for the next image of this size; None if full."""
        size_bytes = width * height * 3
        for number, (start, end) in enumerate(self._extents):
            if start + size_bytes <= end:
                del self._extents[:number]
                return start, np.ndarray((height, width, 3), np.uint8, self._own, start)
        if size_bytes < self._refused_bytes:
            self._refused_bytes = self._wanted_bytes = size_bytes
        return None

    def keep(self, end: int) -> None:
        """Keep the image that was placed last; it ends at `end`."""
        self._extents[0][0] = aligned(end)

    @property
    def is_full(self) -> bool:
        """Whether an image fitted into no extent, and no extent came since."""
        return self._refused_bytes < _NEVER

    def take_wanted_bytes(self) -> int:
        """Return, once, the size of an image that fitted into no extent; 0 if there is none."""
        wanted, self._wanted_bytes = self._wanted_bytes, 0
        return wanted


class CachedImages:
    """The cached images of one dataset. Positions in its table are sample ids."""

    def __init__(self, cache: PixelCache, name: str, table_fd: int, num_samples: int) -> None:
        """Map the table. The fd stays the caller's and may be closed afterwards.

        Raises:
            ValueError: the file was truncated.
        """
        self._cache = cache
        self._fd = os.dup(table_fd)
        weakref.finalize(self, os.close, self._fd)
        self._name = name
        size_bytes = table_bytes(num_samples)
        self._table = mmap.mmap(table_fd, size_bytes, mmap.MAP_SHARED, mmap.PROT_READ)
        self._records = np.frombuffer(self._table, _RECORDS, num_samples, TABLE_START)
        self._offsets: NDArray[np.int64] = self._records["offset"]
        # Found by this process: images that match their digest, and images that don't decode whole.
        self._is_sound = np.zeros(num_samples if cache.is_checked else 0, np.bool_)
        self._damaged: set[int] = set()
        self._unfit: set[int] = set()
        self._entries: list[CacheEntry] = []

    def is_whole(self) -> bool:
        """Return whether neither the table nor the pixels were truncated."""
        return os.fstat(self._fd).st_size >= len(self._table) and self._cache.is_whole()

    def find(self, ids: NDArray[np.int64]) -> list[int]:
        """Return the position of each sample's image in the cache; 0 if it is not there."""
        found: list[int] = np.where(ids >= 0, self._offsets[ids], 0).tolist()
        if self._cache.is_checked:
            for sample, offset in zip(ids.tolist(), found, strict=True):
                if offset:
                    self._fetch(sample)
        return found

    def _fetch(self, sample: int) -> None:
        """Have the kernel read an image from the disk before it is used."""
        offset, _, _, width, height, *_ = RECORD.unpack_from(
            self._table, TABLE_START + sample * RECORD.size
        )
        start = offset - offset % mmap.PAGESIZE
        size_bytes = offset + width * height * 3 - start
        if start >= 0 and 0 < size_bytes <= self._cache.size_bytes - start:
            self._cache.pixels.madvise(mmap.MADV_WILLNEED, start, size_bytes)

    @property
    def is_full(self) -> bool:
        """Whether there is hardly space for another image."""
        return self._cache.is_full

    @property
    def pixels(self) -> mmap.mmap:
        """The mapped cache, for reading."""
        return self._cache.pixels

    def places(self, ids: NDArray[np.int64]) -> NDArray[np.void] | None:
        """Return the records of samples that were all found; None if one must be checked first."""
        if (
            self._cache.is_checked
            and not (self._records["is_fresh"][ids] | self._is_sound[ids]).all()
        ):
            return None
        return self._records[ids]

    def image(self, sample: int) -> DecodedRegion | None:
        """Return the image of a sample that was found; None if it is damaged.

        Its pixels are a view into the cache, which is never written over.
        """
        record = RECORD.unpack_from(self._table, TABLE_START + sample * RECORD.size)
        offset, _, digest, width, height, orientation, is_fresh, _, _ = record
        if not (
            width > 0 < height
            and 0 < offset <= self._cache.size_bytes - width * height * 3
            and 1 <= orientation <= 8
        ):
            self._damaged.add(sample)
            return None
        pixels = np.ndarray((height, width, 3), np.uint8, self._cache.pixels, offset)
        if self._cache.is_checked and not is_fresh and not self._is_sound[sample]:
            if _digest(pixels) != digest:
                self._damaged.add(sample)
                return None
            self._is_sound[sample] = True
        return DecodedRegion(pixels, width, height, orientation)

    def add(self, sample: int, content: bytes | bytearray, header: Header) -> DecodedRegion | None:
        """Decode an image into the cache; None if there is no space, or the image is damaged.

        The caller can use it at once. Others find it after the daemon has recorded it.
        """
        if sample in self._unfit:
            return None
        if self._offsets[sample] and sample not in self._damaged:
            return self.image(sample)  # another producer added it meanwhile
        width, height, cache = header.width, header.height, self._cache
        placed = cache.place(width, height)
        if placed is None:
            return None
        start, pixels = placed
        try:
            decode_whole(content, header, pixels)
        except BadImage:
            # The region that is needed may decode all the same.
            self._unfit.add(sample)
            return None
        cache.keep(start + pixels.nbytes)
        entry = CacheEntry(
            *(sample, start, width, height, header.orientation),
            digest=_digest(pixels) if cache.is_checked else b"",
            replaces=sample in self._damaged,
        )
        self._damaged.discard(sample)
        self._entries.append(entry)
        return DecodedRegion(pixels, width, height, header.orientation)

    def take_news(self) -> Cached | None:
        """Return what the daemon must know since the last call; None if there is nothing."""
        wanted = self._cache.take_wanted_bytes()
        if not self._entries and not wanted:
            return None
        entries, self._entries = tuple(self._entries), []
        return Cached(self._name, entries, wanted)


def _digest(pixels: Pixels) -> bytes:
    return xxhash.xxh3_64_digest(pixels.data)
