"""Reads samples: an id in, the file's bytes out, ahead of the decoder.

First stage of a producer. A source knows where the bytes of a sample lie. `FolderSource`, here,
reads a file of its own below the dataset's root. `ShardSource` (`shards.py`) reads a range of a
shard. `ReadAhead` reads the rows of coming chunks in a few threads, in slices, within a limit of
bytes.

Invariants: never opens what lies outside the root. Never blocks on a FIFO. Never returns bytes of a
file that changed since it was indexed. A bad file is a value in its row, not an exception in a
thread. It knows no decoder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from augd.dataset.readers.open_beneath import Root
from augd.dataset.readers.transient_errors import Retries, does_pass
from augd.pixels.headers.read_header import BadImage
from augd.pixels.headers.size_limits import max_file_bytes
from augd.pixels.jpeg_segments import Cut, Region
from augd.process.paths import time_of

Row = bytearray | Cut | BadImage
"""What a read gives: the bytes of the file or what is needed of it, or why there are none."""


class Samples(Protocol):
    """What the source needs of a dataset's index. Positions in the arrays are sample ids."""

    @property
    def sizes_bytes(self) -> NDArray[np.int64]: ...

    @property
    def mtimes_ns(self) -> NDArray[np.int64]: ...

    def path_bytes(self, sample: int) -> bytes: ...

    def path(self, sample: int) -> str: ...


class SampleSource(Protocol):
    """Where the samples of a dataset are read from, by several threads at once."""

    @property
    def sizes_bytes(self) -> NDArray[np.int64]: ...

    def path(self, sample: int) -> str:
        """Name a sample for messages: its path in the dataset."""

    def read(self, sample: int) -> bytearray:
        """Read a sample whole; the caller owns the bytes. Raises BadImage."""

    def read_region(self, sample: int, region: Region) -> bytearray | Cut:
        """Read what a region of the stored image needs, or all of it. Raises BadImage."""

    def close(self) -> None:
        """Close what is open; reads after this fail. Closing twice is fine."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class IndexedSource:
    """The common part of sources: the samples of an index, and `with`, which closes the source."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self.sizes_bytes = samples.sizes_bytes
        self.retries = Retries()

    def path(self, sample: int) -> str:
        """Name a sample for messages: its path in the dataset."""
        return self._samples.path(sample)

    def close(self) -> None:
        """Close what is open; reads after this fail. Closing twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FolderSource(IndexedSource):
    """Read the files of a folder dataset. Reads may come from several threads at once."""

    def __init__(
        self,
        root: str | bytes | os.PathLike[str],
        samples: Samples,
        links_to: Sequence[bytes] = (),
    ) -> None:
        """Open the root folder, and those that links may lead to. Raises OSError if it cannot."""
        super().__init__(samples)
        self._mtimes_ns = samples.mtimes_ns
        self._root = Root(root, links_to)

    def close(self) -> None:
        """Close the root folder; reads after this fail. Closing twice is fine."""
        self._root.close()

    def read(self, sample: int) -> bytearray:
        """Read one file whole. The caller owns the bytes.

        Raises:
            BadImage: deleted, unreadable, empty, not a regular file, outside the root, or changed
                since it was indexed.
            StoreError: its file system fails for longer than its patience.
        """
        try:
            return self._read(sample)
        except OSError as error:
            return self.retries.again(
                error,
                self.path(sample),
                lambda: self._read(sample),
                lambda: self._root.reopen(self._samples.path_bytes(sample)),
            )

    def _read(self, sample: int) -> bytearray:
        """Read it once. Raises OSError for errors that pass."""
        fd = self._root.open(self._samples.path_bytes(sample))
        try:
            found = os.fstat(fd)
            self._check(sample, found)
            content = bytearray(found.st_size)
            num_read = os.readv(fd, (content,))
            while num_read < found.st_size:
                more = os.readv(fd, (memoryview(content)[num_read:],))
                if not more:
                    raise BadImage(f"cut off: expected {found.st_size} bytes, got {num_read}")
                num_read += more
            # Written to during the read: the bytes may be half old and half new.
            self._check(sample, os.fstat(fd))
            return content
        except OSError as error:
            if does_pass(error):
                raise
            raise BadImage(f"cannot be read: {error.strerror}") from None
        finally:
            with suppress(OSError):  # some file systems report only here that a read failed
                os.close(fd)

    def read_region(self, sample: int, region: Region) -> bytearray:
        """Read the whole file: where in it a region lies is unknown."""
        return self.read(sample)

    def _check(self, sample: int, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise BadImage("not a regular file")
        if found.st_size != self.sizes_bytes[sample]:
            raise BadImage(
                f"changed since it was indexed: expected {self.sizes_bytes[sample]} bytes, "
                f"got {found.st_size}"
            )
        if time_of(found) != self._mtimes_ns[sample]:
            raise BadImage(
                f"changed since it was indexed: expected a modification time of "
                f"{self._mtimes_ns[sample]} ns, got {found.st_mtime_ns}"
            )
        if not found.st_size:
            raise BadImage("the file is empty")
        if found.st_size > max_file_bytes():
            raise BadImage(
                f"too large: expected at most {max_file_bytes():,} bytes, got {found.st_size:,}"
            )
