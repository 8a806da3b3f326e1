"""The table of a cache: one record per sample, which says where its decoded image lies.

Only the daemon writes it; every producer maps it for reading. A record of zeros means that the
sample is not cached. The daemon writes a record when the producer has reported the image complete.
So the bytes of a producer that is killed in the middle of an image are never read.

Invariants: the offset of a record is written last; the check of a record shows when it was written
only in part. Pure.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from augd.protocol.messages import CacheEntry

ALIGNMENT: Final = 64
"""Of images in the cache, in bytes. Offset 0 means that there is no image."""

TABLE_START: Final = 4096
"""Where the records begin, in bytes; the header before them describes them."""

RECORD: Final = struct.Struct("<qq8siiBBHI")
"""offset, mtime_ns, digest, width, height, orientation, is_fresh, 0, check; little-endian.

`is_fresh`: written since the daemon started, so that the digest need not be checked.
"""

Span = tuple[int, int]
"""Bytes [start, end) of the cache."""


@dataclass(slots=True)
class CacheFacts:
    """The contents of a cache when the daemon starts.

    `spans` are its free ranges, in order. `present` has, by dataset, a byte per sample that says
    whether it is cached. `environment` is that of the decoders, None without any image.
    """

    kind: str
    size_bytes: int
    spans: list[Span]
    present: Mapping[str, bytearray]
    environment: Mapping[str, str] | None = None
    num_entries: int = 0
    filled_bytes: int = 0
    is_checked: bool = False


_OFFSET: Final = struct.Struct("<q")
_FRESH_AT: Final = 33
_CHECKED: Final = struct.Struct("<qqq8siiB")


def aligned(position: int) -> int:
    """Round up to an offset at which an image may begin."""
    return -(-position // ALIGNMENT) * ALIGNMENT


def image_bytes(entry: CacheEntry) -> int:
    """Return the size of the RGB pixels of an entry."""
    return entry.width * entry.height * 3


def table_bytes(num_samples: int) -> int:
    """Return the size of the table of a dataset, in bytes."""
    return TABLE_START + num_samples * RECORD.size


def write_record(table: memoryview, entry: CacheEntry, mtime_ns: int) -> None:
    """Publish an image. `mtime_ns` is the time of its file as the index has it."""
    digest = entry.digest.ljust(8, b"\0")
    check = _check(
        entry.sample, entry.offset, mtime_ns, digest, entry.width, entry.height, entry.orientation
    )
    at = TABLE_START + entry.sample * RECORD.size
    packed = RECORD.pack(
        *(entry.offset, mtime_ns, digest, entry.width, entry.height, entry.orientation, 1, 0, check)
    )
    table[at + _OFFSET.size : at + RECORD.size] = packed[_OFFSET.size :]
    _OFFSET.pack_into(table, at, entry.offset)


def read_record(record: tuple[int, int, bytes, int, int, int, int, int, int], sample: int) -> int:
    """Return the size in bytes of the image of an unpacked record; 0 for an invalid record."""
    offset, mtime_ns, digest, width, height, orientation, _, _, check = record
    is_whole = check == _check(sample, offset, mtime_ns, digest, width, height, orientation)
    return width * height * 3 if is_whole and width > 0 and height > 0 and offset > 0 else 0


def age_record(table: memoryview, sample: int) -> None:
    """Mark a record as written before this daemon started."""
    table[TABLE_START + sample * RECORD.size + _FRESH_AT] = 0


def clear_record(table: memoryview, sample: int) -> None:
    """Remove a record."""
    at = TABLE_START + sample * RECORD.size
    table[at : at + RECORD.size] = bytes(RECORD.size)


def _check(
    sample: int,
    offset: int,
    mtime_ns: int,
    digest: bytes,
    width: int,
    height: int,
    orientation: int,
) -> int:
    return zlib.crc32(_CHECKED.pack(sample, offset, mtime_ns, digest, width, height, orientation))
