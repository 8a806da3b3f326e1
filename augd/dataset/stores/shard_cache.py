"""The shard cache: blocks of shards from a store, in files of a folder on a local disk.

Ranges are read through it. A block in it is not requested from the store again, by any producer of
this machine and in any later run. A block is 1 MiB. One that holds ten images is requested once and
not ten times. A shuffle over many shards doesn't fetch a whole shard per image. Adjacent missing
blocks are one request.

Invariants: a block's name has the store, the shard, its version and its size in it, so that it is
never used for another version. Shards without a version are not cached. A file gets its name when
it is complete (it is written aside, then renamed). Its digest is checked once per process, so that
neither kill -9 nor a loss of power is ever read. The least recently used blocks are removed when
the folder is full. Several processes may share a folder. Calls may come from several threads.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from xxhash import xxh3_128_digest

from augd.dataset.stores.object_store import ObjectFacts, ObjectStore, store_key
from augd.dataset.stores.sizes import check_folder, parse_size
from augd.errors import OptionError, StoreError

if TYPE_CHECKING:
    from augd.dataset.stores.object_store import Contents

BLOCK_BYTES: Final = 1 << 20
SIZE_MIN: Final = 64 << 20
TOUCH_S: Final = 60.0  # the use of a block is recorded no more often
_OPTION: Final = "--shard-cache"
_DIGEST_BYTES: Final = 16
_KEEP_SHARE: Final = (
    0.9  # share of the size that is kept when blocks are removed: not one block at a time
)
_LOOK_SHARE: Final = (
    0.05  # bytes written before the folder is counted again: other processes write, too
)
_STALE_S: Final = 600.0
_ASIDE: Final = ".aside-"


def parse_shard_cache(text: str) -> tuple[Path, int]:
    """Read `DIR:SIZE`. Raises OptionError."""
    folder, _, size = text.rpartition(":")
    if not folder:
        raise OptionError(f"{_OPTION}: expected DIR:SIZE, as in /fast/shards:200GB, got {text!r}")
    return Path(folder).absolute(), parse_size(_OPTION, text, size, SIZE_MIN)


def check_shard_cache(text: str) -> None:
    """Reject an unusable cache, before any process is started for it.

    Raises:
        OptionError: it is no DIR:SIZE, or the folder can't be used.
        OverLimit: its disk has not that much space.
    """
    folder, size_bytes = parse_shard_cache(text)
    count = partial(_count_bytes, folder)
    check_folder(_OPTION, text, folder, size_bytes, count)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(0, "it is not writable")
    except OSError as error:
        raise OptionError(f"{_OPTION} {text}: {folder} cannot be used: {error.strerror}") from None


def _count_bytes(folder: Path) -> int:
    return sum(found.st_size for _, found in _files(folder)) if folder.is_dir() else 0


class _Coming:
    """Blocks that a thread fetches; `failure` is the error, if it could not."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.failure: StoreError | None = None


class ShardCache:
    """The cache in one folder."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        """Read the folder, which exists."""
        self._folder = folder
        self._size_bytes = size_bytes
        self._known: dict[
            str, float
        ] = {}  # blocks whose digest was right, and when their use was last recorded
        self._coming: dict[str, _Coming] = {}
        self._lock = threading.Lock()
        self._held_bytes = 0
        self._written_bytes = 0  # since it was counted
        self._has_warned = False
        self._is_making_room = threading.Lock()
        self._make_room(0)

    @classmethod
    def open(cls, text: str) -> Self:
        """Open the cache `DIR:SIZE` without checks: the program that serves made them.

        If other programs filled the disk meanwhile, a fetcher can still be restarted.

        Raises:
            OptionError: it is no DIR:SIZE.
            OSError: the folder cannot be used.
        """
        folder, size_bytes = parse_shard_cache(text)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(folder, size_bytes)

    def read(self, store: ObjectStore, facts: ObjectFacts, first: int, size: int) -> Contents:
        """Read a range of a shard, from the cache as far as it is there. Raises StoreError."""
        if not facts.version:
            return store.read(facts, first, size)
        key = _key(store, facts)
        out = memoryview(bytearray(size))
        number, last = first // BLOCK_BYTES, (first + size - 1) // BLOCK_BYTES
        num_tries = 0
        while number <= last:
            if self._read_one(key, number, facts, first, out):
                number, num_tries = number + 1, 0
                continue
            names = self._claim(key, number, last, is_forced=num_tries > 1)
            if not names:
                num_tries += 1  # another thread has it, or just had
                continue
            self._fetch(store, facts, (number, names), first, out)
            number, num_tries = number + len(names), 0
        return out

    def _claim(self, key: str, number: int, last: int, *, is_forced: bool) -> list[str]:
        """Claim a block and the missing ones behind it, to fetch them; return their names.

        None if another thread fetches the block, or did; unless `is_forced`, because the cached
        block can't be read.
        """
        names = []
        coming = _Coming()
        with self._lock:
            for place in range(number, last + 1):
                name = _name(key, place)
                is_there = (self._folder / name).exists()
                if name in self._coming or (is_there and not (is_forced and place == number)):
                    break
                self._coming[name] = coming
                names.append(name)
        return names

    def _read_one(
        self, key: str, number: int, facts: ObjectFacts, first: int, out: memoryview
    ) -> bool:
        """Copy what is wanted of a cached block; return whether it is cached."""
        name = _name(key, number)
        with self._lock:
            coming = self._coming.get(name)
        if coming is not None:
            coming.done.wait()
            if coming.failure is not None:  # else each waiting thread would retry for as long again
                raise coming.failure
        start, length = number * BLOCK_BYTES, _length(facts, number)
        try:
            fd = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            if not self._is_whole(name, fd, length):
                return False
            begin, end = max(first, start), min(first + len(out), start + length)
            into = out[begin - first : end - first]
            if os.preadv(fd, (into,), begin - start) != len(into):
                return False
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _is_whole(self, name: str, fd: int, length: int) -> bool:
        """Check a block's digest the first time, and record its use."""
        now = time.monotonic()
        noted = self._known.get(name)
        if noted is None:
            content = os.pread(fd, length + _DIGEST_BYTES + 1, 0)
            if xxh3_128_digest(content[:length]) != content[length:]:
                (self._folder / name).unlink(missing_ok=True)
                return False
        if noted is None or now - noted > TOUCH_S:
            self._known[name] = now
            os.utime(self._folder / name)
        return True

    def _fetch(
        self,
        store: ObjectStore,
        facts: ObjectFacts,
        claimed: tuple[int, list[str]],
        first: int,
        out: memoryview,
    ) -> None:
        """Read blocks from the store, copy what is wanted, and cache them."""
        number, names = claimed
        try:
            start = number * BLOCK_BYTES
            end = min(start + len(names) * BLOCK_BYTES, facts.size_bytes)
            content = memoryview(store.read(facts, start, end - start))
            begin, stop = max(first, start), min(first + len(out), end)
            out[begin - first : stop - first] = content[begin - start : stop - start]
            for place, name in enumerate(names):
                self._keep(name, content[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES])
        except StoreError as error:
            self._coming[names[0]].failure = error
            raise
        finally:
            with self._lock:
                for name in names:
                    self._coming.pop(name).done.set()

    def _keep(self, name: str, content: memoryview) -> None:
        """Write a block. A failing disk costs time, never an error."""
        path = self._folder / name
        aside = path.with_name(f"{_ASIDE}{os.getpid()}-{threading.get_ident()}-{path.name}")
        try:
            self._make_room(len(content))
            path.parent.mkdir(mode=0o700, exist_ok=True)
            aside.unlink(missing_ok=True)  # of a process of this number that was killed
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(aside, flags, 0o600), "wb") as file:
                file.write(content)
                file.write(xxh3_128_digest(content))
            os.rename(aside, path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            if not self._has_warned:
                self._has_warned = True
                print(
                    f"augd: the shard cache {self._folder} takes no more: {error.strerror}; "
                    "missing blocks are read from the store each time",
                    file=sys.stderr,
                )
            return
        with self._lock:
            self._known[name] = time.monotonic()
            self._held_bytes += len(content) + _DIGEST_BYTES
            self._written_bytes += len(content) + _DIGEST_BYTES

    def _make_room(self, size_bytes: int) -> None:
        """Remove the least recently used blocks, if there is no space for more."""
        is_full = self._held_bytes + size_bytes > self._size_bytes
        is_old = self._written_bytes >= _LOOK_SHARE * self._size_bytes
        if size_bytes and not is_full and not is_old:
            return
        with self._is_making_room:
            if size_bytes and self._held_bytes + size_bytes <= self._size_bytes and not is_old:
                return  # another thread was faster
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            lock_fd = os.open(self._folder / "augd.lock", flags, 0o600)
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX)
                self._sweep(size_bytes)
            finally:
                os.close(lock_fd)

    def _sweep(self, size_bytes: int) -> None:
        found = sorted(_files(self._folder), key=lambda it: it[1].st_mtime_ns)
        held = sum(stat.st_size for _, stat in found)
        is_over = held + size_bytes > self._size_bytes
        for path, stat in found:
            is_aside = path.name.startswith(_ASIDE)
            if is_aside and time.time() - stat.st_mtime < _STALE_S:
                continue
            if is_aside or (is_over and held + size_bytes > _KEEP_SHARE * self._size_bytes):
                path.unlink(missing_ok=True)
                self._known.pop(f"{path.parent.name}/{path.name}", None)
                held -= stat.st_size
        with self._lock:
            self._held_bytes, self._written_bytes = held, 0


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the blocks of a folder, and unfinished files. Other processes may remove them."""
    for below in folder.glob("??"):
        try:
            with os.scandir(below) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False):
                        yield Path(entry.path), entry.stat(follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            continue


def _key(store: ObjectStore, facts: ObjectFacts) -> str:
    text = f"{store_key(store.address)}\n{facts.name}\n{facts.size_bytes}\n{facts.version}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _name(key: str, number: int) -> str:
    return f"{key[:2]}/{key[2:]}-{number:x}"


def _length(facts: ObjectFacts, number: int) -> int:
    return min(BLOCK_BYTES, facts.size_bytes - number * BLOCK_BYTES)
