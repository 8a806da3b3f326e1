"""Finds, opens and walks shards on this machine.

`shards` defines what they mean. Shards lie in the folder itself, or in folders below it
(`train/a.tar`).

Invariants: no link is followed out of the folder unless the operator allows it; nothing blocks on a
FIFO. Imports no NumPy.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, Protocol

from augd.dataset.access import is_below, read_access
from augd.dataset.scan.skipped_files import SkipCounter
from augd.dataset.scan.tar import Member, walk_tar
from augd.dataset.scan_result import Shard, shown
from augd.dataset.source_spec import DEBRIS
from augd.errors import DatasetError
from augd.pixels.headers.formats import IMAGE_ENDINGS
from augd.process.paths import time_of

INDEX_NAME: Final = b"augd.index"
CLASSES_NAME: Final = b"classes.json"


def list_shards(root: bytes, links_to: Sequence[bytes] | None = None) -> list[Shard]:
    """List the shards below a folder by path, with their sizes and times.

    Links may lead below the folder, or where the operator allows them. With `links_to` None, this
    process's own access counts.
    """
    if links_to is None:
        links_to = read_access().links_to
    paths, _ = _find(root)
    return [_look_at(root, path, links_to) for path in sorted(paths)]


def has_shards(root: bytes) -> bool:
    """Return whether shards lie below a folder, and no images."""
    paths, has_images = _find(root)
    return bool(paths) and not has_images


def _find(root: bytes) -> tuple[list[bytes], bool]:
    """List the paths of the `.tar` files below a folder, and whether there are images, too."""
    paths: list[bytes] = []
    has_images = False
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name)
                if entry.name.startswith(b".") or entry.name in DEBRIS:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif entry.name.lower().endswith(b".tar"):
                    paths.append(path)
                else:
                    has_images |= entry.name.rpartition(b".")[2].lower() in IMAGE_ENDINGS
    return paths, has_images


def _look_at(root: bytes, path: bytes, links_to: Sequence[bytes]) -> Shard:
    full = os.path.join(root, path)
    found = os.lstat(full)
    if stat.S_ISLNK(found.st_mode):
        target, real = os.readlink(full), os.path.realpath(full)
        is_inside = not target.startswith(b"/") and is_below(real, root)
        if not is_inside and not (links_to and any(is_below(real, it) for it in (root, *links_to))):
            raise DatasetError(
                f"shard {shown(full)}: a link that leads out of the dataset, to {shown(target)}. "
                f"Let it by --follow-links (to anywhere) or --links-to DIR (to below a folder, "
                f"here {shown(os.path.dirname(real))})."
            )
        found = os.stat(full)
    if not stat.S_ISREG(found.st_mode):
        raise DatasetError(f"shard {shown(full)}: expected a file, got none. Take it out.")
    return Shard(path, found.st_size, time_of(found))


def watched_of(root: bytes, shards: Iterable[Shard]) -> dict[bytes, int]:
    """Map what the index of a folder of shards depends on to its time in ns."""
    shards = list(shards)
    folders = {b"", *(folder for shard in shards for folder in _folders_of(shard.path))}
    watched = {path: time_of(os.stat(os.path.join(root, path))) for path in sorted(folders)}
    watched |= {shard.path: shard.mtime_ns for shard in shards}
    for name in (INDEX_NAME, CLASSES_NAME):
        with suppress(OSError):
            watched[name] = time_of(os.stat(os.path.join(root, name)))
    return watched


def _folders_of(path: bytes) -> Iterator[bytes]:
    while path := os.path.dirname(path):
        yield path


def open_beside(root: bytes, name: bytes) -> int | None:
    """Open a file that lies beside the shards; None if there is none."""
    path = os.path.join(root, name)
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise DatasetError(f"{shown(path)}: expected a file, got none. Remove it.")
    return fd


class ShardListing(Protocol):
    """A place that holds shards: a folder of this machine, or of an object store."""

    @property
    def root(self) -> bytes: ...

    @property
    def shards(self) -> list[Shard]:
        """The shards of the folder, by name."""

    def watched(self) -> dict[bytes, int]:
        """Return what the index depends on, beside the content of the shards."""

    def read_small(self, name: bytes) -> bytes | None:
        """Read a file that lies beside the shards; None if there is none."""

    def members(self, skips: SkipCounter) -> Iterator[tuple[int, Member]]:
        """Walk all shards, yielding each image with the number of its shard.

        Files that are skipped are counted in `skips`.
        """


class Folder:
    """Shards in a folder of this machine."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.shards = list_shards(root)

    def watched(self) -> dict[bytes, int]:
        """Map the folder and its shards to their times."""
        return watched_of(self.root, self.shards)

    def read_small(self, name: bytes) -> bytes | None:
        """Read a file that lies beside the shards; None if there is none."""
        if (fd := open_beside(self.root, name)) is None:
            return None
        with open(fd, "rb") as file:
            return file.read()

    def members(self, skips: SkipCounter) -> Iterator[tuple[int, Member]]:
        """Walk all shards, yielding each image with the number of its shard."""
        for number, shard in enumerate(self.shards):
            path = os.path.join(self.root, shard.path)
            with open(path, "rb") as file:
                size_bytes = os.fstat(file.fileno()).st_size
                for member in walk_tar(file, path, size_bytes, skips):
                    yield number, member
