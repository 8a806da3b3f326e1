"""Scans a folder: which files are samples, and what their labels and splits are.

Runs in the daemon, the first time that it opens a dataset, before an index is written. The scan
accepts three layouts:

- Class folders by torchvision's ImageFolder convention: classes are sorted by name, and nested
  files belong to the outermost folder.
- Images that lie in the root: label -1, no classes.
- Folders named for splits (`split_names`), each in one of the first two layouts. The classes are
  the union over all splits. Or each class folder holds only such folders.

A single folder that holds all others is skipped: it is no class. A file that is no image is counted
and named by its kind. `folder_listing` decides what is an image.

Invariants: one `scandir` per folder and one `stat` per file. The result depends only on names,
sizes and times, and on the first bytes of files with an unknown ending. It is sorted by the bytes
of the relative path. Imports no NumPy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec

from augd.dataset.scan.folder_listing import Folder, FolderListing, FoundFile, real_root
from augd.dataset.scan.skipped_files import is_shard_kind, say_skipped
from augd.dataset.scan.split_names import is_beside_splits, named_nearly, read_beside, split_named
from augd.dataset.scan.table_numbers import whole
from augd.dataset.scan_result import SPLITS, Progress, ScanResult, Skipped, shown, spelled_alike
from augd.errors import DatasetError, counted
from augd.pixels.headers.formats import IMAGE_ENDINGS


def scan(
    root: str | bytes | os.PathLike[str],
    *,
    progress: Progress | None = None,
    links_to: Sequence[bytes] = (),
) -> ScanResult:
    """List the images below `root` with their labels, sizes and times.

    Links that leave the root are followed only to below `links_to`, which are real paths.

    Raises:
        DatasetError: the folder is missing, is no folder, is unreadable or has no images; a class
            folder has no images; images lie both loose and in class folders; two folders are one
            split; or a link leaves the root.
    """
    return _Scanner(real_root(root), progress, links_to).scan()


class _Part(msgspec.Struct):
    """The root, or one of its split folders: its loose images, and its folders.

    `is_inner`: the splits lie within the class folders.
    """

    path: bytes
    split: int
    loose: list[FoundFile]
    folders: list[Folder]
    is_inner: bool = False


class _Scanner:
    def __init__(self, root: bytes, progress: Progress | None, links_to: Sequence[bytes]) -> None:
        self._root = root
        self._progress = progress
        self._links_to = tuple(links_to)
        self._listing = FolderListing(root, progress, links_to)
        self._notes: list[str] = []

    def scan(self) -> ScanResult:
        parts = self._parts()
        # A part with loose images is flat: its folders must be empty, and are no classes.
        names = {_class_name(f) for part in parts if not part.loose for f, _ in part.folders}
        labels = {name: k for k, name in enumerate(sorted(names))}
        result = ScanResult(self._root, self._root, self._listing.folder_times)
        for part in parts:
            self._add(result, part, labels)
        if self._progress is not None:
            self._progress(self._listing.num_seen)
        for name in labels:
            _refuse_no_text(name, self._root)
        result.classes = list(labels)
        result.notes = [*self._notes, *_note_on_numbers(result.classes)]
        result.skipped, result.links_to = self._listing.skips.listed(), self._links_to
        result.formats = sorted(self._listing.formats)
        return result

    def _parts(self) -> list[_Part]:
        whole = self._unwrapped(_Part(b"", 0, *self._listing.list_folder(b"", frozenset())))
        names = {folder[0]: _name(folder) for folder in whole.folders}
        codes = {folder: split_named(name) for folder, name in names.items()}
        if not any(codes.values()):
            beside = read_beside(names.values())
            codes = {folder: beside.get(name, 0) for folder, name in names.items()}
            if not beside and (near := named_nearly(names.values())):
                self._notes.append(
                    f"{', '.join(shown(name.encode()) + '/' for name in near[:4])} look like "
                    f"splits, and are read as classes: name folders train, val and test for these"
                )
        if whole.loose or not any(codes.values()) or self._are_classes(whole, codes):
            whole.is_inner = self._has_splits_inside(whole)
            return [whole]
        self._leave_out(whole, codes)
        parts: dict[int, _Part] = {}
        for folder, above in sorted(whole.folders, key=_as_in_paths):
            if not (split := codes[folder]):
                continue
            if split in parts:
                raise DatasetError(
                    f"{shown(self._root)} holds both {shown(parts[split].path)}/ and "
                    f"{shown(folder)}/, which are one split. Keep one of them."
                )
            parts[split] = _Part(folder, split, *self._listing.list_folder(folder, above))
            if names[folder] != SPLITS[split - 1]:
                self._notes.append(f"{shown(folder)}/ is read as split {SPLITS[split - 1]!r}")
        found = list(parts.values())
        singles = [part.folders[0] for part in found if not part.loose and len(part.folders) == 1]
        is_each = len(singles) == sum(not part.loose for part in found)
        if is_each and all(self._is_wrapper(folder) for folder in singles):
            return [self._unwrapped(part) for part in found]
        return found

    def _unwrapped(self, part: _Part) -> _Part:
        """Skip a folder that alone holds all others, as archives unpack: it is no class."""
        while not part.loose and len(part.folders) == 1:
            folder = part.folders[0]
            if (not part.split and split_named(_name(folder))) or not self._is_wrapper(folder):
                break
            part = _Part(folder[0], part.split, *self._listing.list_folder(*folder))
            self._notes.append(
                f"{shown(folder[0])}/ alone holds all folders: skipped, it is no class itself"
            )
        return part

    def _is_wrapper(self, folder: Folder) -> bool:
        loose, folders = self._listing.peek(folder)
        return bool(folders) and not loose

    def _are_classes(self, whole: _Part, codes: Mapping[bytes, int]) -> bool:
        """Return whether a folder that is named for a split is a class: `train` beside `bus`."""
        splits = [folder for folder in whole.folders if codes[folder[0]]]
        others = [_name(folder) for folder in whole.folders if not codes[folder[0]]]
        if len(splits) > 1 or not others or any(map(is_beside_splits, others)):
            return False
        loose, folders = self._listing.peek(splits[0])
        return bool(loose) and not folders

    def _has_splits_inside(self, whole: _Part) -> bool:
        """Return whether each class folder holds only folders that are named for splits."""
        if whole.loose:
            return False
        seen: set[int] = set()
        for folder in whole.folders:
            loose, folders = self._listing.peek(folder)
            codes = {split_named(_name(inner)) for inner in folders}
            if loose or not codes or 0 in codes:
                return False
            seen |= codes
        return len(seen) > 1

    def _is_of_splits(self, folder: Folder) -> bool:
        """Return whether a folder holds only several folders that are named for splits."""
        loose, folders = self._listing.peek(folder)
        codes = {split_named(_name(inner)) for inner in folders}
        return not loose and len(codes) > 1 and 0 not in codes

    def _splits_in_some(self, folder: bytes, part: _Part) -> DatasetError:
        others = (other for other in part.folders if not self._is_of_splits(other))
        beside = next((f"{shown(other)}/" for other, _ in others), "others")
        return DatasetError(
            f"class folder {shown(folder)}/ in {shown(self._root)} holds folders named for splits, "
            f"and {beside} beside it doesn't. Sort the images of all classes into such folders, "
            f"move {beside} out if it is no class, or list the images in a manifest with a column "
            f"'split'."
        )

    def _leave_out(self, whole: _Part, codes: Mapping[bytes, int]) -> None:
        """Reject folders with images beside splits, and skip those without."""
        splits = ", ".join(f"{shown(folder)}/" for folder, code in codes.items() if code)
        for folder, above in whole.folders:
            if codes[folder]:
                continue
            if files := self._listing.files_below(folder, above):
                raise DatasetError(
                    f"{shown(self._root)} holds {splits}, which are splits, and beside them "
                    f"{shown(folder)}/ with {counted(len(files), 'image')}, which is none. Name "
                    f"it train, val "
                    f"or test, move it out, or hide it by a leading dot; if all of these are "
                    f"classes, put them into one folder train/, or list the images in a manifest."
                )
            self._notes.append(f"{shown(folder)}/ beside the splits holds no images: skipped")

    def _add(self, result: ScanResult, part: _Part, labels: dict[str, int]) -> None:
        part.folders.sort(key=_as_in_paths)
        filled: list[bytes] = []
        for folder, above in part.folders:
            if not part.split and not part.is_inner and self._is_of_splits((folder, above)):
                raise self._splits_in_some(folder, part)
            # Written to the flat arrays at once: a list of all files would take ten times their
            # memory.
            if files := self._listing.files_below(folder, above):
                filled.append(folder)
                label = labels.get(_class_name(folder), -1)
                for path, *found in files:
                    split = _split_inside(folder, path) if part.is_inner else part.split
                    result.append(path, label, split, (found[0], found[1]))
        self._refuse(part, filled)
        for path, *found in part.loose:
            result.append(path, -1, part.split, (found[0], found[1]))

    def _refuse(self, part: _Part, filled: Sequence[bytes]) -> None:
        root, loose = shown(os.path.join(self._root, part.path).rstrip(b"/")), part.loose
        if not loose and not filled:
            raise _no_images(root, len(self._listing.folder_times), self._listing.skips.listed())
        if loose and filled:
            raise DatasetError(
                f"{root} holds {counted(len(loose), 'image')} beside "
                f"{counted(len(filled), 'folder')} with images "
                f"({shown(loose[0][0])} beside {shown(filled[0])}/). Move the loose images into a "
                f"class folder or out of {root}."
            )
        empty = sorted({folder for folder, _ in part.folders} - set(filled))
        if filled and empty:
            raise DatasetError(
                f"class folder {shown(empty[0])} in {shown(self._root)} holds no images "
                f"({len(empty)} such). Fill it, remove it, or hide it by a leading dot."
            )


def _as_in_paths(folder: Folder) -> bytes:
    """Sort by the bytes of "name/" and not of "name": that is the order of the paths."""
    return folder[0] + b"/"


def _class_name(folder: bytes) -> str:
    """Name the class of a folder: the last part of its path, in one spelling.

    File systems keep an accent as one character or as two (NFC and NFD, UAX 15). Both spellings are
    one name.
    """
    return spelled_alike(os.fsdecode(folder.rpartition(b"/")[2]))


def _name(folder: Folder) -> str:
    return os.fsdecode(folder[0].rpartition(b"/")[2])


def _note_on_numbers(classes: Sequence[str]) -> list[str]:
    """Return a note if class folders are numbers whose order differs from that of the names."""
    for place, name in enumerate(classes):
        if whole(name) is None:
            return []
        if whole(name) != place:
            return [
                f"class folders are sorted as names, as torchvision's ImageFolder does: folder "
                f"{name!r} is class {place}"
            ]
    return []


def _split_inside(folder: bytes, path: bytes) -> int:
    """Read the split of a file from the folder within its class's folder."""
    return split_named(os.fsdecode(path[len(folder) + 1 :].partition(b"/")[0]))


def _refuse_no_text(name: str, root: bytes) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DatasetError(
            f"class folder {shown(os.fsencode(name))} in {shown(root)}: expected a name in UTF-8. "
            f"Rename it."
        ) from None


class NoImages(DatasetError):
    """A folder, or a split of one, holds no images. `has_shards`: it holds shards."""

    has_shards = False


def _no_images(root: str, num_folders: int, skipped: Sequence[Skipped]) -> NoImages:
    shards = [one for one in skipped if one.kind == ".tar"]
    packed = [one for one in skipped if is_shard_kind(one.kind) and one.kind != ".tar"]
    saw = say_skipped(skipped) or "no file"
    if shards:
        none = NoImages(
            f"no images in {root}, but {say_skipped(shards)} beside images elsewhere. A dataset "
            f"is of images or of .tar shards: unpack these (tar -xf), or move them out."
        )
        none.has_shards = True
        return none
    if packed:
        return NoImages(
            f"no images in {root}, but {say_skipped(packed)}: shards are uncompressed .tar files. "
            f"Unpack these to .tar (gunzip, unxz, zstd -d), or to a folder of class folders (tar "
            f"-xf)."
        )
    looked_for = " ".join(e.decode() for e in IMAGE_ENDINGS)
    return NoImages(
        f"no images in {root}: looked for {looked_for}, saw {saw} in "
        f"{counted(num_folders, 'folder')}. Give a "
        f"folder of class folders, or one that holds images."
    )
