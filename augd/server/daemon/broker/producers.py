"""The producers as the broker knows them: who works on what, who hangs, who must be replaced.

Theory of operation. Leases of a producer are a queue; it works through them in order, so the
first is the one in the making, and the only suspect when the producer dies. A producer that
falls to `LOW_WATER` leases is hungry and is filled up to `DEPTH`, in turns with the other
hungry ones, so that it never waits for a message and yet plans several chunks at once.

A dead producer is started again: at once the first time, then with growing pauses while
deaths follow one another without a chunk being finished in between. The pauses differ by place,
so that many producers that died of one cause do not all come back at the same moment.

Producers of other hosts come and go by themselves (augd/server/daemon/broker/remote_producers.py):
they have numbers beyond all places, none twice, and are never started here. Pure: no I/O, no clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from augd.protocol.exit_reason import ExitReason
from augd.protocol.permissions import Rights
from augd.server.daemon.broker.states import PRODUCER, step
from augd.server.daemon.broker.stream import NO_SAMPLE, Chunk, StreamState

LOW_WATER = 1
DEPTH = 8  # chunks that are planned in one go, which costs per call and not per row
START_S = 60.0  # imports on a cold disk; beyond it a start is counted as hanging
JOIN_S = 10.0  # from JOINED to ATTACH, which follow within a round trip
REAP_S = 5.0  # a relay reaps in milliseconds; beyond, it is as dead as its producer
PATIENCE_S = 30.0  # a producer at work speaks at least every second; 30 s mean it hangs
PAUSE_MAX_S = 5.0
DEATHS_MIN = 4  # deaths in a row before the producers are called unhealthy: above ATTEMPTS_MAX


@dataclass(slots=True)
class LeaseRecord:
    """A lease that is out: what the broker must do when it is answered or lost."""

    stream: StreamState
    chunk: Chunk
    is_revoked: bool = False
    at: int = 0  # of a remote producer: the slot of its own memory that its rows are made in


@dataclass(slots=True)
class RemoteState:
    """What is known of a producer on another host, beyond what is known of all."""

    host: str
    token: str
    who: Rights | None
    beat_at: float
    part_at: float | None = None  # it was told to die: when it counts as dead without an answer


@dataclass(slots=True)
class Producer:
    """One producer process, from its start to its reaping."""

    number: int
    started_at: float
    heard_at: float
    state: str = "starting"
    pid: int = 0
    confinement: str = ""  # what READY said
    leases: dict[int, LeaseRecord] = field(default_factory=dict)  # insertion order = work order
    datasets: set[str] = field(default_factory=set)  # that it was told of
    streams: set[int] = field(default_factory=set)
    chunks_done: int = 0
    rows_done: int = 0
    busy_ns: int = 0
    readers_added: int = 0  # threads that were added to read files, by its own word
    readers_said: int = 0  # the most that was logged
    plan_ns: int = 0
    idle_ns: int = 0
    rests_since: float | None = None  # has no lease since then
    rested_s: float = 0.0  # before the leases that it has; it says so itself with its next DONE
    last_words: str = ""
    was_silent: bool = False  # killed, because it hung
    remote: RemoteState | None = None
    is_leaving: bool = False  # told to end, because fewer are enough
    kept_at: float | None = None  # killed: when the kernel keeps it, if it was not reaped by then

    def rest_if_idle(self, now: float) -> None:
        """Note since when it has nothing to make."""
        if self.state == "ready" and not self.leases and self.rests_since is None:
            self.rests_since = now

    def work(self, now: float) -> None:
        """Note that it has something to make."""
        if self.rests_since is not None:
            self.rested_s, self.rests_since = self.rested_s + now - self.rests_since, None

    def idle_s(self, now: float) -> float:
        """Tell how long it waited for work so far, the wait that it has not reported included."""
        resting_s = 0.0 if self.rests_since is None else max(0.0, now - self.rests_since)
        return self.idle_ns / 1e9 + self.rested_s + resting_s

    def silence_ends_at(self, patience_s: float) -> float | None:
        """When this producer will have to be killed, or given up, if it says nothing more."""
        works_until = self.heard_at + patience_s if self.state == "ready" and self.leases else None
        if self.remote is not None:
            lives_until = self.lives_until(patience_s)
            return lives_until if works_until is None else min(lives_until, works_until)
        if self.state == "killed":
            return self.kept_at
        return self.started_at + START_S if self.state == "starting" else works_until

    def lives_until(self, patience_s: float) -> float:
        """When nobody counts on a remote producer any more that is not heard of."""
        assert self.remote is not None
        if self.state == "starting":
            return self.started_at + JOIN_S
        return self.remote.part_at or self.remote.beat_at + patience_s

    def free_slot(self) -> int:
        """Return the lowest slot of a remote producer's memory that no lease of his is made in."""
        taken = {record.at for record in self.leases.values()}
        return next(at for at in range(DEPTH) if at not in taken)

    def is_alone(self) -> bool:
        """Say whether it makes a suspect, and hence gets nothing else."""
        return any(record.chunk.suspect != NO_SAMPLE for record in self.leases.values())


class ProducerPool:
    """All producers, numbered by place: a replacement takes the number of the dead."""

    def __init__(self, size: int, patience_s: float) -> None:
        """Make `size` empty places; the broker starts them one by one."""
        self.size = size
        self.patience_s = patience_s
        self.members: dict[int, Producer] = {}
        self.restart_at: dict[int, float] = dict.fromkeys(range(size), 0.0)
        self.deaths_in_row = 0
        self.restarts = 0
        self.last_death = ""
        self._ready: dict[int, Producer] = {}
        self._low: dict[int, Producer] = {}  # those of the ready that have LOW_WATER leases or less
        self._num_leased = 0  # by the ready
        self._num_starting = 0  # of this host
        self._look_at = math.inf  # nobody was silent for too long before

    def due(self, now: float) -> Iterator[int]:
        """Take the places whose producer is to be started now."""
        for number in [place for place, at in self.restart_at.items() if at <= now]:
            del self.restart_at[number]
            self.add(Producer(number, now, now))
            yield number

    def grow(self, now: float) -> None:
        """Make one place more, unless whoever left it hasn't ended yet."""
        if self.size not in self.members:
            self.restart_at[self.size] = now
            self.size += 1

    def shrink(self) -> Producer | None:
        """Give up the last place; returns who has to be told, None when it was empty."""
        self.size -= 1
        self.restart_at.pop(self.size, None)
        producer = self.members.get(self.size)
        if producer is None:
            return None
        producer.is_leaving = True  # one that starts is told when it is ready
        return producer if producer.state == "ready" else None

    # Kept in step, because every message to the daemon asks for them: looking at a thousand
    # producers each time would let them hold up each other.

    def add(self, producer: Producer) -> None:
        """Take a producer in that starts, here or elsewhere."""
        self.members[producer.number] = producer
        self._num_starting += producer.remote is None
        self.expect(producer)

    def turn(self, producer: Producer, verb: str) -> None:
        """Make one transition of a producer's table."""
        before, producer.state = producer.state, step(PRODUCER, producer.state, verb)
        self._num_starting -= before == "starting" and producer.remote is None
        if before == "ready":
            del self._ready[producer.number]
            self._low.pop(producer.number, None)
            self._num_leased -= len(producer.leases)
        elif producer.state == "ready":
            self._ready[producer.number] = self._low[producer.number] = producer
        if producer.state != "gone":
            self.expect(producer)

    def assign_lease(self, producer: Producer, lease: int, record: LeaseRecord, now: float) -> None:
        """Give a lease to a producer that is ready."""
        if not producer.leases:
            producer.heard_at = now
        producer.leases[lease] = record
        self._num_leased += 1
        if len(producer.leases) > LOW_WATER:
            self._low.pop(producer.number, None)
        elif len(producer.leases) == 1:
            self.expect(producer)

    def take_back(self, producer: Producer, lease: int) -> LeaseRecord | None:
        """Take a lease that was answered; None when the producer doesn't have it."""
        record = producer.leases.pop(lease, None)
        if record is not None and producer.number in self._ready:
            self._num_leased -= 1
            if len(producer.leases) <= LOW_WATER:
                self._low[producer.number] = producer
        return record

    def expect(self, producer: Producer) -> None:
        """Look at the silent ones when this one's time is over, if that is earlier than planned."""
        end = producer.silence_ends_at(self.patience_s)
        if end is not None:
            self._look_at = min(self._look_at, end)

    def overdue(self, now: float) -> list[Producer]:
        """List the producers that were silent for too long."""
        if now < self._look_at:
            return []
        self._look_at, found = math.inf, []
        for producer in self.members.values():
            end = producer.silence_ends_at(self.patience_s)
            if end is not None and end <= now:
                found.append(producer)
            else:
                self.expect(producer)
        return found

    def ready(self) -> list[Producer]:
        """Return the producers that take leases."""
        return list(self._ready.values())

    @property
    def num_ready(self) -> int:
        """How many producers take leases."""
        return len(self._ready)

    def depth(self, num_pending: int) -> int:
        """Return how many leases a producer may hold, when so many chunks wait for one.

        One while others still start: else the first to be ready would queue up what the next
        ones could do at once, and the first batch would come late. Never more than an equal
        share: else a few of many producers would hold all the work and the others none.
        """
        if self._num_starting:
            return 1
        share = (num_pending + self._num_leased) // max(1, len(self._ready))
        return max(1, min(DEPTH, share))

    def under_low_water(self, depth: int) -> list[Producer]:
        """Ready producers that have to be filled up."""
        most = min(LOW_WATER, depth - 1)
        return [
            p
            for p in self._low.values()
            if len(p.leases) <= most and not p.is_leaving and not p.is_alone()
        ]

    def fresh(self) -> Producer | None:
        """Return a producer that has made nothing yet: no sample before could have harmed it.

        Where none is and none will be, one that does nothing at the moment.
        """
        idle = [one for one in self.ready() if not one.leases and not one.is_leaving]
        unused = [producer for producer in idle if not producer.chunks_done]
        return next(iter(unused if unused or self._is_one_coming() else idle), None)

    def reserved_for_suspects(self) -> Producer | None:
        """Return the producer that gets nothing more until it is idle, as no fresh one will come.

        That of a host that doesn't come back isn't replaced here.
        """
        if self._is_one_coming():
            return None
        return min(self.ready(), key=lambda producer: len(producer.leases), default=None)

    def _is_one_coming(self) -> bool:
        return bool(self.restart_at) or len(self._ready) < len(self.members)

    def remove_exited(
        self,
        number: int,
        how: str,
        now: float,
        is_tried_otherwise: bool = False,
        *,
        kind: str = "",
        is_draining: bool,
    ) -> Producer:
        """Take a reaped producer out and schedule its replacement, unless its own host does.

        `how` says in full how it ended: clients are told so where the next ones die, too. One whose
        next is started otherwise says nothing of that one's health.
        """
        producer = self.members.pop(number)
        self.turn(producer, "reap")
        has_left = producer.is_leaving or (
            producer.remote is not None and kind in (ExitReason.LOST, ExitReason.DRAINED)
        )
        if is_draining or has_left:
            return producer
        self.deaths_in_row += not is_tried_otherwise
        self.restarts += 1
        self.last_death = how
        if producer.remote is None:
            self.restart_at[number] = now + self._pause_s(number)
        return producer

    def _pause_s(self, number: int) -> float:
        if self.deaths_in_row <= 1:
            return 0.0
        spread = 1.0 + number / self.size / 2
        return spread * min(PAUSE_MAX_S, 0.1 * 2.0 ** min(self.deaths_in_row - 2, 10))

    def is_unhealthy(self) -> bool:
        """Say whether so many died in a row that waiting for the next is no use."""
        return self.deaths_in_row >= max(DEATHS_MIN, self.size)

    def next_deadline(self) -> float | None:
        """Return the earliest moment at which something may be due here."""
        moment = min(self.restart_at.values(), default=math.inf)
        moment = min(moment, self._look_at)
        return None if moment == math.inf else moment
