"""Rules of slots and of those who read them, each as a way to take it out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest import MonkeyPatch as Patch

from augd.protocol import messages as msg
from augd.server.daemon.broker.batch_state import BatchState, Chunk, ClientCursor, Slot
from augd.server.daemon.broker.producers import Producer, ProducerPool
from augd.server.daemon.broker.session_state import Session
from augd.server.daemon.broker.sessions import SessionTable
from augd.server.daemon.broker.stream import StreamState
from tests.simulation.line import Line
from tests.simulation.rows import Place


def a_release_names_its_generation(patch: Patch) -> None:
    honest = StreamState.release

    def release(self: StreamState, session: int, index: int, generation: int) -> bool:
        return honest(self, session, index, self.slots[index].generation)

    patch.setattr(StreamState, "release", release)


def a_slot_is_reused_only_after_its_writers_answered(patch: Patch) -> None:
    def abandon(self: StreamState, batch: BatchState) -> None:
        batch.is_abandoned = True
        self.chunks.clear(batch)
        batch.slot.take("abandon")
        self._free_slot(batch.slot, "drained")

    patch.setattr(StreamState, "_abandon", abandon)
    patch.setattr(StreamState, "_drain", lambda self, batch: None)


def a_killed_producer_writes_until_it_is_reaped(patch: Patch) -> None:
    honest = ProducerPool.overdue

    def overdue(self: ProducerPool, now: float) -> list[Producer]:
        found = honest(self, now)
        for producer in found:
            for lease in list(producer.leases):
                record = self.take_back(producer, lease)
                assert record is not None
                record.stream.lose_chunk(record.chunk, is_suspect=False)
        return found

    patch.setattr(ProducerPool, "overdue", overdue)


def a_slot_stays_its_readers_until_it_is_released(patch: Patch) -> None:
    honest = StreamState._free_if_unused

    def free_if_unused(self: StreamState, slot: Slot) -> None:
        if not slot.unsent:
            slot.holders = ()
        honest(self, slot)

    honest_sendable = StreamState.sendable

    def sendable(self: StreamState, reader: ClientCursor) -> Iterator[BatchState]:
        for batch in honest_sendable(self, reader):
            yield batch
            if batch.slot.state == "sent":
                self._free_if_unused(batch.slot)

    patch.setattr(StreamState, "_free_if_unused", free_if_unused)
    patch.setattr(StreamState, "sendable", sendable)


def a_slot_is_free_when_the_last_sharer_released_it(patch: Patch) -> None:
    honest = StreamState._release_slot

    def let_go(self: StreamState, slot: Slot, session: int) -> None:
        slot.holders, slot.unsent = (), 0
        honest(self, slot, session)

    patch.setattr(StreamState, "_release_slot", let_go)


def an_opening_keeps_what_is_held(patch: Patch) -> None:
    honest = StreamState.start

    def start(
        self: StreamState, session: int, opening: int, credit: int, place: Place, _: Any
    ) -> None:
        honest(self, session, opening, credit, place)

    patch.setattr(StreamState, "start", start)


def a_departed_reader_keeps_what_it_holds(patch: Patch) -> None:
    honest = SessionTable._bye

    def bye(self: SessionTable, session: Session, message: msg.Bye) -> None:
        honest(self, session, msg.Bye(message.session))

    patch.setattr(SessionTable, "_bye", bye)


def a_disconnected_reader_that_lives_says_what_it_holds(patch: Patch) -> None:
    patch.setattr(Line, "leave", Line.close)


def a_laggard_keeps_what_it_holds(patch: Patch) -> None:
    honest = SessionTable._detach_laggards

    def detach(self: SessionTable, stream: StreamState) -> None:
        late = [reader.session for reader in stream.laggards()]
        honest(self, stream)
        for session in late:
            stream.keep_only(session, ())

    patch.setattr(SessionTable, "_detach_laggards", detach)


def nobody_waits_for_who_left(patch: Patch) -> None:
    honest = StreamState.leave

    def leave(self: StreamState, session: int, held: Any = ()) -> None:
        reader = self.clients.get(session)
        honest(self, session, held)
        if reader is not None and reader.max_lag is None and self.clients:
            self.clients[session] = reader

    patch.setattr(StreamState, "leave", leave)


def the_lowest_missing_batch_has_a_slot(patch: Patch) -> None:
    """A batch that lost a chunk needs a slot once more, behind all that were made ahead of it."""
    honest = StreamState.lose_chunk
    lost: set[int] = set()

    def lose_chunk(self: StreamState, chunk: Chunk, *, is_suspect: bool) -> None:
        honest(self, chunk, is_suspect=is_suspect)
        lost.add(id(chunk.batch))

    def first(self: StreamState) -> BatchState | None:
        has_free = any(slot.state == "free" for slot in self.slots)
        able = (b for b in self.batches if b.pending and (has_free or id(b) not in lost))
        return next(able, None)

    def next_chunk(self: StreamState, rows_max: int | None = None) -> Chunk | None:
        batch = first(self)
        return None if batch is None else self.chunks.take((batch,), rows_max)

    patch.setattr(StreamState, "lose_chunk", lose_chunk)
    patch.setattr(StreamState, "next_chunk", next_chunk)
    patch.setattr(StreamState, "has_pending", lambda self: first(self) is not None)


RULES = (
    a_release_names_its_generation,
    a_slot_is_reused_only_after_its_writers_answered,
    a_killed_producer_writes_until_it_is_reaped,
    a_slot_stays_its_readers_until_it_is_released,
    a_slot_is_free_when_the_last_sharer_released_it,
    an_opening_keeps_what_is_held,
    a_departed_reader_keeps_what_it_holds,
    a_disconnected_reader_that_lives_says_what_it_holds,
    a_laggard_keeps_what_it_holds,
    nobody_waits_for_who_left,
    the_lowest_missing_batch_has_a_slot,
)
