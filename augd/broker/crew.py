"""The producers as the broker knows them: who works on what, who hangs, who must be replaced.

Theory of operation. Leases of a producer are a queue; it works through them in order, so the
first is the one in the making, and the only suspect when the producer dies. A producer that
falls to `LOW_WATER` leases is hungry and is filled up to `DEPTH`, in turns with the other
hungry ones, so that it never waits for a message and yet plans several chunks at once.

A dead producer is started again: at once the first time, then with growing pauses while
deaths follow one another without a chunk being finished in between. The pauses differ by place,
so that many producers that died of one cause do not all come back at the same moment. Pure: no
I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from augd.broker.states import PRODUCER, step
from augd.broker.stream import NO_SAMPLE, Chunk, Stream

LOW_WATER = 1
DEPTH = 8  # chunks that are planned in one go, which costs per call and not per row
START_S = 60.0  # imports on a cold disk; beyond it a start is counted as hanging
PATIENCE_S = 30.0  # a producer at work speaks at least every second; 30 s mean it hangs
PAUSE_MAX_S = 5.0
DEATHS_MIN = 4  # deaths in a row before the producers are called unhealthy: above ATTEMPTS_MAX


@dataclass(slots=True)
class LeaseRecord:
    """A lease that is out: what the broker must do when it is answered or lost."""

    stream: Stream
    chunk: Chunk
    is_revoked: bool = False


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
    chunks_done: int = 0
    rows_done: int = 0
    busy_ns: int = 0
    plan_ns: int = 0
    idle_ns: int = 0
    rests_since: float | None = None  # has no lease since then
    rested_s: float = 0.0  # before the leases that it has; it says so itself with its next DONE
    last_words: str = ""
    was_silent: bool = False  # killed, because it hung

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
        """When this producer will have to be killed if it says nothing more."""
        if self.state == "starting":
            return self.started_at + START_S
        if self.state == "ready" and self.leases:
            return self.heard_at + patience_s
        return None

    def is_alone(self) -> bool:
        """Say whether it makes a suspect, and hence gets nothing else."""
        return any(record.chunk.suspect != NO_SAMPLE for record in self.leases.values())


class Crew:
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

    def due(self, now: float) -> Iterator[int]:
        """Take the places whose producer is to be started now."""
        for number in [place for place, at in self.restart_at.items() if at <= now]:
            del self.restart_at[number]
            self.members[number] = Producer(number, now, now)
            yield number

    def hanging(self, now: float) -> Iterator[Producer]:
        """Take the producers that were silent for too long; the caller kills them."""
        for producer in self.members.values():
            end = producer.silence_ends_at(self.patience_s)
            if end is not None and end <= now:
                producer.was_silent = producer.state == "ready"
                producer.state = step(PRODUCER, producer.state, "kill")
                yield producer

    def ready(self) -> list[Producer]:
        """Return the producers that take leases."""
        return [producer for producer in self.members.values() if producer.state == "ready"]

    def depth(self, num_pending: int) -> int:
        """Return how many leases a producer may hold, when so many chunks wait for one.

        One while others still start: else the first to be ready would queue up what the next
        ones could do at once, and the first batch would come late. Never more than an equal
        share: else a few of many producers would hold all the work and the others none.
        """
        if any(p.state == "starting" for p in self.members.values()):
            return 1
        ready = self.ready()
        num_leased = sum(len(producer.leases) for producer in ready)
        return max(1, min(DEPTH, (num_pending + num_leased) // max(1, len(ready))))

    def hungry(self, depth: int) -> list[Producer]:
        """Ready producers that have to be filled up."""
        most = min(LOW_WATER, depth - 1)
        return [p for p in self.ready() if len(p.leases) <= most and not p.is_alone()]

    def fresh(self) -> Producer | None:
        """Return a producer that has made nothing yet: no sample before could have harmed it.

        Where none is and none will be, one that does nothing at the moment.
        """
        idle = [producer for producer in self.ready() if not producer.leases]
        unused = [producer for producer in idle if not producer.chunks_done]
        is_one_coming = bool(self.restart_at) or any(
            producer.state != "ready" for producer in self.members.values()
        )
        return next(iter(unused if unused or is_one_coming else idle), None)

    def bury(self, number: int, how: str, now: float, *, is_draining: bool) -> Producer:
        """Take a reaped producer out and schedule its replacement."""
        producer = self.members.pop(number)
        producer.state = step(PRODUCER, producer.state, "reap")
        if is_draining:
            return producer
        self.deaths_in_row += 1
        self.restarts += 1
        self.last_death = producer.last_words or how
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
        """Return the earliest moment at which something is due here."""
        ends = [p.silence_ends_at(self.patience_s) for p in self.members.values()]
        moments = [end for end in ends if end is not None] + list(self.restart_at.values())
        return min(moments, default=None)
