"""Rules of chunks and of producers that die, each as a way to take it out."""

from __future__ import annotations

from typing import Any

from pytest import MonkeyPatch as Patch

from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.server.daemon.broker.batch_state import Chunk
from augd.server.daemon.broker.chunk_queue import ChunkQueue
from augd.server.daemon.broker.producers import Producer
from augd.server.daemon.broker.scheduler import Scheduler
from augd.server.daemon.broker.stream import StreamState


def the_chunks_of_the_dead_are_made_again(patch: Patch) -> None:
    honest, honest_isolate = StreamState.lose_chunk, ChunkQueue.isolate

    def lose_chunk(self: StreamState, chunk: Chunk, *, is_suspect: bool) -> None:
        honest(self, chunk, is_suspect=is_suspect)
        if chunk in chunk.batch.pending:
            chunk.batch.pending.remove(chunk)
            self.chunks.num_pending -= 1

    def isolate(self: ChunkQueue, chunk: Chunk, row: int, sample: int) -> None:
        chunk.batch.pending.append(chunk)
        self.num_pending += 1
        honest_isolate(self, chunk, row, sample)

    patch.setattr(StreamState, "lose_chunk", lose_chunk)
    patch.setattr(ChunkQueue, "isolate", isolate)


def a_lease_is_answered_once(patch: Patch) -> None:
    honest = Scheduler.heard

    def heard(self: Scheduler, number: int, message: Any) -> None:
        producer = self.pool.members.get(number)
        record = None
        if producer is not None and isinstance(message, msg.Done):
            record = producer.leases.get(message.lease)
        honest(self, number, message)
        if producer is not None and record is not None and not record.chunk.batch.is_abandoned:
            producer.leases[message.lease] = record

    patch.setattr(Scheduler, "heard", heard)


def accuse_too(patch: Patch, ending: ExitReason) -> None:
    honest = ExitReason.is_suspect.fget
    assert honest is not None
    patch.setattr(ExitReason, "is_suspect", property(lambda self: self is ending or honest(self)))


def who_kills_from_outside_accuses_nobody(patch: Patch) -> None:
    accuse_too(patch, ExitReason.OUTSIDE)


def who_was_stopped_accuses_nobody(patch: Patch) -> None:
    accuse_too(patch, ExitReason.STOPPED)


def one_strike_is_no_verdict(patch: Patch) -> None:
    patch.setattr("augd.server.daemon.broker.quarantine.STRIKES", 1)


def a_suspect_is_made_alone(patch: Patch) -> None:
    patch.setattr(Producer, "has_suspect", lambda self: False)


def the_dead_are_not_replaced_in_a_drain(patch: Patch) -> None:
    honest = Scheduler.drain

    def drain(self: Scheduler) -> None:
        due = dict(self.pool.restart_at)
        honest(self)
        self.pool.restart_at.update(due)

    patch.setattr(Scheduler, "drain", drain)


RULES = (
    the_chunks_of_the_dead_are_made_again,
    a_lease_is_answered_once,
    who_kills_from_outside_accuses_nobody,
    who_was_stopped_accuses_nobody,
    one_strike_is_no_verdict,
    a_suspect_is_made_alone,
    the_dead_are_not_replaced_in_a_drain,
)
