"""The daemon: one thread that carries events to the broker and its actions out.

It waits for everything at once: messages of clients, their lifelines, the links and pidfds of the
producers, signals, and its parent's lifeline. All decisions are the broker's
(augd/server/daemon/broker/broker.py). Each kind of peer has a part of its own: client_connections,
remote_rows_endpoint, local_producers and dashboard_process.

Invariants: the daemon moves no pixels but those that come from or go to other hosts. It imports
neither NumPy nor an image library. It writes nothing that it would need after a kill -9.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from augd.dataset import quarantine_file
from augd.dataset.decoder_packages import package_formats
from augd.dataset.index_changes import told
from augd.dataset.index_file import IndexFile
from augd.dataset.scan.likely_mistakes import doubts_of
from augd.dataset.scan_result import shown
from augd.pixels.headers.formats import DECODER
from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.protocol import messages as msg
from augd.protocol.limits import PLACES_MAX
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.broker import Broker, DatasetFacts
from augd.server.daemon.broker.cache_allocator import CacheAllocator
from augd.server.daemon.broker.dataset_facts import DaemonHistory
from augd.server.daemon.broker.producers import PATIENCE_S
from augd.server.daemon.broker_driver import Actions, BrokerDriver
from augd.server.daemon.client_connections import ClientEndpoint
from augd.server.daemon.dashboard_process import DashboardEndpoint, DashboardProcess
from augd.server.daemon.decoded_cache import CacheStore
from augd.server.daemon.local_producers import LocalProducers
from augd.server.daemon.remote_rows_endpoint import RemoteRowsEndpoint
from augd.server.daemon.stream_memory import StreamMemory
from augd.server.supervision.fetcher_process import FetcherProcess
from augd.server.supervision.producer_process import ProducerOptions, ProducerProcess
from augd.server.supervision.signals import close_signal_fd, signal_fd
from augd.transport.address import Address, TcpAddress

if TYPE_CHECKING:
    from augd.protocol.permissions import Rights
    from augd.transport.auth.authenticator import Authenticator

_log = logging.getLogger("augd")

_RIGHTS_CHANGED = (
    "the daemon's operator changed or removed this key: connect again, and ask for it if that fails"
)


@dataclass(frozen=True, slots=True)
class DaemonSetup:
    """What a daemon is made of; startup opens and starts all of it.

    Attributes:
        addresses: where clients connect, with their locks held; at most one is a path.
        datasets: their indexes, by name.
        spawned: producers that were started already, one per place.
        producer_options: what all others are started with.
        lifeline_fd: a pidfd of its parent; when that exits the daemon drains.
        authenticator: checks keys at a port, tested and open; None admits every client.
        patience_s: how long a producer may be silent at work; None is the broker's own.
        catalogue: the ops of recipes, those of plug-ins included.
        cache: where decoded images are kept, the caller's to close; None keeps none.
        dashboard: answers HTTP; None without `--http`.
        producers_max: the most producers, if their number follows the demand; 0 if it is fixed.
        fetcher: reads the datasets that lie in object stores; None if none does.
        history: which daemons died before this one.
    """

    addresses: Sequence[Address | TcpAddress]
    datasets: Mapping[str, IndexFile]
    spawned: Sequence[ProducerProcess]
    producer_options: ProducerOptions
    lifeline_fd: int | None = None
    authenticator: Authenticator | None = None
    patience_s: float | None = None
    catalogue: Catalogue = BUILT_IN
    cache: CacheStore | None = None
    dashboard: DashboardProcess | None = None
    producers_max: int = 0
    fetcher: FetcherProcess | None = None
    history: DaemonHistory = field(default_factory=DaemonHistory)


class Daemon:
    """The loop around the broker. `run` returns the exit status.

    Attributes:
        addresses: where it listens, with the ports that it got.
    """

    def __init__(self, setup: DaemonSetup) -> None:
        self._datasets = setup.datasets
        self._cache = setup.cache
        self._is_running = True
        self._driver = BrokerDriver()
        self._watch_ends(setup.lifeline_fd)
        self._authenticator = setup.authenticator
        if setup.authenticator is not None:
            self._driver.poller.register(setup.authenticator, setup.authenticator.serve)
        self._memory = StreamMemory(self._driver, setup.datasets)
        self._make_endpoints(setup)
        self.addresses = [self._bind(address) for address in setup.addresses]
        self._driver.connect(self._make_broker(setup), self._actions())

    def _watch_ends(self, lifeline_fd: int | None) -> None:
        """Watch what asks the daemon to end: signals, and the exit of its parent."""
        self._signals = signal_fd()
        self._driver.poller.register(self._signals.fileno(), self._read_signal)
        self._lifeline_fd = lifeline_fd
        if lifeline_fd is not None:
            self._driver.poller.register(lifeline_fd, self._parent_gone)

    def _make_endpoints(self, setup: DaemonSetup) -> None:
        driver, memory, datasets = self._driver, self._memory, setup.datasets
        keys = setup.authenticator
        self._clients = ClientEndpoint(
            *(driver, memory, datasets, self._rights_of, None if keys is None else keys.curve)
        )
        self._remotes = RemoteRowsEndpoint(
            *(driver, memory, self._rights_of, None if keys is None else keys.produce_curve)
        )
        self._producers = LocalProducers(
            *(driver, memory, datasets, setup.spawned, setup.producer_options),
            *(setup.cache, setup.fetcher),
        )
        self._dashboard = (
            None
            if setup.dashboard is None
            else DashboardEndpoint(driver, memory, datasets, setup.dashboard)
        )

    def _bind(self, address: Address | TcpAddress) -> Address | TcpAddress:
        bound = self._clients.bind(address)
        self._remotes.bind(address)
        return bound

    def _make_broker(self, setup: DaemonSetup) -> Broker:
        paths = [address.attach_path for address in self.addresses if isinstance(address, Address)]
        num_places = len(setup.spawned)
        return Broker(
            secrets.token_hex(8),
            str(paths[0]) if paths else "",
            {name: _facts_of(index) for name, index in setup.datasets.items()},
            num_places,
            self._clients.batch_port,
            secrets.token_hex(32),
            patience_s=PATIENCE_S if setup.patience_s is None else setup.patience_s,
            catalogue=setup.catalogue,
            cache=None if setup.cache is None else CacheAllocator(setup.cache.facts(), num_places),
            rows_port=self._remotes.port,
            producers_max=setup.producers_max,
            pid=os.getpid(),
            life=setup.history,
        )

    def run(self) -> int:
        """Serve until drained; returns 0."""
        driver = self._driver
        self._producers.start_fetcher(time.monotonic())
        driver.handle(ev.Tick())
        self._do_due()
        while self._is_running:
            ready = driver.poller.wait(self._timeout_s())
            self._do_due()
            if not ready:
                driver.handle(ev.Tick())
            for read in ready:
                read()
        self._close()
        return 0

    def _do_due(self) -> None:
        """Do what is due by time and is not the broker's."""
        now = time.monotonic()
        self._clients.disconnects.look_if_due(now)
        self._remotes.disconnects.look_if_due(now)
        self._look_at_rights()
        if self._dashboard is not None:
            self._dashboard.start_if_due(now)
        self._producers.start_fetcher(now)

    def _timeout_s(self) -> float | None:
        now = time.monotonic()
        due = self._driver.broker.next_deadline()
        moments = [
            None if due is None else now + due - self._driver.clock.now(),
            self._clients.disconnects.look_again_at,
            self._remotes.disconnects.look_again_at,
            self._producers.fetcher_starts_at,
        ]
        if self._authenticator is not None:
            moments.append(self._authenticator.reload_at)
        if self._dashboard is not None:
            moments.append(self._dashboard.starts_at)
        known = [moment for moment in moments if moment is not None]
        return max(0.0, min(known) - now) if known else None

    # rights

    def _rights_of(self, user: str | None) -> Rights | None:
        """Return the rights of a message's sender; None if it needs no key. Raises `Forbidden`."""
        return (
            None
            if user is None or self._authenticator is None
            else self._authenticator.rights_of(user)
        )

    def _look_at_rights(self) -> None:
        """End the sessions of clients whose rights the operator changed or took away."""
        changed = self._authenticator.reload_changed() if self._authenticator is not None else ()
        for name in changed:
            _log.info("the rights of %s changed: its sessions end", name)
            self._driver.handle(ev.RightsChanged(name, _RIGHTS_CHANGED))

    # the end

    def _read_signal(self) -> None:
        numbers = self._signals.recv(64)
        self._driver.handle(ev.DrainAsked(signal.Signals(numbers[0]).name))

    def _parent_gone(self) -> None:
        assert self._lifeline_fd is not None
        self._driver.poller.unregister(self._lifeline_fd)
        self._driver.handle(ev.DrainAsked("the program that started it ended"))

    def _stop(self, _: ev.Stop) -> None:
        self._is_running = False

    def _close(self) -> None:
        if self._dashboard is not None:
            self._dashboard.close()
        self._producers.close()
        self._clients.close()
        self._remotes.close()
        self._memory.close()
        if self._authenticator is not None:
            self._authenticator.close()
        close_signal_fd(self._signals)

    # actions

    def _actions(self) -> Actions:
        return {
            **self._clients.actions(),
            **self._memory.actions(),
            ev.SendToProducer: self._tell,
            ev.StartProducer: self._producers.start,
            ev.KillProducer: self._kill_producer,
            ev.ForgetProducer: self._remotes.forget,
            ev.KeepQuarantine: self._keep_quarantine,
            ev.PutCached: self._put_cached,
            ev.ClearCache: self._clear_cache,
            ev.Log: lambda action: _log.log(action.level, action.text),
            ev.Stop: self._stop,
        }

    def _tell(self, action: ev.SendToProducer) -> None:
        message = action.message
        if action.producer < PLACES_MAX:
            assert not isinstance(message, msg.Kill | msg.Part)  # which are for relays
            self._producers.tell(action.producer, message)
        else:
            assert not isinstance(message, msg.CacheMessage | msg.Room)  # which pass fds
            self._remotes.tell(action.producer, message)

    def _kill_producer(self, action: ev.KillProducer) -> None:
        if action.producer < PLACES_MAX:
            self._producers.kill(action.producer)
        else:
            self._remotes.tell(action.producer, msg.Kill())

    def _keep_quarantine(self, action: ev.KeepQuarantine) -> None:
        index = self._datasets[action.dataset]
        path = index.path_of(action.entry[0])
        try:
            kept = quarantine_file.keep(
                index.digest, action.content, action.entry, path, action.how
            )
        except OSError as error:
            _log.error("%s is quarantined only while this daemon runs: %s", path, error)
        else:
            _log.warning("%s is quarantined in %s; delete its line to have it tried", path, kept)

    def _put_cached(self, action: ev.PutCached) -> None:
        assert self._cache is not None
        self._cache.put(action.dataset, action.entry)

    def _clear_cache(self, action: ev.ClearCache) -> None:
        assert self._cache is not None
        self._cache.clear(action.environment)


def _facts_of(index: IndexFile) -> DatasetFacts:
    """Tell the broker of a dataset what it needs to know, and no more."""
    return DatasetFacts(
        digest=index.digest,
        root=shown(index.header.root),
        num_samples=index.num_samples,
        first_size_px=index.first_size_px,
        num_targets=index.num_targets,
        has_splits=index.has_splits,
        decoders=frozenset(DECODER + kind for kind in package_formats(index.fd)),
        splits={name: n for name, n in index.count_splits().items() if name},
        num_unlabelled=index.count_unlabelled(),
        classes=index.classes,
        doubts=tuple(doubts_of(index)),
        stamp=index.header.stamp,
        changes=tuple(told(index.header.history)),
        quarantine=quarantine_file.load(index.digest, index.num_samples),
    )
