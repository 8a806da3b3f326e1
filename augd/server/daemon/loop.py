"""The daemon: one plain thread that carries events to the broker and its actions out.

It waits on everything at once: clients' messages, their lifelines, the links and pidfds of
the producers, signals, and its parent's lifeline. All decisions are the broker's. It moves
no pixels but those that come from or go to other hosts, and imports neither NumPy nor an image
library; it writes nothing that it would need after a kill -9.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from augd.dataset import quarantine_file
from augd.dataset.decoder_packages import package_formats
from augd.dataset.index_changes import told
from augd.dataset.index_file import IndexFile
from augd.dataset.scan.likely_mistakes import doubts_of
from augd.dataset.scan_result import shown
from augd.dataset.selection import Choices
from augd.errors import AugdError, Forbidden, OverLimit, ProtocolError
from augd.pixels.headers.formats import DECODER
from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.process.awake_clock import Awake
from augd.process.oom_kills import OomKillCounter
from augd.protocol import codec
from augd.protocol import dashboard_messages as said
from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.protocol.limits import PATHS_BYTES_MAX, PLACES_MAX
from augd.protocol.slot_layout import row_frames
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.broker import Broker, DatasetFacts
from augd.server.daemon.broker.cache_allocator import CacheAllocator
from augd.server.daemon.broker.dataset_facts import DaemonHistory
from augd.server.daemon.broker.producers import PATIENCE_S
from augd.server.daemon.broker.snapshot import shorten
from augd.server.daemon.dashboard_process import DashboardProcess
from augd.server.daemon.decoded_cache import CacheStore
from augd.server.supervision.fetcher_process import FetcherProcess
from augd.server.supervision.producer_process import (
    ProducerOptions,
    ProducerProcess,
    spawn_producer,
)
from augd.server.supervision.sample_selection import choose
from augd.server.supervision.signals import close_signal_fd, signal_fd
from augd.transport import lifeline, unix_link
from augd.transport.address import Address, TcpAddress
from augd.transport.arena import (
    make_arena,
    map_arena,
    read_only,
)
from augd.transport.batch_channel import BatchChannel
from augd.transport.router_pair import RouterPair
from augd.transport.row_channel import RowChannel
from augd.transport.zmq_sockets import FRAMES_MAX, Poller

if TYPE_CHECKING:
    from augd.protocol.permissions import Rights
    from augd.transport.auth.authenticator import Authenticator

_log = logging.getLogger("augd")

# A client that floods its socket must not keep lifelines and producers waiting.
_MESSAGES_PER_TURN = 64
_LOOK_AGAIN_S = 0.1
_RIGHTS_CHANGED = (
    "the daemon's operator changed or removed this key: connect again, and ask for it if that fails"
)

# Connections to the attach socket that have not said ATTACH. A client says it at once, so that
# the oldest of so many is a stranger: he makes room.
_STRANGERS_MAX = 256


@dataclass(slots=True)
class _Connection:
    """A client's connection on the attach socket; `session` is 0 until it said ATTACH."""

    socket: socket.socket
    session: int = 0


@dataclass(slots=True)
class _Tag:
    """What a source of the poller is, and whose."""

    kind: str
    number: int = 0
    connection: _Connection | None = field(default=None)


class Daemon:
    """The loop around the broker. `run` returns the exit status."""

    def __init__(
        self,
        addresses: Sequence[Address | TcpAddress],
        spawned: Sequence[ProducerProcess],
        datasets: Mapping[str, IndexFile],
        lifeline_fd: int | None = None,
        authenticator: Authenticator | None = None,
        *,
        patience_s: float | None = None,
        producer_options: ProducerOptions,
        catalogue: Catalogue = BUILT_IN,
        cache: CacheStore | None = None,
        page: DashboardProcess | None = None,
        producers_max: int = 0,
        fetcher: FetcherProcess | None = None,
        life: DaemonHistory = DaemonHistory(),  # noqa: B008 - frozen
    ) -> None:
        """Bind the addresses, whose locks the caller holds, and adopt the producers.

        Args:
            addresses: where clients connect; at most one is a path.
            hired: producers that were started already, one per place.
            datasets: their indexes, by name.
            lifeline_fd: a pidfd of its parent; readable when that is gone, then it drains.
            gate: who may come by a port, open and proven; None lets everybody.
            patience_s: how long a producer may be silent at work; None is the broker's own.
            terms: what producers are started with.
            catalogue: the ops that there are with them.
            cache: where decoded pictures are kept, the caller's to close; None keeps none.
            page: shows what happens to whoever calls it by HTTP; None where nobody asked for it.
            producers_max: how many there may be, where they follow what is needed.
            fetcher: reads the data sets that lie in object stores; None where none does.
            life: which daemons died before this one.
        """
        self._page = page
        self._fetcher = fetcher
        self._started_at = time.monotonic()
        self._datasets = datasets
        self._waiting = dict(enumerate(spawned))
        self._producer_options = producer_options
        self._pool: dict[int, ProducerProcess] = {}
        self._memory_kills = OomKillCounter()
        self._arenas: dict[int, tuple[int, int]] = {}
        self._maps: dict[int, memoryview] = {}  # of streams whose bytes travel
        self._choices = Choices()
        self._cache = cache
        self._lifelines: dict[int, _Connection] = {}
        self._strangers: dict[int, _Connection] = {}  # by fd, the oldest first
        self._is_running = True
        self._events: deque[ev.Event] = deque()
        # All that the broker decides by time goes by this clock; what concerns no peer doesn't.
        self._clock = Awake.of_loop()
        self._poller = Poller(self._clock)
        self._signals = signal_fd()
        self._poller.register(self._signals.fileno(), _Tag("signal"))
        self._lifeline_fd = lifeline_fd
        if lifeline_fd is not None:
            self._poller.register(lifeline_fd, _Tag("parent"))
        self._authenticator = authenticator
        if authenticator is not None:
            self._poller.register(authenticator, _Tag("gate"))
        curve = authenticator.curve if authenticator is not None else None
        self._doors = RouterPair(curve)
        self._bulk = BatchChannel(curve)
        self._rows = RowChannel(authenticator.produce_curve if authenticator is not None else None)
        for number, router in enumerate(self._doors.routers):
            self._poller.register(router, _Tag("router", number))
        for number, router in enumerate(self._bulk.doors.routers):
            self._poller.register(router, _Tag("bulk", number))
            self._poller.register(self._bulk.disconnects[number], _Tag("left", number))
        for number, router in enumerate(self._rows.doors.routers):
            self._poller.register(router, _Tag("rows", number))
            self._poller.register(self._rows.disconnects[number], _Tag("left", number))
        self._look_again_at: float | None = None
        self._listener: socket.socket | None = None
        self.addresses = [self._bind(address) for address in addresses]
        facts = {
            name: DatasetFacts(
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
            for name, index in datasets.items()
        }
        instance = secrets.token_hex(8)
        paths = [address.attach_path for address in self.addresses if isinstance(address, Address)]
        attach_path = str(paths[0]) if paths else ""
        self._broker = Broker(
            instance,
            attach_path,
            facts,
            len(spawned),
            self._bulk.port,
            secrets.token_hex(32),
            patience_s=PATIENCE_S if patience_s is None else patience_s,
            catalogue=catalogue,
            cache=None if cache is None else CacheAllocator(cache.facts(), len(spawned)),
            rows_port=self._rows.port,
            producers_max=producers_max,
            pid=os.getpid(),
            life=life,
        )
        self._sources: dict[str, Callable[[_Tag], None]] = {
            "router": self._read_router,
            "listener": self._accept,
            "lifeline": self._read_lifeline,
            "bulk": self._read_bulk,
            "rows": self._read_rows,
            "left": self._look_who_left,
            "gate": self._serve_authenticator,
            "link": self._read_link,
            "pidfd": self._reap,
            "signal": self._read_signal,
            "parent": self._parent_gone,
            "page": self._answer_page,
            "page-end": self._page_ended,
            "fetcher-end": self._fetcher_ended,
        }

    def _bind(self, address: Address | TcpAddress) -> Address | TcpAddress:
        bound = self._doors.bind(address)
        self._bulk.bind(address)
        self._rows.bind(address)
        if isinstance(address, Address):
            self._listener = lifeline.listen(address.attach_path)
            self._poller.register(self._listener.fileno(), _Tag("listener"))
        return bound

    def run(self) -> int:
        """Serve until drained; returns 0."""
        self._start_fetcher()
        self._handle(ev.Tick())
        self._start_page()
        while self._is_running:
            ready = self._poller.wait(self._timeout_s())
            if self._look_again_at is not None and time.monotonic() >= self._look_again_at:
                self._look_again_at = None
                self._find_who_left()
            self._look_at_rights()
            self._start_page()
            self._start_fetcher()
            if not ready:
                self._handle(ev.Tick())
            for tag in ready:
                self._sources[tag.kind](tag)
        self._close()
        return 0

    def _handle(self, event: ev.Event) -> None:
        """Give an event to the broker and do what it wants; events made thereby come after."""
        self._events.append(event)
        if len(self._events) > 1:
            return  # called by an action of the event in hand: its other actions come first
        while self._events:
            for action in self._broker.handle(self._events[0], self._clock.now()):
                self._act(action)
            self._events.popleft()

    def _timeout_s(self) -> float | None:
        now = time.monotonic()
        due = self._broker.next_deadline()
        moments = [self._look_again_at, None if due is None else now + due - self._clock.now()]
        if self._authenticator is not None:
            moments.append(self._authenticator.look_at)
        if self._page is not None:
            moments.append(self._page.starts_at)
        if self._fetcher is not None:
            moments.append(self._fetcher.starts_at)
        known = [moment for moment in moments if moment is not None]
        return max(0.0, min(known) - now) if known else None

    # sources

    def _serve_authenticator(self, _: _Tag) -> None:
        assert self._authenticator is not None
        self._authenticator.serve()

    def _look_at_rights(self) -> None:
        """End the sessions of clients whose rights the operator changed or took away."""
        changed = self._authenticator.look_again() if self._authenticator is not None else ()
        for name in changed:
            _log.info("the rights of %s changed: its sessions end", name)
            self._handle(ev.RightsChanged(name, _RIGHTS_CHANGED))

    def _rights_of(self, user: str | None) -> Rights | None:
        """Look up who sent a message; None is somebody who needs no key. Raises `Forbidden`."""
        return (
            None
            if user is None or self._authenticator is None
            else self._authenticator.rights_of(user)
        )

    def _read_router(self, tag: _Tag) -> None:
        for _turn in range(_MESSAGES_PER_TURN):
            received = self._doors.receive(tag.number)
            if received is None:
                return
            peer, frames, user = received
            try:
                who = self._rights_of(user)
                if len(frames) > FRAMES_MAX:
                    raise ProtocolError(f"message of {len(frames)} frames, expected {FRAMES_MAX}")
                message = codec.decode_from_client(frames[0] if frames else b"")
            except (ProtocolError, Forbidden) as error:
                self._doors.send(peer, [codec.encode(msg.Error(error.code, str(error)))])
                continue
            self._handle(ev.FromPeer(peer, message, who))

    def _read_bulk(self, tag: _Tag) -> None:
        """Take the one message that clients send on the bulk socket: ATTACH."""
        for _turn in range(_MESSAGES_PER_TURN):
            received = self._bulk.doors.receive(tag.number)
            if received is None:
                return
            peer, frames, user = received
            try:
                self._rights_of(user)
                message = codec.decode_over_attach(frames[0] if frames else b"")
            except (ProtocolError, Forbidden):
                continue
            if not isinstance(message, msg.AttachMessage):
                continue
            if self._broker.admits(message.session, message.token, is_framed=True):
                self._bulk.admit(message.session, peer)
            self._handle(ev.PeerAttached(message.session, message.token, is_framed=True))

    def _look_who_left(self, tag: _Tag) -> None:
        """Find whose connection ended. ZeroMQ tells that one did, and a little later which."""
        self._bulk.disconnects[tag.number].forget()
        self._rows.disconnects[tag.number].forget()
        self._find_who_left()
        self._look_again_at = time.monotonic() + _LOOK_AGAIN_S

    def _find_who_left(self) -> None:
        for session in self._bulk.unreachable():
            self._handle(ev.PeerGone(session))
        for producer in self._rows.unreachable():
            self._handle(ev.RemoteProducerGone(producer, "the connection to its host ended"))

    def _read_rows(self, tag: _Tag) -> None:
        """Take what remote producers say; after a chunk's pixels it is others' turn."""
        for _turn in range(_MESSAGES_PER_TURN):
            received = self._rows.receive(tag.number)
            if received is None:
                return
            message = self._hear_remote(tag.number, *received)
            if self._rows.drop_rows(tag.number) or isinstance(message, msg.Done):
                return

    def _hear_remote(
        self, door: int, peer: bytes, header: bytes, user: str | None
    ) -> msg.FromRelay | None:
        """Take one message with the rows that it brings; returns it, None for nonsense."""
        number = self._rows.number_of(peer)
        try:
            self._rights_of(user)
            if number is None:
                self._rows.bear(door, peer, is_leased=False)
            message = codec.decode_from_relay(header)
            if number is not None:
                is_done = isinstance(message, msg.Done)
                is_leased = self._answers_lease(number, message)
                self._rows.bear(door, peer, is_done=is_done, is_leased=is_leased)
            if number is None:
                self._attach_remote(peer, message)
            elif not self._take_rows(door, number, message):
                raise ProtocolError("its rows are not those of the lease that it answers")
            else:
                self._handle(ev.FromRemoteProducer(number, message))
            return message
        except (ProtocolError, Forbidden, OSError) as error:
            if number is None:
                self._rows.part_with(peer, str(error))
            else:
                _log.error("producer %d said nonsense and is parted with: %s", number, error)
                self._handle(ev.RemoteProducerGone(number, str(error)))
            return None

    def _answers_lease(self, number: int, message: msg.FromRelay) -> bool:
        if isinstance(message, msg.Done | msg.Dropped | msg.Fail):
            return self._broker.has_leased(number, message.lease)
        return False

    def _attach_remote(self, peer: bytes, message: msg.FromRelay) -> None:
        match message:
            case msg.AttachMessage(number, token) if self._broker.admits_remote(number, token):
                self._rows.admit(number, peer)
                self._handle(ev.RemoteProducerAttached(number, token))
            case _:
                raise ProtocolError("nobody here knows this connection; join again")

    def _take_rows(self, door: int, number: int, message: msg.FromRelay) -> bool:
        """Receive a lease's rows into their slot; say False when they are not what was leased."""
        target = None
        if isinstance(message, msg.Done):
            target = self._broker.target(number, message.lease)
        if target is None:  # too late, or a message that brings none
            self._rows.drop_rows(door)
            return True
        slot = self._map(target.stream)[target.slot_offset :]
        frames = row_frames(target.arrays, target.first_row, target.rows)
        return self._rows.receive_rows(door, [slot[at : at + size] for at, size in frames])

    def _accept(self, _: _Tag) -> None:
        assert self._listener is not None
        # As many as messages: a turn may take the HELLO and the OPEN of many clients.
        for _turn in range(_MESSAGES_PER_TURN):
            connected = lifeline.accept(self._listener)
            if connected is None:
                return
            connection = self._strangers[connected.fileno()] = _Connection(connected)
            self._poller.register(connected.fileno(), _Tag("lifeline", connection=connection))
            if len(self._strangers) > _STRANGERS_MAX:
                self._drop_connection(next(iter(self._strangers.values())))

    def _read_lifeline(self, tag: _Tag) -> None:
        connection = tag.connection
        assert connection is not None
        if connection.socket.fileno() < 0:
            return  # closed by an earlier event of the same round
        try:
            received = unix_link.receive(connection.socket, wait=False)
            if received is None:
                return
            for fd in received[1]:
                os.close(fd)
            message = codec.decode_over_attach(received[0])
            if not isinstance(message, msg.AttachMessage) or connection.session:
                raise ProtocolError(f"expected one ATTACH, got {message}")
        except (EOFError, OSError, ProtocolError):
            self._drop_connection(connection)
            return
        is_admitted = self._broker.admits(message.session, message.token, is_framed=False)
        if is_admitted:
            connection.session = message.session
            self._lifelines[message.session] = connection
            del self._strangers[connection.socket.fileno()]
        self._handle(ev.PeerAttached(message.session, message.token))
        if not is_admitted:
            self._drop_connection(connection)

    def _drop_connection(self, connection: _Connection) -> None:
        self._poller.unregister(connection.socket.fileno())
        self._strangers.pop(connection.socket.fileno(), None)
        connection.socket.close()
        if self._lifelines.get(connection.session) is connection:
            del self._lifelines[connection.session]
            self._handle(ev.PeerGone(connection.session))

    def _read_link(self, tag: _Tag) -> None:
        spawned = self._pool.get(tag.number)
        while spawned is not None and spawned is self._pool.get(tag.number):
            try:
                received = unix_link.receive(spawned.link, wait=False)
                if received is None:
                    return
                message = codec.decode_from_producer(received[0])
            except (EOFError, OSError):
                self._poller.unregister(spawned.link.fileno())  # its pidfd tells the rest
                return
            except ProtocolError as error:
                _log.error("producer %d said nonsense and is killed: %s", tag.number, error)
                spawned.kill()
                return
            if isinstance(message, msg.Ready):
                spawned.note_ready()
            self._handle(ev.FromLocalProducer(tag.number, message))

    def _reap(self, tag: _Tag) -> None:
        spawned = self._pool.get(tag.number)
        if spawned is None or spawned.process.poll() is None:
            return
        self._read_link(tag)  # what it said before it died
        del self._pool[tag.number]
        self._poller.unregister(spawned.pidfd)
        self._poller.unregister(spawned.link.fileno())
        kind, current_sample, how = (
            spawned.ending(self._memory_kills),
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
            self._fetcher.drop(tag.number)
        is_tried = spawned.is_tried_otherwise(kind)
        self._handle(ev.Reaped(tag.number, how, str(kind), current_sample, is_tried))

    def _read_signal(self, _: _Tag) -> None:
        numbers = self._signals.recv(64)
        self._handle(ev.DrainAsked(signal.Signals(numbers[0]).name))

    def _parent_gone(self, _: _Tag) -> None:
        assert self._lifeline_fd is not None
        self._poller.unregister(self._lifeline_fd)
        self._handle(ev.DrainAsked("the program that started it ended"))

    # the page

    def _start_page(self) -> None:
        """Start the page when it is due: at first, and some time after it ended."""
        page, now = self._page, time.monotonic()
        if page is None or not page.is_due(now):
            return
        if (why := page.try_start(now)) is not None:
            _log.warning("%s", why)
            return
        assert page.link is not None
        self._poller.register(page.link.fileno(), _Tag("page"))
        self._poller.register(page.pidfd, _Tag("page-end"))

    def _answer_page(self, _: _Tag) -> None:
        page = self._page
        if page is None or page.link is None:
            return  # ended by an earlier event of the same round
        try:
            asked = page.ask()
        except (EOFError, OSError):
            self._poller.unregister(page.link.fileno())  # its pidfd tells the rest
            return
        if isinstance(asked, said.AskSnapshot):
            uptime_s = time.monotonic() - self._started_at
            snapshot = shorten(self._broker.snapshot(self._clock.now()))
            page.tell(said.Snapshot(snapshot, uptime_s, time.process_time()))
        elif isinstance(asked, said.AskDataset) and asked.name in self._datasets:
            index = self._datasets[asked.name]
            page.tell(said.Dataset(), (index.fd, index.dims_fd))
        elif isinstance(asked, said.Look):
            seen = self._broker.look(asked.stream, asked.slot)
            if seen is None:
                page.tell(said.Nothing())
                return
            reading = read_only(self._arenas[seen.stream][0])
            page.tell(seen, (reading,))
            os.close(reading)

    def _page_ended(self, _: _Tag) -> None:
        page = self._page
        if page is None or page.link is None or not page.has_ended():
            return
        self._poller.unregister(page.link.fileno())
        self._poller.unregister(page.pidfd)
        _log.warning("%s", page.ended(time.monotonic()))

    # the fetcher

    def _start_fetcher(self) -> None:
        """Start the fetcher when it is due: at first, and some time after it ended."""
        fetcher, now = self._fetcher, time.monotonic()
        if fetcher is None or not fetcher.is_due(now):
            return
        if (why := fetcher.try_start(now)) is not None:
            _log.warning("%s", why)
            return
        self._poller.register(fetcher.pidfd, _Tag("fetcher-end"))

    def _fetcher_ended(self, _: _Tag) -> None:
        fetcher = self._fetcher
        if fetcher is not None and fetcher.has_ended():
            self._poller.unregister(fetcher.pidfd)
            _log.warning("%s", fetcher.ended(time.monotonic()))

    # actions

    def _act(self, action: ev.Action) -> None:
        match action:
            case ev.SendToClient(peer, message, classes):
                frames = [_encode(message)]
                if classes is not None:
                    if isinstance(classes, str):
                        classes = tuple(self._datasets[classes].classes)
                    frames.append(codec.encode_names(list(classes)))
                if not self._doors.send(peer, frames) and isinstance(message, msg.BatchMessage):
                    self._handle(ev.PeerUnreachable(message.session))
            case ev.SendToProducer(number, message):
                self._tell(number, message)
            case ev.SendPaths(peer, dataset, ids):
                paths = self._datasets[dataset].paths_of(ids, PATHS_BYTES_MAX)
                self._doors.send(peer, [_encode(msg.PathsReply(tuple(paths)))])
            case ev.SelectSamples():
                self._select(action)
            case ev.MakeArena():
                self._make_arena(action)
            case ev.GiveArena():
                self._give_arena(action)
            case ev.KeepQuarantine():
                self._keep_quarantine(action)
            case ev.PutCached(dataset, entry):
                assert self._cache is not None
                self._cache.put(dataset, entry)
            case ev.ClearCache(environment):
                assert self._cache is not None
                self._cache.clear(environment)
            case ev.SendSlot():
                self._send_slot(action)
            case ev.DropArena(stream):
                self._choices.drop(stream)
                self._maps.pop(stream, None)
                fd, _ = self._arenas.pop(stream, (-1, 0))
                if fd >= 0:
                    os.close(fd)
            case ev.EndSession(session):
                self._bulk.forget(session)
                connection = self._lifelines.pop(session, None)
                if connection is not None:
                    self._poller.unregister(connection.socket.fileno())
                    connection.socket.close()
            case ev.StartProducer(number):
                self._start_producer(number)
            case ev.KillProducer(number):
                if number >= PLACES_MAX:
                    self._tell_remote(number, msg.Kill())
                elif number in self._pool:
                    self._pool[number].kill()
            case ev.ForgetProducer(number, why):
                if why:
                    self._rows.send(number, msg.Part(why))
                self._rows.forget(number)
            case ev.Log(level, text):
                _log.log(level, text)
            case ev.Stop():
                self._is_running = False

    def _tell(self, number: int, message: msg.ToProducer | msg.ToRelay) -> None:
        if number >= PLACES_MAX:
            assert not isinstance(message, msg.CacheMessage | msg.Room)  # which go by fds
            self._tell_remote(number, message)
            return
        fds: tuple[int, ...] = ()
        if isinstance(message, msg.DatasetMessage):
            index = self._datasets[message.name]
            fds = (index.fd, index.dims_fd)
            if self._cache is not None:
                fds = (*fds, self._cache.table_fd(message.name))
        elif isinstance(message, msg.CacheMessage):
            assert self._cache is not None
            fds = (self._cache.fd,)
        elif isinstance(message, msg.Room):
            assert self._cache is not None
            try:
                self._cache.take_space((message.start, message.end))
            except OSError as error:
                self._handle(ev.CacheFull(str(error.strerror)))
                return
        elif isinstance(message, msg.StreamMessage):
            fds = (self._arenas[message.stream][0],)
            if message.chosen is not None:
                fds = (*fds, self._choices.fd(message.stream))
        spawned = self._pool.get(number)
        if spawned is None or unix_link.send(spawned.link, codec.encode(message), fds):
            return
        if unix_link.is_connected(spawned.link):  # full: what it misses could never be told again
            self._handle(
                ev.FromLocalProducer(number, msg.LastWords("it did not read its messages"))
            )
            spawned.kill()

    def _tell_remote(self, number: int, message: msg.ToRelay) -> None:
        try:
            is_told = self._rows.send(number, message)
        except ProtocolError as error:  # too large, with what its own host must choose by
            self._handle(ev.RemoteProducerGone(number, str(error)))
            return
        if not is_told:
            self._handle(ev.RemoteProducerGone(number, "the connection to its host ended"))

    def _select(self, action: ev.SelectSamples) -> None:
        try:
            shared = self._choices.take(
                action.stream,
                (action.dataset, action.selection),
                lambda: choose(self._datasets[action.dataset], action.selection),
            )
        except AugdError as error:
            self._handle(ev.SelectionFailed(action.stream, error.code, str(error)))
            return
        except OSError as error:
            self._handle(
                ev.SelectionFailed(action.stream, "OVER_LIMIT", f"no memory file: {error}")
            )
            return
        chosen = msg.Chosen(shared.num_samples, shared.num_groups, shared.num_picked)
        self._handle(ev.SamplesSelected(action.stream, chosen, shared.num_unlabelled))

    def _make_arena(self, action: ev.MakeArena) -> None:
        try:
            fd = make_arena("augd-arena", action.size_bytes)
        except (OverLimit, OSError) as error:
            self._handle(ev.ArenaFailed(action.stream, str(error)))
            return
        self._arenas[action.stream] = (fd, action.size_bytes)
        self._handle(ev.ArenaMade(action.stream))

    def _give_arena(self, action: ev.GiveArena) -> None:
        connection = self._lifelines.get(action.session)
        if connection is None:
            return  # its bytes are sent
        fd, size_bytes = self._arenas[action.stream]
        frame = codec.encode(msg.Arena(action.stream, size_bytes))
        if not action.is_read_only:
            unix_link.send(connection.socket, frame, (fd,))
            return
        reading = read_only(fd)
        unix_link.send(connection.socket, frame, (reading,))
        os.close(reading)

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

    def _send_slot(self, action: ev.SendSlot) -> None:
        try:
            arena = self._map(action.stream)
        except OSError as error:
            _log.error("session %d: its arena cannot be mapped: %s", action.session, error)
            self._handle(ev.PeerGone(action.session))
            return
        start = action.slot * action.slot_bytes
        piece = msg.Piece(action.session, action.opening, action.sequence, 0, 0)
        if not self._bulk.send(piece, arena[start : start + action.slot_bytes]):
            self._handle(ev.PeerGone(action.session))

    def _map(self, stream: int) -> memoryview:
        """Return the arena of a stream whose bytes travel; raises OSError when it can't be had."""
        if stream not in self._maps:
            fd, size_bytes = self._arenas[stream]
            self._maps[stream] = memoryview(map_arena(fd, size_bytes))
        return self._maps[stream]

    def _start_producer(self, number: int) -> None:
        try:
            spawned = self._waiting.pop(number, None) or spawn_producer(
                self._producer_options, number
            )
        except OSError as error:  # out of fds or of processes: the crew tries again, with pauses
            self._handle(ev.Reaped(number, f"it could not be started: {error}"))
            return
        self._pool[number] = spawned
        if self._fetcher is not None:
            self._fetcher.add(number, spawned.take_fetch_channel())
        self._poller.register(spawned.link.fileno(), _Tag("link", number))
        self._poller.register(spawned.pidfd, _Tag("pidfd", number))

    def _close(self) -> None:
        if self._page is not None:
            self._page.close()
        if self._fetcher is not None:
            self._fetcher.close()
        for connection in (*self._lifelines.values(), *self._strangers.values()):
            connection.socket.close()
        for fd, _ in self._arenas.values():
            os.close(fd)
        self._choices.close()
        if self._listener is not None:
            self._listener.close()
        self._bulk.close()
        self._rows.close()
        self._doors.close()
        if self._authenticator is not None:
            self._authenticator.close()
        close_signal_fd(self._signals)


def _encode(message: msg.ToClient) -> bytes:
    """Encode what goes to a client; what cannot be said becomes an ERROR, not the end."""
    try:
        return codec.encode(message)
    except (ProtocolError, UnicodeEncodeError) as error:
        _log.error("a message could not be encoded: %s", error)
        return codec.encode(msg.Error("INTERNAL", f"the daemon's answer does not encode: {error}"))
