"""How a producer ended, exactly: whose fault it was, as far as that can be known.

`classify` turns what the kernel told into a class. The broker goes by it: what a producer had in
hand is suspect only when the end came from inside it. Pure, and loads nothing.

From outside and from inside look alike where somebody sends a signal that faults send, too
(`kill -SEGV`); then the sample is suspected once, which is not enough to condemn it.
"""

from __future__ import annotations

from enum import StrEnum
from signal import Signals


class Ending(StrEnum):
    """The class of a producer's end."""

    DRAINED = "drained"
    """Status 0: it was told to end, or its daemon was gone."""
    ERROR = "error"
    """Another status: a Python error, which its last words tell. No sample is to blame."""
    SIGNAL = "signal"
    """A fault of the process itself: a bad address, a failed check, a limit, a forbidden call."""
    MEMORY = "memory"
    """The kernel killed it for want of memory."""
    KILLED = "killed"
    """Its daemon killed it, and knows why: mostly for being silent at work."""
    STOPPED = "stopped"
    """Its daemon killed it for being silent, but it had been stopped (SIGSTOP, a debugger)."""
    OUTSIDE = "outside"
    """Somebody else ended it by a signal that says nothing: SIGKILL, SIGTERM and the like."""

    @property
    def is_suspect(self) -> bool:
        """Say whether what it had in hand may have been the cause."""
        return self in (Ending.SIGNAL, Ending.MEMORY, Ending.KILLED)


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
