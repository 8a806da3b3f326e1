"""The page's process as the daemon holds it: started with it, asked nothing, told what it asks.

Beside the way of a batch. HTTP has its own program (`augd/views/page`), so that the daemon's loop
loads no web server and a browser that misbehaves cannot keep producers waiting. It hangs on a link
as producers do: no address, no key, and it ends with the daemon. When it ends by itself it is
started again, with growing pauses; streams never notice.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import MsgspecError

from augd.deaths import describe_status
from augd.transport import link
from augd.transport.http import Porch
from augd.wire import page as said

_PAUSE_S = 1.0
_PAUSE_MAX_S = 60.0
_END_S = 2.0  # for its own end, when the daemon ends


@dataclass(slots=True)
class Page:
    """The process and what it needs. `start` it, `close` it at the end."""

    porch: Porch
    plugins: Sequence[str]
    datasets: tuple[str, ...]
    starts_at: float | None = 0.0  # when it is to be started; None while it runs
    link: socket.socket | None = None
    pidfd: int = -1
    _process: subprocess.Popen[bytes] | None = None
    _started_at: float = 0.0
    _pause_s: float = _PAUSE_S

    def start(self, now: float) -> None:
        """Start it; it dies with the calling thread, which must be the main one.

        Raises:
            OSError: there is no fd or no process to be had.
        """
        near, far = link.make_link()
        fds = (far.fileno(), self.porch.listener.fileno())
        try:
            command = [sys.executable, "-m", "augd.views.page", *map(str, fds), str(os.getpid())]
            self._process = subprocess.Popen(
                [*command, *self.plugins],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the daemon alone
            )
        except BaseException:
            near.close()
            raise
        finally:
            far.close()
        self.link, self.starts_at, self._started_at = near, None, now
        self.pidfd = os.pidfd_open(self._process.pid)
        self.tell(said.Begin(self.porch.token, self.porch.hosts, self.datasets))

    def tell(self, note: said.Note, fds: Sequence[int] = ()) -> None:
        """Send; what it doesn't read is its own loss."""
        assert self.link is not None
        link.send(self.link, said.encode(note), fds)

    def ask(self) -> said.Spoken | None:
        """Take what it asks; None when nothing is there.

        Raises:
            EOFError: it is gone, or says what nobody understands.
        """
        assert self.link is not None
        received = link.receive(self.link, wait=False)
        try:
            return None if received is None else said.decode(received[0])
        except MsgspecError as error:
            raise EOFError(str(error)) from None

    def ended(self, now: float) -> str:
        """Take its end: close what is left of it, and say how it ended and when it comes back."""
        assert self._process is not None
        how = describe_status(self._process.wait(_END_S))
        self._let_go()
        if now - self._started_at > _PAUSE_MAX_S:
            self._pause_s = _PAUSE_S
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, _PAUSE_MAX_S)
        self.starts_at = now + pause_s
        return f"the page ended: {how}; it is started again in {pause_s:g} s"

    def has_ended(self) -> bool:
        """Say whether its process is gone."""
        return self._process is not None and self._process.poll() is not None

    def close(self) -> None:
        """End it and wait for that."""
        if self.link is not None and self._process is not None:
            self.link.shutdown(socket.SHUT_RDWR)  # told by this, it says good-bye to who watches
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._let_go()
        self.porch.listener.close()

    def _let_go(self) -> None:
        assert self.link is not None
        self.link.close()
        os.close(self.pidfd)
        self.link, self.pidfd, self._process = None, -1, None
