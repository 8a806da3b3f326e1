"""Ranges of the shards of one dataset, read from its store into memory.

Between the readers of samples (`dataset/readers/object_store.py`) and the store. A producer has no
network, so another process reads its ranges (`transport/fetch_client.py`). `DirectReader` reads
them in this process, for commands that open a dataset and confine nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from augd.dataset.stores.address import parse_store
from augd.dataset.stores.object_store import ObjectStore, facts_of
from augd.dataset.stores.range_reader import ByteRange, ShardFacts

if TYPE_CHECKING:
    from augd.dataset.stores.object_store import Contents
    from augd.dataset.stores.shard_cache import ShardCache

_AT_ONCE: Final = 16


class RemoteShards:
    """The shards of a dataset as its index has them; ranges of them, from the cache or the store.

    Reads may come from several threads at once.
    """

    def __init__(
        self, root: str | bytes, shards: Sequence[ShardFacts], blocks: ShardCache | None = None
    ) -> None:
        """Prepare to read. Sends no request. Raises OptionError as `ObjectStore` does."""
        self._store = ObjectStore(parse_store(root))
        self._blocks = blocks
        self._facts = [facts_of(shard) for shard in shards]

    def holds(self, shard: int, first: int, size: int) -> bool:
        """Return whether there is such a range."""
        return (
            0 <= shard < len(self._facts)
            and first >= 0
            and size > 0
            and first + size <= self._facts[shard].size_bytes
        )

    def read(self, shard: int, first: int, size: int) -> Contents:
        """Read an existing range. Raises StoreError."""
        facts = self._facts[shard]
        if self._blocks is not None:
            return self._blocks.read(self._store, facts, first, size)
        return self._store.read(facts, first, size)


class DirectReader:
    """Reads ranges in this process."""

    def __init__(self, root: str | bytes, shards: Sequence[ShardFacts]) -> None:
        """Prepare to read. Raises OptionError as `ObjectStore` does."""
        self._shards = RemoteShards(root, shards)
        self._pool = ThreadPoolExecutor(_AT_ONCE, "store-read")

    @contextmanager
    def fetch(self, pieces: Sequence[ByteRange]) -> Iterator[memoryview]:
        """Read the pieces into memory of their own."""
        memory = memoryview(bytearray(max(piece.at + piece.size for piece in pieces)))
        contents = self._pool.map(self._read, pieces)
        for piece, content in zip(pieces, contents, strict=True):
            memory[piece.at : piece.at + piece.size] = content
        yield memory

    def _read(self, piece: ByteRange) -> Contents:
        return self._shards.read(piece.shard, piece.first, piece.size)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)
