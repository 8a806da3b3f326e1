"""The rules of the protocol, each as a way to take it out.

Every function here breaks one rule by a monkeypatch, in the broker, in the reader or in the code
around them; its docstring says the rule. `test_rules` expects some schedule to notice each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from augd.broker import stream as stream_module
from augd.broker import works as works_module
from augd.broker.clients import Clients, Session
from augd.broker.crew import Crew, Producer
from augd.broker.outbox import Outbox
from augd.broker.quarantine import Register
from augd.broker.reader import Reader
from augd.broker.states import step
from augd.broker.stream import Batch, Chunk, Slot, Stream, Subscriber
from augd.broker.works import Works
from augd.wire import messages as msg
from augd.wire.ending import Ending
from tests.simulation.line import Line
from tests.simulation.rows import Place
from tests.simulation.trainer import Trainer
from tests.simulation.world import Store

Patch = pytest.MonkeyPatch
Rule = Callable[[Patch], None]
FOREVER = 1 << 62


# sessions and openings


def sessions_belong_to_their_peers(patch: Patch) -> None:
    honest = Clients.heard

    def heard(self: Clients, peer: bytes, message: Any) -> None:
        session = self.sessions.get(message.session)
        honest(self, peer if session is None else session.peer, message)

    patch.setattr(Clients, "heard", heard)


def an_opening_counts_once(patch: Patch) -> None:
    honest = Clients._open

    def open_again(self: Clients, session: Session, request: msg.Open) -> None:
        if session.state != "new":
            session.opening = 0
        honest(self, session, request)

    patch.setattr(Clients, "_open", open_again)


def credit_is_of_an_opening(patch: Patch) -> None:
    honest = Stream.grant

    def grant(self: Stream, session: int, opening: int, credit: int) -> bool:
        reader = self.subscribers.get(session)
        return honest(self, session, reader.opening if reader else opening, credit)

    patch.setattr(Stream, "grant", grant)


def the_client_drops_what_is_of_another_opening(patch: Patch) -> None:
    def is_current(self: Reader, message: Any) -> bool:
        return bool(message.session == self.session)

    patch.setattr(Reader, "_is_current", is_current)


def the_client_drops_what_is_doubled(patch: Patch) -> None:
    honest = Reader._batch

    def batch(self: Reader, message: msg.BatchReady) -> Any:
        if message.sequence < self._sequence and message.slot not in self._held:
            self._sequence = message.sequence
        return honest(self, message)

    patch.setattr(Reader, "_batch", batch)


def the_client_finds_what_was_lost(patch: Patch) -> None:
    honest = Reader._batch

    def batch(self: Reader, message: msg.BatchReady) -> Any:
        self._sequence = max(self._sequence, message.sequence)
        return honest(self, message)

    patch.setattr(Reader, "_batch", batch)


# credit


def credit_is_absolute(patch: Patch) -> None:
    def grant(self: Stream, session: int, opening: int, credit: int) -> bool:
        reader = self.subscribers.get(session)
        if reader is None or reader.opening != opening or self.is_failed:
            return False
        reader.credit += 1
        return True

    patch.setattr(Stream, "grant", grant)


def credit_is_looked_at_again_when_a_batch_is_sent(patch: Patch) -> None:
    honest = Stream.sendable

    def sendable(self: Stream, reader: Subscriber) -> Iterator[Batch]:
        credit, reader.credit = reader.credit, FOREVER
        try:
            yield from honest(self, reader)
        finally:
            reader.credit = credit

    patch.setattr(Stream, "sendable", sendable)


def batches_are_sent_in_order(patch: Patch) -> None:
    def sendable(self: Stream, reader: Subscriber) -> Iterator[Batch]:
        for batch in list(self.batches):
            is_due = batch.sequence >= reader.next and reader.sent < reader.credit
            if is_due and batch.slot.state in ("ready", "sent"):
                batch.slot.take("send")
                batch.slot.readers.add(reader.session)
                batch.slot.owed -= 1
                reader.sent += 1
                reader.sums.add(batch.sums)
                yield batch
        self._drop_unowed()

    patch.setattr(Stream, "sendable", sendable)


# slots


def a_release_names_its_generation(patch: Patch) -> None:
    honest = Stream.release

    def release(self: Stream, session: int, index: int, generation: int) -> bool:
        return honest(self, session, index, self.slots[index].generation)

    patch.setattr(Stream, "release", release)


def a_slot_is_reused_only_after_its_writers_answered(patch: Patch) -> None:
    def abandon(self: Stream, batch: Batch) -> None:
        batch.is_abandoned = True
        batch.pending.clear()
        batch.suspects.clear()
        batch.slot.take("abandon")
        batch.slot.take("drained")

    patch.setattr(Stream, "_abandon", abandon)
    patch.setattr(Stream, "_drain", lambda self, batch: None)


def a_killed_producer_writes_until_it_is_reaped(patch: Patch) -> None:
    honest = Crew.hanging

    def hanging(self: Crew, now: float) -> Iterator[Producer]:
        for producer in honest(self, now):
            for record in producer.leases.values():
                record.stream.lose_chunk(record.chunk, is_suspect=False)
            producer.leases.clear()
            yield producer

    patch.setattr(Crew, "hanging", hanging)


def a_slot_stays_its_readers_until_it_is_released(patch: Patch) -> None:
    honest = Slot.free_if_unused

    def free_if_unused(self: Slot) -> None:
        if not self.owed:
            self.readers.clear()
        honest(self)

    honest_sendable = Stream.sendable

    def sendable(self: Stream, reader: Subscriber) -> Iterator[Batch]:
        for batch in honest_sendable(self, reader):
            yield batch
            if batch.slot.state == "sent":
                batch.slot.free_if_unused()

    patch.setattr(Slot, "free_if_unused", free_if_unused)
    patch.setattr(Stream, "sendable", sendable)


def a_slot_is_free_when_the_last_sharer_released_it(patch: Patch) -> None:
    honest = Slot.let_go

    def let_go(self: Slot, session: int) -> None:
        self.readers.clear()
        self.owed = 0
        honest(self, session)

    patch.setattr(Slot, "let_go", let_go)


def an_opening_keeps_what_is_held(patch: Patch) -> None:
    honest = Stream.start

    def start(self: Stream, session: int, opening: int, credit: int, place: Place, _: Any) -> None:
        honest(self, session, opening, credit, place)

    patch.setattr(Stream, "start", start)


def a_departed_reader_keeps_what_it_holds(patch: Patch) -> None:
    honest = Clients._bye

    def bye(self: Clients, session: Session, message: msg.Bye) -> None:
        honest(self, session, msg.Bye(message.session))

    patch.setattr(Clients, "_bye", bye)


def a_disconnected_reader_that_lives_says_what_it_holds(patch: Patch) -> None:
    patch.setattr(Line, "leave", Line.close)


def a_laggard_keeps_what_it_holds(patch: Patch) -> None:
    honest = Clients._detach_laggards

    def detach(self: Clients, stream: Stream) -> None:
        late = [reader.session for reader in stream.laggards()]
        honest(self, stream)
        for session in late:
            stream.keep_only(session, ())

    patch.setattr(Clients, "_detach_laggards", detach)


def nobody_waits_for_who_left(patch: Patch) -> None:
    honest = Stream.leave

    def leave(self: Stream, session: int, held: Any = ()) -> None:
        reader = self.subscribers.get(session)
        honest(self, session, held)
        if reader is not None and reader.max_lag is None and self.subscribers:
            self.subscribers[session] = reader

    patch.setattr(Stream, "leave", leave)


def the_lowest_missing_batch_has_a_slot(patch: Patch) -> None:
    """A batch that lost a chunk needs a slot once more, behind all that were made ahead of it."""
    honest = Stream.lose_chunk
    lost: set[int] = set()

    def lose_chunk(self: Stream, chunk: Chunk, *, is_suspect: bool) -> None:
        honest(self, chunk, is_suspect=is_suspect)
        lost.add(id(chunk.batch))

    def first(self: Stream) -> Batch | None:
        has_free = any(slot.state == "free" for slot in self.slots)
        able = (b for b in self.batches if b.pending and (has_free or id(b) not in lost))
        return next(able, None)

    def next_chunk(self: Stream) -> Chunk | None:
        batch = first(self)
        return None if batch is None else stream_module._lease(batch.pending)

    patch.setattr(Stream, "lose_chunk", lose_chunk)
    patch.setattr(Stream, "next_chunk", next_chunk)
    patch.setattr(Stream, "has_pending", lambda self: first(self) is not None)


# chunks and deaths


def the_chunks_of_the_dead_are_made_again(patch: Patch) -> None:
    honest, honest_isolate = Stream.lose_chunk, Stream.isolate

    def lose_chunk(self: Stream, chunk: Chunk, *, is_suspect: bool) -> None:
        honest(self, chunk, is_suspect=is_suspect)
        if chunk in chunk.batch.pending:
            chunk.batch.pending.remove(chunk)

    def isolate(self: Stream, chunk: Chunk, row: int, sample: int) -> None:
        chunk.batch.pending.append(chunk)
        honest_isolate(self, chunk, row, sample)

    patch.setattr(Stream, "lose_chunk", lose_chunk)
    patch.setattr(Stream, "isolate", isolate)


def a_lease_is_answered_once(patch: Patch) -> None:
    honest = Works.heard

    def heard(self: Works, number: int, message: Any) -> None:
        producer = self.crew.members.get(number)
        record = None
        if producer is not None and isinstance(message, msg.Done):
            record = producer.leases.get(message.lease)
        honest(self, number, message)
        if producer is not None and record is not None and not record.chunk.batch.is_abandoned:
            producer.leases[message.lease] = record

    patch.setattr(Works, "heard", heard)


def who_kills_from_outside_accuses_nobody(patch: Patch) -> None:
    suspect = (*works_module.SUSPECT_ENDS, Ending.OUTSIDE)
    patch.setattr(works_module, "SUSPECT_ENDS", suspect)


def who_was_stopped_accuses_nobody(patch: Patch) -> None:
    suspect = (*works_module.SUSPECT_ENDS, Ending.STOPPED)
    patch.setattr(works_module, "SUSPECT_ENDS", suspect)


def one_strike_is_no_verdict(patch: Patch) -> None:
    patch.setattr("augd.broker.quarantine.STRIKES", 1)


def a_suspect_is_made_alone(patch: Patch) -> None:
    patch.setattr(Producer, "is_alone", lambda self: False)


def the_dead_are_not_replaced_in_a_drain(patch: Patch) -> None:
    honest = Works.drain

    def drain(self: Works) -> None:
        due = dict(self.crew.restart_at)
        honest(self)
        self.crew.restart_at.update(due)

    patch.setattr(Works, "drain", drain)


# quarantine


def the_quarantine_is_written_down(patch: Patch) -> None:
    patch.setattr(Store, "write", lambda self, content, entry: None)


def it_is_written_down_before_anything_that_follows(patch: Patch) -> None:
    honest = Outbox.take

    def take(self: Outbox) -> list[Any]:
        actions = honest(self)
        return sorted(actions, key=lambda action: type(action).__name__ == "KeepQuarantine")

    patch.setattr(Outbox, "take", take)


def what_was_written_down_holds_for_new_streams(patch: Patch) -> None:
    patch.setattr(Register, "entries", lambda self, content, place: ())


def what_a_state_names_holds_for_its_stream(patch: Patch) -> None:
    honest = Clients._start

    def start(self: Clients, session: Session, stream: Stream, request: msg.Open) -> None:
        quarantine = dict(stream.quarantine)
        honest(self, session, stream, request)
        stream.quarantine = quarantine

    patch.setattr(Clients, "_start", start)


def a_verdict_makes_anew_what_was_made_beyond_its_place(patch: Patch) -> None:
    patch.setattr(Stream, "rewind", lambda self, batch: None)


def a_verdict_is_told_to_producers(patch: Patch) -> None:
    patch.setattr(Works, "mask", lambda self, stream: None)


def a_verdict_is_told_to_producers_that_come_later(patch: Patch) -> None:
    honest = Works._tell_stream

    def tell_stream(self: Works, producer: Producer, stream: Stream) -> None:
        quarantine, stream.quarantine = stream.quarantine, {}
        honest(self, producer, stream)
        stream.quarantine = quarantine

    patch.setattr(Works, "_tell_stream", tell_stream)


def a_verdict_is_told_to_clients_before_its_batch(patch: Patch) -> None:
    honest = Clients.pass_on

    def pass_on(self: Clients) -> None:
        self._works.verdicts.clear()
        honest(self)

    patch.setattr(Clients, "pass_on", pass_on)


def what_sharers_were_told_does_not_change(patch: Patch) -> None:
    honest = Clients._settle_content

    def settle(self: Clients, stream: Stream, environment: Any, place: Place) -> None:
        share, stream.share = stream.share, None
        honest(self, stream, environment, place)
        stream.share = share

    patch.setattr(Clients, "_settle_content", settle)


# states and receipts


def a_state_counts_what_was_yielded(patch: Patch) -> None:
    """Counting what was received and is not yet handed out."""
    honest = Trainer.state_place

    def state_place(self: Trainer) -> Place:
        line, place = self.line, honest(self)
        for message in line.down:
            if isinstance(message, msg.BatchReady) and line.reader._is_current(message):
                after = message.position + self.layout.batch_size * self.layout.world
                place = message.epoch, after
        return place

    patch.setattr(Trainer, "state_place", state_place)


def every_chunk_counts_in_the_receipt(patch: Patch) -> None:
    honest = Stream.finish_chunk

    def finish_chunk(self: Stream, chunk: Chunk, done: msg.Done) -> None:
        is_first = chunk.first_row == 0
        honest(self, chunk, msg.Done(done.lease) if is_first else done)

    patch.setattr(Stream, "finish_chunk", finish_chunk)


def receipts_are_of_one_epoch(patch: Patch) -> None:
    patch.setattr(Subscriber, "take_sums", lambda self: self.sums)


def legal_transitions(patch: Patch) -> None:
    """A batch that is sent while it is still being filled."""
    honest = Stream.sendable

    def sendable(self: Stream, reader: Subscriber) -> Iterator[Batch]:
        for batch in self.batches:
            if batch.slot.state == "filling":
                batch.slot.state = step({"filling": {"send": "ready"}}, "filling", "send")
        return honest(self, reader)

    patch.setattr(Stream, "sendable", sendable)


RULES: list[Rule] = [
    sessions_belong_to_their_peers,
    an_opening_counts_once,
    credit_is_of_an_opening,
    the_client_drops_what_is_of_another_opening,
    the_client_drops_what_is_doubled,
    the_client_finds_what_was_lost,
    credit_is_absolute,
    credit_is_looked_at_again_when_a_batch_is_sent,
    batches_are_sent_in_order,
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
    the_chunks_of_the_dead_are_made_again,
    a_lease_is_answered_once,
    who_kills_from_outside_accuses_nobody,
    who_was_stopped_accuses_nobody,
    one_strike_is_no_verdict,
    a_suspect_is_made_alone,
    the_dead_are_not_replaced_in_a_drain,
    the_quarantine_is_written_down,
    it_is_written_down_before_anything_that_follows,
    what_was_written_down_holds_for_new_streams,
    what_a_state_names_holds_for_its_stream,
    a_verdict_makes_anew_what_was_made_beyond_its_place,
    a_verdict_is_told_to_producers,
    a_verdict_is_told_to_producers_that_come_later,
    a_verdict_is_told_to_clients_before_its_batch,
    what_sharers_were_told_does_not_change,
    a_state_counts_what_was_yielded,
    every_chunk_counts_in_the_receipt,
    receipts_are_of_one_epoch,
    legal_transitions,
]
