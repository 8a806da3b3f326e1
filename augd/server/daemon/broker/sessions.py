"""The broker's half that talks to clients: the sessions, and the messages that name one.

Theory of operation. A session is attached, opens one stream (augd/server/daemon/broker/opening.py),
is sent OPENED (augd/server/daemon/broker/announcement.py), and then its batches in order, as far as
its credit reaches (augd/server/daemon/broker/batch_sender.py). Most streams have one session.
Clients that ask for the same may share one, and are then each sent every batch.

Every message that names a session, an opening or a generation that is not the current one is
stale: ignored and counted, never an error. Pure: no I/O, no clock.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

from augd.errors import AugdError, OptionError, SpecMismatch, counted
from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.protocol import messages as msg
from augd.protocol.permissions import Rights
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker import permissions
from augd.server.daemon.broker.announcement import StreamAnnouncer
from augd.server.daemon.broker.batch_sender import BatchSender
from augd.server.daemon.broker.dataset_facts import DatasetFacts
from augd.server.daemon.broker.opening import StreamOpener
from augd.server.daemon.broker.outbox import ERROR, ERROR_TEXT_MAX, WARNING, Outbox
from augd.server.daemon.broker.scheduler import Scheduler
from augd.server.daemon.broker.session_state import Session, send_error
from augd.server.daemon.broker.states import SESSION, step
from augd.server.daemon.broker.stream import StreamState

SESSIONS_MAX = 128
ATTACH_S = 10.0  # from HELLO to ATTACH, which follow within a millisecond


class SessionTable:
    """All sessions, by number."""

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
        """Start with no session; see `Broker` for the arguments."""
        self._outbox = outbox
        self._scheduler = scheduler
        self._datasets = datasets
        self._instance = instance
        self._attach = attach
        self._bulk_port = bulk_port
        self._secret = secret.encode()
        self.sessions: dict[int, Session] = {}
        self.opener = StreamOpener(outbox, scheduler, datasets, self.sessions, catalogue)
        self.announcer = StreamAnnouncer(outbox, scheduler, datasets, catalogue)
        self._sender = BatchSender(outbox)

    # sessions

    def hello(self, peer: bytes, hello: msg.Hello, rights: Rights | None) -> None:
        if len(self.sessions) >= SESSIONS_MAX:
            text = f"{len(self.sessions)} sessions are open, which is the limit; close some"
            self._outbox.send(peer, msg.Error("OVER_LIMIT", text))
            return
        try:
            permissions.check_session(rights, self.sessions.values())
        except AugdError as error:
            self._outbox.send(peer, msg.Error(error.code, str(error)))
            return
        number = self._outbox.number()
        token = hashlib.blake2b(
            f"session {number}".encode(), key=self._secret, digest_size=16
        ).hexdigest()
        attach_by = self._outbox.now + ATTACH_S
        is_framed = hello.transport == "frames"
        session = Session(
            number, peer, token, attach_by=attach_by, is_framed=is_framed, rights=rights
        )
        self.sessions[number] = session
        splits = self._splits_of(hello.dataset, rights)
        where = self._attach, token, self._bulk_port
        self._outbox.send(peer, msg.Welcome(hello.nonce, self._instance, number, *where, splits))

    def _splits_of(self, dataset: str | None, rights: Rights | None) -> dict[str, int]:
        """Count the splits of a dataset; none for a name that is wrong, which OPEN reports."""
        try:
            return dict(
                self._datasets[permissions.find_dataset(dataset, self._datasets, rights)].splits
            )
        except AugdError:
            return {}

    def stream_of(self, number: int) -> StreamState | None:
        """Return the stream of a session; None when it has none."""
        session = self.sessions.get(number)
        return None if session is None else session.stream

    def ask_paths(self, peer: bytes, asked: msg.Paths, rights: Rights | None) -> None:
        """Have a client sent the paths of samples that it may read."""
        try:
            name = permissions.find_dataset(asked.dataset, self._datasets, rights)
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
            if session.rights is not None and session.rights.name == name:
                self._outbox.send(session.peer, msg.Error("FORBIDDEN", text, session.number))
                self.close(session.number)

    def heard(
        self,
        peer: bytes,
        message: msg.Open | msg.Flow | msg.Release | msg.Bye,
        rights: Rights | None,
    ) -> None:
        """Handle a message that names a session."""
        session = self.sessions.get(message.session)
        if (
            session is None
            or session.peer != peer
            or not permissions.is_same(session.rights, rights)
        ):
            self._unknown(peer, message)
            return
        stream = session.stream
        match message:
            case msg.Bye():
                self._bye(session, message)
            case msg.Open():
                self.opener.open(session, message)
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
            text = f"OPEN names session {message.session}, which is not open here; send HELLO first"
            error = msg.Error("PROTOCOL_STATE", text, message.session, message.opening)
            self._outbox.send(peer, error)
        else:
            self._outbox.stale["session"] += 1

    def admits(self, number: int, token: str, *, is_framed: bool) -> bool:
        """Say whether an ATTACH is that of the session's client, the first, by the right socket.

        The loop closes any other connection. So a peer without the token can neither receive the
        session's bytes nor end it by disconnecting.
        """
        session = self.sessions.get(number)
        return (
            session is not None
            and session.state == "new"
            and session.token == token
            and session.is_framed == is_framed
        )

    def attached(self, number: int, token: str, *, is_framed: bool) -> None:
        """Note that the lifeline of a session is connected."""
        if not self.admits(number, token, is_framed=is_framed):
            self._outbox.stale["attach"] += 1
            return
        session = self.sessions[number]
        session.state = step(SESSION, session.state, "attach")
        session.attach_by = math.inf
        self.opener.attached(session)

    def _bye(self, session: Session, bye: msg.Bye) -> None:
        """Close a session; on a shared stream only once it has released what it holds."""
        stream = session.stream
        if stream is not None and stream.share is not None:
            stream.leave(session.number, bye.held)
            if stream.holds(session.number):
                if session.state == "open":
                    session.state = step(SESSION, session.state, "leave")
                return
        self.close(session.number)

    def unreachable(self, number: int) -> None:
        """Stop sending to a client that receives nothing more; it reconnects as another session.

        A client that maps the arena keeps the slots that it holds: it may be stopped by a signal,
        and read on later. The end of its lifeline releases them.
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
        return [session for session in self.sessions.values() if session.stream is stream]

    # sharing

    def _end_gathering(self, stream: StreamState) -> None:
        """Begin a shared stream when all its sharers joined, or its deadline has passed."""
        if stream.gather_deadline is None or stream.share is None:
            return
        came, wanted = len(stream.clients), stream.share.sharers
        if came < wanted and self._outbox.now < stream.gather_deadline:
            return
        stream.gather_deadline = None
        if came < wanted:
            text = (
                f"{came} of {wanted} sharers of stream {stream.number} came in "
                f"{stream.share.wait_s:g} s; it begins without the others"
            )
            self._outbox.log(WARNING, text)
            for session in self.on(stream):
                self._outbox.send(session.peer, msg.Notice("sharers", text))

    def _detach_laggards(self, stream: StreamState) -> None:
        for client in stream.laggards():
            session = self.sessions[client.session]
            text = (
                f"session {session.number} is {counted(stream.lag_of(client), 'batch', 'batches')} "
                f"behind its fastest "
                f"sharer, more than max_lag={client.max_lag}; it goes on by itself"
            )
            stream.leave(session.number, stream.holds(session.number))
            session.state = step(SESSION, session.state, "leave")
            self._outbox.send(session.peer, msg.Detached(session.number, text))
            self._outbox.log(WARNING, text)

    # streams

    def arena_made(self, number: int) -> None:
        """Pass a stream's arena to its clients."""
        stream = self._scheduler.streams.get(number)
        if stream is None:
            self._outbox.add(ev.DropArena(number))
            return
        stream.has_arena = True
        for session in self.on(stream):
            is_shared = stream.share is not None
            self._outbox.add(ev.GiveArena(number, session.number, is_read_only=is_shared))

    def arena_failed(self, number: int, reason: str) -> None:
        """End the sessions of a stream whose arena cannot be allocated."""
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
            send_error(self._outbox, session, "OVER_LIMIT", text)
            self._outbox.log(WARNING, f"session {session.number}: {text}")
            self.close(session.number)

    def report_failures(self) -> None:
        """Send sessions the failures of their streams and the new quarantine entries."""
        for failure in self._scheduler.failures.take_failures():
            for session in self.on(failure.stream):
                send_error(self._outbox, session, failure.code, failure.text)
                self._outbox.log(ERROR, f"session {session.number}: {failure.text}")
        for verdict in self._scheduler.failures.take_verdicts():
            for session in self.on(verdict.stream):
                news = msg.QuarantinedMessage(session.number, (verdict.entry,), verdict.text)
                self._outbox.send(session.peer, news)

    # time

    def next_deadline(self) -> float | None:
        """Return the earliest moment at which something is due here."""
        moments = [session.attach_by for session in self.sessions.values()]
        moments += [
            s.gather_deadline for s in self._scheduler.streams.values() if s.gather_deadline
        ]
        return min((moment for moment in moments if moment < math.inf), default=None)

    def close_unattached(self) -> None:
        """End the sessions whose ATTACH did not come in time."""
        for session in [s for s in self.sessions.values() if s.attach_by <= self._outbox.now]:
            text = f"the session was not attached within {ATTACH_S:g} s of its HELLO"
            self._outbox.send(session.peer, msg.Error("PROTOCOL_STATE", text, session.number))
            self.close(session.number)

    def settle(self, streams: Sequence[StreamState]) -> None:
        """Send the sessions of these streams OPENED and every batch that is ready."""
        touched = set(streams)
        for session in [one for one in self.sessions.values() if one.stream in touched]:
            self.announcer.announce(session)
            self._sender.deliver(session)
        for stream in streams:
            self._end_gathering(stream)
            self._detach_laggards(stream)
