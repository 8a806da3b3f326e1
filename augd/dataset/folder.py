"""Scanning a folder: which files are samples, and what their labels are.

First look at a data set, by the daemon, before an index is written. Class folders by torchvision's
ImageFolder convention (classes sorted by name; nested files belong to the outermost folder), or
images lying flat in the root (label -1, no classes).

Invariants: one `scandir` per folder and one `stat` per file; no file is opened; the result depends
only on names, sizes and times, and is sorted by the bytes of the relative path; nothing outside
the root is followed. Imports no NumPy.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable, Collection
from typing import Final

import msgspec

from augd.errors import DatasetError

EXTENSIONS: Final = (b"jpg", b"jpeg", b"png", b"webp")
_EXTENSIONS: Final = frozenset(EXTENSIONS)
_REPORT_EVERY: Final = 2000

Progress = Callable[[int], None]
"""Called with the number of files seen so far, every few thousand files."""


class FolderScan(msgspec.Struct):
    """What a scan found. Position in the arrays is the sample id; arrays hold int64.

    `paths` holds the relative paths one after the other, `path_offsets` num_samples + 1 positions
    in it. `directories` maps relative folders ("" is the root) to their times in ns, which were
    read before the folder was listed.
    """

    root: bytes
    classes: list[str]
    labels: array[int]
    sizes_bytes: array[int]
    mtimes_ns: array[int]
    path_offsets: array[int]
    paths: bytearray
    directories: dict[bytes, int]

    @property
    def num_samples(self) -> int:
        """Number of images found."""
        return len(self.labels)

    def path(self, sample: int) -> bytes:
        """Give the relative path of a sample."""
        return bytes(self.paths[self.path_offsets[sample] : self.path_offsets[sample + 1]])


def scan(root: str | bytes | os.PathLike[str], *, progress: Progress | None = None) -> FolderScan:
    """List the images below `root` with their labels, sizes and times.

    Raises:
        DatasetError: missing, not a folder, unreadable, no images, a class folder without images,
            images both loose and in class folders, or a link that leaves the root.
    """
    return _Scanner(real_root(root), progress).scan()


def real_root(root: str | bytes | os.PathLike[str]) -> bytes:
    """Resolve a data set's root to its real path.

    Raises:
        DatasetError: missing, not a folder, or not reachable.
    """
    path = os.fsencode(root)
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
        raise DatasetError(
            f"data set {shown(path)}: expected a folder, got a file. Give the folder that holds "
            f"the images."
        )
    return real


def shown(path: bytes) -> str:
    """Make a path fit for one line of text, whatever its bytes are."""
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else ascii(text)[1:-1]


# A file: relative path, size in bytes, modification time in ns.
_Found = tuple[bytes, int, int]


class _Scanner:
    def __init__(self, root: bytes, progress: Progress | None) -> None:
        self._root = root
        self._progress = progress
        self._directories: dict[bytes, int] = {}
        self._num_seen = 0
        self._num_others = 0

    def scan(self) -> FolderScan:
        loose, folders = self._list(b"", frozenset())
        labels = {
            k: label for label, k in enumerate(sorted((f for f, _ in folders), key=os.fsdecode))
        }
        # The bytes of "name/" and not of "name": that is the order of the paths.
        folders.sort(key=lambda item: item[0] + b"/")
        result = _nothing(self._root, self._directories)
        filled: list[bytes] = []
        for folder, above in folders:
            # Straight into the flat arrays: a list of all files would take ten times their memory.
            if files := self._below(folder, above):
                filled.append(folder)
                _append(result, labels[folder], files)
        if self._progress is not None:
            self._progress(self._num_seen)
        self._refuse(loose, filled, labels)
        if loose:
            _append(result, -1, loose)
        else:
            result.classes = sorted(_class_name(folder, self._root) for folder in filled)
        return result

    def _refuse(self, loose: list[_Found], filled: list[bytes], folders: Collection[bytes]) -> None:
        root = shown(self._root)
        if not loose and not filled:
            looked_for = " ".join(e.decode() for e in EXTENSIONS)
            raise DatasetError(
                f"no images in {root}: looked for {looked_for}, saw {self._num_others} other "
                f"files in {len(self._directories)} folders. Give a folder of class folders, or "
                f"one that holds images."
            )
        if loose and filled:
            raise DatasetError(
                f"{root} holds {len(loose)} images beside {len(filled)} folders with images "
                f"({shown(loose[0][0])} beside {shown(filled[0])}/). Move the loose images into a "
                f"class folder or out of {root}."
            )
        empty = sorted(set(folders) - set(filled))
        if filled and empty:
            raise DatasetError(
                f"class folder {shown(empty[0])} in {root} holds no images ({len(empty)} such). "
                f"Fill it, remove it, or hide it by a leading dot."
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

    def _list(
        self, folder: bytes, above: frozenset[bytes]
    ) -> tuple[list[_Found], list[tuple[bytes, frozenset[bytes]]]]:
        """List one folder: its images sorted by name, and its sub-folders.

        `above` holds the real paths of the linked folders on the way here, to notice loops.
        """
        full = os.path.join(self._root, folder) if folder else self._root
        prefix = folder + b"/" if folder else b""
        files: list[_Found] = []
        folders: list[tuple[bytes, frozenset[bytes]]] = []
        try:
            self._directories[folder] = os.stat(full).st_mtime_ns
            with os.scandir(full) as entries:
                for entry in entries:
                    if not entry.name.startswith(b"."):
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
        folders: list[tuple[bytes, frozenset[bytes]]],
    ) -> None:
        _, dot, extension = entry.name.rpartition(b".")
        is_image = bool(dot) and extension.lower() in _EXTENSIONS
        if entry.is_dir(follow_symlinks=False):
            if not is_image:
                folders.append((path, above))
            return
        self._count()
        if entry.is_symlink():
            found = self._follow(entry, path)
            if stat.S_ISDIR(found.st_mode):
                folders.append((path, self._without_loop(entry, path, above)))
                return
        elif not is_image:
            self._num_others += 1
            return
        else:
            found = entry.stat(follow_symlinks=False)
        if is_image and stat.S_ISREG(found.st_mode):
            files.append((path, found.st_size, found.st_mtime_ns))
        else:
            self._num_others += 1

    def _follow(self, entry: os.DirEntry[bytes], path: bytes) -> os.stat_result:
        """Look at what a link points to, which must lie below the root by a relative way."""
        target = os.readlink(entry.path)
        try:
            real = os.path.realpath(entry.path, strict=True)
        except OSError:
            raise DatasetError(
                f"link {shown(path)} in {shown(self._root)} points to {shown(target)}, which "
                f"cannot be followed. Remove the link."
            ) from None
        if target.startswith(b"/") or not (real + b"/").startswith(self._root.rstrip(b"/") + b"/"):
            raise DatasetError(
                f"link {shown(path)} in {shown(self._root)} leaves the data set: it points to "
                f"{shown(target)}. Links must be relative and stay below the root; copy the files "
                f"or serve the folder that holds them."
            )
        return os.stat(real)

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
        if self._progress is not None and self._num_seen % _REPORT_EVERY == 0:
            self._progress(self._num_seen)


def _nothing(root: bytes, directories: dict[bytes, int]) -> FolderScan:
    return FolderScan(
        root=root,
        classes=[],
        labels=array("q"),
        sizes_bytes=array("q"),
        mtimes_ns=array("q"),
        path_offsets=array("q", (0,)),
        paths=bytearray(),
        directories=directories,
    )


def _append(result: FolderScan, label: int, files: list[_Found]) -> None:
    for path, size_bytes, mtime_ns in files:
        result.labels.append(label)
        result.sizes_bytes.append(size_bytes)
        result.mtimes_ns.append(mtime_ns)
        result.paths += path
        result.path_offsets.append(len(result.paths))


def _class_name(folder: bytes, root: bytes) -> str:
    try:
        return folder.decode("utf-8")
    except UnicodeDecodeError:
        raise DatasetError(
            f"class folder {shown(folder)} in {shown(root)}: expected a name in UTF-8. Rename it."
        ) from None


def _unreadable(path: bytes, error: OSError) -> DatasetError:
    return DatasetError(
        f"data set folder {shown(path)} cannot be read: {error.strerror}. Check its permissions."
    )
