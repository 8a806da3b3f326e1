"""The crumb: a page in which a producer keeps what it has in hand, for whoever finds it dead.

Written by the producer before and after each row, read by its daemon once, after the producer was
reaped. A sealed memfd: it outlives the writer, however that one ended, and has no name. Neither
side waits or makes a system call for it.

A producer that was taken over can write anything here: the daemon believes it only as far as it
agrees with the leases that it gave out.
"""

from __future__ import annotations

import fcntl
import mmap
import os

_NOTHING = -1


def make_current_sample() -> tuple[CurrentSample, int]:
    """Make a page for one producer; returns it mapped, and its fd for the producer to inherit."""
    fd = os.memfd_create("augd-current-sample", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, mmap.PAGESIZE)
    seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    current_sample = CurrentSample.mapped(fd)
    current_sample.clear()
    return current_sample, fd


class CurrentSample:
    """The three numbers (lease, row of the lease, sample). `set` and `clear` come in turns."""

    __slots__ = ("_memory", "_numbers")

    def __init__(self, memory: mmap.mmap | bytearray) -> None:
        """Write into this memory, which is the crumb's until `close`."""
        self._memory = memory
        self._numbers = memoryview(memory).cast("q")

    @classmethod
    def inherited(cls, fd: int) -> CurrentSample:
        """Map the page of an fd and close the fd."""
        try:
            return cls.mapped(fd)
        finally:
            os.close(fd)

    @classmethod
    def mapped(cls, fd: int) -> CurrentSample:
        """Map the page of an fd, which stays the caller's."""
        return cls(mmap.mmap(fd, mmap.PAGESIZE))

    @classmethod
    def private(cls) -> CurrentSample:
        """Make one that nobody will read."""
        return cls(bytearray(24))

    def set(self, lease: int, row: int, sample: int) -> None:
        """Name the row that is taken in hand. The sample comes last: with it the rest counts."""
        numbers = self._numbers
        numbers[0] = lease
        numbers[1] = row
        numbers[2] = sample

    def clear(self) -> None:
        """Say that nothing is in hand."""
        self._numbers[2] = _NOTHING

    def read(self) -> tuple[int, int, int] | None:
        """Return what is in hand; None when nothing is."""
        lease, row, sample = self._numbers[:3].tolist()
        return None if sample < 0 else (lease, row, sample)

    def close(self) -> None:
        """Unmap the page; nothing can be read any more."""
        self._numbers.release()
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()
