"""What the kernel reports of a process: the CPU time that it used, and its private memory.

Used by `augd bench` and the benchmarks. Reads other processes of the same user on the same machine.
Changes nothing and keeps nothing open.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from augd.errors import AugdError

# The kernel's name for the CPU clock of a whole process, ended threads included: the kind of
# the clock in the low three bits (2: scheduler time), the pid inverted above it.
# Source: clock_getcpuclockid(3), include/linux/posix-timers.h. /proc/PID/stat counts the same
# time in ticks of 10 ms, too coarse for a daemon that uses 70 ms in ten seconds.
_SCHEDULER_TIME = 2


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used since its start, in user and kernel mode.

    Raises:
        AugdError: there is no such process here.
    """
    try:
        return time.clock_gettime((~pid << 3) | _SCHEDULER_TIME)
    except OSError as error:
        raise _unreadable(pid, error) from None


def anonymous_bytes(pid: int) -> int:
    """Private memory of a process: no page cache, no shared memory, no arenas.

    Raises:
        AugdError: there is no such process, or it belongs to another user.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError as error:
        raise _unreadable(pid, error) from None
    kilobytes = next(line.split()[1] for line in text.splitlines() if line[:10] == "Anonymous:")
    return int(kilobytes) * 1024


def parent_pid(pid: int) -> int:
    """Pid of the process that started this one.

    Raises:
        AugdError: there is no such process here.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError as error:
        raise _unreadable(pid, error) from None
    return int(text.rpartition(")")[2].split()[1])  # a process's name may hold anything


def cpu_model() -> str:
    """Name of the processor, as the kernel says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else os.uname().machine


def _unreadable(pid: int, error: OSError) -> AugdError:
    return AugdError(
        f"process {pid} cannot be measured: {error.strerror}. Measure on the daemon's own machine, "
        "as the user who started it, while it runs"
    )
