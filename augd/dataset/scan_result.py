"""The result of a scan: the samples of a dataset as flat arrays, before they are written.

Filled by the scan of a folder (`folder`), of shards (`shards`) or of a manifest (`manifest`), and
written as an index file (`index_format`). The hashes behind splits and limits are made here, so
that all kinds of datasets choose alike.

Invariants: a sample's hashes depend only on its relative path, never on what else the dataset
holds; no list of all samples as Python objects. Imports no NumPy.
"""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from xxhash import xxh3_128_intdigest

SPLITS: Final = ("train", "val", "test")
SPLIT_CODES: Final = {name: number for number, name in enumerate(SPLITS, 1)}
"""How an index records splits; 0 stands for none. `splitting` reads other spellings."""

REPORT_EVERY: Final = 2000

# Never changes: another seed puts other samples into every validation split ("augdpath").
_HASH_SEED: Final = int.from_bytes(b"augdpath", "big")
_LOW_64: Final = 2**64 - 1

Progress = Callable[[int], None]
"""Called with the number of files seen so far, every few thousand files."""


class Shard(msgspec.Struct, frozen=True, array_like=True):
    """A tar file that holds samples: its path below the root, its size and its time.

    In an object store, `mtime_ns` is a number that changes with the object (`store.version_of`),
    and `etag` its ETag, empty where the store gives none.
    """

    path: bytes
    size_bytes: int
    mtime_ns: int
    etag: str = ""


class Skipped(msgspec.Struct, array_like=True, frozen=True):
    """Files of one kind that were not read: an ending with its dot, or words.

    `names` are the first of them, by their bytes. `is_image`: the user may miss them, as they are
    images or shards.
    """

    kind: str
    count: int
    names: list[bytes]
    is_image: bool = False


class ScanResult(msgspec.Struct):
    """The samples of a dataset. Position in the arrays is the sample id.

    `labels`, `sizes_bytes`, `mtimes_ns` hold int64, `splits` uint8, the hashes uint64. `paths`
    holds the relative paths one after the other, `path_offsets` num_samples + 1 positions in it.
    `targets` holds float32, `len(classes)` for each sample of a multi-label dataset, and is empty
    for others. `watched` maps relative paths ("" is the root) of the folders, or of the manifest,
    to their times in ns, read before their content.

    What follows `shards` is empty unless samples are ranges of these: number of the shard and
    offset in bytes; width and height, 0 while unknown, and EXIF orientation. Of JPEGs whose restart
    segments are known (`pixels/jpeg_segments.py`), `mcus` holds the MCU's width and height in
    blocks, as 16 w + h, else 0; `intervals` its MCUs per segment; `scan_offsets` where the first
    one begins in the sample; `segment_starts` num_samples + 1 positions in `segment_lengths`, which
    is uint16.

    `digest` is set if it is not that of these fields: see `index_format.digest_of`. `formats` are
    those of files whose names do not tell theirs. `notes` are lines for people: what was read from
    names. `skipped` lists what was skipped, `links_to` the folders beside the root that links may
    lead to.
    """

    source: bytes
    root: bytes
    watched: dict[bytes, int]
    classes: list[str] = msgspec.field(default_factory=list)
    labels: array[int] = msgspec.field(default_factory=lambda: array("q"))
    sizes_bytes: array[int] = msgspec.field(default_factory=lambda: array("q"))
    mtimes_ns: array[int] = msgspec.field(default_factory=lambda: array("q"))
    split_hashes: array[int] = msgspec.field(default_factory=lambda: array("Q"))
    limit_hashes: array[int] = msgspec.field(default_factory=lambda: array("Q"))
    path_offsets: array[int] = msgspec.field(default_factory=lambda: array("q", (0,)))
    splits: bytearray = msgspec.field(default_factory=bytearray)
    paths: bytearray = msgspec.field(default_factory=bytearray)
    targets: array[float] = msgspec.field(default_factory=lambda: array("f"))
    shards: list[Shard] = msgspec.field(default_factory=list)
    shard_numbers: array[int] = msgspec.field(default_factory=lambda: array("i"))
    shard_offsets: array[int] = msgspec.field(default_factory=lambda: array("q"))
    sides_px: array[int] = msgspec.field(default_factory=lambda: array("i"))
    orientations: bytearray = msgspec.field(default_factory=bytearray)
    mcus: bytearray = msgspec.field(default_factory=bytearray)
    intervals: array[int] = msgspec.field(default_factory=lambda: array("i"))
    scan_offsets: array[int] = msgspec.field(default_factory=lambda: array("i"))
    segment_starts: array[int] = msgspec.field(default_factory=lambda: array("q"))
    segment_lengths: array[int] = msgspec.field(default_factory=lambda: array("H"))
    digest: str = ""
    notes: list[str] = msgspec.field(default_factory=list)
    formats: list[str] = msgspec.field(default_factory=list)
    skipped: list[Skipped] = msgspec.field(default_factory=list)
    links_to: tuple[bytes, ...] = ()

    @property
    def num_samples(self) -> int:
        """Number of samples found."""
        return len(self.labels)

    @property
    def num_targets(self) -> int:
        """Targets per sample of a multi-label dataset; 0 when samples have one label or none."""
        return len(self.classes) if self.targets else 0

    def path(self, sample: int) -> bytes:
        """Give the relative path of a sample."""
        return bytes(self.paths[self.path_offsets[sample] : self.path_offsets[sample + 1]])

    def append(self, path: bytes, label: int, split: int, found: tuple[int, int]) -> None:
        """Add a sample; `found` is the file's size in bytes and its time in ns."""
        self.labels.append(label)
        self.splits.append(split)
        self.sizes_bytes.append(found[0])
        self.mtimes_ns.append(found[1])
        split_hash, limit_hash = path_hashes(path)
        self.split_hashes.append(split_hash)
        self.limit_hashes.append(limit_hash)
        self.paths += path
        self.path_offsets.append(len(self.paths))

    def place(self, place: ShardPlace) -> None:
        """Record where the sample lies that was added last."""
        self.shard_numbers.append(place.shard)
        self.shard_offsets.append(place.offset)
        self.sides_px.extend((place.width, place.height))
        self.orientations.append(place.orientation)
        self.mcus.append(place.mcu)
        self.intervals.append(place.interval)
        self.scan_offsets.append(place.scan_offset)
        if not self.segment_starts:
            self.segment_starts.append(0)
        self.segment_lengths.frombytes(place.lengths)
        self.segment_starts.append(len(self.segment_lengths))

    def forget_places(self) -> None:
        """Drop where samples lie, to record it again."""
        self.shard_numbers, self.shard_offsets = array("i"), array("q")
        self.sides_px, self.orientations, self.mcus = array("i"), bytearray(), bytearray()
        self.intervals, self.scan_offsets = array("i"), array("i")
        self.segment_starts, self.segment_lengths = array("q"), array("H")


class ShardPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a sample lies in a shard, and what its header tells; `lengths` as in `ScanResult`."""

    shard: int
    offset: int
    width: int = 0
    height: int = 0
    orientation: int = 1
    mcu: int = 0
    interval: int = 0
    scan_offset: int = 0
    lengths: bytes = b""


def path_hashes(path: bytes) -> tuple[int, int]:
    """Hash a relative path to two independent 64-bit numbers: for the split, for the limit."""
    both: int = xxh3_128_intdigest(path, _HASH_SEED)
    return both >> 64, both & _LOW_64


def shown(path: bytes) -> str:
    """Make a path fit for one line of text, whatever its bytes are."""
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else ascii(text)[1:-1]


def say_splits(counts: Mapping[str, int]) -> str:
    """Describe how many samples each split has, and how many are in none."""
    return ", ".join(f"{name or 'no split'} {count:,}" for name, count in counts.items())


def spelled_alike(name: str) -> str:
    """Return a name in one spelling: NFC and NFD accents are one name."""
    return unicodedata.normalize("NFC", name)
