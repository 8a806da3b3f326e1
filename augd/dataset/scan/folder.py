"""Scanning a folder: which files are samples, and what their labels and splits are.

First look at a data set, by the daemon, before an index is written. Class folders by torchvision's
ImageFolder convention (classes sorted by name; nested files belong to the outermost folder), or
images lying flat in the root (label -1, no classes). Where folders are named for splits
(`splitting`) it is looked at one level deeper: each split is laid out in one of those two ways, and
the classes are the union of all splits'; or each class folder holds nothing but such folders. A
folder that alone holds all others is looked past.

What is no image is counted and named by its kind. Of a file whose ending tells nothing, or that has
none, the first half kilobyte is looked at: an open and a read for each of these.

Invariants: one `scandir` per folder and one `stat` per file; no file is opened but those of an
unknown ending; the result depends only on names, sizes and times, and on what those few begin with,
and is sorted by the bytes of the relative path; nothing outside the root is followed, unless the
operator named where links may lead. Imports no NumPy.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

import msgspec

from augd.dataset.access import is_below
from augd.dataset.scan.skipped_files import (
    HIDDEN,
    SkipCounter,
    is_picture_kind,
    is_raw,
    is_shard_kind,
    kind_of,
    say_skipped,
    tells_nothing,
)
from augd.dataset.scan.split_names import is_beside_splits, named_nearly, read_beside, split_named
from augd.dataset.scan.table_numbers import whole
from augd.dataset.scan_result import (
    REPORT_EVERY,
    SPLITS,
    Progress,
    ScanResult,
    Skipped,
    shown,
    spelled_alike,
)
from augd.dataset.source_spec import DEBRIS, why_no_folder
from augd.errors import DatasetError, counted
from augd.pixels.headers.formats import HEAD_BYTES, IMAGE_ENDINGS, recognise
from augd.process.paths import time_of

_TRIED: Final = 32  # files of a folder, before threads are started for the others
_SLOW_S: Final = 40e-6  # for one file; from memory it takes 2 microseconds
_AT_ONCE: Final = 32
_PART: Final = 4096  # entries that are held at a time
_THREADS: Final = 16
_EXTENSIONS: Final = frozenset(IMAGE_ENDINGS)


def scan(
    root: str | bytes | os.PathLike[str],
    *,
    progress: Progress | None = None,
    links_to: Sequence[bytes] = (),
) -> ScanResult:
    """List the images below `root` with their labels, sizes and times.

    Links that leave the root are followed to below `links_to`, real paths, and nowhere else.

    Raises:
        DatasetError: missing, not a folder, unreadable, no images, a class folder without images,
            images both loose and in class folders, two folders of one split, or a link that
            leaves the root.
    """
    return _Scanner(real_root(root), progress, links_to).scan()


def real_root(root: str | bytes | os.PathLike[str]) -> bytes:
    """Resolve a data set's root to its real path.

    Raises:
        DatasetError: missing, not a folder, or not reachable.
    """
    path = os.fsencode(root)
    if not path:
        raise DatasetError("data set: expected a folder, got an empty path. Name one.")
    try:
        real = os.path.realpath(path, strict=True)
        is_folder = stat.S_ISDIR(os.stat(real).st_mode)
    except FileNotFoundError:
        raise DatasetError(
            f"data set folder {shown(path)} does not exist. Check the path."
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if not is_folder:
        if (why := why_no_folder(path)) is not None:
            raise DatasetError(why)
        raise DatasetError(
            f"data set {shown(path)}: expected a folder, got a file. Give the folder that holds "
            f"the images, or a manifest that ends in .csv or .jsonl."
        )
    return real


# A file: relative path, size in bytes, modification time in ns.
_Found = tuple[bytes, int, int]
# A folder to look into: relative path, and the real paths of the linked folders on the way.
_Folder = tuple[bytes, frozenset[bytes]]


class _Part(msgspec.Struct):
    """The root, or one of its split folders: its loose images, and its folders.

    `is_inner` says that the splits lie within the class folders.
    """

    path: bytes
    split: int
    loose: list[_Found]
    folders: list[_Folder]
    is_inner: bool = False


class _Scanner:
    def __init__(self, root: bytes, progress: Progress | None, links_to: Sequence[bytes]) -> None:
        self._root = root
        self._progress = progress
        self._links_to = tuple(links_to)
        self._watched: dict[bytes, int] = {}
        self._num_seen = 0
        self._notes: list[str] = []
        self._ahead: dict[bytes, tuple[list[_Found], list[_Folder]]] = {}
        self._skips = SkipCounter()
        self._kinds: set[str] = set()  # of files whose names tell nothing

    def scan(self) -> ScanResult:
        parts = self._parts()
        # A part with loose images is flat: its folders must be empty, and are no classes.
        names = {_class_name(f) for part in parts if not part.loose for f, _ in part.folders}
        labels = {name: k for k, name in enumerate(sorted(names))}
        result = ScanResult(self._root, self._root, self._watched)
        for part in parts:
            self._add(result, part, labels)
        if self._progress is not None:
            self._progress(self._num_seen)
        for name in labels:
            _refuse_no_text(name, self._root)
        result.classes = list(labels)
        result.notes = [*self._notes, *_note_on_numbers(result.classes)]
        result.skipped, result.links_to = self._skips.listed(), self._links_to
        result.formats = sorted(self._kinds)
        return result

    def _parts(self) -> list[_Part]:
        whole = self._unwrapped(_Part(b"", 0, *self._list(b"", frozenset())))
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
            parts[split] = _Part(folder, split, *self._list(folder, above))
            if names[folder] != SPLITS[split - 1]:
                self._notes.append(f"{shown(folder)}/ is read as split {SPLITS[split - 1]!r}")
        found = list(parts.values())
        singles = [part.folders[0] for part in found if not part.loose and len(part.folders) == 1]
        is_each = len(singles) == sum(not part.loose for part in found)
        if is_each and all(self._is_wrapper(folder) for folder in singles):
            return [self._unwrapped(part) for part in found]
        return found

    def _unwrapped(self, part: _Part) -> _Part:
        """Look past a folder that alone holds all others, as archives unpack: it is no class."""
        while not part.loose and len(part.folders) == 1:
            folder = part.folders[0]
            if (not part.split and split_named(_name(folder))) or not self._is_wrapper(folder):
                break
            part = _Part(folder[0], part.split, *self._list(*folder))
            self._notes.append(
                f"{shown(folder[0])}/ alone holds all folders: these are looked at, and it is no "
                f"class itself"
            )
        return part

    def _is_wrapper(self, folder: _Folder) -> bool:
        loose, folders = self._peek(folder)
        return bool(folders) and not loose

    def _are_classes(self, whole: _Part, codes: Mapping[bytes, int]) -> bool:
        """Say whether a folder that is named for a split is a class: `train` beside `bus`."""
        splits = [folder for folder in whole.folders if codes[folder[0]]]
        others = [_name(folder) for folder in whole.folders if not codes[folder[0]]]
        if len(splits) > 1 or not others or any(map(is_beside_splits, others)):
            return False
        loose, folders = self._peek(splits[0])
        return bool(loose) and not folders

    def _has_splits_inside(self, whole: _Part) -> bool:
        """Say whether each class folder holds nothing but folders that are named for splits."""
        if whole.loose:
            return False
        seen: set[int] = set()
        for folder in whole.folders:
            loose, folders = self._peek(folder)
            codes = {split_named(_name(inner)) for inner in folders}
            if loose or not codes or 0 in codes:
                return False
            seen |= codes
        return len(seen) > 1

    def _is_of_splits(self, folder: _Folder) -> bool:
        """Say whether a folder holds nothing but several folders that are named for splits."""
        loose, folders = self._peek(folder)
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
        """Refuse folders with images beside splits; pass over those that have none."""
        splits = ", ".join(f"{shown(folder)}/" for folder, code in codes.items() if code)
        for folder, above in whole.folders:
            if codes[folder]:
                continue
            if files := self._below(folder, above):
                raise DatasetError(
                    f"{shown(self._root)} holds {splits}, which are splits, and beside them "
                    f"{shown(folder)}/ with {counted(len(files), 'image')}, which is none. Name "
                    f"it train, val "
                    f"or test, move it out, or hide it by a leading dot; if all of these are "
                    f"classes, put them into one folder train/, or list the images in a manifest."
                )
            self._notes.append(f"{shown(folder)}/ beside the splits holds no images: passed over")

    def _add(self, result: ScanResult, part: _Part, labels: dict[str, int]) -> None:
        part.folders.sort(key=_as_in_paths)
        filled: list[bytes] = []
        for folder, above in part.folders:
            if not part.split and not part.is_inner and self._is_of_splits((folder, above)):
                raise self._splits_in_some(folder, part)
            # Straight into the flat arrays: a list of all files would take ten times their memory.
            if files := self._below(folder, above):
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
            raise _no_images(root, len(self._watched), self._skips.listed())
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

    def _below(self, folder: bytes, above: frozenset[bytes]) -> list[_Found]:
        """Collect the files of a class folder, at any depth, sorted by path."""
        found: list[_Found] = []
        waiting = [(folder, above)]
        while waiting:
            files, folders = self._list(*waiting.pop())
            found.extend(files)
            waiting.extend(folders)
        found.sort()
        return found

    def _peek(self, folder: _Folder) -> tuple[list[_Found], list[_Folder]]:
        """List a folder ahead of time; it is not listed a second time."""
        self._ahead[folder[0]] = listed = self._list(*folder)
        return listed

    def _list(self, folder: bytes, above: frozenset[bytes]) -> tuple[list[_Found], list[_Folder]]:
        """List one folder: its images sorted by name, and its sub-folders.

        `above` holds the real paths of the linked folders on the way here, to notice loops.
        """
        if (known := self._ahead.pop(folder, None)) is not None:
            return known
        full = os.path.join(self._root, folder) if folder else self._root
        prefix = folder + b"/" if folder else b""
        files: list[_Found] = []
        folders: list[_Folder] = []
        try:
            self._watched[folder] = time_of(os.stat(full))
            with os.scandir(full) as entries:
                for entry in _looked_at(entries):
                    if entry.name.startswith(b"."):
                        self._skips.note(HIDDEN, prefix + entry.name)
                    elif entry.name in DEBRIS:
                        self._skips.note(f"folder {shown(entry.name)}", prefix + entry.name)
                    else:
                        self._sort_in(entry, prefix + entry.name, above, files, folders)
        except OSError as error:
            raise _unreadable(full, error) from None
        files.sort()
        return files, folders

    def _sort_in(
        self,
        entry: os.DirEntry[bytes],
        path: bytes,
        above: frozenset[bytes],
        files: list[_Found],
        folders: list[_Folder],
    ) -> None:
        _, dot, extension = entry.name.rpartition(b".")
        is_image = bool(dot) and extension.lower() in _EXTENSIONS
        if entry.is_dir(follow_symlinks=False):
            if is_image:
                self._skips.note("folder with the ending of an image", path, is_picture=True)
            else:
                folders.append((path, above))
            return
        self._count()
        if entry.is_symlink():
            found = self._follow(entry, path, is_image)
            if found is None and tells_nothing(entry.name) and not os.path.exists(entry.path):
                # It may have been a class folder, whose disk is not mounted.
                self._skips.note("links that lead nowhere", path, is_picture=True)
                return
            if found is not None and stat.S_ISDIR(found.st_mode):
                folders.append((path, self._without_loop(entry, path, above)))
                return
        else:
            found = entry.stat(follow_symlinks=False)
        is_file = found is not None and stat.S_ISREG(found.st_mode)
        if is_file and (is_image or (tells_nothing(entry.name) and self._is_inside(entry.path))):
            assert found is not None
            files.append((path, found.st_size, time_of(found)))
        else:
            self._skip(path, entry.name)

    def _skip(self, path: bytes, name: bytes) -> None:
        kind = kind_of(name)
        self._skips.note(kind, path, is_picture=is_picture_kind(kind))

    def _follow(
        self, entry: os.DirEntry[bytes], path: bytes, is_image: bool
    ) -> os.stat_result | None:
        """Look at what a link points to, which must lie below the root by a relative way.

        Or where the operator lets links lead. None where it leads nowhere, or out of the root, and
        nothing is lost by that.
        """
        target = os.readlink(entry.path)
        try:
            real = os.path.realpath(entry.path, strict=True)
            found = os.stat(real)
        except OSError:
            if not is_image:
                return None
            raise DatasetError(
                f"link {shown(path)} in {shown(self._root)} points to {shown(target)}, which "
                f"cannot be followed. Remove the link."
            ) from None
        is_inside = not target.startswith(b"/") and is_below(real, self._root)
        if is_inside or self._is_let(real):
            return found
        if not is_image and not stat.S_ISDIR(found.st_mode):
            return None
        raise DatasetError(
            f"link {shown(path)} in {shown(self._root)} leaves the data set: it points to "
            f"{shown(target)}. Links must be relative and stay below the root, unless you say "
            f"--follow-links (to anywhere) or --links-to DIR (to below a folder, here "
            f"{shown(os.path.dirname(real))})."
        )

    def _is_inside(self, path: bytes) -> bool:
        """Say whether an image is inside of a file whose name tells nothing, and remember which."""
        kind = _kind_inside(path)
        if kind == "tiff" and is_raw(path):
            return False
        if kind is not None:
            self._kinds.add(kind)
        return kind is not None

    def _is_let(self, real: bytes) -> bool:
        """Say whether the operator lets links lead there; the root is then as good."""
        folders = (self._root, *self._links_to) if self._links_to else ()
        return any(is_below(real, folder) for folder in folders)

    def _without_loop(
        self, entry: os.DirEntry[bytes], path: bytes, above: frozenset[bytes]
    ) -> frozenset[bytes]:
        real = os.path.realpath(entry.path)
        here = os.path.realpath(os.path.dirname(entry.path))
        if real in above or (here + b"/").startswith(real.rstrip(b"/") + b"/"):
            raise DatasetError(
                f"link {shown(path)} in {shown(self._root)} leads back to a folder above it. "
                f"Remove the link."
            )
        return above | {real}

    def _count(self) -> None:
        self._num_seen += 1
        if self._progress is not None and self._num_seen % REPORT_EVERY == 0:
            self._progress(self._num_seen)


def _looked_at(entries: Iterator[os.DirEntry[bytes]]) -> Iterator[os.DirEntry[bytes]]:
    """Have what is known of a folder's files looked up, by several threads where it comes slowly.

    An entry keeps what its `stat` answered. Where the kernel has it in memory threads would only
    wait for each other; a disk, or a file system over a network, answers many at once.
    """
    while part := list(islice(entries, _PART)):
        files = [entry for entry in part if not entry.is_dir(follow_symlinks=False)]
        began = time.perf_counter()
        _look_up(files[:_TRIED])
        if time.perf_counter() - began > _SLOW_S * min(len(files), _TRIED):
            from concurrent.futures import ThreadPoolExecutor  # which few data sets need

            parts = [files[at : at + _AT_ONCE] for at in range(_TRIED, len(files), _AT_ONCE)]
            with ThreadPoolExecutor(_THREADS, "look-at-files") as pool:
                for _ in pool.map(_look_up, parts):
                    pass
        yield from part


def _look_up(files: Sequence[os.DirEntry[bytes]]) -> None:
    for entry in files:
        with suppress(OSError):  # raised again where it is asked for
            entry.stat(follow_symlinks=False)


def _as_in_paths(folder: _Folder) -> bytes:
    """Sort by the bytes of "name/" and not of "name": that is the order of the paths."""
    return folder[0] + b"/"


def _class_name(folder: bytes) -> str:
    """Name the class of a folder: by the last part of its path, in one spelling.

    File systems keep accents as one character or as two, by where a folder was made: NFC and NFD
    of Unicode (UAX 15). Both are one name.
    """
    return spelled_alike(os.fsdecode(folder.rpartition(b"/")[2]))


def _name(folder: _Folder) -> str:
    return os.fsdecode(folder[0].rpartition(b"/")[2])


def _note_on_numbers(classes: Sequence[str]) -> list[str]:
    """Say it where class folders are numbers, and another order is theirs."""
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
    """Read the split of a file off the folder within its class's folder."""
    return split_named(os.fsdecode(path[len(folder) + 1 :].partition(b"/")[0]))


def _kind_inside(path: bytes) -> str | None:
    """Look at what a file begins with; one that cannot be read is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    try:
        return recognise(os.read(fd, HEAD_BYTES))
    except OSError:
        return None
    finally:
        os.close(fd)


def _refuse_no_text(name: str, root: bytes) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DatasetError(
            f"class folder {shown(os.fsencode(name))} in {shown(root)}: expected a name in UTF-8. "
            f"Rename it."
        ) from None


class NoImages(DatasetError):
    """A folder, or a split of one, holds no images; `has_shards` says that it holds shards."""

    has_shards = False


def _no_images(root: str, num_folders: int, skipped: Sequence[Skipped]) -> NoImages:
    shards = [one for one in skipped if one.kind == ".tar"]
    packed = [one for one in skipped if is_shard_kind(one.kind) and one.kind != ".tar"]
    saw = say_skipped(skipped) or "no file"
    if shards:
        none = NoImages(
            f"no images in {root}, but {say_skipped(shards)} beside images elsewhere. A data set "
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


def _unreadable(path: bytes, error: OSError) -> DatasetError:
    name, todo = shown(path), "Check its permissions."
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        name, todo = f"{name[:200]}...", "Check the path; links and folders may lead too deep."
    return DatasetError(f"data set folder {name} cannot be read: {error.strerror}. {todo}")
