"""A process that a daemon or a relay starts, and restarts when it exits by itself.

The dashboard and the fetcher are such processes, apart from the path of a batch. Each has a UNIX
link as producers do, without an address and a key, and ends with its parent. Each time it exits by
itself the pause before its next start is longer.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from augd.process import interpreter
from augd.process.exit_status import describe_status, reap
from augd.transport import unix_link

_END_S = 2.0


class Backoff(NamedTuple):
    """Pauses in seconds before a process is restarted.

    Attributes:
        first_s: the pause after the first exit; it doubles with each.
        max_s: the longest pause.
        calm_s: a process that ran so long begins with the first pause again.
        again_s: the pause after a start that failed.
    """

    first_s: float
    max_s: float
    calm_s: float
    again_s: float


class SupervisedProcess:
    """The process of a program, and its link.

    Attributes:
        starts_at: when it is to be started, by `time.monotonic`; None while it runs.
        link: the socket to it, while it runs.
        pid, pidfd: of the process, while it runs; the pidfd becomes readable when it exits.
    """

    def __init__(self, what: str, backoff: Backoff) -> None:
        """Take its name for messages; it is due at once."""
        self.starts_at: float | None = 0.0
        self.link: socket.socket | None = None
        self.pid, self.pidfd = 0, -1
        self._what = what
        self._backoff = backoff
        self._pause_s = backoff.first_s
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    def start(self, now: float) -> None:
        """Start it, and send it what it needs.

        Raises:
            OSError: there is no fd or no process left.
        """
        raise NotImplementedError

    def is_due(self, now: float) -> bool:
        """Return whether it is to be started: at first, and some time after it exited."""
        return self.starts_at is not None and self.starts_at <= now

    def try_start(self, now: float) -> str | None:
        """Start it; returns None, or why that failed: then it is due again after a pause."""
        try:
            self.start(now)
        except OSError as error:
            self.starts_at = now + self._backoff.again_s
            return f"{self._what} could not be started: {error}: retrying"
        return None

    def launch(self, now: float, module: str, *more: str, fds: Sequence[int] = ()) -> socket.socket:
        """Start `module FD ... PARENT more...`, the first fd its end of the link; return ours.

        It dies with the calling thread, which must be the main one.

        Raises:
            OSError: there is no fd or no process left.
        """
        near, far = unix_link.make_link()
        given = (far.fileno(), *fds)
        try:
            self._process = interpreter.start(
                *(module, *map(str, given), str(os.getpid()), *more),
                pass_fds=given,
                start_new_session=True,  # Ctrl-C is for the daemon alone
            )
        except BaseException:
            near.close()
            raise
        finally:
            far.close()
        self.link, self.starts_at, self._started_at = near, None, now
        self.pid, self.pidfd = self._process.pid, os.pidfd_open(self._process.pid)
        return near

    def has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def ended(self, now: float) -> str:
        """Close what is left of an exited process; returns a log line with cause and restart."""
        assert self._process is not None
        how = describe_status(self._process.wait(_END_S))
        self._let_go()
        if now - self._started_at > self._backoff.calm_s:
            self._pause_s = self._backoff.first_s
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, self._backoff.max_s)
        self.starts_at = now + pause_s
        return f"{self._what} ended: {how}; it restarts in {pause_s:g} s"

    def kill(self) -> None:
        """Send SIGKILL, if it runs; `ended` is called after its exit."""
        if self._process is not None:
            self._process.kill()

    def close(self, patience_s: float = 0.0) -> None:
        """End it and wait for its exit: by SIGTERM with patience, by SIGKILL without."""
        if self._process is None:
            return
        if patience_s:
            assert self.link is not None
            self.link.shutdown(socket.SHUT_RDWR)  # by this it learns that the daemon ends
            self._process.terminate()
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        else:
            self._process.kill()
        reap(self._process, _END_S)
        self._let_go()

    def _let_go(self) -> None:
        assert self.link is not None
        self.link.close()
        os.close(self.pidfd)
        self.link, self.pid, self.pidfd, self._process = None, 0, -1, None
