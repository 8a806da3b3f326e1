"""Lists the folders of a dataset: which entries are images, and which folders to look into next.

Used by the folder scan in the daemon, before an index is written. It decides what is an image,
follows links within their limits, and counts what it skips.

Invariants: one `scandir` per folder and one `stat` per file. No file is opened except those whose
ending tells nothing, of which the first half kilobyte is read. Nothing outside the root is
followed, unless the operator allowed links there. Imports no NumPy.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

from augd.dataset.access import is_below
from augd.dataset.scan.skipped_files import (
    HIDDEN,
    SkipCounter,
    is_image_kind,
    is_raw,
    kind_of,
    tells_nothing,
)
from augd.dataset.scan_result import REPORT_EVERY, Progress, shown
from augd.dataset.source_spec import DEBRIS, why_no_folder
from augd.errors import DatasetError
from augd.pixels.headers.formats import HEAD_BYTES, IMAGE_ENDINGS, recognise
from augd.process.paths import time_of

_TRIED: Final = 32  # files per folder that are read before threads are started for the others
_SLOW_S: Final = 40e-6  # per file; from memory it takes 2 microseconds
_AT_ONCE: Final = 32
_PART: Final = 4096  # entries held at a time
_THREADS: Final = 16
_EXTENSIONS: Final = frozenset(IMAGE_ENDINGS)

# A file: relative path, size in bytes, modification time in ns.
FoundFile = tuple[bytes, int, int]
# A folder to look into: relative path, and the real paths of the linked folders on the way.
Folder = tuple[bytes, frozenset[bytes]]


def real_root(root: str | bytes | os.PathLike[str]) -> bytes:
    """Resolve a dataset's root to its real path.

    Raises:
        DatasetError: missing, not a folder, or not reachable.
    """
    path = os.fsencode(root)
    if not path:
        raise DatasetError("dataset: expected a folder, got an empty path. Name one.")
    try:
        real = os.path.realpath(path, strict=True)
        is_folder = stat.S_ISDIR(os.stat(real).st_mode)
    except FileNotFoundError:
        raise DatasetError(
            f"dataset folder {shown(path)} does not exist. Check the path."
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if not is_folder:
        if (why := why_no_folder(path)) is not None:
            raise DatasetError(why)
        raise DatasetError(
            f"dataset {shown(path)}: expected a folder, got a file. Give the folder that holds "
            f"the images, or a manifest that ends in .csv or .jsonl."
        )
    return real


class FolderListing:
    """Lists folders below a root, each one once.

    `folder_times` has the modification time in ns of each folder that was listed. `formats` has the
    formats of images whose names tell nothing.
    """

    def __init__(
        self, root: bytes, progress: Progress | None = None, links_to: Sequence[bytes] = ()
    ) -> None:
        """Prepare to list below `root`, a real path; links may lead below `links_to`, real
        paths."""
        self._root = root
        self._progress = progress
        self._links_to = tuple(links_to)
        self._ahead: dict[bytes, tuple[list[FoundFile], list[Folder]]] = {}
        self.folder_times: dict[bytes, int] = {}
        self.num_seen = 0
        self.skips = SkipCounter()
        self.formats: set[str] = set()

    def files_below(self, folder: bytes, above: frozenset[bytes]) -> list[FoundFile]:
        """Return the files of a class folder, at any depth, sorted by path."""
        found: list[FoundFile] = []
        waiting = [(folder, above)]
        while waiting:
            files, folders = self.list_folder(*waiting.pop())
            found.extend(files)
            waiting.extend(folders)
        found.sort()
        return found

    def peek(self, folder: Folder) -> tuple[list[FoundFile], list[Folder]]:
        """List a folder ahead of time. It is not listed a second time."""
        self._ahead[folder[0]] = listed = self.list_folder(*folder)
        return listed

    def list_folder(
        self, folder: bytes, above: frozenset[bytes]
    ) -> tuple[list[FoundFile], list[Folder]]:
        """List one folder: its images sorted by name, and its sub-folders.

        `above` holds the real paths of the linked folders on the way here, to detect loops.
        """
        if (known := self._ahead.pop(folder, None)) is not None:
            return known
        full = os.path.join(self._root, folder) if folder else self._root
        prefix = folder + b"/" if folder else b""
        files: list[FoundFile] = []
        folders: list[Folder] = []
        try:
            self.folder_times[folder] = time_of(os.stat(full))
            with os.scandir(full) as entries:
                for entry in _looked_at(entries):
                    if entry.name.startswith(b"."):
                        self.skips.note(HIDDEN, prefix + entry.name)
                    elif entry.name in DEBRIS:
                        self.skips.note(f"folder {shown(entry.name)}", prefix + entry.name)
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
        files: list[FoundFile],
        folders: list[Folder],
    ) -> None:
        _, dot, extension = entry.name.rpartition(b".")
        is_image = bool(dot) and extension.lower() in _EXTENSIONS
        if entry.is_dir(follow_symlinks=False):
            if is_image:
                self.skips.note("folder with the ending of an image", path, is_image=True)
            else:
                folders.append((path, above))
            return
        self._count()
        if entry.is_symlink():
            found = self._follow(entry, path, is_image)
            if found is None and tells_nothing(entry.name) and not os.path.exists(entry.path):
                # It may be a class folder whose disk is not mounted.
                self.skips.note("links that lead nowhere", path, is_image=True)
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
        self.skips.note(kind, path, is_image=is_image_kind(kind))

    def _follow(
        self, entry: os.DirEntry[bytes], path: bytes, is_image: bool
    ) -> os.stat_result | None:
        """Return the `stat` of a link's target, if links may lead there.

        A link must be relative and stay below the root, or lead below one of `links_to`. None: it
        leads nowhere or out of the root, and is no image.
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
            f"link {shown(path)} in {shown(self._root)} leaves the dataset: it points to "
            f"{shown(target)}. Links must be relative and stay below the root, unless you say "
            f"--follow-links (to anywhere) or --links-to DIR (to below a folder, here "
            f"{shown(os.path.dirname(real))})."
        )

    def _is_inside(self, path: bytes) -> bool:
        """Return whether a file whose name tells nothing holds an image, and record its format."""
        kind = _kind_inside(path)
        if kind == "tiff" and is_raw(path):
            return False
        if kind is not None:
            self.formats.add(kind)
        return kind is not None

    def _is_let(self, real: bytes) -> bool:
        """Return whether links may lead to a path. With `links_to`, they may also lead below the
        root.
        """
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
        self.num_seen += 1
        if self._progress is not None and self.num_seen % REPORT_EVERY == 0:
            self._progress(self.num_seen)


def _looked_at(entries: Iterator[os.DirEntry[bytes]]) -> Iterator[os.DirEntry[bytes]]:
    """Read the `stat` of a folder's files ahead, with several threads if it is slow.

    An entry keeps its `stat`. If the kernel has it in memory, threads would only wait for each
    other. A disk or a network file system answers many requests at once.
    """
    while part := list(islice(entries, _PART)):
        files = [entry for entry in part if not entry.is_dir(follow_symlinks=False)]
        began = time.perf_counter()
        _look_up(files[:_TRIED])
        if time.perf_counter() - began > _SLOW_S * min(len(files), _TRIED):
            from concurrent.futures import ThreadPoolExecutor  # few datasets need it

            parts = [files[at : at + _AT_ONCE] for at in range(_TRIED, len(files), _AT_ONCE)]
            with ThreadPoolExecutor(_THREADS, "look-at-files") as pool:
                for _ in pool.map(_look_up, parts):
                    pass
        yield from part


def _look_up(files: Sequence[os.DirEntry[bytes]]) -> None:
    for entry in files:
        with suppress(OSError):  # raised again when the entry is used
            entry.stat(follow_symlinks=False)


def _kind_inside(path: bytes) -> str | None:
    """Return the format of a file by its first bytes; None if it is none or cannot be read."""
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


def _unreadable(path: bytes, error: OSError) -> DatasetError:
    name, todo = shown(path), "Check its permissions."
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        name, todo = f"{name[:200]}...", "Check the path; links and folders may lead too deep."
    return DatasetError(f"dataset folder {name} cannot be read: {error.strerror}. {todo}")
