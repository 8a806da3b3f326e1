"""The table of a cache: where each sample's decoded picture lies, a record for each.

Written by the daemon alone, mapped by every producer for reading. A record of zeros says that the
sample is not there. A producer's own bytes count only once the daemon has written their record,
which it does when the producer said that they are whole: a producer killed in the middle of a
picture leaves no trace.

Invariants: the offset of a record is written last; a record that was cut off in the middle is
found by its check. Pure.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from augd.protocol.messages import CacheEntry

ALIGNMENT: Final = 64
"""Of pictures in the cache. None lies at 0, which says that there is none."""

TABLE_START: Final = 4096
"""Where the records begin: what stands before says of what they are."""

RECORD: Final = struct.Struct("<qq8siiBBHI")
"""offset, mtime_ns, digest, width, height, orientation, is_fresh, 0, check; little-endian.

`is_fresh`: written since the daemon started, so that the digest need not be looked at.
"""

Span = tuple[int, int]
"""Bytes [start, end) of the cache."""


@dataclass(slots=True)
class CacheFacts:
    """What there is of a cache when the daemon starts.

    `spans` are its free parts, in order; `present` says of each data set by name which samples are
    in it, a byte for each. `environment` is what its pictures were decoded by, None for no picture.
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
    """Round up to where a picture may begin."""
    return -(-position // ALIGNMENT) * ALIGNMENT


def picture_bytes(entry: CacheEntry) -> int:
    """Return how many bytes the pixels of an entry take: RGB."""
    return entry.width * entry.height * 3


def table_bytes(num_samples: int) -> int:
    """Return the size of the table of a data set."""
    return TABLE_START + num_samples * RECORD.size


def write_record(table: memoryview, entry: CacheEntry, mtime_ns: int) -> None:
    """Publish a picture. `mtime_ns` is its file's time by the index."""
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
    """Return how many bytes an unpacked record's picture takes; 0 when the record is none."""
    offset, mtime_ns, digest, width, height, orientation, _, _, check = record
    is_whole = check == _check(sample, offset, mtime_ns, digest, width, height, orientation)
    return width * height * 3 if is_whole and width > 0 and height > 0 and offset > 0 else 0


def age_record(table: memoryview, sample: int) -> None:
    """Say of a record that it is of another daemon's time."""
    table[TABLE_START + sample * RECORD.size + _FRESH_AT] = 0


def clear_record(table: memoryview, sample: int) -> None:
    """Take a record out."""
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
