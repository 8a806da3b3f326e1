"""Indexes tar shards in an object store: by listing, by range reads, or by the index beside them.

`shards` defines what shards mean. This module reads them where a read costs a round trip. It walks
several shards at once, each through a window. The window grows while reads are sequential, and
shrinks when large images are skipped.

Invariants: an index beside the shards is untrusted input, as on a disk. Versions of shards are
those of the listing, never of that index, so that a copied dataset is the same dataset. Imports no
NumPy.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar, cast

from augd.dataset.index_format import read_found
from augd.dataset.scan.shard_listing import CLASSES_NAME, INDEX_NAME
from augd.dataset.scan.shards import Walker, check_found
from augd.dataset.scan.skipped_files import SkipCounter
from augd.dataset.scan.tar import Member, walk_tar
from augd.dataset.scan_result import Progress, ScanResult, Shard, shown
from augd.dataset.stores.address import parse_store
from augd.dataset.stores.object_store import ObjectFacts, ObjectStore, facts_of
from augd.errors import DatasetError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")
Look = Callable[[IO[bytes], Member], Any]

_AT_ONCE: Final = 16  # shards walked at a time
_WINDOW_MIN: Final = 64 << 10
_WINDOW_MAX: Final = 4 << 20


class StoreListing:
    """Shards in a folder of a store; see `shard_listing.Shelf`."""

    def __init__(self, source: bytes, look: Look | None = None) -> None:
        """List the shards, by the index beside them if the store lists nothing.

        While a shard is walked, `look` is called with each image and the shard as a file. Its
        result is the member's `seen`.

        Raises:
            DatasetError: there are no shards.
            StoreError: the store cannot be read.
        """
        self.source = source
        self._look = look
        address = parse_store(source)
        self.store = ObjectStore(address)
        self.root = address.folder.encode()
        # Before the shards are read: a change during the read is found the next time.
        self._watched = versions_beside(self.store)
        self.index: ScanResult | None = self._read_index()
        self.shards = list_now(self.store, None if self.index is None else self.index.shards)
        if not self.shards:
            raise DatasetError(
                f"{address} holds no .tar files; expected shards in the folder itself. Check the "
                f"address, or pack images and copy them there: augd pack SRC DST"
            )

    def watched(self) -> dict[bytes, int]:
        """Map the files beside the shards to their versions, 0 where there is none."""
        return self._watched

    def read_small(self, name: bytes) -> bytes | None:
        """Read a file that lies beside the shards; None if there is none."""
        content = self.store.read_whole(os.fsdecode(name))
        return None if content is None else bytes(content)

    def _read_index(self) -> ScanResult | None:
        content = self.store.read_whole(os.fsdecode(INDEX_NAME))
        if content is None:
            return None
        fd = os.memfd_create("augd-remote-index", os.MFD_CLOEXEC)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(content)
            return read_found(fd)
        except DatasetError as error:
            raise self._not_its_index(error) from None
        finally:
            os.close(fd)

    def indexed(self) -> ScanResult | None:
        """Return what the index beside the shards holds, checked; None if there is none."""
        found = self.index
        if found is None:
            return None
        try:
            check_found(found, self.shards)
        except DatasetError as error:
            raise self._not_its_index(error) from None
        found.source, found.root, found.watched = self.source, self.root, self._watched
        return found

    def _not_its_index(self, error: DatasetError) -> DatasetError:
        return DatasetError(
            f"{shown(self.root)}/{INDEX_NAME.decode()}: {error} Remove it, or make it again: "
            f"augd index {shown(self.source)} --beside"
        )

    def members(self, skips: SkipCounter) -> Iterator[tuple[int, Member]]:
        """Walk all shards, yielding each image with the number of its shard."""
        walks = in_order(self._walk, self.shards)
        for number, (members, passed) in enumerate(walks):
            skips.take(passed)
            for member in members:
                yield number, member

    def _walk(self, shard: Shard) -> tuple[list[Member], SkipCounter]:
        skips = SkipCounter()
        file = cast(IO[bytes], ObjectWindow(self.store, facts_of(shard)))
        path = os.path.join(self.root, shard.path)
        members = []
        for member in walk_tar(file, path, shard.size_bytes, skips):
            # Now, while the window holds the member.
            member.seen = None if self._look is None else self._look(file, member)
            members.append(member)
        return members, skips


class ObjectWindow(io.BufferedIOBase):
    """An object as a file that is read through a window: see the module's docstring."""

    def __init__(self, store: ObjectStore, facts: ObjectFacts) -> None:
        self._store = store
        self._facts = facts
        self._at = 0
        self._start = self._end = 0
        self._size = _WINDOW_MIN
        self._content: Any = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Let the next read begin elsewhere."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._facts.size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Read `size` bytes, fewer at the end. Raises StoreError."""
        left = max(0, self._facts.size_bytes - self._at)
        size = left if size is None or size < 0 else min(size, left)
        if not size:
            return b""
        if not self._start <= self._at <= self._at + size <= self._end:
            self._move(size)
        first = self._at - self._start
        self._at += size
        return bytes(self._content[first : first + size])

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill a buffer, as far as the object goes."""
        into = memoryview(buffer).cast("B")
        content = self.read(len(into))
        into[: len(content)] = content
        return len(content)

    def _move(self, size: int) -> None:
        """Read a window that begins here. It is larger if the last one was read to its end."""
        is_near = self._start <= self._at <= self._end + self._size
        wanted = self._size * 2 if is_near else self._size // 2
        self._size = min(_WINDOW_MAX, max(_WINDOW_MIN, wanted))
        end = min(self._facts.size_bytes, self._at + max(size, self._size))
        self._content = self._store.read(self._facts, self._at, end - self._at)
        self._start, self._end = self._at, end


def in_order(work: Callable[[Any], T], items: list[Any]) -> Iterator[T]:
    """Do work in a few threads, and yield the results in order, a few ahead of the caller."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(_AT_ONCE, "store-walk") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * _AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()


def list_now(store: ObjectStore, known: list[Shard] | None) -> list[Shard]:
    """List the shards of a folder. If the store lists nothing, take those that are known.

    Raises:
        DatasetError: the store lists nothing, and no shards are known.
        StoreError: the store cannot be read.
    """
    if known is None or store.address.scheme == "s3" or store.address.listing:
        listed = store.list_tars()
    else:
        listed = store.look_at([os.fsdecode(shard.path) for shard in known])
    return [
        Shard(os.fsencode(facts.name), facts.size_bytes, facts.version, facts.etag)
        for facts in listed
    ]


def read_remote(source: bytes, *, progress: Progress | None = None) -> ScanResult:
    """List the images of the shards in a store, by the index beside them or by walking them.

    Raises:
        DatasetError: no shards, or as `shards.read_shards`.
        StoreError: the store fails or rejects a request.
    """
    listing = StoreListing(source)
    found = listing.indexed()
    if found is None:
        found = Walker(listing, progress).walk()
        found.source = source
    return found


def versions_beside(store: ObjectStore) -> dict[bytes, int]:
    """Map the files that may lie beside shards to their versions, 0 where there is none."""
    return {name: store.version(os.fsdecode(name)) for name in (INDEX_NAME, CLASSES_NAME)}


def is_current(source: bytes, shards: list[Shard], watched: dict[bytes, int]) -> bool:
    """Return whether the shards in a store, and the files beside them, are still those of an
    index."""
    store = ObjectStore(parse_store(source))
    if watched != versions_beside(store):
        return False
    return list_now(store, shards) == sorted(shards, key=lambda it: it.path)
