"""Indexes tar shards in a folder: by the index that lies beside them, or by walking them.

Runs the first time that a folder of `.tar` files is opened. `augd pack` and `augd index` leave
`augd.index` there. It has the format of the cached index, with the sizes of images and the places
of their restart segments. Without it, labels come from `.cls` and `.json` members or from the
members' folders, and splits from the shards' names (`train-000.tar`).

Invariants:

- `augd.index` next to shards is untrusted input: every number in it, and the shards' sizes, are
  checked before use.
- Shards lie below the folder and are opened below it.
- A member that cannot be read makes no other member unreadable, and a lost label is reported.
- The order of samples is that of the index, or of shards by name and members as they lie.

Imports no NumPy.
"""

from __future__ import annotations

import operator
import os
import re
from codecs import BOM_UTF8
from itertools import pairwise
from typing import Any, Final

import msgspec

from augd.dataset.access import read_access
from augd.dataset.index_format import read_found
from augd.dataset.scan.label_encoding import LabelEncoding, label_encoding_of
from augd.dataset.scan.manifest_csv_jsonl import BadManifestRow, Row, json_row
from augd.dataset.scan.shard_listing import (
    CLASSES_NAME,
    INDEX_NAME,
    Folder,
    ShardListing,
    list_shards,
    open_beside,
    watched_of,
)
from augd.dataset.scan.skipped_files import SkipCounter, say_skipped
from augd.dataset.scan.split_names import read_beside, split_begun, split_named
from augd.dataset.scan.table_numbers import whole
from augd.dataset.scan.tar import Member
from augd.dataset.scan_result import (
    REPORT_EVERY,
    SPLITS,
    Progress,
    ScanResult,
    Shard,
    ShardPlace,
    shown,
)
from augd.errors import DatasetError
from augd.pixels.headers.formats import IMAGE_ENDINGS
from augd.pixels.headers.size_limits import MOST_PIXELS

_NO_FOLDERS: Final = frozenset(("", ".", ".."))
_DIGEST: Final = re.compile(r"[0-9a-f]{32}")


def read_shards(root: bytes, *, progress: Progress | None = None) -> ScanResult:
    """List the images in the shards of a folder, with their labels and splits.

    Raises:
        DatasetError: no shards, a shard that is damaged or unreadable, labels that don't fit, or an
            index that is not of these shards.
    """
    try:
        found = _read_index(root)
        return found if found is not None else walk_shards(root, progress=progress)
    except OSError as error:
        raise DatasetError(
            f"shards in {shown(root)} cannot be read: {error.strerror}. Check their permissions."
        ) from None


def walk_shards(root: bytes, *, progress: Progress | None = None) -> ScanResult:
    """List the images in the shards of a folder by walking them, even if there is an index.

    Raises:
        DatasetError: as `read_shards`.
        OSError: a shard cannot be read.
    """
    found = Walker(Folder(root), progress).walk()
    found.links_to = read_access().links_to
    return found


def _read_index(root: bytes) -> ScanResult | None:
    """Read the index beside the shards, checked; None if there is none."""
    if (fd := open_beside(root, INDEX_NAME)) is None:
        return None
    try:
        found = read_found(fd)
        check_found(found, list_shards(root))
    except DatasetError as error:
        raise DatasetError(
            f"{shown(os.path.join(root, INDEX_NAME))}: {error} Remove it, or make it again: "
            f"augd index {shown(root)}"
        ) from None
    finally:
        os.close(fd)
    found.source = found.root = root
    found.links_to = read_access().links_to
    found.watched = watched_of(root, found.shards)
    return found


def check_found(found: ScanResult, shards: list[Shard]) -> None:
    """Reject an index that is not of these shards, or not one that augd can have written.

    The shards' times are those of the files found: a copied dataset is the same dataset.
    """
    _check_shards(found, shards)
    numbers, sizes = found.shard_numbers, found.sizes_bytes
    ends = map(operator.add, found.shard_offsets, sizes)
    limits = [shard.size_bytes for shard in shards]
    num_targets = len(found.targets)
    lies = {
        "digest": not _DIGEST.fullmatch(found.digest),
        "labels": min(found.labels) < -1 or max(found.labels) >= max(1, len(found.classes)),
        "targets": num_targets not in (0, len(found.classes) * found.num_samples),
        "splits": max(found.splits) > len(SPLITS),
        "path_offsets": not _rises(found.path_offsets, len(found.paths)),
        "shard_numbers": min(numbers) < 0 or max(numbers) >= len(shards),
    }
    # Only from here on are the numbers of shards valid.
    lies["shard_offsets or sizes_bytes"] = (
        lies["shard_numbers"]
        or min(found.shard_offsets) < 0
        or min(sizes) < 0
        or any(map(operator.gt, ends, map(limits.__getitem__, numbers)))
    )
    lies |= {
        "sides_px": min(found.sides_px) < 0 or max(found.sides_px) > MOST_PIXELS,
        "orientations": min(found.orientations) < 1 or max(found.orientations) > 8,
        "mcus": any(mcu and not (mcu >> 4 and mcu & 15) for mcu in set(found.mcus)),
        "intervals": any(
            interval < 1 for interval, mcu in zip(found.intervals, found.mcus, strict=True) if mcu
        ),
        "scan_offsets": min(found.scan_offsets) < 0
        or any(map(operator.gt, found.scan_offsets, sizes)),
        "segment_starts": not _rises(found.segment_starts, len(found.segment_lengths)),
    }
    wrong = [name for name, is_a_lie in lies.items() if is_a_lie]
    if wrong:
        raise DatasetError(f"its {' and '.join(wrong)} can't be true.")


def _check_shards(found: ScanResult, shards: list[Shard]) -> None:
    there = {shard.path: shard for shard in shards}
    for shard in found.shards:
        if shard.path not in there:
            raise DatasetError(f"shard {shown(shard.path)} is missing.")
        size_bytes = there[shard.path].size_bytes
        if size_bytes != shard.size_bytes:
            raise DatasetError(
                f"shard {shown(shard.path)} has changed: expected {shard.size_bytes} bytes, got "
                f"{size_bytes}."
            )
    if len(found.shards) != len(shards):
        known = {shard.path for shard in found.shards}
        more = next(path for path in there if path not in known)
        raise DatasetError(f"shard {shown(more)} is not in it.")
    found.shards = [there[shard.path] for shard in found.shards]
    shards[:] = found.shards


def _rises(positions: Any, end: int) -> bool:
    return (
        positions[0] == 0 and positions[-1] == end and all(a <= b for a, b in pairwise(positions))
    )


class Walker:
    """Builds a scan result by walking shards."""

    def __init__(self, listing: ShardListing, progress: Progress | None) -> None:
        self._listing = listing
        self._root = listing.root
        self._progress = progress
        self._shards = listing.shards
        self._splits = _splits_of([shard.path for shard in self._shards])
        self._classes = _read_classes(listing)
        self._odd_split: tuple[str, str] | None = (
            None  # of other programs' sidecars, which may hold anything
        )
        self._places = {name: number for number, name in enumerate(self._classes or ())}
        self._skips = SkipCounter()
        self._encoding: LabelEncoding | None = None
        self._is_said = False  # labels are in members, not in folders' names
        self.seen: list[Any] = []
        """What a shelf has seen of each image, where it looks at them."""

    def walk(self) -> ScanResult:
        """List the images. Raises DatasetError, and what the shelf raises."""
        result = ScanResult(self._root, self._root, self._listing.watched())
        result.shards = self._shards
        # The first image whose members can be read tells whether images have labels.
        doubtful: list[tuple[int, Member]] = []
        for number, member in self._listing.members(self._skips):
            if self._encoding is None and _is_doubtful(member):
                doubtful.append((number, member))
                continue
            row = self._read(number, member, result.num_samples)
            if self._encoding is None:
                self._encoding = label_encoding_of(row)
                self._is_said = row.says != "folder"
                for earlier in doubtful:
                    self._add(result, *earlier)
            self._add(result, number, member)
            if self._progress is not None and result.num_samples % REPORT_EVERY == 0:
                self._progress(result.num_samples)
        for left in doubtful if self._encoding is None else ():
            self._add(result, *left)
        if self._encoding is None or not result.num_samples:
            raise self._no_images()
        self._finish(result, self._encoding)
        return result

    def _read(self, number: int, member: Member, sample: int) -> Row:
        try:
            return self._row(sample, member)
        except BadManifestRow as bad:
            raise self._refused(number, member, bad) from None

    def _refused(self, number: int, member: Member, bad: BadManifestRow) -> DatasetError:
        shard = shown(os.path.join(self._root, self._shards[number].path))
        return DatasetError(f"shard {shard}, {shown(member.path)}: {bad}")

    def _add(self, result: ScanResult, number: int, member: Member) -> None:
        """Add a sample, or skip it if it had a label that cannot be read."""
        if self._is_said and _is_doubtful(member):
            kind = f"whose label cannot be read ({member.said.unread})"
            name = os.path.basename(self._shards[number].path) + b"/" + member.path
            self._skips.note(kind, name, is_image=True)
            return
        row = self._read(number, member, result.num_samples)
        if self._encoding is None:
            self._encoding = label_encoding_of(row)
        try:
            self._encoding.add(row)
            split = self._split_of(row, number)
        except BadManifestRow as bad:
            raise self._refused(number, member, bad) from None
        result.append(member.path, -1, split, (member.size_bytes, 0))
        result.place(ShardPlace(number, member.offset))
        if member.seen is not None:
            self.seen.append(member.seen)

    def _finish(self, result: ScanResult, encoding: LabelEncoding) -> None:
        encoding.finish(result, shown(self._root))
        if self._classes is not None and not result.targets:
            self._name_classes(result)
        if self._odd_split is not None and any(result.splits):
            path, odd = self._odd_split
            raise DatasetError(
                f"shards in {shown(self._root)}, {path}: split: expected one of "
                f"{', '.join(SPLITS)} as others have, got {odd!r}. Correct it."
            )
        result.notes = _notes_on_splits(self._shards, self._splits)
        result.skipped = self._skips.listed()

    def _no_images(self) -> DatasetError:
        endings = " ".join(ending.decode() for ending in IMAGE_ENDINGS)
        saw = say_skipped(self._skips.listed()) or "no member"
        return DatasetError(
            f"the .tar shards in {shown(self._root)} hold no images: looked for members that end "
            f"in {endings}, saw {saw}. Pack images: augd pack SRC DST"
        )

    def _split_of(self, row: Row, number: int) -> int:
        """Read a sample's split from its sidecars, its folder, or its shard's name."""
        if row.split is not None:
            if code := split_named(row.split):
                return code
            self._odd_split = self._odd_split or (shown(os.fsencode(row.path)), row.split[:80])
        if not self._splits[number] and any(self._splits):
            beside = next(s for s, code in zip(self._shards, self._splits, strict=True) if code)
            raise BadManifestRow(
                row.line,
                f"its shard's name names no split, and {shown(beside.path)} beside it does. Name "
                f"all shards for splits (train-000.tar), or none.",
            )
        return self._splits[number]

    def _row(self, number: int, member: Member) -> Row:
        """Read a sample's labels from the members beside it, or else from its folders."""
        path = os.fsdecode(member.path)
        said, label = member.said.json or {}, member.said.cls
        split = said.get("split")
        if split is not None and not isinstance(split, str):
            # Other programs' sidecars hold anything: the number of a fold, most often.
            said["split"] = split = repr(split)[:80]
        if said.keys() & {"label", "labels"}:
            try:
                return self._named(json_row(number, {"path": path, **said}))
            except BadManifestRow:
                if label is None:
                    raise
        if label is not None:
            return self._named(Row(number, path, label=label, split=split))
        # tar strips what leads out of the folder: `/cat/1.jpg`, `../cat/1.jpg`.
        folders = [part for part in path.split("/")[:-1] if part not in _NO_FOLDERS]
        if folders and (code := split_named(folders[0])):
            split = split or SPLITS[code - 1]
            folders = folders[1:]
        folder = folders[0] if folders else None
        return Row(number, path, label=folder, split=split, says="folder")

    def _named(self, row: Row) -> Row:
        """Give a row the name of its class if `classes.json` lists the names."""
        if self._classes is None or row.label is None:
            return row
        number = row.label if isinstance(row.label, int) else whole(row.label)
        if number is not None and 0 <= number < len(self._classes):
            row.label = self._classes[number]
        elif row.label not in self._places:
            raise BadManifestRow(
                row.line,
                f"label: expected a number below {len(self._classes)} or a name, as classes.json "
                f"lists so many, got {str(row.label)[:80]!r}. Correct it.",
            )
        row.says = "name"
        return row

    def _name_classes(self, result: ScanResult) -> None:
        """Take the numbers of classes from `classes.json`. Some classes may have no sample."""
        assert self._classes is not None
        if result.classes and set(result.classes) <= self._places.keys():
            final = [self._places[name] for name in result.classes]
            for sample, label in enumerate(result.labels):
                result.labels[sample] = final[label]
            result.classes = self._classes


def _is_doubtful(member: Member) -> bool:
    """Return whether an image may have had a label that cannot be read."""
    return bool(member.said.unread) and not member.said.has_label


def _splits_of(names: list[bytes]) -> list[int]:
    """Read splits from the shards' names: a folder, or the word that a name begins with.

    If neither names one, names that differ in nothing else do: `imagenet1k-train-0000.tar` beside
    `imagenet1k-validation-00.tar`. `crash-test-000.tar` alone is in no split.
    """
    texts = [os.fsdecode(name) for name in names]
    codes = [
        split_named(text.partition("/")[0]) if "/" in text else split_begun(text) for text in texts
    ]
    if not any(codes):
        beside = read_beside(texts)
        codes = [beside.get(text, 0) for text in texts]
    return codes


def _notes_on_splits(shards: list[Shard], codes: list[int]) -> list[str]:
    """Return a note on which splits were read from names, with the first name of each."""
    said = []
    for code, split in enumerate(SPLITS, 1):
        named = [shard.path for shard, found in zip(shards, codes, strict=True) if found == code]
        if named:
            more = f" and {len(named) - 1} more" if len(named) > 1 else ""
            said.append(f"{shown(named[0])}{more} is {split!r}")
    return [f"splits are read off the shards' names: {', '.join(said)}"] if said else []


def _read_classes(listing: ShardListing) -> list[str] | None:
    if (content := listing.read_small(CLASSES_NAME)) is None:
        return None
    source = shown(os.path.join(listing.root, CLASSES_NAME))
    try:
        names = msgspec.json.decode(content.removeprefix(BOM_UTF8), type=list[str])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(
            f"{source}: expected a JSON list of class names: {error}. Correct or remove it."
        ) from None
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DatasetError(
            f"{source}: class {ascii(twice)[:80]} is there twice, so that its number is not known. "
            f"Correct or remove it."
        )
    return names
