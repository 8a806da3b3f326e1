"""Why a producer ended: its status, and what the kernel tells beyond it.

Beside the way of a batch: the daemon asks here when it kills a producer and when it reaped one.
Reads a few lines of /proc and of the control group; waits in `reap` only, writes nothing.

From outside and from inside look alike where somebody sends a signal that faults send, too
(`kill -SEGV`); then the sample is suspected once, which is not enough to condemn it.
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
    """Find the class of an end.

    Args:
        status: the exit status, or the signal's number negated, as `subprocess` gives it.
        is_ours: the daemon had sent it SIGKILL before.
        was_stopped: it was stopped when the daemon did so.
        is_for_memory: the kernel has killed for want of memory just now.
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
