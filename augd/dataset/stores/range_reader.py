"""The interface of readers of a dataset's shard ranges, in this process or another.

Declarations alone, for modules that must not import anything slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol

BUFFER_SLOT_BYTES: Final = 8 << 20
"""What is read at a time, at most."""


class ByteRange(NamedTuple):
    """A range of a shard, and where in the memory it goes; all of them within
    `BUFFER_SLOT_BYTES`."""

    shard: int
    first: int
    size: int
    at: int


class RangeReader(Protocol):
    """Reads ranges of one dataset's shards; by several threads at once."""

    def fetch(self, pieces: Sequence[ByteRange]) -> AbstractContextManager[memoryview]:
        """Read the pieces; their memory is the caller's while the block runs.

        Raises:
            StoreError: the store does not give them.
        """

    def close(self) -> None:
        """Close what is open. Closing twice is fine."""


class ShardFacts(Protocol):
    """A shard as the index has it."""

    @property
    def path(self) -> bytes: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def mtime_ns(self) -> int: ...

    @property
    def etag(self) -> str: ...
