"""What protocol tests talk to: one client's connection, over a fake or over a real daemon.

The fake is the real broker, every message encoded and decoded as on the wire, producers that
answer a LEASE at once, and a clock that only tests turn. The real one is `augd serve` with
raw sockets. Both give batches in shared memory or in PIECE frames. A test that is written
against `Wire` and `Client` runs over all four.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from augd.client.session import Attach
from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.limits import PIECE_BYTES
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.broker import Broker, DatasetFacts
from augd.transport.address import bulk_address, parse_address
from augd.transport.arena import map_arena
from augd.transport.auth.curve import ClientCurve
from augd.transport.lifeline import Lifeline
from augd.transport.zmq_sockets import Dealer, Poller

NUM_SAMPLES = 10
TIMEOUT_S = 20.0
RECIPE: dict[str, Any] = {"ops": [{"op": "center_crop", "size": 8}], "filter": "linear"}

# What a fake's producers say for the digest of a row: large, so that sums run over.
DIGESTS = [2**127 + 2**64 * sample + 1 for sample in range(1000)]

Transport = Literal["memfd", "frames"]
M = TypeVar("M", bound=msg.Message)


def make_spec(batch_size: int = 3, **changes: Any) -> msg.Spec:
    """A spec over the test's photos in the index's order, so that ids are positions."""
    layout = {name: changes.pop(name) for name in ("rank", "world", "drop_last") if name in changes}
    fields: dict[str, Any] = {
        "dataset": None,
        "recipe": RECIPE,
        "layout": msg.Layout(batch_size, **layout),
        "shuffle": False,
        "prefetch": 2,
    }
    return msg.Spec(**{**fields, **changes})


class Connection(Protocol):
    """One client's sockets."""

    def send(self, frame: bytes) -> None: ...
    def receive(self) -> list[bytes]: ...
    def attach(self, way: Attach) -> None: ...
    def slot(self, opened: msg.Opened, batch: msg.BatchMessage) -> Slot: ...
    def hang_up(self) -> None: ...


class Wire(Protocol):
    """A daemon that clients can connect to, and the way on which its batches come."""

    transport: Transport

    def connect(self) -> Connection: ...


Slot = bytes | bytearray | memoryview


class Pieces:
    """Slots put together from PIECE messages, each kept under its opening and sequence."""

    def __init__(self) -> None:
        self._slots: dict[tuple[int, int], bytearray] = {}

    def take(self, header: bytes, body: bytes) -> None:
        piece = codec.decode_over_attach(header)
        assert isinstance(piece, msg.Piece)
        assert len(body) == piece.size_bytes <= PIECE_BYTES
        if not piece.session:
            assert piece == msg.Piece(0, 0, 0, 0, 0)  # a knock
            return
        slot = self._slots.setdefault((piece.opening, piece.sequence), bytearray())
        assert piece.offset == len(slot)
        slot += body

    def slot(self, opened: msg.Opened, batch: msg.BatchMessage) -> bytearray | None:
        """The slot of a batch, or None when pieces of it have yet to come."""
        slot = self._slots.get((batch.opening, batch.sequence), bytearray())
        assert len(slot) <= opened.slot_bytes
        return slot if len(slot) == opened.slot_bytes else None


class Client:
    """Says and hears messages by hand, and reads slots; asserts nothing by itself but types."""

    def __init__(self, wire: Wire) -> None:
        self.connection = wire.connect()
        self.transport = wire.transport
        self.welcome = msg.Welcome("", "", 0, "", "")
        self.opening = 0
        self.classes: list[str] = []
        self.opened: msg.Opened | None = None

    @property
    def session(self) -> int:
        return self.welcome.session

    def say(self, message: msg.Message) -> None:
        self.connection.send(codec.encode(message))

    def hear(self, kind: type[M]) -> M:
        frames = self.connection.receive()
        message = codec.decode_to_client(frames[0])
        assert isinstance(message, kind), message
        if isinstance(message, msg.Opened):
            self.opened = message
            self.classes = codec.decode_names(frames[1])
        return message

    def rest(self) -> list[msg.Message]:
        """Everything that came until now: what precedes the answer to a PING."""
        self.say(msg.Ping())
        heard: list[msg.Message] = []
        while not isinstance(message := self.hear(msg.Message), msg.Pong):
            heard.append(message)
        return heard

    def settle(self) -> list[msg.Message]:
        """Everything that comes by itself: wait until no producer works for this client."""
        heard: list[msg.Message] = []
        while True:
            self.say(msg.Status())
            while not isinstance(message := self.hear(msg.Message), msg.StatusReply):
                heard.append(message)
            streams = message.snapshot["streams"]
            own = [stream for stream in streams if self.session in stream["sessions"]]
            if all(s["slots"].keys() <= {"free", "ready", "sent"} for s in own):
                return heard

    def hello(self, nonce: str = "n") -> msg.Welcome:
        self.say(msg.Hello(nonce, transport=self.transport))
        self.welcome = self.hear(msg.Welcome)
        return self.welcome

    @property
    def way(self) -> Attach:
        """What this session's own attachment says, and where."""
        welcome = self.welcome
        return Attach(welcome.attach, welcome.session, welcome.token, welcome.bulk_port)

    def attach(self) -> None:
        self.connection.attach(self.way)

    def join(self) -> Client:
        self.hello()
        self.attach()
        return self

    def open(self, spec: msg.Spec | None = None, *, credit: int = 0, **place: Any) -> int:
        self.opening += 1
        spec = make_spec() if spec is None else spec
        self.say(msg.Open(self.session, self.opening, spec, credit=credit, **place))
        return self.opening

    def flow(self, credit: int, opening: int | None = None) -> None:
        self.say(msg.Flow(self.session, self.opening if opening is None else opening, credit))

    def release(self, batch: msg.BatchMessage) -> None:
        self.say(msg.Release(self.session, batch.slot, batch.generation))

    def read(self, batch: msg.BatchMessage) -> dict[str, tuple[Any, ...]]:
        """The ids, labels and valid flags of a batch, straight from its slot."""
        opened = self.opened
        assert opened is not None
        slot = self.connection.slot(opened, batch)
        return {
            spec.name: struct.unpack_from(
                f"<{batch.rows}{'q' if spec.dtype == 'int64' else '?'}", slot, spec.offset
            )
            for spec in opened.arrays
            if spec.name != "images"
        }

    def ids(self, batch: msg.BatchMessage) -> list[int]:
        return list(self.read(batch)["ids"])

    def status(self) -> dict[str, Any]:
        self.say(msg.Status())
        while not isinstance(message := self.hear(msg.Message), msg.StatusReply):
            pass
        return message.snapshot


# the fake


class FakeWire:
    """The broker in memory, with instant producers and a clock of its own."""

    def __init__(
        self,
        num_samples: int = NUM_SAMPLES,
        producers: int = 1,
        datasets: Mapping[str, DatasetFacts] | None = None,
        transport: Transport = "memfd",
        catalogue: Catalogue = BUILT_IN,
    ) -> None:
        self.transport = transport
        facts = DatasetFacts("0" * 32, "/photos", num_samples, (12, 12))
        self.num_samples = num_samples
        self.now = 100.0
        self.is_holding = False  # producers keep their leases unanswered
        self.leases: deque[tuple[int, msg.Lease]] = deque()
        self.told: list[tuple[int, msg.ToProducer]] = []
        self.logged: list[str] = []
        self.kept: list[ev.KeepQuarantine] = []
        self.started: list[int] = []
        self.killed: list[int] = []
        self.is_stopped = False
        self.refuses_memory = ""
        self.environment = {"opencv": "5", **catalogue.environment}
        self.bad: dict[int, str] = {}
        self.masks: dict[int, msg.Quarantine] = {}
        self._streams: dict[int, msg.StreamMessage] = {}
        self._arenas: dict[int, bytearray] = {}
        self._connections: dict[bytes, FakeConnection] = {}
        self._lifelines: dict[int, FakeConnection] = {}
        self._events: deque[ev.Event] = deque()
        self._is_running = False
        self.broker = Broker(
            *("fake", "/attach", datasets or {"photos": facts}, producers), catalogue=catalogue
        )
        self.deliver(ev.Tick())

    def connect(self) -> FakeConnection:
        peer = f"peer {len(self._connections)}".encode()
        self._connections[peer] = FakeConnection(self, peer)
        return self._connections[peer]

    def attach(self, connection: FakeConnection, attach: msg.AttachMessage) -> None:
        """Keep a connection that the broker takes, as the daemon does."""
        is_framed = self.transport == "frames"
        if self.broker.admits(attach.session, attach.token, is_framed=is_framed):
            connection.session = attach.session
            self._lifelines[attach.session] = connection
        self.deliver(ev.PeerAttached(attach.session, attach.token, is_framed))

    def deliver(self, event: ev.Event) -> None:
        """Hand an event over, and every event that follows from it, until nothing moves."""
        self._events.append(event)
        if self._is_running:
            return
        self._is_running = True
        try:
            while self._events:
                for action in self.broker.handle(self._events.popleft(), self.now):
                    self._act(action)
        finally:
            self._is_running = False

    def from_producer(self, producer: int, message: msg.Message) -> None:
        self.deliver(
            ev.FromLocalProducer(producer, codec.decode_from_producer(codec.encode(message)))
        )

    def turn_clock(self, seconds: float) -> None:
        self.now += seconds
        self.deliver(ev.Tick())

    def answer_all(self) -> None:
        """Let held producers answer."""
        while self.leases:
            producer, lease = self.leases.popleft()
            self.from_producer(producer, self.make_rows(lease))

    def lose_producer(
        self,
        number: int,
        how: str = "SIGKILL",
        kind: str = "outside",
        current_sample: tuple[int, int, int] | None = None,
    ) -> None:
        self.leases = deque(pair for pair in self.leases if pair[0] != number)
        self.deliver(ev.Reaped(number, how, kind, current_sample))

    def _act(self, action: ev.Action) -> None:
        match action:
            case ev.SendToClient(peer, message, classes):
                frames = [codec.encode(message)]
                if classes is not None:
                    frames.append(codec.encode_names(["cat", "dog"]))
                self._connections[peer].inbox.append(frames)
            case ev.SendPaths(peer, _, ids):
                paths = msg.PathsReply(tuple(f"{number}.jpg".encode() for number in ids))
                self._connections[peer].inbox.append([codec.encode(paths)])
            case ev.SendToProducer(producer, message):
                self._obey(producer, codec.decode_to_producer(codec.encode(message)))
            case ev.StartProducer(number):
                self.started.append(number)
                self._events.append(ev.FromLocalProducer(number, msg.Ready(1000, self.environment)))
            case ev.KillProducer(number):
                self.killed.append(number)
                self.leases = deque(pair for pair in self.leases if pair[0] != number)
                self._events.append(ev.Reaped(number, "SIGKILL"))
            case ev.Log(_, text):
                self.logged.append(text)
            case ev.Stop():
                self.is_stopped = True
            case _:
                self._act_on_memory(action)

    def _act_on_memory(self, action: ev.Action) -> None:
        match action:
            case ev.MakeArena(stream, size_bytes):
                self._make_arena(stream, size_bytes)
            case ev.GiveArena(stream, session):
                self._give_arena(stream, session)
            case ev.KeepQuarantine():
                self.kept.append(action)
            case ev.SendSlot():
                self._send_slot(action)
            case ev.DropArena(stream):
                self._arenas.pop(stream, None)
            case ev.EndSession(session):
                connection = self._lifelines.pop(session, None)
                if connection is not None:
                    connection.session = 0

    def _make_arena(self, stream: int, size_bytes: int) -> None:
        if self.refuses_memory:
            self._events.append(ev.ArenaFailed(stream, self.refuses_memory))
            return
        self._arenas[stream] = bytearray(size_bytes)
        self._events.append(ev.ArenaMade(stream))

    def _give_arena(self, stream: int, session: int) -> None:
        if self.transport == "memfd":
            here = codec.encode(msg.Arena(stream, len(self._arenas[stream])))
            self._lifelines[session].arenas.append((codec.decode_over_attach(here), stream))

    def _send_slot(self, action: ev.SendSlot) -> None:
        """Send what the slot holds now, in two pieces."""
        start, middle = action.slot * action.slot_bytes, action.slot_bytes // 2
        slot = bytes(self._arenas[action.stream][start : start + action.slot_bytes])
        for offset, body in ((0, slot[:middle]), (middle, slot[middle:])):
            piece = msg.Piece(action.session, action.opening, action.sequence, offset, len(body))
            self._lifelines[action.session].pieces.take(codec.encode(piece), body)

    def _obey(self, producer: int, message: msg.ToProducer) -> None:
        self.told.append((producer, message))
        if isinstance(message, msg.StreamMessage):
            self._streams[message.stream] = message
        elif isinstance(message, msg.Mask):
            self.masks[message.stream] = message.quarantine
        elif isinstance(message, msg.Drain):
            self._events.append(ev.Reaped(producer, "status 0"))
        elif isinstance(message, msg.Lease):
            if self.is_holding:
                self.leases.append((producer, message))
            else:
                done = codec.decode_from_producer(codec.encode(self.make_rows(message)))
                self._events.append(ev.FromLocalProducer(producer, done))

    def make_rows(self, lease: msg.Lease) -> msg.Done:
        """Write what a producer would: ids by position, labels, valid; no pixels."""
        use, arena = self._streams[lease.stream], self._arenas.get(lease.stream)
        bad: list[msg.BadRow] = []
        samples: list[int] = []
        masked = {sample: tuple(place) for sample, *place in self.masks.get(lease.stream, ())}
        if arena is not None:
            start = lease.slot * use.slot_bytes
            at = {spec.name: start + spec.offset for spec in use.arrays}
            first = lease.position + use.layout.rank * use.layout.batch_size
            for row in range(lease.first_row, lease.first_row + lease.rows):
                sample = first + row if first + row < self.num_samples else -1
                reason = self.bad.get(sample, "")
                if sample in masked and (lease.epoch, first + row) >= masked[sample]:
                    reason = "quarantined"
                if reason:
                    bad.append(msg.BadRow(sample, f"{sample}.png", reason))
                samples += [sample] * (sample >= 0)
                is_valid = sample >= 0 and not reason
                struct.pack_into("<q", arena, at["ids"] + 8 * row, sample)
                struct.pack_into("<q", arena, at["labels"] + 8 * row, -1 if is_valid else -100)
                struct.pack_into("<?", arena, at["valid"] + row, is_valid)
        digest = sum(DIGESTS[sample] for sample in samples) % 2**128
        return msg.Done(
            *(lease.lease, len(bad), tuple(bad)),
            *(digest.to_bytes(16, "little"), sum(samples).to_bytes(8, "little")),
        )


class FakeConnection:
    """A client's end of the fake."""

    def __init__(self, wire: FakeWire, peer: bytes) -> None:
        self._wire = wire
        self._peer = peer
        self.inbox: deque[list[bytes]] = deque()
        self.arenas: deque[tuple[msg.OverAttach, int]] = deque()
        self.pieces = Pieces()
        self.session = 0
        self._mapped: dict[int, bytearray] = {}

    def send(self, frame: bytes) -> None:
        try:
            message = codec.decode_from_client(frame)
        except codec.ProtocolError as error:
            self.inbox.append([codec.encode(msg.Error(error.code, str(error)))])
            return
        self._wire.deliver(ev.FromPeer(self._peer, message))

    def receive(self) -> list[bytes]:
        assert self.inbox, "nothing came"
        return self.inbox.popleft()

    def attach(self, way: Attach) -> None:
        attach = codec.decode_over_attach(codec.encode(msg.AttachMessage(way.session, way.token)))
        assert isinstance(attach, msg.AttachMessage)
        self._wire.attach(self, attach)

    def slot(self, opened: msg.Opened, batch: msg.BatchMessage) -> Slot:
        if self._wire.transport == "frames":
            framed = self.pieces.slot(opened, batch)
            assert framed is not None, "pieces are missing"
            return framed
        if opened.stream not in self._mapped:
            here, stream = self.arenas.popleft()
            assert here == msg.Arena(opened.stream, opened.slot_bytes * opened.num_slots)
            self._mapped[opened.stream] = self._wire._arenas[stream]
        start = batch.slot * opened.slot_bytes
        return memoryview(self._mapped[opened.stream])[start : start + opened.slot_bytes]

    def is_attached(self) -> bool:
        return self._wire._lifelines.get(self.session) is self

    def hang_up(self) -> None:
        if self._wire._lifelines.get(self.session) is self:
            del self._wire._lifelines[self.session]
            self._wire.deliver(ev.PeerGone(self.session))


# the real one


class RealWire:
    """A running daemon, over raw sockets."""

    def __init__(
        self, address: str, transport: Transport = "memfd", curve: ClientCurve | None = None
    ) -> None:
        self.address = parse_address(address)
        self.transport = transport
        self.curve = curve
        self._connections: list[RealConnection] = []

    def connect(self) -> RealConnection:
        kind = FramedConnection if self.transport == "frames" else MappedConnection
        self._connections.append(kind(self.address, self.curve))
        return self._connections[-1]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


class RealConnection:
    """A client's sockets, used by hand."""

    def __init__(self, address: Any, curve: ClientCurve | None = None) -> None:
        self._address = address
        self._curve = curve
        self.dealer = Dealer(address, curve)
        self._poller = Poller()
        self._poller.register(self.dealer, "dealer")

    def send(self, frame: bytes) -> None:
        self.dealer.send(frame)

    def receive(self) -> list[bytes]:
        frames = self.dealer.receive()
        if frames is None:
            assert self._poller.wait(TIMEOUT_S), "nothing came"
            frames = self.dealer.receive()
        assert frames is not None
        return frames

    def attach(self, way: Attach) -> None:
        raise NotImplementedError

    def slot(self, opened: msg.Opened, batch: msg.BatchMessage) -> Slot:
        raise NotImplementedError

    def hang_up(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.hang_up()
        self.dealer.close()


class MappedConnection(RealConnection):
    """Attached over the UNIX socket; slots are those of the daemon's arena."""

    def __init__(self, address: Any, curve: ClientCurve | None = None) -> None:
        super().__init__(address, curve)
        self._lifelines: list[Lifeline] = []
        self._arenas: dict[int, memoryview] = {}

    def attach(self, way: Attach) -> None:
        self._lifelines.append(Lifeline(way.path, way.session, way.token, TIMEOUT_S))

    def slot(self, opened: msg.Opened, batch: msg.BatchMessage) -> Slot:
        if opened.stream not in self._arenas:
            self._arenas[opened.stream] = self._map(opened)
        start = batch.slot * opened.slot_bytes
        return self._arenas[opened.stream][start : start + opened.slot_bytes]

    def _map(self, opened: msg.Opened) -> memoryview:
        fd, size_bytes = self._lifelines[0].receive_arena(opened.stream)
        try:
            assert size_bytes == opened.slot_bytes * opened.num_slots
            return memoryview(map_arena(fd, size_bytes, is_read_only=opened.is_shared))
        finally:
            os.close(fd)

    def wait_dropped(self) -> bool:
        """Wait until the daemon closed its end."""
        poller = Poller()
        poller.register(self._lifelines[-1].fileno(), "lifeline")
        return bool(poller.wait(TIMEOUT_S)) and not self._lifelines[-1].is_alive()

    def hang_up(self) -> None:
        for lifeline in self._lifelines:
            lifeline.close()
        self._arenas.clear()


class FramedConnection(RealConnection):
    """Attached over the bulk socket; slots are put together from what comes there."""

    def __init__(self, address: Any, curve: ClientCurve | None = None) -> None:
        super().__init__(address, curve)
        self._bulks: list[Dealer] = []
        self._pieces = Pieces()

    def attach(self, way: Attach) -> None:
        bulk = bulk_address(self._address, way.bulk_port)
        self._bulks.append(Dealer(bulk, self._curve))
        self._bulks[-1].send(codec.encode(msg.AttachMessage(way.session, way.token)))

    def slot(self, opened: msg.Opened, batch: msg.BatchMessage) -> Slot:
        while (slot := self._pieces.slot(opened, batch)) is None:
            header, body = self.receive_piece()
            self._pieces.take(header, body)
        return slot

    def receive_piece(self) -> tuple[bytes, bytes]:
        bulk = self._bulks[0]
        while (frames := bulk.receive()) is None:
            poller = Poller()
            poller.register(bulk, "bulk")
            assert poller.wait(TIMEOUT_S), "no piece came"
        header, body = frames
        return header, body

    def hang_up(self) -> None:
        for bulk in self._bulks:
            bulk.close()
        self._bulks.clear()


def with_token(way: Attach, token: str) -> Attach:
    """Return the same attachment with another token."""
    return msgspec.structs.replace(way, token=token)
