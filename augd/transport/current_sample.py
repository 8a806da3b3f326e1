"""A page of shared memory that names the row that a producer is making.

The producer writes it before and after each row; the daemon reads it once, after it has reaped the
producer. It is a sealed memfd: it outlives the writer, however that ended, and has no name. Neither
side waits or makes a system call for it.

A compromised producer can write anything here. The daemon accepts the numbers only if they agree
with the leases that it assigned.
"""

from __future__ import annotations

import fcntl
import mmap
import os

_NOTHING = -1


def make_current_sample() -> tuple[CurrentSample, int]:
    """Make a page for one producer; return it mapped, and the fd for the producer to inherit."""
    fd = os.memfd_create("augd-current-sample", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, mmap.PAGESIZE)
    seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    current_sample = CurrentSample.mapped(fd)
    current_sample.clear()
    return current_sample, fd


class CurrentSample:
    """Three numbers: lease, row of the lease, sample. `set` and `clear` alternate."""

    __slots__ = ("_memory", "_numbers")

    def __init__(self, memory: mmap.mmap | bytearray) -> None:
        """Write into this memory, which this object owns until `close`."""
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
        """Make one in private memory, for a process without a daemon."""
        return cls(bytearray(24))

    def set(self, lease: int, row: int, sample: int) -> None:
        """Name the row that is begun. The sample is written last: it makes the rest valid."""
        numbers = self._numbers
        numbers[0] = lease
        numbers[1] = row
        numbers[2] = sample

    def clear(self) -> None:
        """Say that no row is being made."""
        self._numbers[2] = _NOTHING

    def read(self) -> tuple[int, int, int] | None:
        """Return the row that is being made; None if there is none."""
        lease, row, sample = self._numbers[:3].tolist()
        return None if sample < 0 else (lease, row, sample)

    def close(self) -> None:
        """Unmap the page; it cannot be read any more."""
        self._numbers.release()
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()
