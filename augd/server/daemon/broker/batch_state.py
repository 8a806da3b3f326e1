"""Records of one stream: its batches, their chunks, its slots, and how far each client has read.

The stream (augd/server/daemon/broker/stream.py) owns and changes them. A batch is begun in a free
slot and cut into chunks. A slot is free again when no lease writes it and no client holds it. Pure:
no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from augd.protocol.digest_sums import Sums
from augd.protocol.messages import Flow
from augd.server.daemon.broker.counters import SentCounters
from augd.server.daemon.broker.states import SLOT, step

NO_SAMPLE = -1

Held = Iterable[tuple[int, int]]  # (slot, generation)


@dataclass(slots=True, eq=False)
class Chunk:
    """A row range of a batch: the unit of leases.

    `suspect` is a sample that ended its producer, or `NO_SAMPLE`. The chunk of a suspect has that
    row alone. It is leased to an unused producer, which gets nothing else meanwhile.
    """

    batch: BatchState
    first_row: int
    rows: int
    state: str = "pending"
    attempt: int = 0
    suspect: int = NO_SAMPLE


@dataclass(slots=True, eq=False)
class BatchState:
    """A batch from its beginning until every client was sent it. `sequence` counts all batches."""

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
    """One batch's place in the arena. `writers` counts the leases out on it."""

    index: int
    state: str = "free"
    generation: int = 0
    writers: int = 0
    batch: BatchState | None = None  # what was begun in it last
    unsent: int = 0  # clients that its batch is still to be sent to
    holders: tuple[int, ...] = ()  # sessions that have not released it; mostly one

    def take(self, verb: str) -> None:
        """Make one transition of the table."""
        self.state = step(SLOT, self.state, verb)
        if self.state == "free":
            self.generation += 1

    def is_unused(self) -> bool:
        """Say whether every client was sent its batch and has released it."""
        return self.state == "sent" and not self.unsent and not self.holders


@dataclass(slots=True, eq=False)
class ClientCursor:
    """How far one session may be sent, was sent, and has released, counted since its opening."""

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

    @property
    def front(self) -> int:
        """Sequence of the first batch that it has not released, when it releases in order."""
        return self.first + self.released

    def add_times(self, told: Flow, total: SentCounters) -> None:
        """Add the times that a client reports since its opening to the total of its stream."""
        total.waited_us += max(0, told.waited_us - self.waited_us)
        total.transfer_us += max(0, told.transfer_us - self.transfer_us)
        total.fetch_us += max(0, told.fetch_us - self.fetch_us)
        self.waited_us = max(self.waited_us, told.waited_us)
        self.transfer_us = max(self.transfer_us, told.transfer_us)
        self.fetch_us = max(self.fetch_us, told.fetch_us)

    def take_sums(self) -> Sums:
        """Return what was sent of the epoch that ends, and begin the next sums."""
        sums, self.sums = self.sums, Sums()
        return sums
