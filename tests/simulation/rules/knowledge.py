"""Rules of the quarantine, of states and of receipts, each as a way to take it out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest import MonkeyPatch as Patch

from augd.protocol import messages as msg
from augd.server.daemon.broker.announcement import StreamAnnouncer
from augd.server.daemon.broker.batch_state import BatchState, Chunk, ClientCursor
from augd.server.daemon.broker.failures import StreamFailures
from augd.server.daemon.broker.opening import StreamOpener
from augd.server.daemon.broker.outbox import Outbox
from augd.server.daemon.broker.producer_streams import ProducerStreams
from augd.server.daemon.broker.producers import Producer
from augd.server.daemon.broker.quarantine import QuarantineRegister
from augd.server.daemon.broker.session_state import Session
from augd.server.daemon.broker.states import step
from augd.server.daemon.broker.stream import StreamState
from tests.simulation.rows import Place
from tests.simulation.trainer import Trainer
from tests.simulation.world import Store


def the_quarantine_is_written_down(patch: Patch) -> None:
    patch.setattr(Store, "write", lambda self, content, entry: None)


def it_is_written_down_before_anything_that_follows(patch: Patch) -> None:
    honest = Outbox.take

    def take(self: Outbox) -> list[Any]:
        actions = honest(self)
        return sorted(actions, key=lambda action: type(action).__name__ == "KeepQuarantine")

    patch.setattr(Outbox, "take", take)


def what_was_written_down_holds_for_new_streams(patch: Patch) -> None:
    patch.setattr(QuarantineRegister, "entries", lambda self, content, place: ())


def what_a_state_names_holds_for_its_stream(patch: Patch) -> None:
    honest = StreamOpener._start

    def start(self: StreamOpener, session: Session, stream: StreamState, request: msg.Open) -> None:
        quarantine = dict(stream.quarantine)
        honest(self, session, stream, request)
        stream.quarantine = quarantine

    patch.setattr(StreamOpener, "_start", start)


def a_verdict_makes_anew_what_was_made_beyond_its_place(patch: Patch) -> None:
    patch.setattr(StreamState, "rewind", lambda self, batch: None)


def a_verdict_is_told_to_producers(patch: Patch) -> None:
    patch.setattr(ProducerStreams, "mask", lambda self, stream: None)


def a_verdict_is_told_to_producers_that_come_later(patch: Patch) -> None:
    honest = ProducerStreams.introduce

    def introduce(self: ProducerStreams, producer: Producer, stream: StreamState) -> None:
        quarantine, stream.quarantine = stream.quarantine, {}
        honest(self, producer, stream)
        stream.quarantine = quarantine

    patch.setattr(ProducerStreams, "introduce", introduce)


def a_verdict_is_told_to_clients_before_its_batch(patch: Patch) -> None:
    honest = StreamFailures.take_verdicts

    def take_verdicts(self: StreamFailures) -> list[Any]:
        honest(self)
        return []

    patch.setattr(StreamFailures, "take_verdicts", take_verdicts)


def what_sharers_were_told_does_not_change(patch: Patch) -> None:
    honest = StreamAnnouncer._settle_content

    def settle(self: StreamAnnouncer, stream: StreamState, environment: Any, place: Place) -> None:
        share, stream.share = stream.share, None
        honest(self, stream, environment, place)
        stream.share = share

    patch.setattr(StreamAnnouncer, "_settle_content", settle)


def a_state_counts_what_was_yielded(patch: Patch) -> None:
    """Counting what was received and is not yet handed out."""
    honest = Trainer.state_place

    def state_place(self: Trainer) -> Place:
        line, place = self.line, honest(self)
        for message in line.down:
            if isinstance(message, msg.BatchMessage) and line.reader._is_current(message):
                after = message.position + self.layout.batch_size * self.layout.world
                place = message.epoch, after
        return place

    patch.setattr(Trainer, "state_place", state_place)


def every_chunk_counts_in_the_receipt(patch: Patch) -> None:
    honest = StreamState.finish_chunk

    def finish_chunk(self: StreamState, chunk: Chunk, done: msg.Done) -> None:
        is_first = chunk.first_row == 0
        honest(self, chunk, msg.Done(done.lease) if is_first else done)

    patch.setattr(StreamState, "finish_chunk", finish_chunk)


def receipts_are_of_one_epoch(patch: Patch) -> None:
    patch.setattr(ClientCursor, "take_sums", lambda self: self.sums)


def legal_transitions(patch: Patch) -> None:
    """A batch that is sent while it is still being filled."""
    honest = StreamState.sendable

    def sendable(self: StreamState, reader: ClientCursor) -> Iterator[BatchState]:
        for batch in self.batches:
            if batch.slot.state == "filling":
                batch.slot.state = step({"filling": {"send": "ready"}}, "filling", "send")
        return honest(self, reader)

    patch.setattr(StreamState, "sendable", sendable)


RULES = (
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
)
