"""What follows a bad row, a failed lease and a dead producer: for the sample and for the stream.

Theory of operation. How a producer ended decides what follows. It ended while it decoded a sample,
by a signal of its own, by hanging, or because memory ran out. That is a strike against the sample
(augd/server/daemon/broker/quarantine.py). If another process sent SIGKILL: nothing. If it
was decoding no sample: the chunk is the suspect, and its stream fails when the chunk has ended
three producers.

The scheduler calls in here. Sessions are unknown here: what the clients of a stream must be sent is
kept until the session table takes it, after each event. Pure: no I/O, no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from augd.errors import counted
from augd.plan.size_mismatch import is_misfit
from augd.protocol import epoch_layout
from augd.protocol import messages as msg
from augd.protocol.limits import QUARANTINE_MAX
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.bad_sample_log import BadSampleLog, name_row
from augd.server.daemon.broker.batch_state import NO_SAMPLE, BatchState, Chunk
from augd.server.daemon.broker.dataset_facts import DatasetFacts
from augd.server.daemon.broker.outbox import ERROR, ERROR_TEXT_MAX, WARNING, Outbox
from augd.server.daemon.broker.producer_streams import ProducerStreams
from augd.server.daemon.broker.producers import LeaseRecord, Producer, ProducerPool
from augd.server.daemon.broker.quarantine import QuarantineRegister
from augd.server.daemon.broker.stream import StreamState

ATTEMPTS_MAX = 3  # a chunk that ended this many producers ends its stream instead of a fourth


@dataclass(frozen=True, slots=True)
class StreamFailure:
    """A stream cannot go on, and why; its sessions are sent an ERROR."""

    stream: StreamState
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class QuarantineVerdict:
    """A sample of a stream was quarantined; its sessions are sent QUARANTINED."""

    stream: StreamState
    entry: msg.Quarantined
    text: str


class StreamFailures:
    """Fails streams and quarantines samples."""

    def __init__(
        self,
        outbox: Outbox,
        pool: ProducerPool,
        streams: Mapping[int, StreamState],
        producer_streams: ProducerStreams,
        datasets: Mapping[str, DatasetFacts],
    ) -> None:
        """Start with no failure, and with the quarantine that was written to disk.

        Args:
            streams: by number; the scheduler adds and removes them.
        """
        self._outbox = outbox
        self._pool = pool
        self._streams = streams
        self._datasets = datasets
        self._producer_streams = producer_streams
        self._bad_samples = BadSampleLog()
        self.registers = {
            name: QuarantineRegister(facts.quarantine) for name, facts in datasets.items()
        }
        self.unhealthy = ""  # why no producer stays alive; empty while one does
        self._failures: list[StreamFailure] = []
        self._verdicts: list[QuarantineVerdict] = []

    def take_failures(self) -> list[StreamFailure]:
        """Return the streams that failed since the last call."""
        taken, self._failures = self._failures, []
        return taken

    def take_verdicts(self) -> list[QuarantineVerdict]:
        """Return the samples that were quarantined since the last call."""
        taken, self._verdicts = self._verdicts, []
        return taken

    def fail(self, stream: StreamState, code: str, text: str) -> None:
        """End a stream with an ERROR; `code` names the exception class."""
        stream.fail()
        self._producer_streams.revoke(stream)
        self._failures.append(StreamFailure(stream, code, text))

    def check_bad_rows(self, stream: StreamState, batch: BatchState, done: msg.Done) -> None:
        """Log the bad rows of a finished chunk; fail the stream when it allows no more."""
        first = done.bad[0] if done.bad else msg.BadRow(-1, "?", "unknown")
        name = name_row(first)
        if stream.spec.bad != "mask":
            self._outbox.log(WARNING, name)
            text = f'bad {name}. Mend or remove the file, or connect with bad="mask".'
            text = f"{name}." if is_misfit(first.reason) else text
            self.fail(stream, "SAMPLE_FAILED", text)
            return
        for line in self._bad_samples.new(stream.dataset, done.bad):
            self._outbox.log(WARNING, line)
        samples = epoch_layout.samples_of_rank(stream.spec.layout, stream.num_samples, 0)
        # Rounded up, so that one bad photo of a small folder is not yet an error.
        allowed = math.ceil(stream.spec.max_bad_fraction * samples)
        num_bad = stream.num_bad_of(batch.epoch)
        if num_bad > allowed:
            todo = "`augd check` names all such files: mend or remove them, or allow more"
            if is_misfit(first.reason):
                todo = "The files are good, and the recipe does not fit them"
            text = (
                f"{num_bad} bad samples in epoch {batch.epoch}, more than the {allowed} that "
                f"max_bad_fraction={stream.spec.max_bad_fraction} allows; the last: {name}. {todo}"
            )
            self.fail(stream, "SAMPLE_FAILED", text)

    def fail_lease(self, record: LeaseRecord, fail: msg.Fail) -> None:
        """Fail the stream of a lease that raised an error, unless its batch was given up."""
        record.stream.lose_chunk(record.chunk, is_suspect=True)
        if not record.chunk.batch.is_abandoned:
            text = f"a producer failed: {fail.text}" if fail.code == "INTERNAL" else fail.text
            self.fail(record.stream, fail.code, text)

    def current_sample(
        self, dead: Producer, event: ev.Reaped
    ) -> tuple[LeaseRecord, int, int] | None:
        """Find what the producer was decoding: its lease, the row of its chunk, the sample."""
        if event.current_sample is None or event.current_sample[0] not in dead.leases:
            return None
        lease, row, sample = event.current_sample
        record = dead.leases[lease]
        # A producer writes these numbers, and is not trusted: they must be of this dataset.
        num_samples = self._datasets[record.stream.dataset].num_samples
        is_sound = 0 <= sample < num_samples and 0 <= row < record.chunk.rows
        return (record, row, sample) if is_sound else None

    def strike(self, record: LeaseRecord, row: int, sample: int) -> None:
        """Have a sample that ended its producer made again alone, or quarantine it."""
        stream, chunk = record.stream, record.chunk
        is_last = self.registers[stream.dataset].strike(sample)
        entry = (sample, *stream.place_of(chunk, row))
        how = f"sample {sample} ended its producer twice ({self._pool.last_exit})"
        if chunk.batch.is_abandoned:
            # No client waits for it, but a stream that opens later must mask it.
            if is_last and stream.spec.bad == "mask":
                self._record(stream, entry, how)
            return
        if not is_last:
            if chunk.suspect == NO_SAMPLE:
                stream.chunks.isolate(chunk, row, sample)
            return
        self._pool.exits_in_row = 0  # the sample was at fault, not the producers
        if stream.spec.bad == "fail":
            text = f'{how}. Mend or remove the file, or connect with bad="mask".'
            self.fail(stream, "SAMPLE_FAILED", text)
        elif len(stream.quarantine) >= QUARANTINE_MAX:
            text = (
                f"{how}, and {QUARANTINE_MAX} are quarantined already: "
                "the samples are not the cause"
            )
            self.fail(stream, "QUARANTINE_LIMIT", text)
        else:
            self._quarantine(stream, chunk.batch, entry, how)

    def _quarantine(
        self, stream: StreamState, batch: BatchState, entry: msg.Quarantined, how: str
    ) -> None:
        """Mask a sample from its place on; what was made beyond that place is recomputed."""
        text = self._record(stream, entry, how)
        sample, epoch, position = entry
        stream.quarantine[sample] = (epoch, position)
        stream.rewind(batch)
        self._producer_streams.revoke(stream)
        self._producer_streams.mask(stream)
        self._verdicts.append(QuarantineVerdict(stream, entry, text))

    def _record(self, stream: StreamState, entry: msg.Quarantined, how: str) -> str:
        """Write an entry for every stream of this content that opens later; return its text."""
        assert stream.content is not None
        _, epoch, position = entry
        text = f"{how}: quarantined from position {position} of epoch {epoch} on"
        digest = stream.content.digest
        self.registers[stream.dataset].add(digest, [entry])
        self._outbox.add(ev.KeepQuarantine(stream.dataset, digest, entry, how))
        self._outbox.log(ERROR, text)
        return text

    def check_attempts(self, record: LeaseRecord) -> None:
        """Fail the stream of a chunk that has ended `ATTEMPTS_MAX` producers."""
        if record.chunk.attempt >= ATTEMPTS_MAX and not record.chunk.batch.is_abandoned:
            self.fail(record.stream, "SAMPLE_FAILED", self._describe_attempts(record.chunk))
            self._pool.exits_in_row = 0  # the chunk was at fault, not the producers

    def _describe_attempts(self, chunk: Chunk) -> str:
        batch = chunk.batch
        return (
            f"rows {chunk.first_row}..{chunk.first_row + chunk.rows - 1} of batch {batch.number} "
            f"of epoch {batch.epoch} ended {counted(chunk.attempt, 'producer')} one after "
            f"another (the last: "
            f"{self._pool.last_exit}), while they decoded no sample"
        )

    def check_health(self) -> None:
        """Fail every stream when too many producers ended in a row.

        The pool goes on restarting them, with pauses.
        """
        if not self._pool.is_unhealthy():
            return
        self.unhealthy = (
            f"{self._pool.exits_in_row} producers died in a row without finishing a chunk; the "
            f"last: {self._pool.last_exit[:ERROR_TEXT_MAX]}. See the daemon's output, then try "
            "again."
        )
        for stream in list(self._streams.values()):
            if not stream.is_failed:
                self.fail(stream, "PRODUCERS_UNHEALTHY", self.unhealthy)
