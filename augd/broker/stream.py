"""One stream of the broker: its batches, their chunks, and the slots that they fill.

Theory of operation. A stream is an endless sequence of batches from a cursor (epoch,
position), crossing epochs. `plan_ahead` begins batches in order while there is credit and a
free slot, so the lowest missing batch always has its slot already and a finished far-ahead
batch can never starve it. Chunks of a begun batch are leased out in that order; a batch is
complete when its last chunk is done, and complete batches are sent in order only.

A seek (`reopen`) gives up everything unsent. A slot that producers still write into drains
first: it becomes free only when the last lease on it was answered or its producer reaped.
Generations count reuses, so that a RELEASE that arrives late frees nothing.

Pure: no I/O, no clock. Knows neither sockets nor processes, only numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

from augd.broker.states import CHUNK, SLOT, step
from augd.wire import cut
from augd.wire.messages import ArraySpec, BadRow, Chosen, Spec

CHUNK_ROWS = 32  # what a killed producer costs at most; ~35 ms of work


@dataclass(slots=True)
class Chunk:
    """A row range of a batch: the unit of leases."""

    batch: Batch
    first_row: int
    rows: int
    state: str = "pending"
    attempt: int = 0


@dataclass(slots=True)
class Batch:
    """A batch in the making or finished, not yet sent."""

    sequence: int
    epoch: int
    number: int
    position: int
    rows: int
    slot: Slot
    missing: int = 0
    num_bad: int = 0
    is_abandoned: bool = False
    pending: deque[Chunk] = field(default_factory=deque)


@dataclass(slots=True)
class Slot:
    """A place in the arena. `writers` counts leases out on it."""

    index: int
    state: str = "free"
    generation: int = 0
    writers: int = 0

    def take(self, verb: str) -> None:
        """Make one transition of the table."""
        self.state = step(SLOT, self.state, verb)
        if self.state == "free":
            self.generation += 1


@dataclass(slots=True)
class EpochCount:
    """What was sent of an epoch since it was entered."""

    batches: int = 0
    samples: int = 0
    num_bad: int = 0


class Stream:
    """The broker's view of one client's production."""

    def __init__(
        self,
        number: int,
        session: int,
        spec: Spec,
        num_samples: int,
        arrays: tuple[ArraySpec, ...],
        slot_bytes: int,
        chosen: Chosen | None = None,
    ) -> None:
        """Make a stream with all its slots free and its cursor unset; `reopen` starts it."""
        self.number = number
        self.session = session
        self.spec = spec
        self.num_samples = num_samples
        self.arrays = arrays
        self.slot_bytes = slot_bytes
        self.chosen = chosen  # None: the whole data set
        # One slot for the batch in the trainer's hand, the others are made ahead of it.
        self.slots = [Slot(index) for index in range(spec.prefetch + 1)]
        # Kept in step, because every message to the daemon asks for them: a sum over a thousand
        # slots each time would let a client with many of them hold up all others.
        self._free = [slot.index for slot in self.slots]  # a heap: the lowest is taken first
        self._num_pending = 0
        self.has_arena = False
        self.opening = 0
        self.credit = 0
        self.begun = 0
        self.sent = 0
        self.next_epoch = 0
        self.next_position = 0
        self.batches: deque[Batch] = deque()
        self.count = EpochCount()
        self.is_failed = False  # the opening ended with an ERROR: only an OPEN goes on
        self.turn = 0.0  # where in the crew's virtual time this stream's next lease stands
        self.bad_rows: deque[BadRow] = deque(maxlen=100)
        self.total_bad = 0

    def reopen(
        self,
        opening: int,
        epoch: int,
        position: int,
        credit: int,
        held: tuple[tuple[int, int], ...],
    ) -> None:
        """Move the cursor; void everything that was begun or sent and is not `held`."""
        kept = set(held)
        for batch in self.batches:
            self._abandon(batch)
        self.batches.clear()
        for slot in self.slots:
            if slot.state == "sent" and (slot.index, slot.generation) not in kept:
                self._give_up(slot, "release")
        self.opening = opening
        self.is_failed = False
        self.credit = credit
        self.begun = self.sent = 0
        self.next_epoch, self.next_position = epoch, position
        self.count = EpochCount()

    def fail(self) -> None:
        """Void everything unsent and stop until the next `reopen`; sent slots stay sent."""
        held = tuple((slot.index, slot.generation) for slot in self.slots)
        self.reopen(self.opening, self.next_epoch, self.next_position, 0, held)
        self.is_failed = True

    def grant(self, opening: int, credit: int) -> bool:
        """Raise the credit; say False when the message is stale. A credit never falls."""
        if opening != self.opening or self.is_failed:
            return False
        self.credit = max(self.credit, credit)
        return True

    def _abandon(self, batch: Batch) -> None:
        batch.is_abandoned = True
        self._num_pending -= len(batch.pending)
        batch.pending.clear()
        batch.slot.take("abandon")
        self._drain(batch)

    def _give_up(self, slot: Slot, verb: str) -> None:
        """Make the transition by which a slot becomes free."""
        slot.take(verb)
        heappush(self._free, slot.index)

    def plan_ahead(self) -> None:
        """Begin batches while credit, a free slot and the arena are there."""
        while self.has_arena and self._free and self.begun < self.credit:
            self._begin(self.slots[heappop(self._free)])

    def _begin(self, slot: Slot) -> None:
        layout = self.spec.layout
        if cut.batches_left(layout, self.num_samples, self.next_position) == 0:
            self.next_epoch, self.next_position = self.next_epoch + 1, 0
        position = self.next_position
        rows = cut.batch_rows(layout, self.num_samples, position)
        number = cut.batch_number(layout, position)
        batch = Batch(self.begun, self.next_epoch, number, position, rows, slot)
        batch.pending.extend(_cut_chunks(batch))
        batch.missing = len(batch.pending)
        self._num_pending += batch.missing
        slot.take("fill")
        self.batches.append(batch)
        self.begun += 1
        self.next_position += cut.global_batch(layout)

    def next_chunk(self) -> Chunk | None:
        """Take the first pending chunk in batch order; the caller leases it."""
        for batch in self.batches:
            if batch.pending:
                chunk = batch.pending.popleft()
                self._num_pending -= 1
                chunk.state = step(CHUNK, chunk.state, "lease")
                batch.slot.writers += 1
                return chunk
        return None

    def has_pending(self) -> bool:
        """Say whether a chunk waits for a producer."""
        return self._num_pending > 0

    def num_pending(self) -> int:
        """Count the chunks that wait for a producer."""
        return self._num_pending

    def finish_chunk(self, chunk: Chunk, num_bad: int, bad: tuple[BadRow, ...]) -> None:
        """Count a chunk as done; its batch is ready with the last one."""
        batch = chunk.batch
        batch.slot.writers -= 1
        chunk.state = step(CHUNK, chunk.state, "finish")
        if batch.is_abandoned:
            self._drain(batch)
            return
        batch.missing -= 1
        batch.num_bad += num_bad
        self.total_bad += num_bad
        self.bad_rows.extend(bad)
        if batch.missing == 0:
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
        batch.pending.appendleft(chunk)
        self._num_pending += 1

    def _drain(self, batch: Batch) -> None:
        if batch.slot.writers == 0:
            self._give_up(batch.slot, "drained")

    def sendable(self) -> Iterator[Batch]:
        """Take ready batches in order, as far as the credit reaches at this moment."""
        while self.batches and self.batches[0].slot.state == "ready" and self.sent < self.credit:
            batch = self.batches.popleft()
            batch.slot.take("send")
            self.sent += 1
            self.count.batches += 1
            self.count.num_bad += batch.num_bad
            layout, total = self.spec.layout, self.num_samples
            self.count.samples += cut.real_rows(layout, total, batch.position)
            yield batch

    def is_last(self, batch: Batch) -> bool:
        """Say whether the epoch ends with this batch."""
        layout = self.spec.layout
        after = batch.position + cut.global_batch(layout)
        return cut.batches_left(layout, self.num_samples, after) == 0

    def take_count(self) -> EpochCount:
        """Return what was sent of the epoch that ends, and begin the next count."""
        count, self.count = self.count, EpochCount()
        return count

    def release(self, index: int, generation: int) -> bool:
        """Free a slot that was sent; say False when the message is stale."""
        if index >= len(self.slots):
            return False
        slot = self.slots[index]
        if slot.state != "sent" or slot.generation != generation:
            return False
        self._give_up(slot, "release")
        return True

    def lack(self) -> float:
        """Share of its allowance that the stream has not got yet: 0 sated, 1 starving.

        Never 0 while a chunk is pending: that chunk's batch is allowed and unfinished.
        """
        allowed = min(self.credit - self.sent, len(self.slots))
        if allowed <= 0:
            return 0.0
        finished = sum(1 for batch in self.batches if batch.missing == 0)
        return (allowed - finished) / len(self.slots)

    def num_bad_of(self, epoch: int) -> int:
        """Bad samples met in this epoch so far, sent and unsent; of an epoch not yet sent whole."""
        sent = self.count.num_bad if self.batches[0].epoch == epoch else 0
        return sent + sum(batch.num_bad for batch in self.batches if batch.epoch == epoch)


def _cut_chunks(batch: Batch) -> Iterator[Chunk]:
    """Cut a batch into equal chunks of about CHUNK_ROWS rows."""
    pieces = max(1, round(batch.rows / CHUNK_ROWS))
    for piece in range(pieces):
        first = batch.rows * piece // pieces
        yield Chunk(batch, first, batch.rows * (piece + 1) // pieces - first)
