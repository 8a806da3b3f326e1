"""Arenas: the sealed memfds that hold slots, and the memory that they may take.

The daemon makes one per stream before anything is produced. A lack of memory is then an error at
the start, and no SIGBUS later. Producers and the client map the same pages, by an fd that is passed
over a UNIX socket. An arena has no name in /dev/shm, so it cannot leak and is not limited by that
file system.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

from augd.errors import OverLimit
from augd.process.resource_limits import memory_left
from augd.process.system_errors import as_refusal

# Left for everything else on the machine when a new arena is admitted.
SPARE_BYTES = 256 * 1024 * 1024


def make_arena(name: str, size_bytes: int) -> int:
    """Allocate a sealed memfd of this size, all its pages present; returns the fd.

    Raises:
        OverLimit: the machine or the cgroup has not that much memory.
    """
    available = available_bytes()
    if size_bytes + SPARE_BYTES > available:
        raise OverLimit(
            f"{size_bytes / 1e6:.0f} MB are asked for, {max(0, available - SPARE_BYTES) / 1e6:.0f} "
            "MB can be given"
        )
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
        fcntl.fcntl(
            fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        )
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.ENOMEM, errno.ENOSPC):
            raise OverLimit(f"{size_bytes / 1e6:.0f} MB are asked for: {error.strerror}") from None
        if refused := as_refusal(error):
            raise OverLimit(f"{size_bytes / 1e6:.0f} MB are asked for: {refused}") from None
        raise
    return fd


def read_only(fd: int) -> int:
    """Open an arena again for reading only; the caller owns the new fd.

    A process that gets it can neither map the arena for writing, nor open it again to do so.
    """
    os.fchmod(fd, 0o400)
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def map_arena(fd: int, size_bytes: int, *, is_read_only: bool = False) -> mmap.mmap:
    """Map an arena for reading, and for writing unless read-only; the fd may be closed then.

    Raises:
        OverLimit: the fd's size isn't what was announced.
    """
    found = os.fstat(fd).st_size
    if found != size_bytes:
        raise OverLimit(f"arena of {found} bytes, expected {size_bytes}")
    access = mmap.ACCESS_READ if is_read_only else mmap.ACCESS_WRITE
    return mmap.mmap(fd, size_bytes, access=access)


def available_bytes() -> int:
    """Memory that is available without swapping: the machine's, or its cgroup's if less."""
    machine = _meminfo_available()
    group = memory_left()
    return machine if group is None else min(machine, group)


def _meminfo_available() -> int:
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
