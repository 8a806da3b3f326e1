"""The index file's format: magic, a typed header, and flat arrays that can be mapped.

Written by the daemon (`index_file`), mapped by every producer (`index_arrays`). Little-endian: 8
bytes magic, u32 version, u32 length of the header, the header (msgpack of `IndexHeader`), then the
arrays at 64-byte boundaries. Their offsets count from the first boundary after the header.

Invariants: nothing in a header is trusted before it is checked against the file's length; the
digest holds neither the root nor times. Imports no NumPy.
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from typing import BinaryIO, Final, Literal

import msgspec

from augd.dataset.index_changes import Change
from augd.dataset.scan_result import ScanResult, Shard, Skipped
from augd.errors import DatasetError

MAGIC: Final = b"AUGDIDX\n"
VERSION: Final = 3
ALIGNMENT: Final = 64
RULES: Final = 2
"""Raised when other files become samples, or other labels, of the same folder."""
DIMS_BYTES: Final = 8
"""Bytes of the sizes sidecar per sample: int32 width, int32 height."""

_PREFIX: Final = struct.Struct("<8sII")
_MAX_HEADER_BYTES: Final = 256 << 20

ArrayName = Literal[
    "labels",
    "splits",
    "sizes_bytes",
    "mtimes_ns",
    "split_hashes",
    "limit_hashes",
    "path_offsets",
    "targets",
    "shard_numbers",
    "shard_offsets",
    "sides_px",
    "orientations",
    "mcus",
    "intervals",
    "scan_offsets",
    "segment_starts",
    "segment_lengths",
    "paths",
]
Dtype = Literal["<i8", "<u8", "<i4", "<f4", "<u2", "|u1"]

ITEM_BYTES: Final[dict[Dtype, int]] = {
    **{"<i8": 8, "<u8": 8, "<i4": 4, "<f4": 4, "<u2": 2, "|u1": 1}
}
DTYPES: Final[dict[ArrayName, Dtype]] = {
    "labels": "<i8",
    "splits": "|u1",
    "sizes_bytes": "<i8",
    "mtimes_ns": "<i8",
    "split_hashes": "<u8",
    "limit_hashes": "<u8",
    "path_offsets": "<i8",
    "targets": "<f4",
    "shard_numbers": "<i4",
    "shard_offsets": "<i8",
    "sides_px": "<i4",
    "orientations": "|u1",
    "mcus": "|u1",
    "intervals": "<i4",
    "scan_offsets": "<i4",
    "segment_starts": "<i8",
    "segment_lengths": "<u2",
    "paths": "|u1",
}
"""In the order of the file, whose last array is never empty, so that it ends where that ends."""


_OF_SHARDS: Final[tuple[ArrayName, ...]] = tuple(DTYPES)[
    tuple(DTYPES).index("shard_numbers") : tuple(DTYPES).index("segment_lengths")
]


class ArrayPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where one array lies: offset in bytes from the start of the arrays, and number of items."""

    name: ArrayName
    dtype: Dtype
    offset: int
    length: int


class IndexHeader(msgspec.Struct, frozen=True):
    """The index file's header. `first_size_px` is (width, height) of sample 0, None if it is bad.

    `source` is the real path of the folder or manifest that was indexed. `root` is the folder that
    paths are relative to. `watched` maps what the index depends on to its time in ns. `num_targets`
    is the number of classes of a multi-label dataset, and 0 otherwise. `shards` is empty unless
    samples are ranges of tar files. `own` is the identity of an own source
    (augd/plugins/sources.py), whose samples lie in no known file.

    `notes` are lines for people: what was read from names. `skipped` lists what was skipped.
    `links_to` are the real paths that links may lead to, beside the root. `rules` is the number of
    the rules that say which files are samples: an index made by other rules is built again.
    `formats` are those of files whose names do not tell theirs. `stamp` digests the times of files,
    and `history` tells what changed at earlier scans (`index_changes`).
    """

    digest: str
    source: bytes
    root: bytes
    num_samples: int
    num_targets: int
    has_splits: bool
    classes: list[str]
    watched: dict[bytes, int]
    first_size_px: tuple[int, int] | None
    shards: list[Shard]
    arrays: list[ArrayPlace]
    own: str = ""
    notes: list[str] = msgspec.field(default_factory=list)
    skipped: list[Skipped] = msgspec.field(default_factory=list)
    links_to: list[bytes] = msgspec.field(default_factory=list)
    rules: int = 0
    formats: list[str] = msgspec.field(default_factory=list)
    stamp: str = ""
    history: list[Change] = msgspec.field(default_factory=list)


def read_prefix(start: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Return the header's length and the position of the arrays, from the first 16 bytes.

    Raises:
        DatasetError: not an index file, or one of another version.
    """
    if len(start) < _PREFIX.size:
        raise DatasetError(f"index file: expected at least {_PREFIX.size} bytes, got {len(start)}")
    magic, version, length = _PREFIX.unpack_from(start)
    if magic != MAGIC or version != VERSION:
        raise DatasetError(
            f"index file: expected {MAGIC!r} version {VERSION}, got {magic!r} version {version}. "
            f"Index the dataset again."
        )
    return length, aligned(_PREFIX.size + length)


def read_index_header(fd: int) -> tuple[IndexHeader, int]:
    """Read and check an index file's header; returns it with the position of the arrays.

    Raises:
        DatasetError: not an index file, another version, or cut off.
    """
    size_bytes = os.fstat(fd).st_size
    length, start = read_prefix(os.pread(fd, _PREFIX.size, 0))
    if length > min(size_bytes, _MAX_HEADER_BYTES):
        raise DatasetError(f"index file: its header claims {length} of {size_bytes} bytes")
    try:
        header = msgspec.msgpack.decode(
            os.pread(fd, length, _PREFIX.size), type=IndexHeader, strict=True
        )
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"index file: its header does not decode: {error}") from None
    n = header.num_samples
    found = {place.name: (place.dtype, place.length) for place in header.arrays}
    lengths = {"path_offsets": n + 1, "targets": n * header.num_targets}
    if header.shards:
        lengths |= {"sides_px": 2 * n, "segment_starts": n + 1}
    else:
        lengths |= dict.fromkeys(_OF_SHARDS, 0)
    for name in ("paths", "segment_lengths"):
        lengths[name] = found.get(name, ("", -1))[1]
    expected = {name: (dtype, lengths.get(name, n)) for name, dtype in DTYPES.items()}
    if n < 1 or found != expected or (lengths["segment_lengths"] and not header.shards):
        raise DatasetError(f"index file: its arrays do not hold {n} samples: {found}")
    for place in header.arrays:
        end = start + place.offset + place.length * ITEM_BYTES[place.dtype]
        if place.offset < 0 or place.offset % ALIGNMENT or end > size_bytes:
            raise DatasetError(
                f"index file: array {place.name} ends at byte {end} of {size_bytes}. "
                f"Index the dataset again."
            )
    return header, start


def aligned(position: int) -> int:
    """Round a position up to the alignment of the arrays."""
    return -(-position // ALIGNMENT) * ALIGNMENT


def write_index(fd: int, header: IndexHeader, found: ScanResult) -> int:
    """Write prefix, header and arrays. Returns the file's length."""
    with open(fd, "wb", closefd=False) as file:
        return write_index_to(file, header, found)


def write_index_to(file: BinaryIO, header: IndexHeader, found: ScanResult) -> int:
    """Write as `write_index`, into an open file that is empty."""
    encoded = msgspec.msgpack.encode(header)
    start = aligned(_PREFIX.size + len(encoded))
    file.write(_PREFIX.pack(MAGIC, VERSION, len(encoded)))
    file.write(encoded)
    for place, (_, content) in zip(header.arrays, arrays_of(found), strict=True):
        file.seek(start + place.offset)
        file.write(content)
    file.flush()
    return file.seek(0, os.SEEK_END)


def read_found(fd: int) -> ScanResult:
    """Read an index file back. Keeps its digest, and checks nothing in the arrays.

    Raises:
        DatasetError: as `read_index_header`.
    """
    header, start = read_index_header(fd)
    found = ScanResult(header.source, header.root, dict(header.watched), header.classes)
    found.shards, found.digest, found.notes = header.shards, header.digest, header.notes
    found.skipped, found.formats = header.skipped, header.formats
    contents: dict[str, array[int] | array[float] | bytearray] = dict(arrays_of(found))
    for place in header.arrays:
        content = os.pread(fd, place.length * ITEM_BYTES[place.dtype], start + place.offset)
        into = contents[place.name]
        if isinstance(into, bytearray):
            into[:] = content
        else:
            del into[:]
            into.frombytes(content)
    return found


def arrays_of(found: ScanResult) -> list[tuple[ArrayName, array[int] | array[float] | bytearray]]:
    """List the arrays of a dataset in the order of the file."""
    return [(name, getattr(found, name)) for name in DTYPES]


def places_of(found: ScanResult) -> list[ArrayPlace]:
    """Lay the arrays out one after the other."""
    places: list[ArrayPlace] = []
    offset = 0
    for name, content in arrays_of(found):
        dtype = DTYPES[name]
        places.append(ArrayPlace(name, dtype, offset, len(content)))
        offset = aligned(offset + len(content) * ITEM_BYTES[dtype])
    return places


def digest_of(found: ScanResult) -> str:
    """Digest what decides the samples and their order, without the root and times.

    A set that was packed without loss has the digest of its origin: the same samples with the same
    pixels, in other files.
    """
    if found.digest:
        return found.digest
    state = hashlib.blake2b(digest_size=16, person=b"augd.index.1")
    names = msgspec.msgpack.encode(found.classes)
    state.update(struct.pack("<QQ", found.num_samples, len(names)))
    state.update(names)
    for content in (found.labels, found.sizes_bytes, found.path_offsets, found.paths):
        state.update(content)
    # Only what a dataset has, so that the digest of plain folders does not change.
    if any(found.splits):
        state.update(b"splits")
        state.update(found.splits)
    if found.targets:
        state.update(b"targets")
        state.update(found.targets)
    return state.hexdigest()
