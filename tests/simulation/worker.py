"""A producer process: told over its link, writing rows one by one, and ending in every way.

It goes on writing while it is dead but not reaped, stopped ones go on when they are continued,
and what it had in hand stays readable as its current sample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from tests.simulation.rows import (
    DIGEST_MODULUS,
    IDS_MODULUS,
    NOTHING,
    PADDING,
    Place,
    Row,
    Violation,
    digest,
    ids_digest,
    row_at,
)


class Arena:
    """The memory of a stream's slots, and how many trainers read each at the moment."""

    def __init__(self, num_slots: int, rows: int) -> None:
        self.slots = [[NOTHING] * rows for _ in range(num_slots)]
        self.num_reading = [0] * num_slots


@dataclass(slots=True)
class Poison:
    """A sample that ends its producer: how, how often still, and whether the current sample
    tells."""

    ending: ExitReason  # KILLED: it hangs until it is killed
    times: float
    is_named: bool
    chance: float  # that it does so when it could


@dataclass(slots=True)
class Production:
    """What a producer knows of a stream: its memory, how many samples an epoch has, the mask."""

    use: msg.StreamMessage
    arena: Arena
    num_samples: int
    quarantine: dict[int, Place] = field(default_factory=dict)


@dataclass(slots=True)
class Task:
    """A lease in the making: the next row of it, and what was written so far adds up to."""

    lease: msg.Lease
    row: int = 0
    num_bad: int = 0
    digest: int = 0
    ids_digest: int = 0


@dataclass(eq=False)
class Worker:
    """One process. `ending` is set once it is dead; `meet` decides what a sample does to it."""

    meet: Callable[[Worker, int], bool]
    inbox: deque[tuple[msg.ToProducer, tuple[Arena, int] | None]] = field(default_factory=deque)
    outbox: deque[msg.FromProducer] = field(default_factory=deque)
    tasks: deque[Task] = field(default_factory=deque)
    productions: dict[int, Production] = field(default_factory=dict)
    current_sample: tuple[int, int, int] | None = None
    ending: ExitReason | None = None
    is_up: bool = False  # it said READY
    is_hanging: bool = False
    is_stopped: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether it hears and speaks."""
        return self.ending is None and not self.is_hanging and not self.is_stopped

    def die(self, ending: ExitReason) -> None:
        """End; the first end counts."""
        if self.ending is None:
            self.ending = ExitReason.STOPPED if self.is_stopped and ending == "killed" else ending

    def work(self, *, is_eager: bool) -> bool:
        """Take a message or write a row; says whether there was anything to do."""
        is_begun = bool(self.tasks) and self.tasks[0].row > 0
        if not self.is_up:
            return self.come_up()
        if self.inbox and self.is_alive and not is_begun and (is_eager or not self.tasks):
            self.obey(*self.inbox.popleft())
        elif self.tasks and not self.is_hanging and not self.is_stopped:
            self.write(self.tasks[0])
        else:
            return False
        return True

    def come_up(self) -> bool:
        """Say READY once everything is loaded."""
        if self.is_alive:
            self.is_up = True
            self.outbox.append(msg.Ready(1, {"lib": "1"}, "seccomp"))
        return self.is_up

    def obey(self, message: msg.ToProducer, memory: tuple[Arena, int] | None) -> None:
        """Do what the broker says."""
        match message:
            case msg.StreamMessage(stream):
                assert memory is not None
                self.productions[stream] = Production(message, *memory)
            case msg.Mask(stream, quarantine):
                self.production(stream).quarantine = {s: (e, p) for s, e, p in quarantine}
            case msg.Drop(stream):
                if any(task.lease.stream == stream for task in self.tasks):
                    raise Violation(f"stream {stream} is dropped before its leases were revoked")
                self.productions.pop(stream, None)
            case msg.Lease():
                self.production(message.stream)
                self.tasks.append(Task(message))
            case msg.Revoke(leases):
                for task in [task for task in self.tasks if task.lease.lease in leases]:
                    self.tasks.remove(task)
                    self.outbox.append(msg.Dropped(task.lease.lease))
            case msg.Drain():
                self.die(ExitReason.DRAINED)

    def production(self, stream: int) -> Production:
        """Return what is known of a stream; the broker may name none that is not."""
        if stream not in self.productions:
            raise Violation(f"a producer is told of stream {stream}, which it does not know")
        return self.productions[stream]

    def write(self, task: Task) -> None:
        """Write the next row, or meet the end over it; after the last one say DONE."""
        lease = task.lease
        production = self.productions[lease.stream]
        layout = production.use.layout
        position = lease.position + layout.rank * layout.batch_size + lease.first_row + task.row
        row = row_at(production.num_samples, lease.epoch, position, production.quarantine)
        if self.ending is None and row != PADDING and not row[3]:
            self.current_sample = (lease.lease, task.row, row[2])
            if self.meet(self, row[2]):
                return
            self.current_sample = None
        self.put(production.arena, lease, task, row)
        if task.row == lease.rows:
            self.tasks.popleft()
            if self.ending is None:
                self.outbox.append(_done(task))

    def put(self, arena: Arena, lease: msg.Lease, task: Task, row: Row) -> None:
        """Write into the slot, which nobody may be reading."""
        if arena.num_reading[lease.slot]:
            raise Violation(f"{lease} is written while a trainer reads its slot")
        arena.slots[lease.slot][lease.first_row + task.row] = row
        task.row += 1
        task.num_bad += row[3]
        task.digest = (task.digest + digest(row)) % DIGEST_MODULUS
        task.ids_digest = (task.ids_digest + ids_digest(row)) % IDS_MODULUS


def _done(task: Task) -> msg.Done:
    # The rows of every other stream are quick: it has large chunks.
    took_ns = task.lease.rows * (task.lease.stream % 2)
    bad = (msg.BadRow(0, "x", "quarantined"),) if task.num_bad else ()
    return msg.Done(
        task.lease.lease,
        task.num_bad,
        bad,
        task.digest.to_bytes(16, "little"),
        task.ids_digest.to_bytes(8, "little"),
        busy_ns=took_ns,
        cpu_ns=took_ns,
    )
