"""How a producer ended: whose fault it was, as far as that can be known.

The daemon finds the class (augd/server/supervision/classify_exit.py) and the broker goes by it:
what a producer had in hand is suspect only when the end came from inside it. Loads nothing.
"""

from __future__ import annotations

from enum import StrEnum

KEPT = "the kernel keeps it, as it keeps who waits for a disk that does not answer"
"""Why a process that got SIGKILL may go on existing."""

TRIED_OTHERWISE = "before it was ready; the next is started without native kernels"
"""What is said of a producer whose kernels may have ended it."""


class ExitReason(StrEnum):
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
    LOST = "lost"
    """Of another host: its connection ended, and nothing more is known of it."""

    @property
    def is_suspect(self) -> bool:
        """Say whether what it had in hand may have been the cause."""
        return self in (ExitReason.SIGNAL, ExitReason.MEMORY, ExitReason.KILLED)
