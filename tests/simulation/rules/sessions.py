"""Rules of sessions, openings and credit, each as a way to take it out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest import MonkeyPatch as Patch

from augd.client.session import ClientSession
from augd.protocol import messages as msg
from augd.server.daemon.broker.batch_state import BatchState, ClientCursor
from augd.server.daemon.broker.opening import StreamOpener
from augd.server.daemon.broker.session_state import Session
from augd.server.daemon.broker.sessions import SessionTable
from augd.server.daemon.broker.stream import StreamState

FOREVER = 1 << 62


def sessions_belong_to_their_peers(patch: Patch) -> None:
    honest = SessionTable.heard

    def heard(self: SessionTable, peer: bytes, message: Any, who: Any) -> None:
        session = self.sessions.get(message.session)
        honest(self, peer if session is None else session.peer, message, who)

    patch.setattr(SessionTable, "heard", heard)


def an_opening_counts_once(patch: Patch) -> None:
    honest = StreamOpener.open

    def open_again(self: StreamOpener, session: Session, request: msg.Open) -> None:
        if session.state != "new":
            session.opening = 0
        honest(self, session, request)

    patch.setattr(StreamOpener, "open", open_again)


def credit_is_of_an_opening(patch: Patch) -> None:
    honest = StreamState.grant

    def grant(self: StreamState, session: int, opening: int, credit: int) -> bool:
        reader = self.clients.get(session)
        return honest(self, session, reader.opening if reader else opening, credit)

    patch.setattr(StreamState, "grant", grant)


def the_client_drops_what_is_of_another_opening(patch: Patch) -> None:
    def is_current(self: ClientSession, message: Any) -> bool:
        return bool(message.session == self.session)

    patch.setattr(ClientSession, "_is_current", is_current)


def the_client_drops_what_is_doubled(patch: Patch) -> None:
    honest = ClientSession._batch

    def batch(self: ClientSession, message: msg.BatchMessage) -> Any:
        if message.sequence < self._sequence and message.slot not in self._held:
            self._sequence = message.sequence
        return honest(self, message)

    patch.setattr(ClientSession, "_batch", batch)


def the_client_finds_what_was_lost(patch: Patch) -> None:
    honest = ClientSession._batch

    def batch(self: ClientSession, message: msg.BatchMessage) -> Any:
        self._sequence = max(self._sequence, message.sequence)
        return honest(self, message)

    patch.setattr(ClientSession, "_batch", batch)


def credit_is_absolute(patch: Patch) -> None:
    def grant(self: StreamState, session: int, opening: int, credit: int) -> bool:
        reader = self.clients.get(session)
        if reader is None or reader.opening != opening or self.is_failed:
            return False
        reader.credit += 1
        return True

    patch.setattr(StreamState, "grant", grant)


def credit_is_looked_at_again_when_a_batch_is_sent(patch: Patch) -> None:
    honest = StreamState.sendable

    def sendable(self: StreamState, reader: ClientCursor) -> Iterator[BatchState]:
        credit, reader.credit = reader.credit, FOREVER
        try:
            yield from honest(self, reader)
        finally:
            reader.credit = credit

    patch.setattr(StreamState, "sendable", sendable)


def batches_are_sent_in_order(patch: Patch) -> None:
    def sendable(self: StreamState, reader: ClientCursor) -> Iterator[BatchState]:
        for batch in list(self.batches):
            is_due = batch.sequence >= reader.next and reader.sent < reader.credit
            if is_due and batch.slot.state in ("ready", "sent"):
                batch.slot.take("send")
                batch.slot.holders = (*batch.slot.holders, reader.session)
                batch.slot.unsent -= 1
                reader.sent += 1
                reader.sums.add(batch.sums)
                yield batch
        self._drop_sent()

    patch.setattr(StreamState, "sendable", sendable)


RULES = (
    sessions_belong_to_their_peers,
    an_opening_counts_once,
    credit_is_of_an_opening,
    the_client_drops_what_is_of_another_opening,
    the_client_drops_what_is_doubled,
    the_client_finds_what_was_lost,
    credit_is_absolute,
    credit_is_looked_at_again_when_a_batch_is_sent,
    batches_are_sent_in_order,
)
