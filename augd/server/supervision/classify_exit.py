"""Finds why a producer exited, from its status and from what the daemon knows of it.

The daemon and the relay call this when they reaped a producer. It does no I/O.

An external SIGSEGV (`kill -SEGV`) cannot be told from a crash. The sample in work then counts as
suspect once, which is not enough to quarantine it.
"""

from __future__ import annotations

from signal import Signals

from augd.protocol.exit_reason import ExitReason

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


def classify(status: int, *, is_ours: bool, was_stopped: bool, is_for_memory: bool) -> ExitReason:
    """Return the class of a producer's exit.

    Args:
        status: the exit status, or the signal's number negated, as `subprocess` gives it.
        is_ours: the daemon had sent it SIGKILL before.
        was_stopped: it was stopped when the daemon sent that.
        is_for_memory: the kernel's OOM killer has just killed a process.
    """
    if status >= 0:
        return ExitReason.ERROR if status else ExitReason.DRAINED
    if -status in _FAULTS:
        return ExitReason.SIGNAL
    if status != -Signals.SIGKILL:
        return ExitReason.OUTSIDE
    if is_ours:
        return ExitReason.STOPPED if was_stopped else ExitReason.KILLED
    return ExitReason.MEMORY if is_for_memory else ExitReason.OUTSIDE
