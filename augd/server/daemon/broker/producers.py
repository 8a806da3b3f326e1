"""The producers of the broker: their leases, which of them hang, and when to restart which.

Theory of operation. The leases of a producer are a queue. It works through them in order, so only
the first is a suspect when the producer dies. A producer at `LOW_WATER` leases or fewer is filled
up to `DEPTH`, in turns with the others. So it never waits for a message, and plans several chunks
at once.

A dead producer is restarted, at once the first time. The pauses grow while producers die one after
another without a finished chunk in between. The pauses differ by place, so that many producers that
died of one cause do not all restart at the same moment.

Producers of other hosts join and leave by themselves
(augd/server/daemon/broker/remote_producers.py). They have numbers beyond all places, none twice,
and are never started here. Pure: no I/O, no clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from augd.protocol.exit_reason import ExitReason
from augd.protocol.permissions import Rights
from augd.server.daemon.broker.batch_state import NO_SAMPLE, Chunk
from augd.server.daemon.broker.states import PRODUCER, step
from augd.server.daemon.broker.stream import StreamState

LOW_WATER = 1
DEPTH = 8  # chunks that are planned in one go, which costs per call and not per row
START_S = 60.0  # imports on a cold disk; beyond it a start is counted as hanging
JOIN_S = 10.0  # from JOINED to ATTACH, which follow within a round trip
REAP_S = 5.0  # a relay reaps in milliseconds; beyond, it counts as dead with its producer
PATIENCE_S = 30.0  # a producer with leases sends something every second; 30 s mean it hangs
PAUSE_MAX_S = 5.0
DEATHS_MIN = 4  # exits in a row before the producers are unhealthy: above ATTEMPTS_MAX


@dataclass(slots=True)
class LeaseRecord:
    """A lease that was sent and not answered."""

    stream: StreamState
    chunk: Chunk
    is_revoked: bool = False
    at: int = 0  # of a remote producer: the slot of its own memory


@dataclass(slots=True)
class RemoteState:
    """What only a producer on another host has."""

    host: str
    token: str
    rights: Rights | None
    heartbeat_at: float
    exit_deadline: float | None = None  # after KILL: when it counts as dead without an answer


@dataclass(slots=True)
class Producer:
    """One producer process, from its start to its reaping."""

    number: int
    started_at: float
    heard_at: float
    state: str = "starting"
    pid: int = 0
    confinement: str = ""  # as READY has it
    leases: dict[int, LeaseRecord] = field(default_factory=dict)  # insertion order = work order
    datasets: set[str] = field(default_factory=set)  # that it was sent
    streams: set[int] = field(default_factory=set)
    chunks_done: int = 0
    rows_done: int = 0
    busy_ns: int = 0
    readers_added: int = 0  # threads that it added to read files, as it reports
    readers_logged: int = 0  # the most that was logged
    plan_ns: int = 0
    idle_ns: int = 0
    idle_since: float | None = None  # has no lease since then
    unreported_idle_s: float = 0.0  # before its present leases; its next DONE reports it
    last_words: str = ""
    was_silent: bool = False  # killed, because it hung
    remote: RemoteState | None = None
    is_leaving: bool = False  # told to end, because fewer are enough
    reap_deadline: float | None = None  # after SIGKILL: when it is logged as not exiting

    def begin_idle(self, now: float) -> None:
        """Note since when it has no lease."""
        if self.state == "ready" and not self.leases and self.idle_since is None:
            self.idle_since = now

    def end_idle(self, now: float) -> None:
        """Note that it has a lease."""
        if self.idle_since is not None:
            self.unreported_idle_s, self.idle_since = (
                self.unreported_idle_s + now - self.idle_since,
                None,
            )

    def idle_s(self, now: float) -> float:
        """Return how long it had no lease so far, the wait that it has not reported included."""
        resting_s = 0.0 if self.idle_since is None else max(0.0, now - self.idle_since)
        return self.idle_ns / 1e9 + self.unreported_idle_s + resting_s

    def silence_ends_at(self, patience_s: float) -> float | None:
        """Return when it is to be killed, or removed, if it sends nothing more."""
        works_until = self.heard_at + patience_s if self.state == "ready" and self.leases else None
        if self.remote is not None:
            alive_until = self.alive_until(patience_s)
            return alive_until if works_until is None else min(alive_until, works_until)
        if self.state == "killed":
            return self.reap_deadline
        return self.started_at + START_S if self.state == "starting" else works_until

    def alive_until(self, patience_s: float) -> float:
        """Return when a remote producer counts as dead if its host sends nothing more."""
        assert self.remote is not None
        if self.state == "starting":
            return self.started_at + JOIN_S
        return self.remote.exit_deadline or self.remote.heartbeat_at + patience_s

    def free_slot(self) -> int:
        """Return the lowest slot of a remote producer's memory that none of its leases uses."""
        taken = {record.at for record in self.leases.values()}
        return next(at for at in range(DEPTH) if at not in taken)

    def has_suspect(self) -> bool:
        """Say whether it has the chunk of a suspect, and hence gets no other lease."""
        return any(record.chunk.suspect != NO_SAMPLE for record in self.leases.values())


class ProducerPool:
    """All producers, numbered by place: a replacement takes the number of the dead one."""

    def __init__(self, size: int, patience_s: float) -> None:
        """Make `size` empty places; the broker starts them one by one."""
        self.size = size
        self.patience_s = patience_s
        self.members: dict[int, Producer] = {}
        self.restart_at: dict[int, float] = dict.fromkeys(range(size), 0.0)
        self.exits_in_row = 0
        self.restarts = 0
        self.last_exit = ""
        self._ready: dict[int, Producer] = {}
        self._low: dict[int, Producer] = {}  # those of the ready that have LOW_WATER leases or less
        self._num_leased = 0  # by the ready
        self._num_starting = 0  # of this host
        self._check_at = math.inf  # no producer is silent for too long before then

    def due(self, now: float) -> Iterator[int]:
        """Return the places whose producer is to be started now, and add it."""
        for number in [place for place, at in self.restart_at.items() if at <= now]:
            del self.restart_at[number]
            self.add(Producer(number, now, now))
            yield number

    def grow(self, now: float) -> None:
        """Add a place, unless the producer that left it has not exited yet."""
        if self.size not in self.members:
            self.restart_at[self.size] = now
            self.size += 1

    def shrink(self) -> Producer | None:
        """Remove the last place; return its producer if that is ready, to be sent DRAIN."""
        self.size -= 1
        self.restart_at.pop(self.size, None)
        producer = self.members.get(self.size)
        if producer is None:
            return None
        producer.is_leaving = True  # one that starts is sent DRAIN when it is ready
        return producer if producer.state == "ready" else None

    # Counts are kept, not computed, because every message to the daemon asks for them: a loop over
    # a thousand producers each time would delay them all.

    def add(self, producer: Producer) -> None:
        """Add a producer that starts, here or elsewhere."""
        self.members[producer.number] = producer
        self._num_starting += producer.remote is None
        self.schedule_check(producer)

    def transition(self, producer: Producer, verb: str) -> None:
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
            self.schedule_check(producer)

    def assign_lease(self, producer: Producer, lease: int, record: LeaseRecord, now: float) -> None:
        """Give a lease to a producer that is ready."""
        if not producer.leases:
            producer.heard_at = now
        producer.leases[lease] = record
        self._num_leased += 1
        if len(producer.leases) > LOW_WATER:
            self._low.pop(producer.number, None)
        elif len(producer.leases) == 1:
            self.schedule_check(producer)

    def take_back(self, producer: Producer, lease: int) -> LeaseRecord | None:
        """Remove and return a lease that was answered; None when the producer does not have it."""
        record = producer.leases.pop(lease, None)
        if record is not None and producer.number in self._ready:
            self._num_leased -= 1
            if len(producer.leases) <= LOW_WATER:
                self._low[producer.number] = producer
        return record

    def schedule_check(self, producer: Producer) -> None:
        """Have `overdue` check for silent producers no later than this one's silence ends."""
        end = producer.silence_ends_at(self.patience_s)
        if end is not None:
            self._check_at = min(self._check_at, end)

    def overdue(self, now: float) -> list[Producer]:
        """List the producers that were silent for too long."""
        if now < self._check_at:
            return []
        self._check_at, found = math.inf, []
        for producer in self.members.values():
            end = producer.silence_ends_at(self.patience_s)
            if end is not None and end <= now:
                found.append(producer)
            else:
                self.schedule_check(producer)
        return found

    def ready(self) -> list[Producer]:
        """List the producers that take leases."""
        return list(self._ready.values())

    @property
    def num_ready(self) -> int:
        """Number of the producers that take leases."""
        return len(self._ready)

    def depth(self, num_pending: int) -> int:
        """Return how many leases a producer may hold when `num_pending` chunks wait.

        It is one while other producers start. Else the first one that is ready would queue chunks
        that the next ones could make at once, and the first batch would come late. It is never more
        than an equal share. Else a few of many producers would have all leases.
        """
        if self._num_starting:
            return 1
        share = (num_pending + self._num_leased) // max(1, len(self._ready))
        return max(1, min(DEPTH, share))

    def under_low_water(self, depth: int) -> list[Producer]:
        """List the ready producers that are to be filled up to `depth` leases."""
        most = min(LOW_WATER, depth - 1)
        return [
            p
            for p in self._low.values()
            if len(p.leases) <= most and not p.is_leaving and not p.has_suspect()
        ]

    def unused(self) -> Producer | None:
        """Return a producer that has made no chunk yet: no earlier sample can have harmed it.

        If no unused producer exists or is starting, return an idle one.
        """
        idle = [one for one in self.ready() if not one.leases and not one.is_leaving]
        unused = [producer for producer in idle if not producer.chunks_done]
        return next(iter(unused if unused or self._is_one_starting() else idle), None)

    def reserved_for_suspects(self) -> Producer | None:
        """Return the producer that gets no lease until it is idle; None while one is starting.

        A producer of another host is not replaced here, so an unused one may never come.
        """
        if self._is_one_starting():
            return None
        return min(self.ready(), key=lambda producer: len(producer.leases), default=None)

    def _is_one_starting(self) -> bool:
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
        """Remove a reaped producer and schedule its replacement, unless its own host does.

        Args:
            how: in full, how it ended; clients are sent it if the next ones die, too.
            is_tried_otherwise: the next one is started without native kernels, so this exit does
                not count against its health.
        """
        producer = self.members.pop(number)
        self.transition(producer, "reap")
        has_left = producer.is_leaving or (
            producer.remote is not None and kind in (ExitReason.LOST, ExitReason.DRAINED)
        )
        if is_draining or has_left:
            return producer
        self.exits_in_row += not is_tried_otherwise
        self.restarts += 1
        self.last_exit = how
        if producer.remote is None:
            self.restart_at[number] = now + self._pause_s(number)
        return producer

    def _pause_s(self, number: int) -> float:
        if self.exits_in_row <= 1:
            return 0.0
        spread = 1.0 + number / self.size / 2
        return spread * min(PAUSE_MAX_S, 0.1 * 2.0 ** min(self.exits_in_row - 2, 10))

    def is_unhealthy(self) -> bool:
        """Say whether so many died in a row that the next is not worth waiting for."""
        return self.exits_in_row >= max(DEATHS_MIN, self.size)

    def next_deadline(self) -> float | None:
        """Return the earliest moment at which something may be due here."""
        moment = min(self.restart_at.values(), default=math.inf)
        moment = min(moment, self._check_at)
        return None if moment == math.inf else moment
