"""Which producer gets which chunk next.

After each event the broker calls `LeaseAssigner.assign`, which sends LEASE until no producer is
under its low water, or no chunk waits. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heapreplace

from augd.protocol import messages as msg
from augd.server.daemon.broker.batch_state import Chunk
from augd.server.daemon.broker.chunk_size import remote_rows_max
from augd.server.daemon.broker.outbox import Outbox
from augd.server.daemon.broker.producer_streams import ProducerStreams
from augd.server.daemon.broker.producers import LeaseRecord, Producer, ProducerPool
from augd.server.daemon.broker.stream import StreamState

DEMAND_MIN = 0.001  # even a stream with full slots gets its next lease in finite virtual time


class LeaseAssigner:
    """Assigns the chunks of all streams to producers, in proportion to each stream's demand.

    The next chunk is chosen by start-time fair queueing, so that rows go out in proportion to
    `StreamState.demand`. Each lease moves the start tag of its stream on by rows / demand in a
    virtual time. The stream with the lowest tag is next. A stream that waited for credit does not
    save up leases.
    Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996.
    """

    def __init__(
        self,
        outbox: Outbox,
        pool: ProducerPool,
        streams: Mapping[int, StreamState],
        producer_streams: ProducerStreams,
    ) -> None:
        """Start at virtual time 0.

        Args:
            streams: by number; the scheduler adds and removes them.
        """
        self._outbox = outbox
        self._pool = pool
        self._streams = streams
        self._producer_streams = producer_streams
        self._virtual_time = 0.0

    def assign(self) -> None:
        """Fill the producers under low water, one chunk each in turns.

        A suspect goes alone to an unused producer, first.
        """
        reserved = self._assign_suspects()
        pending = sum(stream.chunks.num_pending for stream in self._streams.values())
        if not pending:
            return
        depth = self._pool.depth(pending)
        producers = [one for one in self._pool.under_low_water(depth) if one is not reserved]
        if not producers:
            return
        waiting = [stream for stream in self._streams.values() if stream.has_pending()]
        queue = [
            (max(one.start_tag, self._virtual_time), at, one) for at, one in enumerate(waiting)
        ]
        heapify(queue)
        while producers:
            for producer in producers:
                if not queue:
                    return
                _, at, stream = queue[0]
                is_here = producer.remote is None
                batch_size = stream.spec.layout.batch_size
                chunk = stream.next_chunk(None if is_here else remote_rows_max(batch_size))
                assert chunk is not None
                self._lease(producer, stream, chunk)
                if stream.has_pending():
                    heapreplace(queue, (stream.start_tag, at, stream))
                else:
                    heappop(queue)
            producers = [one for one in producers if len(one.leases) < depth]

    def _assign_suspects(self) -> Producer | None:
        """Lease suspects to unused producers.

        Returns:
            The producer that must become idle for the suspects that are left, if any.
        """
        for stream in self._streams.values():
            while stream.chunks.num_suspects and (producer := self._pool.unused()) is not None:
                chunk = stream.chunks.take_suspect(stream.batches)
                assert chunk is not None
                self._lease(producer, stream, chunk)
        are_left = any(stream.chunks.num_suspects for stream in self._streams.values())
        return self._pool.reserved_for_suspects() if are_left else None

    def _lease(self, producer: Producer, stream: StreamState, chunk: Chunk) -> None:
        self._producer_streams.introduce(producer, stream)
        number = self._outbox.number()
        if not producer.leases:
            producer.end_idle(self._outbox.now)
        self._virtual_time = max(stream.start_tag, self._virtual_time)
        stream.start_tag = self._virtual_time + chunk.rows / max(stream.demand(), DEMAND_MIN)
        batch = chunk.batch
        position, first_row, slot = batch.position, chunk.first_row, batch.slot.index
        if producer.remote is not None:  # the same rows, at the head of a slot of its own
            position, first_row, slot = position + first_row, 0, producer.free_slot()
        record = LeaseRecord(stream, chunk, at=slot)
        self._pool.assign_lease(producer, number, record, self._outbox.now)
        lease = msg.Lease(
            lease=number,
            stream=stream.number,
            epoch=batch.epoch,
            position=position,
            first_row=first_row,
            rows=chunk.rows,
            slot=slot,
            attempt=chunk.attempt,
        )
        self._outbox.tell(producer.number, lease)
