"""What each producer was sent about streams: DATASET, STREAM, MASK, REVOKE and DROP.

The scheduler, the lease assigner and the failures of streams send these messages through here. A
producer learns of a stream with its first lease, and of a dataset with its first stream. A link
holds some 160 unread messages, and a daemon may serve more datasets and streams than that. Pure: no
I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from augd.protocol import messages as msg
from augd.protocol.quarantine import as_entries
from augd.protocol.slot_layout import chunk_layout
from augd.server.daemon.broker.chunk_size import remote_rows_max
from augd.server.daemon.broker.dataset_facts import DatasetFacts
from augd.server.daemon.broker.outbox import Outbox
from augd.server.daemon.broker.producers import DEPTH, Producer, ProducerPool
from augd.server.daemon.broker.stream import StreamState


class ProducerStreams:
    """Keeps the ready producers informed of the streams that they have leases of."""

    def __init__(
        self,
        outbox: Outbox,
        pool: ProducerPool,
        datasets: Mapping[str, DatasetFacts],
        *,
        has_cache: bool,
    ) -> None:
        """Start with no producer informed.

        Args:
            has_cache: this host's producers map a cache of decoded images.
        """
        self._outbox = outbox
        self._pool = pool
        self._datasets = datasets
        self._has_cache = has_cache

    def introduce(self, producer: Producer, stream: StreamState) -> None:
        """Send a producer a stream, and its dataset, unless it has them already."""
        if stream.number in producer.streams:
            return
        producer.streams.add(stream.number)
        is_remote = producer.remote is not None
        if stream.dataset not in producer.datasets:
            producer.datasets.add(stream.dataset)
            facts = self._datasets[stream.dataset]
            root = "" if is_remote else facts.root  # a remote producer has a root of its own
            has_cache = self._has_cache and not is_remote  # it goes by fds
            dataset = msg.DatasetMessage(stream.dataset, root, facts.digest, has_cache)
            self._outbox.tell(producer.number, dataset)
        self._outbox.tell(producer.number, _stream_message(stream, is_remote=is_remote))
        if stream.quarantine:
            self._outbox.tell(producer.number, _mask_of(stream))

    def mask(self, stream: StreamState) -> None:
        """Send the producers of a stream its whole quarantine, before they make more of it."""
        for producer in self._producers_of(stream):
            self._outbox.tell(producer.number, _mask_of(stream))

    def revoke(self, stream: StreamState) -> None:
        """Ask producers, once for each lease, to skip the leases of abandoned batches."""
        for producer in self._pool.ready():
            stale = [
                lease
                for lease, record in producer.leases.items()
                if record.stream is stream
                and record.chunk.batch.is_abandoned
                and not record.is_revoked
            ]
            for lease in stale:
                producer.leases[lease].is_revoked = True
            if stale:
                self._outbox.tell(producer.number, msg.Revoke(tuple(stale)))

    def drop(self, stream: StreamState) -> None:
        """Have the producers of a stream forget it."""
        for producer in self._producers_of(stream):
            producer.streams.discard(stream.number)
            self._outbox.tell(producer.number, msg.Drop(stream.number))

    def _producers_of(self, stream: StreamState) -> list[Producer]:
        return [one for one in self._pool.ready() if stream.number in one.streams]


def _stream_message(stream: StreamState, *, is_remote: bool) -> msg.StreamMessage:
    spec = stream.spec
    arrays, slot_bytes, num_slots = stream.arrays, stream.slot_bytes, len(stream.slots)
    phases = stream.phases
    if is_remote:  # memory of its own, for the chunks that it may have at a time
        rows = remote_rows_max(spec.layout.batch_size)
        (arrays, slot_bytes), num_slots = chunk_layout(arrays, rows), DEPTH
        chunks = [chunk_layout(phase.arrays, rows) for phase in phases]
        slot_bytes = max([slot_bytes, *(size_bytes for _, size_bytes in chunks)])
        phases = tuple(
            msg.PhaseArrays(phase.from_epoch, chunk)
            for phase, (chunk, _) in zip(phases, chunks, strict=True)
        )
    return msg.StreamMessage(
        stream=stream.number,
        dataset=stream.dataset,
        recipe=spec.recipe,
        layout=spec.layout,
        seed=spec.seed,
        shuffle=spec.shuffle,
        arrays=arrays,
        slot_bytes=slot_bytes,
        num_slots=num_slots,
        chosen=stream.chosen,
        selection=spec.selection if is_remote else msg.Selection(),
        repeats=spec.repeats,
        phases=phases,
    )


def _mask_of(stream: StreamState) -> msg.Mask:
    return msg.Mask(stream.number, as_entries(stream.quarantine))
