"""The broker's half that talks to clients: sessions, what they ask for, and what they are sent.

Theory of operation. A session is attached, opens one stream, and is sent its batches in order,
as far as its credit reaches. Most streams have one session; clients that ask for the same may
share one (augd/server/daemon/broker/stream.py), and are then sent each batch once to everybody. A
session on a
shared stream never seeks: its client opens another one.

Every message that names a session, an opening or a generation that is not the current one is
stale: ignored and counted, never an error. Pure: no I/O, no clock.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from augd.errors import AugdError, OptionError, SpecMismatch, counted
from augd.plan.content import content_of
from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.plan.recipe.recipe import expand, output_size, parse_recipe
from augd.protocol import epoch_layout
from augd.protocol import messages as msg
from augd.protocol.digest_sums import write_digest, write_ids_digest
from augd.protocol.limits import EPOCH_LAST, QUARANTINE_MAX
from augd.protocol.permissions import Rights
from augd.protocol.quarantine import as_entries, united
from augd.protocol.slot_layout import slot_layout
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker import permissions
from augd.server.daemon.broker.dataset_facts import DatasetFacts, class_notes, relevant, split_note
from augd.server.daemon.broker.outbox import ERROR, ERROR_TEXT_MAX, WARNING, Outbox
from augd.server.daemon.broker.scheduler import Scheduler
from augd.server.daemon.broker.selection import is_whole, policy_of, settled
from augd.server.daemon.broker.states import SESSION, step
from augd.server.daemon.broker.stream import BatchState, ClientCursor, StreamState

SESSIONS_MAX = 128
ATTACH_S = 10.0  # from HELLO to ATTACH, which follow within a millisecond


@dataclass(slots=True, eq=False)
class Session:
    """One client: a session per HELLO, a stream at most."""

    number: int
    peer: bytes
    token: str
    state: str = "new"
    opening: int = 0
    stream: StreamState | None = None
    is_announced: bool = False  # OPENED of the current opening was sent
    is_framed: bool = False  # bytes are sent over the bulk socket, which is its lifeline
    attach_by: float = math.inf
    # OPEN came before its ATTACH, two sockets keep no common order; or its samples are chosen.
    waiting: msg.Open | None = None
    choosing: int = 0  # the stream to be, while its samples are chosen
    who: Rights | None = None  # None: it came where no key is needed
    is_told: bool = False  # what a person should know of its data set

    @property
    def is_streaming(self) -> bool:
        """Whether it has a stream, or one in the making, that it reads on."""
        return self.state != "leaving" and (self.stream is not None or self.choosing > 0)

    @property
    def arena(self) -> tuple[int, int]:
        """Its stream, which others may share, and the bytes of the arena; zeros without one."""
        return (0, 0) if self.stream is None else (self.stream.number, self.stream.arena_bytes)


class SessionTable:
    """All sessions."""

    def __init__(
        self,
        outbox: Outbox,
        scheduler: Scheduler,
        datasets: Mapping[str, DatasetFacts],
        instance: str,
        attach: str,
        bulk_port: int,
        secret: str,
        catalogue: Catalogue = BUILT_IN,
    ) -> None:
        """Start with no session."""
        self._outbox = outbox
        self._scheduler = scheduler
        self._datasets = datasets
        self._instance = instance
        self._attach = attach
        self._bulk_port = bulk_port
        self._secret = secret.encode()
        self._catalogue = catalogue
        self.sessions: dict[int, Session] = {}
        self._class_notes: dict[str, dict[str, str]] = {}  # by data set, once somebody asked

    # sessions

    def hello(self, peer: bytes, hello: msg.Hello, who: Rights | None) -> None:
        """Open a session."""
        if len(self.sessions) >= SESSIONS_MAX:
            text = f"{len(self.sessions)} sessions are open, which is the limit; close some"
            self._outbox.send(peer, msg.Error("OVER_LIMIT", text))
            return
        try:
            permissions.check_session(who, self.sessions.values())
        except AugdError as error:
            self._outbox.send(peer, msg.Error(error.code, str(error)))
            return
        number = self._outbox.number()
        token = hashlib.blake2b(
            f"session {number}".encode(), key=self._secret, digest_size=16
        ).hexdigest()
        attach_by = self._outbox.now + ATTACH_S
        is_framed = hello.transport == "frames"
        session = Session(number, peer, token, attach_by=attach_by, is_framed=is_framed, who=who)
        self.sessions[number] = session
        splits = self._splits_of(hello.dataset, who)
        where = self._attach, token, self._bulk_port
        self._outbox.send(peer, msg.Welcome(hello.nonce, self._instance, number, *where, splits))

    def _splits_of(self, dataset: str | None, who: Rights | None) -> dict[str, int]:
        """Count the splits of a data set; OPEN says what is wrong with its name."""
        try:
            return dict(
                self._datasets[permissions.find_dataset(dataset, self._datasets, who)].splits
            )
        except AugdError:
            return {}

    def stream_of(self, number: int) -> StreamState | None:
        """Return the stream of a session; None when it has none."""
        session = self.sessions.get(number)
        return None if session is None else session.stream

    def ask_paths(self, peer: bytes, asked: msg.Paths, who: Rights | None) -> None:
        """Have somebody told where samples lie that he may read."""
        try:
            name = permissions.find_dataset(asked.dataset, self._datasets, who)
            facts = self._datasets[name]
            if facts.digest != asked.digest:
                raise SpecMismatch(
                    f"dataset {name}: expected the digest {facts.digest}, got {asked.digest}: the "
                    f"daemon serves another one by that name now. Connect again."
                )
            if (highest := max(asked.ids)) >= facts.num_samples:
                raise OptionError(
                    f"ids: expected 0..{facts.num_samples - 1} of dataset {name}, got {highest}"
                )
        except AugdError as error:
            self._outbox.send(peer, msg.Error(error.code, str(error)[:ERROR_TEXT_MAX]))
            return
        self._outbox.add(ev.SendPaths(peer, name, asked.ids))

    def rights_changed(self, name: str, text: str) -> None:
        """End the sessions that a client began under other rights."""
        for session in list(self.sessions.values()):
            if session.who is not None and session.who.name == name:
                self._outbox.send(session.peer, msg.Error("FORBIDDEN", text, session.number))
                self.close(session.number)

    def heard(
        self,
        peer: bytes,
        message: msg.Open | msg.Flow | msg.Release | msg.Bye,
        who: Rights | None,
    ) -> None:
        """Take a message that names a session."""
        session = self.sessions.get(message.session)
        if session is None or session.peer != peer or not permissions.is_same(session.who, who):
            self._unknown(peer, message)
            return
        stream = session.stream
        match message:
            case msg.Bye():
                self._bye(session, message)
            case msg.Open():
                self._open(session, message)
            case msg.Flow(number, opening, credit):
                if stream is None or not stream.grant(number, opening, credit):
                    self._outbox.stale["opening"] += 1
                else:
                    stream.note_times(message)
            case msg.Release(number, slot, generation):
                if stream is None or not stream.release(number, slot, generation):
                    self._outbox.stale["generation"] += 1
                elif session.state == "leaving" and not stream.holds(number):
                    self.close(number)

    def _unknown(self, peer: bytes, message: msg.Open | msg.Flow | msg.Release | msg.Bye) -> None:
        if isinstance(message, msg.Open):
            text = f"OPEN names session {message.session}, which is not open here; say HELLO first"
            error = msg.Error("PROTOCOL_STATE", text, message.session, message.opening)
            self._outbox.send(peer, error)
        else:
            self._outbox.stale["session"] += 1

    def admits(self, number: int, token: str, *, is_framed: bool) -> bool:
        """Say whether this attachment is the session's: its client's, the first, as it asked for.

        The loop keeps no connection that isn't: whoever only names a session neither takes its
        bytes nor ends it by leaving.
        """
        session = self.sessions.get(number)
        return (
            session is not None
            and session.state == "new"
            and session.token == token
            and session.is_framed == is_framed
        )

    def attached(self, number: int, token: str, *, is_framed: bool) -> None:
        """Take a lifeline."""
        if not self.admits(number, token, is_framed=is_framed):
            self._outbox.stale["attach"] += 1
            return
        session = self.sessions[number]
        session.state = step(SESSION, session.state, "attach")
        session.attach_by = math.inf
        request, session.waiting = session.waiting, None
        if request is not None:
            self._open_attached(session, request)

    def _bye(self, session: Session, bye: msg.Bye) -> None:
        """Let a client go that reads on no more; what it holds of a shared stream stays its own."""
        stream = session.stream
        if stream is not None and stream.share is not None:
            stream.leave(session.number, bye.held)
            if stream.holds(session.number):
                if session.state == "open":
                    session.state = step(SESSION, session.state, "leave")
                return
        self.close(session.number)

    def unreachable(self, number: int) -> None:
        """Let a client go that hears nothing more: he will come back as another session.

        Of a shared arena that he maps nothing is taken from him: stopped by a signal, say, he reads
        on in what he holds. His lifeline tells when he doesn't.
        """
        session = self.sessions.get(number)
        if session is None:
            return
        is_reading = session.stream is not None and not session.is_framed
        held = session.stream.holds(number) if session.stream and is_reading else []
        self._bye(session, msg.Bye(number, tuple(held)))

    def close(self, number: int) -> None:
        """End a session; its stream ends with the last one."""
        session = self.sessions.pop(number, None)
        if session is None:
            return
        session.state = step(SESSION, session.state, "close")
        self._outbox.add(ev.EndSession(number))
        if session.stream is not None:
            session.stream.leave(number)
            if not self.on(session.stream):
                self._scheduler.drop(session.stream)

    def on(self, stream: StreamState) -> list[Session]:
        """List the sessions of a stream."""
        return [session for session in self.sessions.values() if session.stream is stream]

    def send_error(self, session: Session, code: str, text: str) -> None:
        """Tell a session that its opening failed, or ended."""
        error = msg.Error(code, text[:ERROR_TEXT_MAX], session.number, session.opening)
        self._outbox.send(session.peer, error)

    # opening

    def _open(self, session: Session, request: msg.Open) -> None:
        if session.state == "leaving" or request.opening <= session.opening:
            self._outbox.stale["opening"] += 1
            return
        session.opening = request.opening
        if session.state == "new":
            session.waiting = request
        else:
            self._open_attached(session, request)

    def _open_attached(self, session: Session, request: msg.Open) -> None:
        if self._scheduler.unhealthy:
            self.send_error(session, "PRODUCERS_UNHEALTHY", self._scheduler.unhealthy)
            return
        try:
            self._open_checked(session, request)
        except AugdError as error:
            self.send_error(session, error.code, str(error))

    def _open_checked(self, session: Session, request: msg.Open) -> None:
        stream = session.stream
        if stream is None:
            self._first_open(session, request)
        elif stream.spec != request.spec:
            raise OptionError("a stream keeps its spec; connect again for another one")
        elif stream.share is not None or request.share is not None:
            raise OptionError("a shared stream does not seek; connect again at the other place")
        else:
            self._start(session, stream, request)

    def _first_open(self, session: Session, request: msg.Open) -> None:
        """Join a stream, or make one, or have its samples chosen first."""
        spec = request.spec
        name = permissions.find_dataset(spec.dataset, self._datasets, session.who)
        facts = self._datasets[name]
        output_size(parse_recipe(spec.recipe, self._catalogue), facts.first_size_px)
        if spec.layout.rank >= spec.layout.world:
            raise OptionError(
                f"rank: expected 0..{spec.layout.world - 1} for world={spec.layout.world}, "
                f"got {spec.layout.rank}"
            )
        if not session.choosing:
            permissions.check_stream(session.who, self.sessions.values())
        earlier, session.waiting = session.waiting, request
        if session.choosing:
            if earlier is not None and earlier.spec != spec:
                session.waiting = earlier
                raise OptionError("a stream keeps its spec; connect again for another one")
        elif not is_whole(spec.selection):
            self._choose(session, name, request)
        else:
            self._join_or_make(session, name, None)

    def _choose(self, session: Session, name: str, request: msg.Open) -> None:
        """Have the samples chosen, unless a sharer has them chosen already."""
        for other in self.sessions.values():
            is_own = permissions.is_same(other.who, session.who)
            if is_own and other.choosing and other.waiting and _is_same(other.waiting, request):
                session.choosing = other.choosing
                return
        if (stream := self._to_join(session, name, request)) is not None:
            self._join(session, stream, request)
            return
        session.choosing = self._outbox.number()
        has_splits = self._datasets[name].has_splits
        selection = settled(request.spec.selection, has_splits=has_splits)
        self._outbox.add(ev.SelectSamples(session.choosing, name, selection))

    def selected(self, number: int, chosen: msg.Chosen, num_unlabelled: int = 0) -> None:
        """Go on with the sessions whose samples were chosen."""
        is_used = False
        for session in [s for s in self.sessions.values() if s.choosing == number]:
            session.choosing = 0
            assert session.waiting is not None
            dataset = session.waiting.spec.dataset
            try:
                name = permissions.find_dataset(dataset, self._datasets, session.who)
                self._join_or_make(session, name, chosen, 0 if is_used else number)
                is_used = is_used or number in self._scheduler.streams
                if number in self._scheduler.streams:
                    self._scheduler.streams[number].num_unlabelled = num_unlabelled
            except AugdError as error:
                self.send_error(session, error.code, str(error))
        if not is_used:
            self._outbox.add(ev.DropArena(number))

    def select_failed(self, number: int, code: str, text: str) -> None:
        """Tell the sessions whose samples cannot be chosen."""
        for session in self.sessions.values():
            if session.choosing == number:
                session.choosing = 0
                self.send_error(session, code, text)

    def _join_or_make(
        self, session: Session, name: str, chosen: msg.Chosen | None, number: int = 0
    ) -> None:
        request, session.waiting = session.waiting, None
        assert request is not None
        if (stream := self._to_join(session, name, request)) is not None:
            self._join(session, stream, request)
            return
        stream = self._make(request, name, chosen, number or self._outbox.number())
        permissions.check_memory(session.who, self.sessions.values(), stream.arena_bytes)
        session.stream = stream
        share = request.share
        if share is not None and share.sharers > 1:
            stream.gathers_until = self._outbox.now + share.wait_s
        self._scheduler.add(stream)
        self._start(session, stream, request)

    def _make(
        self, request: msg.Open, name: str, chosen: msg.Chosen | None, number: int
    ) -> StreamState:
        spec, layout, facts = request.spec, request.spec.layout, self._datasets[name]
        num_samples = facts.num_samples if chosen is None else chosen.num_samples
        if epoch_layout.batches_left(layout, num_samples) == 0:
            raise OptionError(
                f"drop_last leaves no batch: {counted(num_samples, 'sample')}, "
                f"{epoch_layout.global_batch(layout)} per global batch; use a smaller batch_size"
            )
        recipe = parse_recipe(spec.recipe, self._catalogue)
        height, width = output_size(recipe, facts.first_size_px)
        num_targets = facts.num_targets
        if num_targets and chosen is not None and chosen.num_picked:
            num_targets = chosen.num_picked
        arrays, slot_bytes = slot_layout(
            layout.batch_size,
            height,
            width,
            num_targets,
            num_views=recipe.num_views,
            has_colour=recipe.colour_on == "device",
            has_params=spec.params,
        )
        stream = StreamState(
            number, name, spec, num_samples, arrays, slot_bytes, chosen, share=request.share
        )
        stream.num_unlabelled = facts.num_unlabelled if chosen is None else 0
        return stream

    def _start(self, session: Session, stream: StreamState, request: msg.Open) -> None:
        session.state = step(SESSION, session.state, "open")
        session.is_announced = False
        place = request.epoch, request.position
        stream.start(session.number, request.opening, request.credit, place, request.held)
        stream.quarantine = united(as_entries(stream.quarantine), request.quarantine)
        self._scheduler.revoke(stream)

    # sharing

    def _to_join(self, session: Session, name: str, request: msg.Open) -> StreamState | None:
        """Find a production that this client can share: with itself, as far as keys tell."""
        share = request.share
        if share is None:
            return None
        place = request.epoch, request.position
        for stream in self._scheduler.streams.values():
            if (
                stream.dataset == name
                and stream.share is not None
                and stream.share.max_lag == share.max_lag
                and stream.spec == request.spec
                and not stream.is_failed
                and stream.subscribers
                and _masks_all(stream, request.quarantine)
                and (share.at == "next" or stream.offers(place))
                and all(permissions.is_same(one.who, session.who) for one in self.on(stream))
            ):
                return stream
        return None

    def _join(self, session: Session, stream: StreamState, request: msg.Open) -> None:
        session.waiting = None
        session.stream = stream
        session.state = step(SESSION, session.state, "open")
        assert request.share is not None
        is_next = request.share.at == "next"
        place = stream.next_place() if is_next else (request.epoch, request.position)
        stream.join(session.number, request.opening, request.credit, place)
        if stream.has_arena:
            self._outbox.add(ev.GiveArena(stream.number, session.number, is_read_only=True))

    def _end_gathering(self, stream: StreamState) -> None:
        """Begin a shared production when its sharers are there, or have been waited for."""
        if stream.gathers_until is None or stream.share is None:
            return
        came, wanted = len(stream.subscribers), stream.share.sharers
        if came < wanted and self._outbox.now < stream.gathers_until:
            return
        stream.gathers_until = None
        if came < wanted:
            text = (
                f"{came} of {wanted} sharers of stream {stream.number} came in "
                f"{stream.share.wait_s:g} s; it begins without the others"
            )
            self._outbox.log(WARNING, text)
            for session in self.on(stream):
                self._outbox.send(session.peer, msg.Notice("sharers", text))

    def _detach_laggards(self, stream: StreamState) -> None:
        for reader in stream.laggards():
            session = self.sessions[reader.session]
            text = (
                f"session {session.number} is {counted(stream.lag_of(reader), 'batch', 'batches')} "
                f"behind its fastest "
                f"sharer, more than max_lag={reader.max_lag}; it goes on by itself"
            )
            stream.leave(session.number, stream.holds(session.number))
            session.state = step(SESSION, session.state, "leave")
            self._outbox.send(session.peer, msg.Detached(session.number, text))
            self._outbox.log(WARNING, text)

    # what the works have to say

    def arena_made(self, number: int) -> None:
        """Pass a stream's memory on to its clients."""
        stream = self._scheduler.streams.get(number)
        if stream is None:
            self._outbox.add(ev.DropArena(number))
            return
        self._scheduler.arena_made(stream)
        for session in self.on(stream):
            is_shared = stream.share is not None
            self._outbox.add(ev.GiveArena(number, session.number, is_read_only=is_shared))

    def arena_failed(self, number: int, reason: str) -> None:
        """End the sessions of a stream that gets no memory."""
        stream = self._scheduler.streams.get(number)
        if stream is None:
            return
        spec = stream.spec
        text = (
            f"{len(stream.slots)} slots of {stream.slot_bytes / 1e6:.1f} MB for batch_size="
            f"{spec.layout.batch_size} cannot be had: {reason}. Use a smaller batch_size "
            f"or prefetch (now {spec.prefetch})."
        )
        for session in self.on(stream):
            self.send_error(session, "OVER_LIMIT", text)
            self._outbox.log(WARNING, f"session {session.number}: {text}")
            self.close(session.number)

    def pass_on(self) -> None:
        """Tell sessions what happened to their streams."""
        failures, self._scheduler.failures = self._scheduler.failures, []
        for failure in failures:
            for session in self.on(failure.stream):
                self.send_error(session, failure.code, failure.text)
                self._outbox.log(ERROR, f"session {session.number}: {failure.text}")
        verdicts, self._scheduler.verdicts = self._scheduler.verdicts, []
        for verdict in verdicts:
            for session in self.on(verdict.stream):
                news = msg.QuarantinedMessage(session.number, (verdict.entry,), verdict.text)
                self._outbox.send(session.peer, news)

    # time

    def next_deadline(self) -> float | None:
        """Return the earliest moment at which something is due here."""
        moments = [session.attach_by for session in self.sessions.values()]
        moments += [s.gathers_until for s in self._scheduler.streams.values() if s.gathers_until]
        return min((moment for moment in moments if moment < math.inf), default=None)

    def part_with_unattached(self) -> None:
        """End the sessions that nobody attached in time."""
        for session in [s for s in self.sessions.values() if s.attach_by <= self._outbox.now]:
            text = f"the session was not attached within {ATTACH_S:g} s of its HELLO"
            self._outbox.send(session.peer, msg.Error("PROTOCOL_STATE", text, session.number))
            self.close(session.number)

    def settle(self, streams: Sequence[StreamState]) -> None:
        """Announce what stands and send what is ready of these streams."""
        touched = set(streams)
        for session in [one for one in self.sessions.values() if one.stream in touched]:
            self._announce(session)
            self._deliver(session)
        for stream in streams:
            self._end_gathering(stream)
            self._detach_laggards(stream)

    def _announce(self, session: Session) -> None:
        """Send OPENED once the arena stands and a producer said what decides its pixels."""
        stream, environment = session.stream, self._scheduler.environment
        if session.is_announced or stream is None or not stream.has_arena or stream.is_failed:
            return
        if environment is None or session.state != "open":
            return
        session.is_announced = True
        reader = stream.subscribers[session.number]
        place = self._place_of(stream, reader)
        if place[0] > EPOCH_LAST:
            stream.fail()
            text = f"epoch: expected 0..{EPOCH_LAST}, got a place behind the end of the last one"
            self.send_error(session, "BAD_OPTION", text)
            return
        self._settle_content(stream, environment, place)
        assert stream.content is not None
        if len(stream.quarantine) > QUARANTINE_MAX:
            num = len(stream.quarantine)
            text = f"{num:,} samples are quarantined, at most {QUARANTINE_MAX} can be"
            stream.fail()
            self.send_error(session, "QUARANTINE_LIMIT", text)
            return
        opened = msg.Opened(
            session=session.number,
            opening=reader.opening,
            stream=stream.number,
            content=stream.content.digest,
            content_fields=dict(stream.content.fields),
            dataset=stream.dataset,
            num_positions=stream.num_samples,
            arrays=stream.arrays,
            slot_bytes=stream.slot_bytes,
            num_slots=len(stream.slots),
            epoch=place[0],
            position=place[1],
            quarantine=as_entries(stream.quarantine),
            is_shared=stream.share is not None,
            num_unlabelled=stream.num_unlabelled,
            stamp=self._datasets[stream.dataset].stamp,
            changes=self._datasets[stream.dataset].changes,
        )
        self._tell_about(session, stream)
        classes = stream.spec.selection.classes or stream.dataset
        self._outbox.send(session.peer, opened, classes=classes)

    def _tell_about(self, session: Session, stream: StreamState) -> None:
        """Tell a session once what a person should know of its data set."""
        if session.is_told:
            return
        session.is_told = True
        facts, selection = self._datasets[stream.dataset], stream.spec.selection
        told = [] if selection.classes else [("doubt", text) for text in facts.doubts]
        if (note := split_note(facts, selection, stream.num_samples)) is not None:
            told.append(("split", note))
        for kind, text in told:
            said = f"data set {stream.dataset!r}: {text}"
            self._outbox.send(session.peer, msg.Notice(kind, said[:ERROR_TEXT_MAX]))
        if stream.dataset not in self._class_notes:
            self._class_notes[stream.dataset] = class_notes(stream.dataset, self._datasets)
        readable = permissions.readable(session.who, self._datasets)
        for other, text in self._class_notes[stream.dataset].items():
            if other in readable:
                self._outbox.send(session.peer, msg.Notice("classes", text[:ERROR_TEXT_MAX]))

    def _place_of(self, stream: StreamState, reader: ClientCursor) -> tuple[int, int]:
        for batch in stream.batches:
            if batch.sequence == reader.first:
                return batch.epoch, batch.position
        return stream.next_place()

    def _settle_content(
        self, stream: StreamState, environment: Mapping[str, str], place: tuple[int, int]
    ) -> None:
        """Compute what decides the stream's bytes, and unite both sides' quarantines."""
        facts, spec = self._datasets[stream.dataset], stream.spec
        is_first = stream.content is None
        if is_first:
            recipe = parse_recipe(spec.recipe, self._catalogue)
            stream.content = content_of(
                dataset_digest=facts.digest,
                recipe=expand(recipe),
                seed=spec.seed,
                shuffle=spec.shuffle,
                policy=policy_of(spec, has_splits=facts.has_splits),
                environment=relevant(
                    self._catalogue.environment_of(recipe, environment), facts.decoders
                ),
            )
        assert stream.content is not None
        if stream.share is not None and not is_first:
            return  # what others were told already must not change under them
        known = self._scheduler.registers[stream.dataset].entries(stream.content.digest, place)
        stream.quarantine = united(as_entries(stream.quarantine), known)
        if stream.quarantine:
            self._scheduler.mask(stream)

    def _deliver(self, session: Session) -> None:
        stream = session.stream
        if stream is None or not session.is_announced or session.state != "open":
            return
        reader = stream.subscribers[session.number]
        for batch in stream.sendable(reader):
            self._send_batch(session, stream, reader, batch)

    def _send_batch(
        self, session: Session, stream: StreamState, reader: ClientCursor, batch: BatchState
    ) -> None:
        sequence = reader.sent - 1
        ready = msg.BatchMessage(
            session=session.number,
            opening=reader.opening,
            sequence=sequence,
            epoch=batch.epoch,
            number=batch.number,
            position=batch.position,
            rows=batch.rows,
            slot=batch.slot.index,
            generation=batch.slot.generation,
            num_bad=batch.sums.num_bad,
            digest=write_digest(batch.sums.digest),
        )
        self._outbox.send(session.peer, ready)
        if session.is_framed:
            self._outbox.add(
                ev.SendSlot(
                    session=session.number,
                    opening=reader.opening,
                    sequence=sequence,
                    stream=stream.number,
                    slot=batch.slot.index,
                    slot_bytes=stream.slot_bytes,
                )
            )
        if stream.is_last(batch):
            self._end_epoch(session, reader, batch.epoch)

    def _end_epoch(self, session: Session, reader: ClientCursor, epoch: int) -> None:
        sums = reader.take_sums()
        end = msg.EpochEnd(
            session=session.number,
            opening=reader.opening,
            epoch=epoch,
            batches=sums.batches,
            samples=sums.samples,
            num_bad=sums.num_bad,
            digest=write_digest(sums.digest),
            ids_digest=write_ids_digest(sums.ids_digest),
        )
        self._outbox.send(session.peer, end)


def _is_same(a: msg.Open, b: msg.Open) -> bool:
    """Say whether two clients ask for one production, to be begun at the same place."""
    places = (a.epoch, a.position, a.quarantine) == (b.epoch, b.position, b.quarantine)
    return a.spec == b.spec and a.share is not None and a.share == b.share and places


def _masks_all(stream: StreamState, entries: msg.Quarantine) -> bool:
    """Say whether a stream masks at least what a client's state names."""
    return all(
        sample in stream.quarantine and stream.quarantine[sample] <= (epoch, position)
        for sample, epoch, position in entries
    )
