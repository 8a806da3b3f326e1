"""The relay's loop: `augd produce` runs producers on this host for a daemon on another.

One thread waits for the daemon's messages, the producers' links and pidfds, and signals. A
`RemoteProducer` (augd/server/relay/remote_producer.py) handles those of one producer. Producers are
started, confined and watched as the daemon does it with its own, and die with this process.

SIGTERM, or the exit of the parent, drains: rows in work are finished and sent, all other leases are
returned. The relay exits when the daemon was asked to end. If the daemon crashed, the relay waits
for the next one at that address.
"""

from __future__ import annotations

import logging
import time

from augd.server.relay.remote_producer import RelayContext, RemoteProducer
from augd.server.supervision.signals import close_signal_fd, signal_fd
from augd.transport.zmq_sockets import send_last_words

_log = logging.getLogger("augd")

DRAIN_S = 5.0
REAP_S = 5.0  # for killed producers; one that the kernel keeps for longer is left behind


class Relay:
    """The loop around the remote producers. `run` returns the exit status."""

    def __init__(
        self, context: RelayContext, num_producers: int, lifeline_fd: int | None = None
    ) -> None:
        """Prepare the producers; `run` starts their processes, which die with its thread."""
        self._context = context
        self._remotes = [RemoteProducer(context, place) for place in range(num_producers)]
        self._clock = context.poller.clock
        self._signals = signal_fd()
        self._lifeline_fd = lifeline_fd
        self._ends_at = float("inf")
        context.poller.register(self._signals.fileno(), ("signal", None))
        if lifeline_fd is not None:
            context.poller.register(lifeline_fd, ("parent", None))

    def run(self) -> int:
        """Work until drained.

        Raises:
            AugdError: the daemon rejects these producers.
        """
        clock = self._clock
        try:
            while not all(remote.is_gone for remote in self._remotes):
                now = clock.now()
                if self._context.is_draining and self._ends_at == float("inf"):
                    self._drain(f"the daemon at {self._context.address} ends", now)
                self._start_fetcher(time.monotonic())
                for remote in self._remotes:
                    remote.act(now)
                if now >= self._ends_at:
                    _log.warning("producers did not drain within %g s: killed", DRAIN_S)
                    break
                due = min(
                    self._ends_at,
                    now + self._fetcher_due_s(),
                    *(remote.next_due() for remote in self._remotes),
                )
                for kind, remote in self._context.poller.wait(max(0.0, due - clock.now())):
                    self._read(kind, remote)
        finally:
            for remote in self._remotes:
                remote.kill()
            ends_at = clock.now() + REAP_S
            for remote in self._remotes:
                remote.close(max(0.0, ends_at - clock.now()))
            if self._context.fetcher is not None:
                self._context.fetcher.close()
            self._context.choices.close()
            close_signal_fd(self._signals)
            send_last_words()
        return 0

    def _start_fetcher(self, now: float) -> None:
        """Start the fetcher if it is due: at first, and some time after it exited."""
        fetcher = self._context.fetcher
        if fetcher is None or not fetcher.is_due(now):
            return
        if (why := fetcher.try_start(now)) is not None:
            _log.warning("%s", why)
            return
        self._context.poller.register(fetcher.pidfd, ("fetcher", None))

    def _fetcher_due_s(self) -> float:
        fetcher = self._context.fetcher
        if fetcher is None or fetcher.starts_at is None:
            return float("inf")
        return fetcher.starts_at - time.monotonic()

    def _fetcher_ended(self, now: float) -> None:
        fetcher = self._context.fetcher
        if fetcher is not None and fetcher.has_ended():
            self._context.poller.unregister(fetcher.pidfd)
            _log.warning("%s", fetcher.ended(now))

    def _read(self, kind: str, remote: RemoteProducer | None) -> None:
        now = self._clock.now()
        if kind == "signal":
            self._signals.recv(64)
            self._drain("it was told to end", now)
        elif kind == "parent":
            assert self._lifeline_fd is not None
            self._context.poller.unregister(self._lifeline_fd)
            self._drain("the program that started it ended", now)
        elif kind == "fetcher":
            self._fetcher_ended(time.monotonic())
        elif remote is not None and kind == "link":
            remote.read_link(now)
        elif remote is not None and kind == "pidfd":
            remote.reap(now)
        elif remote is not None and kind == "daemon":
            remote.read_daemon(now)

    def _drain(self, why: str, now: float) -> None:
        _log.info("draining: %s", why)
        self._context.is_draining = True
        self._ends_at = min(self._ends_at, now + DRAIN_S)
        for remote in self._remotes:
            remote.drain()
