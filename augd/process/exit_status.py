"""How a child process ended: waiting for it, and its status as text."""

from __future__ import annotations

import subprocess
from signal import SIGKILL, Signals
from typing import Any


def describe_status(status: int) -> str:
    """Describe how a process ended: by which signal, or with which status."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def reap(process: subprocess.Popen[Any], within_s: float = 1.0) -> int | None:
    """Wait for the end of a process that got SIGKILL. Returns its status, or None.

    None: the process is stuck in the kernel. Init reaps it when the disk answers; the caller can
    end.
    """
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        return None


def end(process: subprocess.Popen[Any]) -> int:
    """Give a process half a second to end, then kill it. Returns its status, or SIGKILL's."""
    try:
        return process.wait(0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        status = reap(process)
        return -SIGKILL if status is None else status


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped, by a signal or a debugger; False if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            state = file.read().rpartition(")")[2].split()[0]  # its name may hold anything
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state in ("T", "t")
