"""The dashboard's process as the daemon holds it, and the answers to its requests.

Runs in the daemon's loop, apart from the path of a batch. HTTP has its own program
(`augd/server/dashboard`), so the daemon's loop loads no web server and a misbehaving browser cannot
delay producers. The dashboard has a UNIX link as producers do: no address, no key, and it ends with
the daemon. When it exits by itself it is restarted, with growing pauses; streams are not affected.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence

from msgspec import MsgspecError

from augd.dataset.index_file import IndexFile
from augd.protocol import dashboard_messages as said
from augd.server.daemon.broker.snapshot import shorten
from augd.server.daemon.broker_driver import BrokerDriver
from augd.server.daemon.http_listener import HttpListener
from augd.server.daemon.stream_memory import StreamMemory
from augd.server.supervision.supervised_process import Backoff, SupervisedProcess
from augd.transport import unix_link
from augd.transport.arena import read_only

_log = logging.getLogger("augd")
_BACKOFF = Backoff(1.0, 60.0, 60.0, again_s=10.0)
_END_S = 2.0  # for its own end, when the daemon ends


class DashboardProcess(SupervisedProcess):
    """The process and what it needs. `start` it, `close` it at the end."""

    def __init__(
        self, listener: HttpListener, plugins: Sequence[str], datasets: tuple[str, ...]
    ) -> None:
        """Take its listener, which is this object's from now on, and the names of the datasets."""
        super().__init__("the dashboard", _BACKOFF)
        self.listener = listener
        self._plugins = plugins
        self._datasets = datasets

    def start(self, now: float) -> None:
        """Start it; it dies with the calling thread, which must be the main one.

        Raises:
            OSError: there is no fd or no process left.
        """
        self.launch(
            now, "augd.server.dashboard", *self._plugins, fds=(self.listener.listener.fileno(),)
        )
        self.tell(said.Begin(self.listener.token, self.listener.hosts, self._datasets))

    def tell(self, note: said.DashboardMessage, fds: Sequence[int] = ()) -> None:
        """Send a message; if its link is full, the message is dropped."""
        assert self.link is not None
        unix_link.send(self.link, said.encode(note), fds)

    def ask(self) -> said.AnyDashboardMessage | None:
        """Receive its next request; None if there is none.

        Raises:
            EOFError: it exited, or sent a malformed message.
        """
        assert self.link is not None
        received = unix_link.receive(self.link, wait=False)
        try:
            return None if received is None else said.decode(received[0])
        except MsgspecError as error:
            raise EOFError(str(error)) from None

    def close(self, patience_s: float = _END_S) -> None:
        """End it, and close the listener."""
        super().close(patience_s)
        self.listener.listener.close()


class DashboardEndpoint:
    """Starts the dashboard when it is due, and answers its requests from the broker's state."""

    def __init__(
        self,
        driver: BrokerDriver,
        memory: StreamMemory,
        datasets: Mapping[str, IndexFile],
        process: DashboardProcess,
    ) -> None:
        self._driver = driver
        self._memory = memory
        self._datasets = datasets
        self._process = process
        self._daemon_started_at = time.monotonic()

    @property
    def starts_at(self) -> float | None:
        """When the dashboard is to be started, by `time.monotonic`; None while it runs."""
        return self._process.starts_at

    def start_if_due(self, now: float) -> None:
        """Start the dashboard if it is due: at first, and some time after it exited."""
        process = self._process
        if not process.is_due(now):
            return
        if (why := process.try_start(now)) is not None:
            _log.warning("%s", why)
            return
        assert process.link is not None
        self._driver.poller.register(process.link.fileno(), self._answer)
        self._driver.poller.register(process.pidfd, self._ended)

    def _answer(self) -> None:
        process = self._process
        if process.link is None:
            return  # ended by an earlier event of the same round
        try:
            asked = process.ask()
        except (EOFError, OSError):
            self._driver.poller.unregister(process.link.fileno())  # its pidfd tells the rest
            return
        if isinstance(asked, said.AskSnapshot):
            uptime_s = time.monotonic() - self._daemon_started_at
            snapshot = shorten(self._driver.broker.snapshot(self._driver.clock.now()))
            process.tell(said.Snapshot(snapshot, uptime_s, time.process_time()))
        elif isinstance(asked, said.AskDataset) and asked.name in self._datasets:
            index = self._datasets[asked.name]
            process.tell(said.Dataset(), (index.fd, index.dims_fd))
        elif isinstance(asked, said.Look):
            self._show_batch(asked)

    def _show_batch(self, asked: said.Look) -> None:
        seen = self._driver.broker.look(asked.stream, asked.slot)
        if seen is None:
            self._process.tell(said.Nothing())
            return
        reading = read_only(self._memory.arena(seen.stream)[0])
        self._process.tell(seen, (reading,))
        os.close(reading)

    def _ended(self) -> None:
        process = self._process
        if process.link is None or not process.has_ended():
            return
        self._driver.poller.unregister(process.link.fileno())
        self._driver.poller.unregister(process.pidfd)
        _log.warning("%s", process.ended(time.monotonic()))

    def close(self) -> None:
        self._process.close()
