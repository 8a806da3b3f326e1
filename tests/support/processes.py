"""Looking at processes from outside: who lives, who belongs to whom, what is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def await_true(condition: Callable[[], object], timeout_s: float, what: str) -> float:
    """Wait until the condition holds; returns the seconds that it took, to a twentieth."""
    started = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - started
        if waited_s > timeout_s:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        # Asking takes computing from those who are waited for.
        time.sleep(min(max(0.002, waited_s / 20), 0.03))
    return time.monotonic() - started


def is_alive(pid: int) -> bool:
    """Say whether a process runs; zombies don't."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def children_of(pid: int) -> list[int]:
    """Pids of the processes that this one started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(word) for word in text.split()]


def daemon_of(pid: int) -> int:
    """Pid of the daemon that a supervisor holds just now; any other process is itself."""
    held = [child for child in children_of(pid) if b"--supervisor" in command_of(child)]
    return held[0] if held else pid


def staff_of(pid: int) -> list[int]:
    """Pids of what a daemon, named by itself or by its supervisor, started."""
    return children_of(daemon_of(pid))


def family_of(pid: int) -> list[int]:
    """Pids of a daemon and of all that it started, its supervisor left out."""
    return [daemon_of(pid), *staff_of(pid)]


def producers_of(pid: int) -> list[int]:
    """Pids of a daemon's producers."""
    return [child for child in staff_of(pid) if b"augd.server.producer" in command_of(child)]


def command_of(pid: int) -> bytes:
    """Command line of a process, NUL between its words."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def num_fds(pid: int) -> int:
    """Number of open file descriptors."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
