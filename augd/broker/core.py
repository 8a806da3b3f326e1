"""The broker: one pure state machine that decides everything the daemon does.

`handle(event, now)` takes what happened and returns what has to be done; the daemon's loop
(augd/daemon.py) only carries events in and actions out. The broker does no I/O, knows no
clock but the `now` that it is given, and touches no pixel.

Theory of operation. Nothing here is needed for correctness of the *bytes*: a batch is a pure
function of (content, layout, epoch, position), so every loss is mended by making it again.
What the broker guards is order, exactly-once delivery per opening, and that no memory is
written by one while it is read by another:

1. Credits are absolute numbers, looked at when a batch is begun and again when it is sent.
2. A slot is reused only after its reader released it, or is proven dead, and after every
   writer on it answered or was reaped.
3. Every message that names a session, an opening, a lease or a generation that is not the
   current one is stale: ignored and counted, never an error.
4. After each event `_settle` brings the world forward until nothing more can be done, so no
   event needs to know what it may have made possible.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from augd.broker import admission
from augd.broker import events as ev
from augd.broker.crew import Crew, LeaseRecord, Producer
from augd.broker.selection import is_whole, policy_of, settled
from augd.broker.snapshot import describe_producer, describe_stream, shorten
from augd.broker.states import PRODUCER, SESSION, step
from augd.broker.stream import Batch, Chunk, Stream
from augd.errors import AugdError, OptionError
from augd.plan.content import content_of
from augd.plan.recipe import expand, output_size, parse_recipe
from augd.wire import cut
from augd.wire import messages as msg
from augd.wire.rights import Rights
from augd.wire.slot import slot_layout

# A link holds about 160 unread STREAM messages: a producer that starts gets one per stream.
SESSIONS_MAX = 128
ERROR_TEXT_MAX = 8_000  # characters; far below what a header may have, whatever they encode to
ATTEMPTS_MAX = 3  # a chunk that ended this many producers ends its stream instead of a fourth
LACK_MIN = 0.001  # no stream is so sated that its next turn never comes
DRAIN_S = 5.0
ATTACH_S = 10.0  # from HELLO to ATTACH, which follow within a millisecond

INFO, WARNING, ERROR = 20, 30, 40


class DatasetFacts(Struct, frozen=True):
    """What the broker knows of a data set; its files are none of its business.

    `num_targets` is 0 unless samples have several labels; `has_splits` says that it records which
    split each sample is in.
    """

    digest: str
    root: str
    num_samples: int
    first_size_px: tuple[int, int] | None
    num_targets: int = 0
    has_splits: bool = False


@dataclass(slots=True)
class Session:
    """One client: a session per HELLO, a stream at most."""

    number: int
    peer: bytes
    token: str
    state: str = "new"
    stream: Stream | None = None
    dataset: str = ""
    is_announced: bool = False  # OPENED of the current opening was sent
    is_framed: bool = False  # bytes are sent over the bulk socket, which is its lifeline
    attach_by: float = math.inf
    waiting: msg.Open | None = None  # came before its ATTACH: two sockets keep no common order
    choosing: tuple[int, msg.Open] | None = None  # the stream to be, while its samples are chosen
    who: Rights | None = None  # None: it came where no key is needed

    @property
    def is_streaming(self) -> bool:
        """Whether it has a stream, or one in the making."""
        return self.stream is not None or self.choosing is not None

    @property
    def arena_bytes(self) -> int:
        """Memory of its stream; 0 without one."""
        return self.stream.slot_bytes * len(self.stream.slots) if self.stream is not None else 0


class Broker:
    """Events in, actions out. See the module's theory of operation."""

    def __init__(
        self,
        instance: str,
        attach: str,
        datasets: Mapping[str, DatasetFacts],
        num_producers: int,
        bulk_port: int = 0,
    ) -> None:
        """Start with no session and every producer due at the first event.

        Args:
            instance: random per daemon start; sessions' tokens are derived from it.
            attach: path of the UNIX socket that clients are told to attach to.
            datasets: by name, as the operator named them.
            num_producers: places to keep filled.
            bulk_port: TCP port of the bulk socket, if there is one.
        """
        self._bulk_port = bulk_port
        self._instance = instance
        self._attach = attach
        self._datasets = dict(datasets)
        self._crew = Crew(num_producers)
        self._sessions: dict[int, Session] = {}
        self._streams: dict[int, Stream] = {}
        self._environment: dict[str, str] | None = None
        self._unhealthy = ""
        self._last_number = 0
        self._turn = 0.0  # virtual time of the leases: see _next_stream
        self._now = 0.0
        self._drain_ends_at: float | None = None
        self._is_stopped = False
        self._stale: Counter[str] = Counter()
        self._out: list[ev.Action] = []

    def handle(self, event: ev.Event, now: float) -> list[ev.Action]:
        """Take one event at time `now` (seconds, monotonic) and return what is to be done."""
        self._now = now
        match event:
            case ev.FromPeer(peer, message, who):
                self._from_peer(peer, message, who)
            case ev.RightsChanged(name, text):
                self._rights_changed(name, text)
            case ev.FromCrew(number, message):
                self._from_crew(number, message)
            case ev.PeerAttached(number, token, is_framed):
                self._attached(number, token, is_framed)
            case ev.PeerGone(number):
                self._close(number)
            case ev.Reaped(number, how):
                self._reaped(number, how)
            case ev.Selected(number, chosen):
                self._selected(number, chosen)
            case ev.SelectFailed(number, code, text):
                self._select_failed(number, code, text)
            case ev.ArenaMade(number):
                self._arena_made(number)
            case ev.ArenaFailed(number, reason):
                self._arena_failed(number, reason)
            case ev.DrainAsked(why):
                self._drain(why)
            case ev.Tick():
                pass
        self._settle()
        out, self._out = self._out, []
        return out

    def next_deadline(self) -> float | None:
        """When `handle` wants a Tick at the latest; None when nothing is due by itself."""
        moments = [self._crew.next_deadline(), self._drain_ends_at]
        moments += [s.attach_by for s in self._sessions.values() if s.attach_by < math.inf]
        return min((moment for moment in moments if moment is not None), default=None)

    # clients

    def _from_peer(self, peer: bytes, message: msg.FromClient, who: Rights | None) -> None:
        match message:
            case msg.Hello():
                self._hello(peer, message, who)
            case msg.AskStatus():
                seen = admission.seen_by(who, self.snapshot(), self._sessions.values())
                self._send(peer, msg.Status(shorten(seen)))
            case msg.Ping():
                self._send(peer, msg.Pong())
            case msg.Open() | msg.Flow() | msg.Release() | msg.Bye():
                session = self._sessions.get(message.session)
                is_own = session is not None and admission.is_same(session.who, who)
                if session is None or session.peer != peer or not is_own:
                    self._unknown_session(peer, message)
                else:
                    self._in_session(session, message)

    def _unknown_session(
        self, peer: bytes, message: msg.Open | msg.Flow | msg.Release | msg.Bye
    ) -> None:
        if isinstance(message, msg.Open):
            text = f"OPEN names session {message.session}, which is not open here; say HELLO first"
            self._send(peer, msg.Error("PROTOCOL_STATE", text, message.session, message.opening))
        else:
            self._stale["session"] += 1

    def _in_session(
        self, session: Session, message: msg.Open | msg.Flow | msg.Release | msg.Bye
    ) -> None:
        stream = session.stream
        match message:
            case msg.Bye():
                self._close(session.number)
            case msg.Open():
                self._open(session, message)
            case msg.Flow(_, opening, credit):
                if stream is None or not stream.grant(opening, credit):
                    self._stale["opening"] += 1
            case msg.Release(_, slot, generation):
                if stream is None or not stream.release(slot, generation):
                    self._stale["generation"] += 1

    def _rights_changed(self, name: str, text: str) -> None:
        """End the sessions that began under other rights."""
        for session in list(self._sessions.values()):
            if session.who is not None and session.who.name == name:
                self._send_error(session, 0, "FORBIDDEN", text)
                self._close(session.number)

    def _hello(self, peer: bytes, hello: msg.Hello, who: Rights | None) -> None:
        if self._drain_ends_at is not None:
            self._send(peer, msg.Error("DRAINING", "the daemon is draining; start it again"))
            return
        if len(self._sessions) >= SESSIONS_MAX:
            text = f"{len(self._sessions)} sessions are open, which is the limit; close some"
            self._send(peer, msg.Error("OVER_LIMIT", text))
            return
        try:
            admission.check_session(who, self._sessions.values())
        except AugdError as error:
            self._send(peer, msg.Error(error.code, str(error)))
            return
        number = self._number()
        token = hashlib.blake2b(
            f"session {number}".encode(), key=self._instance.encode()[:64], digest_size=16
        ).hexdigest()
        attach_by = self._now + ATTACH_S
        is_framed = hello.transport == "frames"
        session = Session(number, peer, token, attach_by=attach_by, is_framed=is_framed, who=who)
        self._sessions[number] = session
        welcome = msg.Welcome(
            hello.nonce, self._instance, number, self._attach, token, self._bulk_port
        )
        self._send(peer, welcome)

    def admits(self, number: int, token: str, *, is_framed: bool) -> bool:
        """Say whether this attachment is the session's: its client's, the first, as it asked for.

        The loop keeps no connection that isn't: whoever only names a session neither takes its
        bytes nor ends it by leaving.
        """
        session = self._sessions.get(number)
        return (
            session is not None
            and session.state == "new"
            and session.token == token
            and session.is_framed == is_framed
        )

    def _attached(self, number: int, token: str, is_framed: bool) -> None:
        if not self.admits(number, token, is_framed=is_framed):
            self._stale["attach"] += 1
            return
        session = self._sessions[number]
        session.state = step(SESSION, session.state, "attach")
        session.attach_by = math.inf
        if session.waiting is not None:
            self._open(session, session.waiting)
            session.waiting = None

    def _open(self, session: Session, request: msg.Open) -> None:
        if session.state == "new":
            session.waiting = request
            return
        if self._unhealthy:
            self._refuse(session, request, "PRODUCERS_UNHEALTHY", self._unhealthy)
            return
        try:
            if session.stream is None:
                self._new_stream(session, request)
            elif session.stream.spec != request.spec:
                raise OptionError("a stream keeps its spec; connect again for another one")
        except AugdError as error:
            self._refuse(session, request, error.code, str(error))
            return
        if session.stream is not None:
            self._start(session, session.stream, request)

    def _start(self, session: Session, stream: Stream, request: msg.Open) -> None:
        session.state = step(SESSION, session.state, "open")
        session.is_announced = False
        stream.reopen(
            request.opening, request.epoch, request.position, request.credit, request.held
        )
        self._revoke(stream)

    def _refuse(self, session: Session, request: msg.Open, code: str, text: str) -> None:
        self._send_error(session, request.opening, code, text)

    def _send_error(self, session: Session, opening: int, code: str, text: str) -> None:
        error = msg.Error(code, text[:ERROR_TEXT_MAX], session.number, opening)
        self._send(session.peer, error)

    def _new_stream(self, session: Session, request: msg.Open) -> None:
        """Make the stream, or have its samples chosen first."""
        spec = request.spec
        name = admission.find_dataset(spec.dataset, self._datasets, session.who)
        facts = self._datasets[name]
        output_size(parse_recipe(spec.recipe), facts.first_size_px)
        layout = spec.layout
        if layout.rank >= layout.world:
            raise OptionError(
                f"rank: expected 0..{layout.world - 1} for world={layout.world}, got {layout.rank}"
            )
        if session.choosing is not None:
            number, earlier = session.choosing
            if earlier.spec != spec:
                raise OptionError("a stream keeps its spec; connect again for another one")
            session.choosing = number, request
            return
        admission.check_stream(session.who, self._sessions.values())
        if is_whole(spec.selection):
            self._make_stream(session, request, self._number(), None)
        else:
            number = self._number()
            session.choosing = number, request
            selection = settled(spec.selection, has_splits=facts.has_splits)
            self._out.append(ev.SelectSamples(number, name, selection))

    def _make_stream(
        self, session: Session, request: msg.Open, number: int, chosen: msg.Chosen | None
    ) -> Stream:
        spec, layout = request.spec, request.spec.layout
        name = admission.find_dataset(spec.dataset, self._datasets, session.who)
        facts = self._datasets[name]
        num_samples = facts.num_samples if chosen is None else chosen.num_samples
        if cut.batches_left(layout, num_samples) == 0:
            raise OptionError(
                f"drop_last leaves no batch: {num_samples} samples, "
                f"{cut.global_batch(layout)} per global batch; use a smaller batch_size"
            )
        height, width = output_size(parse_recipe(spec.recipe), facts.first_size_px)
        num_targets = facts.num_targets
        if num_targets and chosen is not None and chosen.num_picked:
            num_targets = chosen.num_picked
        arrays, slot_bytes = slot_layout(layout.batch_size, height, width, num_targets)
        size_bytes = slot_bytes * (spec.prefetch + 1)
        admission.check_memory(session.who, self._sessions.values(), size_bytes)
        stream = Stream(number, session.number, spec, num_samples, arrays, slot_bytes, chosen)
        session.stream, session.dataset = stream, name
        self._streams[stream.number] = stream
        self._out.append(ev.MakeArena(stream.number, session.number, size_bytes))
        return stream

    def _selected(self, number: int, chosen: msg.Chosen) -> None:
        session, request = self._take_choosing(number)
        if session is None or request is None:
            self._out.append(ev.DropArena(number))
            return
        try:
            stream = self._make_stream(session, request, number, chosen)
        except AugdError as error:
            self._out.append(ev.DropArena(number))
            self._refuse(session, request, error.code, str(error))
            return
        self._start(session, stream, request)

    def _select_failed(self, number: int, code: str, text: str) -> None:
        session, request = self._take_choosing(number)
        if session is not None and request is not None:
            self._refuse(session, request, code, text)

    def _take_choosing(self, number: int) -> tuple[Session | None, msg.Open | None]:
        """Find whose samples were chosen, and what was asked last; nobody's if it has gone."""
        for session in self._sessions.values():
            if session.choosing is not None and session.choosing[0] == number:
                request, session.choosing = session.choosing[1], None
                return session, request
        return None, None

    def _arena_made(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            self._out.append(ev.DropArena(number))
            return
        stream.has_arena = True
        for producer in self._crew.ready():
            self._tell_stream(producer, stream)

    def _arena_failed(self, number: int, reason: str) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        spec = stream.spec
        text = (
            f"{len(stream.slots)} slots of {stream.slot_bytes / 1e6:.1f} MB for batch_size="
            f"{spec.layout.batch_size} cannot be had: {reason}. Use a smaller batch_size "
            f"or prefetch (now {spec.prefetch})."
        )
        session = self._sessions[stream.session]
        self._send_error(session, stream.opening, "OVER_LIMIT", text)
        self._log(WARNING, f"session {session.number}: {text}")
        self._close(session.number)

    def _announce(self, session: Session) -> None:
        """Send OPENED once the arena stands and a producer said what decides its pixels."""
        stream = session.stream
        if session.is_announced or stream is None or not stream.has_arena:
            return
        if self._environment is None or session.state != "open":
            return
        if stream.is_failed:
            return
        session.is_announced = True
        facts = self._datasets[session.dataset]
        spec = stream.spec
        content = content_of(
            dataset_digest=facts.digest,
            recipe=expand(parse_recipe(spec.recipe)),
            seed=spec.seed,
            shuffle=spec.shuffle,
            policy=policy_of(spec, has_splits=facts.has_splits),
            environment=self._environment,
        )
        opened = msg.Opened(
            session=session.number,
            opening=stream.opening,
            stream=stream.number,
            content=content.digest,
            content_fields=dict(content.fields),
            dataset=session.dataset,
            num_positions=stream.num_samples,
            arrays=stream.arrays,
            slot_bytes=stream.slot_bytes,
            num_slots=len(stream.slots),
        )
        self._send(session.peer, opened, classes=spec.selection.classes or session.dataset)

    def _close(self, number: int) -> None:
        session = self._sessions.pop(number, None)
        if session is None:
            return
        session.state = step(SESSION, session.state, "close")
        self._out.append(ev.EndSession(number))
        stream = session.stream
        if stream is None:
            return
        del self._streams[stream.number]
        stream.reopen(stream.opening, 0, 0, 0, ())
        self._revoke(stream)
        for producer in self._crew.ready():
            self._tell(producer, msg.DropStream(stream.number))
        self._out.append(ev.DropArena(stream.number))

    def _fail_stream(self, stream: Stream, code: str, text: str) -> None:
        """End what the stream was making and tell its client why; it may open again."""
        session = self._sessions[stream.session]
        stream.fail()
        self._revoke(stream)
        self._send_error(session, stream.opening, code, text)
        self._log(ERROR, f"session {session.number}: {text}")

    # producers

    def _from_crew(self, number: int, message: msg.FromProducer) -> None:
        producer = self._crew.members.get(number)
        if producer is None:
            self._stale["producer"] += 1
            return
        producer.heard_at = self._now
        match message:
            case msg.Ready():
                self._ready(producer, message)
            case msg.Done():
                self._done(producer, message)
            case msg.Dropped(lease):
                record = producer.leases.pop(lease, None)
                if record is not None:
                    record.stream.lose_chunk(record.chunk, is_suspect=False)
            case msg.Fail(lease, text):
                self._fail(producer, lease, text)
            case msg.LastWords(text):
                producer.last_words = text
                producer.is_own_fault = True
            case msg.Alive():
                pass

    def _ready(self, producer: Producer, message: msg.Ready) -> None:
        if producer.state != "starting":
            self._stale["ready"] += 1  # it was killed for being late, and spoke before it died
            return
        if self._environment is None:
            self._environment = message.environment
        elif self._environment != message.environment:
            producer.last_words = (
                f"its libraries differ from the other producers': {message.environment}, "
                f"expected {self._environment}; restart the daemon after an upgrade"
            )
            producer.state = step(PRODUCER, producer.state, "kill")
            self._out.append(ev.KillProducer(producer.number))
            return
        producer.state = step(PRODUCER, producer.state, "ready")
        producer.pid = message.pid
        self._unhealthy = ""
        for name, facts in self._datasets.items():
            self._tell(producer, msg.UseDataset(name, facts.root, facts.digest))
        for stream in self._streams.values():
            if stream.has_arena:
                self._tell_stream(producer, stream)

    def _tell_stream(self, producer: Producer, stream: Stream) -> None:
        spec = stream.spec
        use = msg.UseStream(
            stream=stream.number,
            dataset=self._sessions[stream.session].dataset,
            recipe=spec.recipe,
            layout=spec.layout,
            seed=spec.seed,
            shuffle=spec.shuffle,
            arrays=stream.arrays,
            slot_bytes=stream.slot_bytes,
            num_slots=len(stream.slots),
            chosen=stream.chosen,
        )
        self._tell(producer, use)

    def _done(self, producer: Producer, done: msg.Done) -> None:
        record = producer.leases.pop(done.lease, None)
        producer.busy_ns += done.busy_ns
        producer.plan_ns += done.plan_ns
        producer.idle_ns += done.idle_ns
        if record is None:
            self._stale["lease"] += 1
            return
        producer.chunks_done += 1
        producer.rows_done += record.chunk.rows
        self._crew.deaths_in_row = 0
        stream, batch = record.stream, record.chunk.batch
        stream.finish_chunk(record.chunk, done.num_bad, done.bad)
        if done.num_bad and not batch.is_abandoned:
            self._judge_bad(stream, batch, done)

    def _judge_bad(self, stream: Stream, batch: Batch, done: msg.Done) -> None:
        first = done.bad[0] if done.bad else msg.BadRow(-1, "?", "unknown")
        name = f"sample {first.sample} ({first.path}): {first.reason}"
        self._log(WARNING, f"bad sample, masked: {name}" if stream.spec.bad == "mask" else name)
        if stream.spec.bad == "fail":
            text = f'bad {name}. Mend or remove the file, or connect with bad="mask".'
            self._fail_stream(stream, "SAMPLE_FAILED", text)
            return
        samples = cut.samples_of_rank(stream.spec.layout, stream.num_samples, 0)
        # Rounded up, so that one bad photo of a small folder is not yet an error.
        allowed = math.ceil(stream.spec.max_bad_fraction * samples)
        num_bad = stream.num_bad_of(batch.epoch)
        if num_bad > allowed:
            text = (
                f"{num_bad} bad samples in epoch {batch.epoch}, more than the {allowed} that "
                f"max_bad_fraction={stream.spec.max_bad_fraction} allows; the last: {name}"
            )
            self._fail_stream(stream, "SAMPLE_FAILED", text)

    def _fail(self, producer: Producer, lease: int, text: str) -> None:
        record = producer.leases.pop(lease, None)
        if record is None:
            self._stale["lease"] += 1
            return
        record.stream.lose_chunk(record.chunk, is_suspect=True)
        if not record.chunk.batch.is_abandoned:
            self._fail_stream(record.stream, "INTERNAL", f"a producer failed: {text}")

    def _reaped(self, number: int, how: str) -> None:
        if number not in self._crew.members:
            self._stale["producer"] += 1
            return
        is_draining = self._drain_ends_at is not None
        dead = self._crew.bury(number, how, self._now, is_draining=is_draining)
        # Last lease first, so that each goes back in front and the order is kept.
        for place, record in reversed(list(enumerate(dead.leases.values()))):
            is_suspect = place == 0 and not dead.is_own_fault
            record.stream.lose_chunk(record.chunk, is_suspect=is_suspect)
        if is_draining:
            return
        self._log(WARNING, f"producer {number} (pid {dead.pid}) ended: {self._crew.last_death}")
        for record in dead.leases.values():
            if record.chunk.attempt >= ATTEMPTS_MAX and not record.chunk.batch.is_abandoned:
                self._fail_stream(record.stream, "SAMPLE_FAILED", self._blame(record.chunk))
                self._crew.deaths_in_row = 0  # the sample was at fault, not the producers
        if self._crew.is_unhealthy():
            self._give_up()

    def _blame(self, chunk: Chunk) -> str:
        batch = chunk.batch
        return (
            f"rows {chunk.first_row}..{chunk.first_row + chunk.rows - 1} of batch {batch.number} "
            f"of epoch {batch.epoch} ended {chunk.attempt} producers one after another (the last: "
            f"{self._crew.last_death}); one of these files kills its decoder"
        )

    def _give_up(self) -> None:
        """Tell every client that producers keep dying; they are tried again with pauses."""
        self._unhealthy = (
            f"{self._crew.deaths_in_row} producers died in a row without finishing a chunk; the "
            f"last: {self._crew.last_death[:ERROR_TEXT_MAX]}. See the daemon's output, then try "
            "again."
        )
        for stream in list(self._streams.values()):
            if not stream.is_failed:
                self._fail_stream(stream, "PRODUCERS_UNHEALTHY", self._unhealthy)

    def _revoke(self, stream: Stream) -> None:
        """Ask producers to skip leases of this stream that nobody waits for any more."""
        for producer in self._crew.ready():
            stale = tuple(
                lease
                for lease, record in producer.leases.items()
                if record.stream is stream and record.chunk.batch.is_abandoned
            )
            if stale:
                self._tell(producer, msg.Revoke(stale))

    # bringing the world forward

    def _settle(self) -> None:
        for producer in self._crew.hanging(self._now):
            producer.last_words = f"silent for too long in state {producer.state!r}, killed"
            self._out.append(ev.KillProducer(producer.number))
        if self._drain_ends_at is not None:
            self._settle_drain(self._drain_ends_at)
            return
        for session in [s for s in self._sessions.values() if s.attach_by <= self._now]:
            text = f"the session was not attached within {ATTACH_S:g} s of its HELLO"
            self._send(session.peer, msg.Error("PROTOCOL_STATE", text, session.number))
            self._close(session.number)
        for number in self._crew.due(self._now):
            self._out.append(ev.StartProducer(number))
        for session in self._sessions.values():
            self._announce(session)
        for stream in self._streams.values():
            self._deliver(stream)
            stream.plan_ahead()
        self._lease_out()

    def _deliver(self, stream: Stream) -> None:
        session = self._sessions[stream.session]
        if not session.is_announced:
            return
        for batch in stream.sendable():
            ready = msg.BatchReady(
                session=session.number,
                opening=stream.opening,
                sequence=batch.sequence,
                epoch=batch.epoch,
                number=batch.number,
                position=batch.position,
                rows=batch.rows,
                slot=batch.slot.index,
                generation=batch.slot.generation,
                num_bad=batch.num_bad,
            )
            self._send(session.peer, ready)
            if session.is_framed:
                self._out.append(_send_slot(stream, batch))
            if stream.is_last(batch):
                self._end_epoch(session, stream, batch.epoch)

    def _end_epoch(self, session: Session, stream: Stream, epoch: int) -> None:
        count = stream.take_count()
        end = msg.EpochEnd(
            session.number, stream.opening, epoch, count.batches, count.samples, count.num_bad
        )
        self._send(session.peer, end)

    def _lease_out(self) -> None:
        """Fill the hungry producers, one chunk each in turns."""
        pending = sum(stream.num_pending() for stream in self._streams.values())
        if not pending:
            return
        depth = self._crew.depth(pending)
        hungry = self._crew.hungry(depth)
        while hungry:
            for producer in hungry:
                stream = self._next_stream()
                if stream is None:
                    return
                chunk = stream.next_chunk()
                assert chunk is not None
                self._lease(producer, stream, chunk)
            hungry = [producer for producer in hungry if len(producer.leases) < depth]

    def _next_stream(self) -> Stream | None:
        """Choose by start-time fair queueing, so that rows go out in proportion to `lack`.

        Each lease moves its stream on by rows / lack in a virtual time; the one that stands
        furthest back is next. A stream that waited for credit does not save its turns up.
        Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996.
        """
        waiting = [stream for stream in self._streams.values() if stream.has_pending()]
        return min(waiting, key=lambda stream: max(stream.turn, self._turn), default=None)

    def _lease(self, producer: Producer, stream: Stream, chunk: Chunk) -> None:
        number = self._number()
        if not producer.leases:
            producer.heard_at = self._now
        self._turn = max(stream.turn, self._turn)
        stream.turn = self._turn + chunk.rows / max(stream.lack(), LACK_MIN)
        producer.leases[number] = LeaseRecord(stream, chunk)
        batch = chunk.batch
        lease = msg.Lease(
            lease=number,
            stream=stream.number,
            epoch=batch.epoch,
            position=batch.position,
            first_row=chunk.first_row,
            rows=chunk.rows,
            slot=batch.slot.index,
            attempt=chunk.attempt,
        )
        self._tell(producer, lease)

    # the end

    def _drain(self, why: str) -> None:
        if self._drain_ends_at is not None:
            return
        self._drain_ends_at = self._now + DRAIN_S
        self._log(INFO, f"draining: {why}")
        text = f"the daemon ended ({why}); start it again and connect"
        for session in self._sessions.values():
            opening = session.stream.opening if session.stream is not None else 0
            self._send_error(session, opening, "DRAINING", text)
        for number in list(self._sessions):
            self._close(number)
        for producer in self._crew.ready():
            self._tell(producer, msg.Drain())
        for producer in self._crew.members.values():
            if producer.state == "starting":
                self._out.append(ev.KillProducer(producer.number))

    def _settle_drain(self, ends_at: float) -> None:
        if self._is_stopped:
            return
        if not self._crew.members:
            self._is_stopped = True
            self._out.append(ev.Stop())
        elif self._now >= ends_at:
            # Asked once more every second, until the kernel hands the last one over.
            self._drain_ends_at = self._now + 1.0
            for number in self._crew.members:
                self._out.append(ev.KillProducer(number))

    def snapshot(self) -> dict[str, Any]:
        """Everything that a person or a benchmark wants to know, as plain data."""
        return {
            "instance": self._instance,
            "is_draining": self._drain_ends_at is not None,
            "is_cut": False,
            "unhealthy": self._unhealthy,
            "restarts": self._crew.restarts,
            "stale": dict(self._stale),
            "environment": self._environment or {},
            "datasets": {
                name: {"num_samples": facts.num_samples, "digest": facts.digest, "root": facts.root}
                for name, facts in self._datasets.items()
            },
            "producers": [describe_producer(p) for p in self._crew.members.values()],
            "streams": [
                describe_stream(stream, self._sessions[stream.session].dataset)
                for stream in self._streams.values()
            ],
        }

    def _number(self) -> int:
        """Sessions, streams and leases share one counter, so none is ever mistaken for another."""
        self._last_number += 1
        return self._last_number

    def _send(
        self, peer: bytes, message: msg.ToClient, classes: str | tuple[str, ...] | None = None
    ) -> None:
        self._out.append(ev.Send(peer, message, classes))

    def _tell(self, producer: Producer, message: msg.ToProducer) -> None:
        self._out.append(ev.Tell(producer.number, message))

    def _log(self, level: int, text: str) -> None:
        self._out.append(ev.Log(level, text))


def _send_slot(stream: Stream, batch: Batch) -> ev.SendSlot:
    return ev.SendSlot(
        session=stream.session,
        opening=stream.opening,
        sequence=batch.sequence,
        stream=stream.number,
        slot=batch.slot.index,
        slot_bytes=stream.slot_bytes,
    )


__all__ = ["Broker", "DatasetFacts"]
