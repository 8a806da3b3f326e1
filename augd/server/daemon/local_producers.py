"""The producers of this host, and the fetcher that reads object stores for them.

Runs in the daemon's loop. A producer has a UNIX link for messages and fds, and a pidfd that
becomes readable when it exits. The broker decides when one is started or killed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial

from augd.dataset.index_file import IndexFile
from augd.errors import ProtocolError
from augd.process.oom_kills import OomKillCounter
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker_driver import BrokerDriver
from augd.server.daemon.decoded_cache import CacheStore
from augd.server.daemon.stream_memory import StreamMemory
from augd.server.supervision.fetcher_process import FetcherProcess
from augd.server.supervision.producer_process import (
    ProducerOptions,
    ProducerProcess,
    spawn_producer,
)
from augd.transport import unix_link

_log = logging.getLogger("augd")


class LocalProducers:
    """The running producer processes, by the broker's number, and the fetcher."""

    def __init__(
        self,
        driver: BrokerDriver,
        memory: StreamMemory,
        datasets: Mapping[str, IndexFile],
        spawned: Sequence[ProducerProcess],
        options: ProducerOptions,
        cache: CacheStore | None,
        fetcher: FetcherProcess | None,
    ) -> None:
        """Adopt the producers that were spawned already, one per place.

        Args:
            driver: takes what happens to producers.
            memory: of the streams; its fds go out with messages.
            datasets: their indexes, by name.
            spawned: processes that the broker's first StartProducer actions take.
            options: what all others are started with.
            cache: of decoded images, or None; it stays the caller's.
            fetcher: reads the datasets that lie in object stores, or None.
        """
        self._driver = driver
        self._memory = memory
        self._datasets = datasets
        self._waiting = dict(enumerate(spawned))
        self._options = options
        self._cache = cache
        self._fetcher = fetcher
        self._pool: dict[int, ProducerProcess] = {}
        self._oom_kills = OomKillCounter()

    # what producers send, and their ends

    def _read_link(self, number: int) -> None:
        spawned = self._pool.get(number)
        while spawned is not None and spawned is self._pool.get(number):
            try:
                received = unix_link.receive(spawned.link, wait=False)
                if received is None:
                    return
                message = codec.decode_from_producer(received[0])
            except (EOFError, OSError):
                self._driver.poller.unregister(spawned.link.fileno())  # its pidfd tells the rest
                return
            except ProtocolError as error:
                _log.error("producer %d sent a malformed message: killed: %s", number, error)
                spawned.kill()
                return
            if isinstance(message, msg.Ready):
                spawned.note_ready()
            self._driver.handle(ev.FromLocalProducer(number, message))

    def _reap(self, number: int) -> None:
        spawned = self._pool.get(number)
        if spawned is None or spawned.process.poll() is None:
            return
        self._read_link(number)  # what it sent before it exited
        del self._pool[number]
        self._driver.poller.unregister(spawned.pidfd)
        self._driver.poller.unregister(spawned.link.fileno())
        kind, current_sample, how = (
            spawned.ending(self._oom_kills),
            spawned.current_sample(),
            spawned.how_ended(),
        )
        if how == "SIGBUS" and self._cache is not None and self._cache.is_cut():
            kind, how = (
                ExitReason.ERROR,
                f"{how}: a file of the cache was cut off while it was read",
            )
        spawned.close()
        if self._fetcher is not None:
            self._fetcher.drop(number)
        is_tried = spawned.is_tried_otherwise(kind)
        self._driver.handle(ev.Reaped(number, how, str(kind), current_sample, is_tried))

    # what the broker wants of them

    def start(self, action: ev.StartProducer) -> None:
        """Start a producer, or take the one that was spawned for this place."""
        number = action.producer
        try:
            spawned = self._waiting.pop(number, None) or spawn_producer(self._options, number)
        except OSError as error:  # no fds or processes left: the broker retries, with pauses
            self._driver.handle(ev.Reaped(number, f"it could not be started: {error}"))
            return
        self._pool[number] = spawned
        if self._fetcher is not None:
            self._fetcher.add(number, spawned.take_fetch_channel())
        self._driver.poller.register(spawned.link.fileno(), partial(self._read_link, number))
        self._driver.poller.register(spawned.pidfd, partial(self._reap, number))

    def kill(self, number: int) -> None:
        """Send SIGKILL to a producer, if it runs."""
        if number in self._pool:
            self._pool[number].kill()

    def tell(self, number: int, message: msg.ToProducer) -> None:
        """Send a message with its fds; a producer whose link is full is killed."""
        if isinstance(message, msg.Room):
            assert self._cache is not None
            try:
                self._cache.take_space((message.start, message.end))
            except OSError as error:
                self._driver.handle(ev.CacheFull(str(error.strerror)))
                return
        spawned = self._pool.get(number)
        if spawned is None:
            return
        if unix_link.send(spawned.link, codec.encode(message), self._fds_of(message)):
            return
        if unix_link.is_connected(spawned.link):  # full: what it misses is never sent again
            self._driver.handle(
                ev.FromLocalProducer(number, msg.LastWords("it did not read its messages"))
            )
            spawned.kill()

    def _fds_of(self, message: msg.ToProducer) -> tuple[int, ...]:
        """Return the fds that a message passes, in the order that its receiver expects."""
        if isinstance(message, msg.DatasetMessage):
            index = self._datasets[message.name]
            fds: tuple[int, ...] = (index.fd, index.dims_fd)
            return fds if self._cache is None else (*fds, self._cache.table_fd(message.name))
        if isinstance(message, msg.CacheMessage):
            assert self._cache is not None
            return (self._cache.fd,)
        if isinstance(message, msg.StreamMessage):
            fds = (self._memory.arena(message.stream)[0],)
            if message.chosen is not None:
                fds = (*fds, self._memory.choice_fd(message.stream))
            return fds
        return ()

    # the fetcher

    @property
    def fetcher_starts_at(self) -> float | None:
        """When the fetcher is to be started, by `time.monotonic`; None while it runs."""
        return None if self._fetcher is None else self._fetcher.starts_at

    def start_fetcher(self, now: float) -> None:
        """Start the fetcher if it is due: at first, and some time after it exited."""
        fetcher = self._fetcher
        if fetcher is None or not fetcher.is_due(now):
            return
        if (why := fetcher.try_start(now)) is not None:
            _log.warning("%s", why)
            return
        self._driver.poller.register(fetcher.pidfd, self._fetcher_ended)

    def _fetcher_ended(self) -> None:
        fetcher = self._fetcher
        if fetcher is not None and fetcher.has_ended():
            self._driver.poller.unregister(fetcher.pidfd)
            _log.warning("%s", fetcher.ended(time.monotonic()))

    def close(self) -> None:
        """End the fetcher. Producers were drained before, or are killed by the caller."""
        if self._fetcher is not None:
            self._fetcher.close()
