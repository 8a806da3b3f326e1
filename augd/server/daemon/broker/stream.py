"""One stream of the broker: its batches, the slots that they fill, and the clients that read it.

Theory of operation. A stream is an endless sequence of batches from a cursor (epoch, position),
crossing epochs. `plan_ahead` begins batches in order while every client has credit and a slot is
free. So the lowest missing batch always has a slot, and no finished later batch can starve it.
Chunks of a begun batch are leased in that order (augd/server/daemon/broker/chunk_queue.py). A batch
is complete when its last chunk is done. Complete batches are sent in order only.

The clients are sessions: one, or several that share the stream. `Slot.unsent` counts the clients
that a batch is still to be sent to; at zero the batch leaves the sequence. Its slot is free once
every session that was sent it has released it, too.

A seek (`start`) gives up everything unsent. A slot that producers still write into drains first. It
becomes free when the last lease on it was answered, or the producer of that lease was reaped.
Generations count the uses of a slot, so that a late RELEASE frees nothing.

Pure: no I/O, no clock. Knows neither sockets nor processes, only numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush

from augd.plan.content import Content
from augd.protocol import epoch_layout
from augd.protocol.digest_sums import Sums, read_sum
from augd.protocol.limits import EPOCH_LAST
from augd.protocol.messages import (
    ArraySpec,
    BadRow,
    Chosen,
    Done,
    Flow,
    PhaseArrays,
    Share,
    Spec,
)
from augd.protocol.quarantine import Place
from augd.server.daemon.broker.batch_state import BatchState, Chunk, ClientCursor, Held, Slot
from augd.server.daemon.broker.chunk_queue import ChunkQueue
from augd.server.daemon.broker.chunk_size import ChunkSize
from augd.server.daemon.broker.counters import SentCounters
from augd.server.daemon.broker.states import CHUNK, step


class StreamState:
    """One sequence of batches, read by one session or by several that share it."""

    def __init__(
        self,
        number: int,
        dataset: str,
        spec: Spec,
        num_samples: int,
        arrays: tuple[ArraySpec, ...],
        slot_bytes: int,
        chosen: Chosen | None = None,
        share: Share | None = None,
    ) -> None:
        """Make a stream with all its slots free and its cursor unset; `start` sets it."""
        self.number = number
        self.dataset = dataset
        self.spec = spec
        self.num_samples = num_samples
        self.arrays = arrays
        self.phases: tuple[PhaseArrays, ...] = ()  # other arrays, from their epochs on
        self.slot_bytes = slot_bytes
        self.chosen = chosen  # None: the whole dataset
        self.share = share  # None: private
        self.num_unlabelled = 0
        # One slot for the batch that the trainer holds; the others are filled ahead of it. A client
        # that lags is detached with all that it holds: the other clients need slots beside those.
        spare = 0 if share is None or share.max_lag is None else share.max_lag + 2
        self.slots = [Slot(index) for index in range(spec.prefetch + 1 + spare)]
        self.chunks = ChunkQueue()
        self.chunk_size = ChunkSize(spec.layout.batch_size)
        # Both are kept, not computed: every message to the daemon asks for them, and a client may
        # have a thousand slots.
        self._free = [slot.index for slot in self.slots]  # a heap: the lowest is taken first
        self._num_finished = 0
        self.has_arena = False
        self.content: Content | None = None
        self.quarantine: dict[int, Place] = {}
        self.clients: dict[int, ClientCursor] = {}  # by session
        self.gather_deadline: float | None = None  # until then it waits for its sharers
        self.begun = 0
        self.next_epoch, self.next_position = 0, 0
        self.batches: deque[BatchState] = deque()
        self.is_failed = False  # ended with an ERROR: only an OPEN goes on
        self.start_tag = 0.0  # of its next lease, in the virtual time of the lease assigner
        self.bad_rows: deque[BadRow] = deque(maxlen=100)
        self.total = SentCounters()
        self._bad_of: dict[int, int] = {}  # by epoch

    # clients

    @property
    def arena_bytes(self) -> int:
        """Memory of all its slots."""
        return self.slot_bytes * len(self.slots)

    def start(self, session: int, opening: int, credit: int, place: Place, held: Held = ()) -> None:
        """Begin, or seek, with one client: void everything that it does not hold."""
        self._void(list(self.batches))
        self.keep_only(session, held)
        self.is_failed = False
        self._bad_of.clear()
        self.next_epoch, self.next_position = place
        max_lag = self.share.max_lag if self.share is not None else None
        self.clients[session] = ClientCursor(session, opening, self.begun, credit, max_lag)

    def join(self, session: int, opening: int, credit: int, place: Place) -> None:
        """Let another session read from a place on that `offers` admits."""
        assert self.share is not None
        first = self.begun
        for batch in self.batches:
            if (batch.epoch, batch.position) >= place:
                first = min(first, batch.sequence)
                batch.slot.unsent += 1
        self.clients[session] = ClientCursor(session, opening, first, credit, self.share.max_lag)

    def offers(self, place: Place) -> bool:
        """Say whether a client may still begin at this place."""
        places = [(batch.epoch, batch.position) for batch in self.batches]
        return place in places or place == self.next_place()

    def next_place(self) -> Place:
        """Return the place of the batch that is begun next."""
        if epoch_layout.batches_left(self.spec.layout, self.num_samples, self.next_position) == 0:
            return self.next_epoch + 1, 0
        return self.next_epoch, self.next_position

    def leave(self, session: int, held: Held = ()) -> None:
        """Send a session nothing more; it keeps the slots in `held` until it releases them."""
        client = self.clients.pop(session, None)
        if client is not None:
            for batch in self.batches:
                batch.slot.unsent -= batch.sequence >= client.next
        self.keep_only(session, held)
        self._drop_sent()

    def keep_only(self, session: int, held: Held) -> None:
        """Release all slots that a session holds but these."""
        kept = set(held)
        for slot in self.slots:
            if session in slot.holders and (slot.index, slot.generation) not in kept:
                self._release_slot(slot, session)

    def holds(self, session: int) -> list[tuple[int, int]]:
        """List the slots that a session has not released."""
        return [(slot.index, slot.generation) for slot in self.slots if session in slot.holders]

    def laggards(self) -> list[ClientCursor]:
        """List the clients that are further behind the fastest than their `max_lag`."""
        if len(self.clients) < 2:
            return []
        return [
            client
            for client in self.clients.values()
            if client.max_lag is not None and self.lag_of(client) > client.max_lag
        ]

    def lag_of(self, client: ClientCursor) -> int:
        """Count the batches by which a client is behind the fastest one."""
        return max(other.front for other in self.clients.values()) - client.front

    def grant(self, session: int, opening: int, credit: int) -> bool:
        """Raise a client's credit, which never falls; return False when the message is stale."""
        client = self.clients.get(session)
        if client is None or client.opening != opening or self.is_failed:
            return False
        client.credit = max(client.credit, credit)
        return True

    def note_times(self, told: Flow) -> None:
        """Add the times that a client reports since its opening to the stream's total."""
        self.clients[told.session].add_times(told, self.total)

    def release(self, session: int, index: int, generation: int) -> bool:
        """Take a slot back from a client; return False when the message is stale."""
        if index >= len(self.slots):
            return False
        slot = self.slots[index]
        if session not in slot.holders or slot.generation != generation:
            return False
        self._release_slot(slot, session)
        client = self.clients.get(session)
        if client is not None:
            client.released += 1
        return True

    def _release_slot(self, slot: Slot, session: int) -> None:
        slot.holders = tuple(client for client in slot.holders if client != session)
        self._free_if_unused(slot)

    def _free_if_unused(self, slot: Slot) -> None:
        if slot.is_unused():
            self._free_slot(slot, "release")

    def _free_slot(self, slot: Slot, verb: str) -> None:
        """Make the transition by which a slot becomes free."""
        slot.take(verb)
        heappush(self._free, slot.index)

    # giving up

    def fail(self) -> None:
        """Void everything unsent and stop until the next `start`; sent slots stay sent."""
        self._void(list(self.batches))
        for client in self.clients.values():
            client.credit = 0
        self.is_failed = True

    def rewind(self, batch: BatchState) -> None:
        """Give up this batch and the ones after it, none of which was sent; begin them again."""
        self._void([other for other in self.batches if other.sequence >= batch.sequence])
        self.begun = batch.sequence
        self.next_epoch, self.next_position = batch.epoch, batch.position

    def _void(self, batches: list[BatchState]) -> None:
        for batch in batches:
            self._remove(batch)
            batch.slot.unsent = 0
            if batch.slot.state == "sent":
                self._free_if_unused(batch.slot)
            else:
                self._abandon(batch)

    def _remove(self, batch: BatchState) -> None:
        self.batches.remove(batch)
        self._num_finished -= batch.missing == 0

    def _abandon(self, batch: BatchState) -> None:
        batch.is_abandoned = True
        self.chunks.clear(batch)
        self._bad_of[batch.epoch] = self._bad_of.get(batch.epoch, 0) - batch.sums.num_bad
        batch.slot.take("abandon")
        self._drain(batch)

    def _drop_sent(self) -> None:
        """Take batches out of the sequence that every client was sent; they are always the
        first."""
        while self.batches and not self.batches[0].slot.unsent:
            batch = self.batches[0]
            if batch.slot.state == "sent":
                self._remove(batch)
                self._free_if_unused(batch.slot)
            else:
                self._void([batch])

    # making

    def plan_ahead(self, num_producers: int) -> None:
        """Begin batches while credit and a free slot are there, once the content is known.

        Args:
            num_producers: producers that will make them; their number bounds the chunks' size.
        """
        self.chunk_size.num_producers = max(1, num_producers)
        if self.content is None or self.gather_deadline is not None or not self.clients:
            return
        while self.begun < min(client.next for client in self.clients.values()):
            self._advance()  # rewound for clients that have left since
        limit = min(client.limit for client in self.clients.values())
        while self._free and self.begun < limit and self.next_place()[0] <= EPOCH_LAST:
            self._begin(self.slots[heappop(self._free)])

    def _begin(self, slot: Slot) -> None:
        layout, sequence = self.spec.layout, self.begun
        epoch, position = self._advance()
        rows = epoch_layout.batch_rows(layout, self.num_samples, position)
        number = epoch_layout.batch_number(layout, position)
        batch = BatchState(sequence, epoch, number, position, rows, slot)
        batch.sums = Sums(1, epoch_layout.real_rows(layout, self.num_samples, position))
        self.chunks.cut(batch, self.chunk_rows())
        slot.take("fill")
        slot.batch = batch
        slot.unsent = sum(client.next <= sequence for client in self.clients.values())
        self.batches.append(batch)
        self._bad_of = {e: n for e, n in self._bad_of.items() if e >= self.batches[0].epoch}

    def _advance(self) -> Place:
        """Move the cursor on by one batch; return the place of that batch."""
        self.next_epoch, position = self.next_place()
        self.next_position = position + epoch_layout.global_batch(self.spec.layout)
        self.begun += 1
        return self.next_epoch, position

    def next_chunk(self, rows_max: int | None = None) -> Chunk | None:
        """Take the first pending chunk, of at most `rows_max` rows; the caller leases it."""
        return self.chunks.take(self.batches, rows_max)

    def has_pending(self) -> bool:
        """Say whether a chunk waits for a producer."""
        return self.chunks.num_pending > 0

    def chunk_rows(self) -> int:
        """Return about how many rows the chunks of the next batch have."""
        # Not all slots may be filled at once: some belong to a laggard, or lie beyond the credit.
        ahead = [client.credit - client.released for client in self.clients.values()]
        return self.chunk_size.rows(min([len(self.slots), *ahead]))

    def measure(self, chunk: Chunk, cpu_ns: int, wall_ns: int) -> bool:
        """Learn from a finished chunk how long a row takes; return True once it is settled.

        Padding takes no time and is not counted as rows.
        """
        real = epoch_layout.real_rows(self.spec.layout, self.num_samples, chunk.batch.position)
        return self.chunk_size.measure(min(chunk.rows, real - chunk.first_row), cpu_ns, wall_ns)

    def finish_chunk(self, chunk: Chunk, done: Done) -> None:
        """Count a chunk as done; its batch is ready with the last one."""
        batch = chunk.batch
        batch.slot.writers -= 1
        chunk.state = step(CHUNK, chunk.state, "finish")
        if batch.is_abandoned:
            self._drain(batch)
            return
        batch.missing -= 1
        sums = Sums(0, 0, done.num_bad, read_sum(done.digest), read_sum(done.ids_digest))
        batch.sums.add(sums)
        self.total.bad += done.num_bad
        self._bad_of[batch.epoch] = self._bad_of.get(batch.epoch, 0) + done.num_bad
        self.bad_rows.extend(done.bad)
        if batch.missing == 0:
            self._num_finished += 1
            batch.slot.take("complete")

    def lose_chunk(self, chunk: Chunk, *, is_suspect: bool) -> None:
        """Put a chunk back in front.

        Args:
            is_suspect: its producer may have died of it: it counts as an attempt.
        """
        batch = chunk.batch
        batch.slot.writers -= 1
        chunk.state = step(CHUNK, chunk.state, "lose")
        if batch.is_abandoned:
            self._drain(batch)
            return
        chunk.attempt += is_suspect
        self.chunks.put_back(chunk)

    def _drain(self, batch: BatchState) -> None:
        if batch.slot.writers == 0:
            self._free_slot(batch.slot, "drained")

    # sending

    def sendable(self, client: ClientCursor) -> Iterator[BatchState]:
        """Take ready batches in order, as far as the client's credit reaches at this moment."""
        while self.batches and client.next < self.begun and client.sent < client.credit:
            batch = self.batches[client.next - self.batches[0].sequence]
            if batch.slot.state not in ("ready", "sent"):
                return
            batch.slot.take("send")
            batch.slot.holders = (*batch.slot.holders, client.session)
            batch.slot.unsent -= 1
            client.sent += 1
            client.sums.add(batch.sums)
            self.total.batches += 1
            self.total.images += batch.sums.samples
            self._drop_sent()
            yield batch

    def is_last(self, batch: BatchState) -> bool:
        """Say whether the epoch ends with this batch."""
        layout = self.spec.layout
        after = batch.position + epoch_layout.global_batch(layout)
        return epoch_layout.batches_left(layout, self.num_samples, after) == 0

    def demand(self) -> float:
        """Return the share of its slots that the stream may fill and has not: 0 to 1.

        Never 0 while a chunk is pending: that chunk's batch is allowed and unfinished.
        """
        if not self.clients:
            return 0.0
        front = self.batches[0].sequence if self.batches else self.begun
        # What was begun stays allowed, also when a client joins that grants less.
        limit = max(self.begun, min(client.limit for client in self.clients.values()))
        allowed = min(limit - front, len(self.slots))
        if allowed <= 0:
            return 0.0
        return (allowed - self._num_finished) / len(self.slots)

    def num_bad_of(self, epoch: int) -> int:
        """Count the bad samples of this epoch, sent and unsent, since the stream was started."""
        return self._bad_of.get(epoch, 0)

    def place_of(self, chunk: Chunk, row: int) -> Place:
        """Return the place of a chunk's row in the order of its epoch."""
        layout = self.spec.layout
        first = epoch_layout.first_position(layout, chunk.batch.position)
        return chunk.batch.epoch, first + chunk.first_row + row
