"""The page's process as the daemon holds it: started with it, asked nothing, told what it asks.

Beside the way of a batch. HTTP has its own program (`augd/server/dashboard`), so that the daemon's
loop loads no web server and a browser that misbehaves cannot keep producers waiting. It hangs on a
link
as producers do: no address, no key, and it ends with the daemon. When it ends by itself it is
started again, with growing pauses; streams never notice.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import MsgspecError

from augd.protocol import dashboard_messages as said
from augd.server.daemon.http_listener import HttpListener
from augd.server.supervision.supervised_process import Backoff, SupervisedProcess
from augd.transport import unix_link

_PAUSES = Backoff(1.0, 60.0, 60.0, again_s=10.0)
_END_S = 2.0  # for its own end, when the daemon ends


class DashboardProcess(SupervisedProcess):
    """The process and what it needs. `start` it, `close` it at the end."""

    def __init__(
        self, listener: HttpListener, plugins: Sequence[str], datasets: tuple[str, ...]
    ) -> None:
        """Take its listener, which is this object's from now on, and what it shows."""
        super().__init__("the page", _PAUSES)
        self.listener = listener
        self._plugins = plugins
        self._datasets = datasets

    def start(self, now: float) -> None:
        """Start it; it dies with the calling thread, which must be the main one.

        Raises:
            OSError: there is no fd or no process to be had.
        """
        self.launch(
            now, "augd.server.dashboard", *self._plugins, fds=(self.listener.listener.fileno(),)
        )
        self.tell(said.Begin(self.listener.token, self.listener.hosts, self._datasets))

    def tell(self, note: said.DashboardMessage, fds: Sequence[int] = ()) -> None:
        """Send; what it doesn't read is its own loss."""
        assert self.link is not None
        unix_link.send(self.link, said.encode(note), fds)

    def ask(self) -> said.AnyDashboardMessage | None:
        """Take what it asks; None when nothing is there.

        Raises:
            EOFError: it is gone, or says what nobody understands.
        """
        assert self.link is not None
        received = unix_link.receive(self.link, wait=False)
        try:
            return None if received is None else said.decode(received[0])
        except MsgspecError as error:
            raise EOFError(str(error)) from None

    def close(self, patience_s: float = _END_S) -> None:
        """End it, and listen no more."""
        super().close(patience_s)
        self.listener.listener.close()
