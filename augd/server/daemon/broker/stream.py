"""One stream of the broker: its batches, their chunks, the slots that they fill, and its readers.

Theory of operation. A stream is an endless sequence of batches from a cursor (epoch,
position), crossing epochs. `plan_ahead` begins batches in order while every reader has credit
and a slot is free, so the lowest missing batch always has its slot already and a finished
far-ahead batch can never starve it. Chunks of a begun batch are leased out in that order; a
batch is complete when its last chunk is done, and complete batches are sent in order only.

Readers are sessions: one, or several that share the production. A batch is `owed` to each of
them until it was sent to him, and leaves the sequence when it is owed to nobody. Its slot is
free again when, besides, everybody that it was sent to has released it.

A seek (`reopen`) gives up everything unsent. A slot that producers still write into drains
first: it becomes free only when the last lease on it was answered or its producer reaped.
Generations count reuses, so that a RELEASE that arrives late frees nothing.

Pure: no I/O, no clock. Knows neither sockets nor processes, only numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

from augd.plan.content import Content
from augd.protocol import epoch_layout
from augd.protocol.digest_sums import Sums, read_sum
from augd.protocol.limits import EPOCH_LAST
from augd.protocol.messages import ArraySpec, BadRow, Chosen, Done, Flow, Share, Spec
from augd.protocol.quarantine import Place
from augd.server.daemon.broker.counters import SentCounters
from augd.server.daemon.broker.states import CHUNK, SLOT, step

CHUNK_ROWS = 32  # usual ones
# While nobody knows how long a row takes: all producers get a part of the first batch.
CHUNK_ROWS_UNKNOWN = 8
# Of a batch, unless that makes chunks of more than `CHUNK_ROWS`: each costs the daemon memory.
CHUNKS_MAX = 256
# What a chunk should take its producer: 32 usual rows. Where rows take longer, as of photos of 12
# megapixels, larger chunks would let a new stream wait for seconds behind those that are leased
# already; a lease costs the daemon half a millisecond, so smaller ones would cost too much.
CHUNK_NS = 50_000_000
# Small rows, and rows from a cache, take so little that leases would cost more than they do: 32 of
# CIFAR's from a cache take a millisecond, and so does the lease. As many as take so long, then, if
# each producer still finds some in the slots. By the clock: rows that wait for a disk aren't quick.
QUICK_NS = 20_000_000
QUICK_ROWS_MAX = 512
QUICK_CHUNKS_MIN = 4  # in all slots, for each producer
_WEIGHT = 8  # chunks over which the time of a row is averaged
NO_SAMPLE = -1

Held = Iterable[tuple[int, int]]  # (slot, generation)


@dataclass(slots=True, eq=False)
class Chunk:
    """A row range of a batch: the unit of leases.

    `suspect` is a sample that ended a producer: its chunk is that row alone, and is made by a
    fresh producer which does nothing else.
    """

    batch: BatchState
    first_row: int
    rows: int
    state: str = "pending"
    attempt: int = 0
    suspect: int = NO_SAMPLE


@dataclass(slots=True, eq=False)
class BatchState:
    """A batch in the making or finished, not yet sent to everybody. `sequence` counts all."""

    sequence: int
    epoch: int
    number: int
    position: int
    rows: int
    slot: Slot
    missing: int = 0
    sums: Sums = field(default_factory=Sums)
    is_abandoned: bool = False
    # Lists: an empty deque takes half a kilobyte, and a client may have a thousand slots.
    pending: list[Chunk] = field(default_factory=list)
    suspects: list[Chunk] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Slot:
    """A place in the arena. `writers` counts leases out on it."""

    index: int
    state: str = "free"
    generation: int = 0
    writers: int = 0
    batch: BatchState | None = None  # what was begun in it last
    owed: int = 0  # readers that its batch is still to be sent to
    readers: tuple[int, ...] = ()  # sessions that have not released it; mostly one

    def take(self, verb: str) -> None:
        """Make one transition of the table."""
        self.state = step(SLOT, self.state, verb)
        if self.state == "free":
            self.generation += 1

    def is_unused(self) -> bool:
        """Say whether its batch was sent, is owed to nobody and read by nobody."""
        return self.state == "sent" and not self.owed and not self.readers


@dataclass(slots=True, eq=False)
class ClientCursor:
    """How far one session may be sent, was sent, and has let go, counted since its opening."""

    session: int
    opening: int
    first: int  # sequence of the batch that it begins with
    credit: int
    max_lag: int | None = None
    sent: int = 0
    released: int = 0
    waited_us: int = 0
    transfer_us: int = 0
    fetch_us: int = 0
    sums: Sums = field(default_factory=Sums)  # of the current epoch

    @property
    def next(self) -> int:
        """Sequence of the batch that it gets next."""
        return self.first + self.sent

    @property
    def limit(self) -> int:
        """Sequence of the first batch that its credit does not cover."""
        return self.first + self.credit

    def take_sums(self) -> Sums:
        """Return what was sent of the epoch that ends, and begin the next sums."""
        sums, self.sums = self.sums, Sums()
        return sums


class StreamState:
    """The broker's view of one production."""

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
        self.slot_bytes = slot_bytes
        self.chosen = chosen  # None: the whole data set
        self.share = share  # None: private
        self.num_unlabelled = 0
        # One slot for the batch in the trainer's hand, the others are made ahead of it. What a
        # laggard holds when it is left behind comes on top, so that the others don't stand still.
        spare = 0 if share is None or share.max_lag is None else share.max_lag + 2
        self.slots = [Slot(index) for index in range(spec.prefetch + 1 + spare)]
        # Kept in step, because every message to the daemon asks for them: a sum over a thousand
        # slots each time would let a client with many of them hold up all others.
        self._free = [slot.index for slot in self.slots]  # a heap: the lowest is taken first
        self._num_pending = 0
        self._num_suspects = 0
        self._num_finished = 0
        self.row_ns = 0.0  # CPU time of a row, 0 while nobody knows it
        self._row_wall_ns = 0.0  # and how long it takes by the clock
        self._num_paced = 0  # chunks by which it is known
        self._num_makers = 1
        self.has_arena = False
        self.content: Content | None = None
        self.quarantine: dict[int, Place] = {}
        self.subscribers: dict[int, ClientCursor] = {}
        self.gathers_until: float | None = None  # waits for its sharers
        self.begun = 0
        self.next_epoch = 0
        self.next_position = 0
        self.batches: deque[BatchState] = deque()
        self.is_failed = False  # ended with an ERROR: only an OPEN goes on
        self.turn = 0.0  # where in the crew's virtual time this stream's next lease stands
        self.bad_rows: deque[BadRow] = deque(maxlen=100)
        self.total = SentCounters()
        self._bad_of: dict[int, int] = {}  # by epoch

    # readers

    @property
    def arena_bytes(self) -> int:
        """Memory of all its slots."""
        return self.slot_bytes * len(self.slots)

    def start(self, session: int, opening: int, credit: int, place: Place, held: Held = ()) -> None:
        """Begin, or go elsewhere, with one reader: void all that he does not hold."""
        self._give_up(list(self.batches))
        self.keep_only(session, held)
        self.is_failed = False
        self._bad_of.clear()
        self.next_epoch, self.next_position = place
        max_lag = self.share.max_lag if self.share is not None else None
        self.subscribers[session] = ClientCursor(session, opening, self.begun, credit, max_lag)

    def join(self, session: int, opening: int, credit: int, place: Place) -> None:
        """Let another session read from a place that `offers` on."""
        assert self.share is not None
        first = self.begun
        for batch in self.batches:
            if (batch.epoch, batch.position) >= place:
                first = min(first, batch.sequence)
                batch.slot.owed += 1
        self.subscribers[session] = ClientCursor(
            session, opening, first, credit, self.share.max_lag
        )

    def offers(self, place: Place) -> bool:
        """Say whether a reader may still begin at this place."""
        places = [(batch.epoch, batch.position) for batch in self.batches]
        return place in places or place == self.next_place()

    def next_place(self) -> Place:
        """Return the place of the batch that is begun next."""
        if epoch_layout.batches_left(self.spec.layout, self.num_samples, self.next_position) == 0:
            return self.next_epoch + 1, 0
        return self.next_epoch, self.next_position

    def leave(self, session: int, held: Held = ()) -> None:
        """Send a session nothing more; it keeps what it holds until it releases that."""
        reader = self.subscribers.pop(session, None)
        if reader is not None:
            for batch in self.batches:
                batch.slot.owed -= batch.sequence >= reader.next
        self.keep_only(session, held)
        self._drop_unowed()

    def keep_only(self, session: int, held: Held) -> None:
        """Release all slots that were sent to a session but these."""
        kept = set(held)
        for slot in self.slots:
            if session in slot.readers and (slot.index, slot.generation) not in kept:
                self._let_go(slot, session)

    def holds(self, session: int) -> list[tuple[int, int]]:
        """List the slots that a session has not released."""
        return [(slot.index, slot.generation) for slot in self.slots if session in slot.readers]

    def laggards(self) -> list[ClientCursor]:
        """List the readers that are further behind the fastest than they allow themselves."""
        if len(self.subscribers) < 2:
            return []
        return [
            reader
            for reader in self.subscribers.values()
            if reader.max_lag is not None and self.lag_of(reader) > reader.max_lag
        ]

    def lag_of(self, reader: ClientCursor) -> int:
        """Count the batches by which a reader is behind the fastest one."""
        return max(r.first + r.released for r in self.subscribers.values()) - (
            reader.first + reader.released
        )

    def grant(self, session: int, opening: int, credit: int) -> bool:
        """Raise a reader's credit; say False when the message is stale. A credit never falls."""
        reader = self.subscribers.get(session)
        if reader is None or reader.opening != opening or self.is_failed:
            return False
        reader.credit = max(reader.credit, credit)
        return True

    def note_times(self, told: Flow) -> None:
        """Take a reader's word for how long it waited, and handed over, since its opening."""
        reader, total = self.subscribers[told.session], self.total
        total.waited_us += max(0, told.waited_us - reader.waited_us)
        total.transfer_us += max(0, told.transfer_us - reader.transfer_us)
        total.fetch_us += max(0, told.fetch_us - reader.fetch_us)
        reader.waited_us = max(reader.waited_us, told.waited_us)
        reader.transfer_us = max(reader.transfer_us, told.transfer_us)
        reader.fetch_us = max(reader.fetch_us, told.fetch_us)

    def release(self, session: int, index: int, generation: int) -> bool:
        """Take a slot back from a reader; say False when the message is stale."""
        if index >= len(self.slots):
            return False
        slot = self.slots[index]
        if session not in slot.readers or slot.generation != generation:
            return False
        self._let_go(slot, session)
        reader = self.subscribers.get(session)
        if reader is not None:
            reader.released += 1
        return True

    def _let_go(self, slot: Slot, session: int) -> None:
        slot.readers = tuple(reader for reader in slot.readers if reader != session)
        self._free_if_unused(slot)

    def _free_if_unused(self, slot: Slot) -> None:
        if slot.is_unused():
            self._free_by(slot, "release")

    def _free_by(self, slot: Slot, verb: str) -> None:
        """Make the transition by which a slot becomes free."""
        slot.take(verb)
        heappush(self._free, slot.index)

    # giving up

    def fail(self) -> None:
        """Void everything unsent and stop until the next `start`; sent slots stay sent."""
        self._give_up(list(self.batches))
        for reader in self.subscribers.values():
            reader.credit = 0
        self.is_failed = True

    def rewind(self, batch: BatchState) -> None:
        """Give up this batch and the ones after it, none of which was sent; begin them again."""
        self._give_up([other for other in self.batches if other.sequence >= batch.sequence])
        self.begun = batch.sequence
        self.next_epoch, self.next_position = batch.epoch, batch.position

    def _give_up(self, batches: list[BatchState]) -> None:
        for batch in batches:
            self._take_out(batch)
            batch.slot.owed = 0
            if batch.slot.state == "sent":
                self._free_if_unused(batch.slot)
            else:
                self._abandon(batch)

    def _take_out(self, batch: BatchState) -> None:
        self.batches.remove(batch)
        self._num_finished -= batch.missing == 0

    def _abandon(self, batch: BatchState) -> None:
        batch.is_abandoned = True
        self._num_pending -= len(batch.pending)
        self._num_suspects -= len(batch.suspects)
        batch.pending.clear()
        batch.suspects.clear()
        self._bad_of[batch.epoch] = self._bad_of.get(batch.epoch, 0) - batch.sums.num_bad
        batch.slot.take("abandon")
        self._drain(batch)

    def _drop_unowed(self) -> None:
        """Take batches out of the sequence that nobody waits for; they are always the first."""
        while self.batches and not self.batches[0].slot.owed:
            batch = self.batches[0]
            if batch.slot.state == "sent":
                self._take_out(batch)
                self._free_if_unused(batch.slot)
            else:
                self._give_up([batch])

    # making

    def plan_ahead(self, num_makers: int) -> None:
        """Begin batches while credit and a free slot are there, once it is known what they are.

        So many producers will make them.
        """
        self._num_makers = max(1, num_makers)
        if self.content is None or self.gathers_until is not None or not self.subscribers:
            return
        while self.begun < min(reader.next for reader in self.subscribers.values()):
            self._advance()  # rewound for readers that have left since: nobody waits for it
        limit = min(reader.limit for reader in self.subscribers.values())
        while self._free and self.begun < limit and self.next_place()[0] <= EPOCH_LAST:
            self._begin(self.slots[heappop(self._free)])

    def _begin(self, slot: Slot) -> None:
        layout, sequence = self.spec.layout, self.begun
        epoch, position = self._advance()
        rows = epoch_layout.batch_rows(layout, self.num_samples, position)
        number = epoch_layout.batch_number(layout, position)
        batch = BatchState(sequence, epoch, number, position, rows, slot)
        batch.sums = Sums(1, epoch_layout.real_rows(layout, self.num_samples, position))
        batch.pending.extend(_cut_chunks(batch, 0, rows, self.chunk_rows()))
        batch.missing = len(batch.pending)
        self._num_pending += batch.missing
        slot.take("fill")
        slot.batch = batch
        slot.owed = sum(reader.next <= sequence for reader in self.subscribers.values())
        self.batches.append(batch)
        self._bad_of = {e: n for e, n in self._bad_of.items() if e >= self.batches[0].epoch}

    def _advance(self) -> Place:
        """Go on by one batch; returns its place."""
        self.next_epoch, position = self.next_place()
        self.next_position = position + epoch_layout.global_batch(self.spec.layout)
        self.begun += 1
        return self.next_epoch, position

    def next_chunk(self, rows_max: int | None = None) -> Chunk | None:
        """Take the first pending chunk in batch order; the caller leases it.

        A larger one than its producer has room for is divided first.
        """
        for batch in self.batches if self._num_pending else ():
            if batch.pending:
                return self._take_chunk(batch, rows_max)
        return None

    def next_suspect(self) -> Chunk | None:
        """Take the first chunk that a fresh producer must make by itself."""
        for batch in self.batches if self._num_suspects else ():
            if batch.suspects:
                self._num_suspects -= 1
                return _lease(batch.suspects)
        return None

    def _take_chunk(self, batch: BatchState, rows_max: int | None) -> Chunk:
        if rows_max is not None and batch.pending[0].rows > rows_max:
            self._divide(batch)
        self._num_pending -= 1
        return _lease(batch.pending)

    def _divide(self, batch: BatchState) -> None:
        """Make usual chunks of the first pending one."""
        whole = batch.pending[0]
        parts = list(_cut_chunks(batch, whole.first_row, whole.rows, CHUNK_ROWS))
        for part in parts:
            part.attempt = whole.attempt
        batch.pending[:1] = parts
        batch.missing += len(parts) - 1
        self._num_pending += len(parts) - 1

    def has_pending(self) -> bool:
        """Say whether a chunk waits for a producer."""
        return self._num_pending > 0

    def has_suspects(self) -> bool:
        """Say whether a chunk waits for a fresh producer."""
        return self._num_suspects > 0

    def num_pending(self) -> int:
        """Count the chunks that wait for a producer."""
        return self._num_pending

    def chunk_rows(self) -> int:
        """Return about how many rows the chunks of the next batch have."""
        wanted = round(CHUNK_NS / self.row_ns) if self.row_ns else CHUNK_ROWS_UNKNOWN
        batch_size = self.spec.layout.batch_size
        usual = min(CHUNK_ROWS, max(1, wanted, -(-batch_size // CHUNKS_MAX)))
        if not self.row_ns:
            return usual
        # Not all slots may be filled at once: those of a laggard, or without credit.
        ahead = [reader.credit - reader.released for reader in self.subscribers.values()]
        share = min([len(self.slots), *ahead]) * batch_size // (QUICK_CHUNKS_MIN * self._num_makers)
        quick = round(QUICK_NS / max(self.row_ns, self._row_wall_ns))
        return max(usual, min(quick, share, QUICK_ROWS_MAX, batch_size))

    def learn_pace(self, chunk: Chunk, cpu_ns: int, busy_ns: int) -> bool:
        """Learn from a finished chunk how long a row takes; say, once, that it is known well.

        By CPU time: rows that wait for a slow disk need many leased ahead of them, to be read.
        Padding takes no time, and is no row.
        """
        real = epoch_layout.real_rows(self.spec.layout, self.num_samples, chunk.batch.position)
        rows = min(chunk.rows, real - chunk.first_row)
        if not cpu_ns or rows <= 0:
            return False
        self._num_paced += 1
        weight = 1 / min(self._num_paced, _WEIGHT)
        self.row_ns += (cpu_ns / rows - self.row_ns) * weight
        self._row_wall_ns += (busy_ns / rows - self._row_wall_ns) * weight
        return self._num_paced == _WEIGHT

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
        """Put a chunk back in front; a suspect one was in the making when its producer died."""
        batch = chunk.batch
        batch.slot.writers -= 1
        chunk.state = step(CHUNK, chunk.state, "lose")
        if batch.is_abandoned:
            self._drain(batch)
            return
        chunk.attempt += is_suspect
        if chunk.suspect == NO_SAMPLE:
            self._num_pending += 1
            batch.pending.insert(0, chunk)
        else:
            self._num_suspects += 1
            batch.suspects.insert(0, chunk)

    def isolate(self, chunk: Chunk, row: int, sample: int) -> None:
        """Cut a row, which ended its producer, out of a pending chunk, to be made by itself."""
        batch = chunk.batch
        batch.pending.remove(chunk)
        batch.suspects.append(Chunk(batch, chunk.first_row + row, 1, suspect=sample))
        rest = [(chunk.first_row, row), (chunk.first_row + row + 1, chunk.rows - row - 1)]
        pieces = [Chunk(batch, first, rows) for first, rows in rest if rows]
        batch.pending[:0] = pieces
        batch.missing += len(pieces)
        self._num_pending += len(pieces) - 1
        self._num_suspects += 1

    def _drain(self, batch: BatchState) -> None:
        if batch.slot.writers == 0:
            self._free_by(batch.slot, "drained")

    # sending

    def sendable(self, reader: ClientCursor) -> Iterator[BatchState]:
        """Take ready batches in order, as far as the reader's credit reaches at this moment."""
        while self.batches and reader.next < self.begun and reader.sent < reader.credit:
            batch = self.batches[reader.next - self.batches[0].sequence]
            if batch.slot.state not in ("ready", "sent"):
                return
            batch.slot.take("send")
            batch.slot.readers = (*batch.slot.readers, reader.session)
            batch.slot.owed -= 1
            reader.sent += 1
            reader.sums.add(batch.sums)
            self.total.batches += 1
            self.total.images += batch.sums.samples
            self._drop_unowed()
            yield batch

    def in_hand(self) -> BatchState | None:
        """Return the batch that a reader works on: the earliest sent one that is not released."""
        read = [slot.batch for slot in self.slots if slot.batch is not None and slot.readers]
        return min(read, key=lambda batch: batch.sequence, default=None)

    def is_last(self, batch: BatchState) -> bool:
        """Say whether the epoch ends with this batch."""
        layout = self.spec.layout
        after = batch.position + epoch_layout.global_batch(layout)
        return epoch_layout.batches_left(layout, self.num_samples, after) == 0

    def demand(self) -> float:
        """Share of its allowance that the stream has not got yet: 0 sated, 1 starving.

        Never 0 while a chunk is pending: that chunk's batch is allowed and unfinished.
        """
        if not self.subscribers:
            return 0.0
        front = self.batches[0].sequence if self.batches else self.begun
        # What was begun stays allowed, also when a reader joins that grants less.
        limit = max(self.begun, min(reader.limit for reader in self.subscribers.values()))
        allowed = min(limit - front, len(self.slots))
        if allowed <= 0:
            return 0.0
        return (allowed - self._num_finished) / len(self.slots)

    def num_bad_of(self, epoch: int) -> int:
        """Bad samples met in this epoch so far, sent and unsent, since the stream was started."""
        return self._bad_of.get(epoch, 0)

    def place_of(self, chunk: Chunk, row: int) -> Place:
        """Return the place of a chunk's row in the order of its epoch."""
        layout = self.spec.layout
        first = chunk.batch.position + layout.rank * layout.batch_size
        return chunk.batch.epoch, first + chunk.first_row + row


def _lease(queue: list[Chunk]) -> Chunk:
    chunk = queue.pop(0)
    chunk.state = step(CHUNK, chunk.state, "lease")
    chunk.batch.slot.writers += 1
    return chunk


def remote_rows_max(batch_size: int) -> int:
    """Return how many rows of such batches a producer elsewhere has room for in each lease."""
    return min(batch_size, CHUNK_ROWS * 3 // 2)


def _cut_chunks(batch: BatchState, first_row: int, num_rows: int, rows: int) -> Iterator[Chunk]:
    """Cut a row range of a batch into equal chunks of about so many rows."""
    pieces = max(1, round(num_rows / rows))
    for piece in range(pieces):
        first = num_rows * piece // pieces
        yield Chunk(batch, first_row + first, num_rows * (piece + 1) // pieces - first)
