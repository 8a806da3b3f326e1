"""Why a producer exited, as far as that can be known.

The daemon determines the class (augd/server/supervision/classify_exit.py) and the broker acts on
it. The sample that a producer was decoding is suspect only if the producer itself caused the exit.
Loads nothing.
"""

from __future__ import annotations

from enum import StrEnum

HELD_BY_KERNEL = (
    "the kernel keeps it, as it keeps a process that waits for a disk that does not answer"
)
"""Why a process may go on existing after SIGKILL."""

NEXT_WITHOUT_KERNELS = "before it was ready; the next is started without native kernels"
"""Ends the log line of a producer whose native kernels may have ended it."""


class ExitReason(StrEnum):
    """The class of a producer's exit."""

    DRAINED = "drained"
    """Status 0: it was sent DRAIN, or its daemon had ended."""
    ERROR = "error"
    """Another status: a Python error, reported in LAST_WORDS. No sample is the cause."""
    SIGNAL = "signal"
    """A fault of the process itself: a bad address, a failed check, a limit, a forbidden call."""
    MEMORY = "memory"
    """The kernel killed it because memory ran out."""
    KILLED = "killed"
    """Its daemon killed it: mostly because it had leases and sent nothing for too long."""
    STOPPED = "stopped"
    """Its daemon killed it as silent, but it had been stopped (SIGSTOP, a debugger)."""
    OUTSIDE = "outside"
    """Another process ended it by a signal without a cause: SIGKILL, SIGTERM and the like."""
    LOST = "lost"
    """On another host: its connection ended, and nothing more is known of it."""

    @property
    def is_suspect(self) -> bool:
        """Say whether the sample that it was decoding may have been the cause."""
        return self in (ExitReason.SIGNAL, ExitReason.MEMORY, ExitReason.KILLED)
