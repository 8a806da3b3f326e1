"""Runs a survey: a short-lived process that imports an operator's code and tells the daemon of it.

The process writes to a pipe: a line for each step before it takes it, then an empty line and the
answer. `ask` waits for it in the daemon; `begin` gives the process its end of the pipe.

Invariants: a process that takes no further step in time is killed; it never outlives its parent.
Imports no NumPy: producers import `ops` and `sources`, which use this module.
"""

from __future__ import annotations

import os
import select
import time
from typing import Final

from augd.errors import PluginFailed
from augd.process import interpreter
from augd.process.awake_clock import Awake
from augd.process.exit_status import end, reap
from augd.process.parent_death import die_with

_END_OF_STEPS: Final = b"\n\n"
_READ_BYTES: Final = 1 << 20
_ITEMS_EVERY_S: Final = 1.0


def ask(module: str, *words: str, subject: str, patience_s: float, advice: str) -> bytes:
    """Run a module of augd as `MODULE FD PID WORDS...`, and return its answer.

    Args:
        module: its program calls `begin`.
        words: further arguments.
        subject: what is surveyed, for errors.
        patience_s: the longest that one step may take.
        advice: what to do about a step that takes longer, or ends the process.

    Raises:
        PluginFailed: the process was silent for too long, or ended without an answer.
    """
    near, far = os.pipe()
    with os.fdopen(near, "rb", buffering=0):
        try:
            process = interpreter.start(
                *(module, str(far), str(os.getpid()), *words), pass_fds=(far,)
            )
        finally:
            os.close(far)
        try:
            written, is_silent = _read_all(near, patience_s)
        except BaseException:
            process.kill()
            reap(process)
            raise
    steps, separator, said = written.partition(_END_OF_STEPS)
    last = steps.decode(errors="replace").rpartition("\n")[2] or "its start"
    if is_silent:
        process.kill()
        reap(process)
        raise PluginFailed(
            f"{subject}: expected each step of the survey to take at most {patience_s:g} s; "
            f"{last} took longer. {advice}"
        )
    status = end(process)
    if not separator:
        raise PluginFailed(
            f"{subject}: {last} ended the process with status {status}; see its output. {advice}"
        )
    return said


def _read_all(fd: int, patience_s: float) -> tuple[bytes, bool]:
    """Read to the end of the pipe. Returns what came, and whether it came to a standstill."""
    clock = Awake()
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    written = bytearray()
    while clock.wait(lambda slice_s: poller.poll((slice_s or 0.0) * 1000), patience_s):
        content = os.read(fd, _READ_BYTES)
        if not content:
            return bytes(written), False
        written += content
    return bytes(written), True


def begin(fd: str, parent_pid: str) -> Report:
    """Let this process end with the one that asks, and report to it."""
    die_with(int(parent_pid))
    return Report(int(fd))


class Report:
    """The steps and the answer of a survey, written by its process."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._fd = fd
        self._next_at = 0.0

    def step(self, what: str) -> None:
        """Say what is done next."""
        self._write(b"\n" + what.replace("\n", " ").encode(errors="replace"))

    def item(self, what: str) -> None:
        """Say which of many items is next, once a second."""
        if (now := time.monotonic()) >= self._next_at:
            self._next_at = now + _ITEMS_EVERY_S
            self.step(what)

    def answer(self, content: bytes) -> None:
        """Write the answer, and close the pipe."""
        self._write(_END_OF_STEPS + content)
        os.close(self._fd)

    def _write(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(self._fd, view) :]
