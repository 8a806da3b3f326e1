"""Why a producer ended: its status, and what the kernel tells beyond it.

Beside the way of a batch: the daemon asks here when it kills a producer and when it reaped one.
Reads a few lines of /proc and of the control group; waits in `reap` only, writes nothing.

From outside and from inside look alike where somebody sends a signal that faults send, too
(`kill -SEGV`); then the sample is suspected once, which is not enough to condemn it.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from signal import Signals
from typing import Any

from augd.protocol.exit_reason import KEPT, Ending

_CONTROL_GROUPS = "/sys/fs/cgroup"
# Several producers may be killed in one go, and are reaped one after another. What is left over
# longer than that was somebody else: a trainer in the same group.
_BELONGS_S = 1.0


_FAULTS = frozenset(
    (
        Signals.SIGSEGV,
        Signals.SIGBUS,
        Signals.SIGABRT,
        Signals.SIGILL,
        Signals.SIGFPE,
        Signals.SIGSYS,
        Signals.SIGTRAP,
        Signals.SIGXCPU,
        Signals.SIGXFSZ,
    )
)


def classify(status: int, *, is_ours: bool, was_stopped: bool, is_for_memory: bool) -> Ending:
    """Find the class of an end.

    Args:
        status: the exit status, or the signal's number negated, as `subprocess` gives it.
        is_ours: the daemon had sent it SIGKILL before.
        was_stopped: it was stopped when the daemon did so.
        is_for_memory: the kernel has killed for want of memory just now.
    """
    if status >= 0:
        return Ending.ERROR if status else Ending.DRAINED
    if -status in _FAULTS:
        return Ending.SIGNAL
    if status != -Signals.SIGKILL:
        return Ending.OUTSIDE
    if is_ours:
        return Ending.STOPPED if was_stopped else Ending.KILLED
    return Ending.MEMORY if is_for_memory else Ending.OUTSIDE


def describe_status(status: int) -> str:
    """Say in words how a process ended: by which signal, or with which status."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def reap(process: subprocess.Popen[Any], within_s: float = 1.0) -> int | None:
    """Wait for the end of a process that got SIGKILL; returns its status, None where it has none.

    Whoever calls ends nevertheless: such a process is left to the system's first one, which reaps
    it when the disk answers.
    """
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        return None


def is_stopped(pid: int) -> bool:
    """Say whether a process is stopped, by a signal or a debugger; False when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            state = file.read().rpartition(")")[2].split()[0]  # its name may hold anything
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state in ("T", "t")


__all__ = ["KEPT", "MemoryKills", "classify", "describe_status", "is_stopped", "reap"]


class MemoryKills:
    """The kernel's count of processes that it killed for want of memory."""

    def __init__(self, paths: Iterable[str] | None = None) -> None:
        """Count from now on, in the first of these files that holds an `oom_kill` line.

        By default in this process's own control group, which its producers share; where there is
        none, on the whole machine.
        """
        candidates = _counters() if paths is None else paths
        self._path = next((path for path in candidates if _read(path) is not None), None)
        self._seen = self._now()
        self._unclaimed = 0
        self._claimable_until = 0.0

    def claim(self) -> bool:
        """Say whether such a kill has no victim yet, and count the asking process as its victim."""
        count, moment = self._now(), time.monotonic()
        if moment > self._claimable_until:
            self._unclaimed = 0
        if count > self._seen:
            self._unclaimed += count - self._seen
            self._seen, self._claimable_until = count, moment + _BELONGS_S
        if not self._unclaimed:
            return False
        self._unclaimed -= 1
        return True

    def _now(self) -> int:
        return 0 if self._path is None else _read(self._path) or 0


def _counters() -> list[str]:
    """List where the count may stand: in a group of version 2 or 1, or on the whole machine.

    A container sees its own group as the root of the mount, and yet may read the host's path.
    """
    paths = []
    with open("/proc/self/cgroup", encoding="utf-8") as lines:
        for line in lines:
            _, kinds, path = line.rstrip("\n").split(":", 2)
            if not kinds:
                places = (path, "")
                paths += [f"{_CONTROL_GROUPS}{place}/memory.events" for place in places]
            elif "memory" in kinds.split(","):
                places = (f"/memory{path}", "/memory")
                paths += [f"{_CONTROL_GROUPS}{place}/memory.oom_control" for place in places]
    return [*paths, "/proc/vmstat"]


def _read(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as lines:
            return next(
                (int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None
            )
    except OSError:
        return None
