"""The broker's half that makes batches: streams, producers, and the producers' messages.

Theory of operation. Streams hold chunks that wait (augd/server/daemon/broker/chunk_queue.py). The
lease assigner assigns them to the producers under low water, in proportion to what each stream
lacks (augd/server/daemon/broker/lease_assigner.py). The chunks of a dead producer go back in front
of their queues. How the producer ended decides what else follows
(augd/server/daemon/broker/failures.py).

The scheduler knows no client: what a stream's sessions must be sent is left in `failures`, where
the session table takes it after each event. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from augd.errors import counted
from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.protocol import messages as msg
from augd.protocol.exit_reason import HELD_BY_KERNEL, NEXT_WITHOUT_KERNELS, ExitReason
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.autoscaling import Autoscaler
from augd.server.daemon.broker.batch_state import NO_SAMPLE
from augd.server.daemon.broker.cache_allocator import CacheAllocator
from augd.server.daemon.broker.cache_grants import CacheGrants
from augd.server.daemon.broker.counters import MadeCounters, SentCounters
from augd.server.daemon.broker.dataset_facts import DatasetFacts, relevant
from augd.server.daemon.broker.failures import StreamFailures
from augd.server.daemon.broker.lease_assigner import LeaseAssigner
from augd.server.daemon.broker.outbox import ERROR, ERROR_TEXT_MAX, INFO, WARNING, Outbox
from augd.server.daemon.broker.producer_streams import ProducerStreams
from augd.server.daemon.broker.producers import REAP_S, Producer, ProducerPool
from augd.server.daemon.broker.stream import StreamState

TROUBLES_MAX = 16  # that are logged; all producers of a host have one installation


class Scheduler:
    """All streams, and the producers that make their rows."""

    def __init__(
        self,
        outbox: Outbox,
        num_producers: int,
        datasets: Mapping[str, DatasetFacts],
        patience_s: float,
        catalogue: Catalogue = BUILT_IN,
        cache: CacheAllocator | None = None,
    ) -> None:
        """Start with no stream, and every producer due at the first event."""
        self._outbox = outbox
        self.made = MadeCounters()
        self._troubles: set[str] = set()  # as they were logged
        self._sent_before = {name: SentCounters() for name in datasets}  # of streams that are gone
        self._catalogue = catalogue
        self._datasets = datasets
        self.cache = cache
        self._cache_grants = None if cache is None else CacheGrants(outbox, cache)
        self.pool = ProducerPool(num_producers, patience_s)
        self.streams: dict[int, StreamState] = {}
        self.autoscaler = Autoscaler()
        self.producers_max = 0  # with autoscaling: the most producers of this host
        self.environment: dict[str, str] | None = None
        self._decoders = {name for facts in datasets.values() for name in facts.decoders}
        self._has_logged_unconfined = False
        self.producer_streams = ProducerStreams(
            outbox, self.pool, datasets, has_cache=cache is not None
        )
        self.failures = StreamFailures(
            outbox, self.pool, self.streams, self.producer_streams, datasets
        )
        self.lease_assigner = LeaseAssigner(outbox, self.pool, self.streams, self.producer_streams)

    # streams

    def stream_of(self, number: int, lease: int) -> StreamState | None:
        """Return the stream of a lease; None when that producer doesn't have it."""
        producer = self.pool.members.get(number)
        record = producer.leases.get(lease) if producer is not None else None
        return None if record is None else record.stream

    def add(self, stream: StreamState) -> None:
        """Add a new stream and request its arena."""
        self.streams[stream.number] = stream
        self._outbox.add(ev.MakeArena(stream.number, stream.arena_bytes))

    def drop(self, stream: StreamState) -> None:
        """Remove a stream whose last session ended."""
        del self.streams[stream.number]
        self._sent_before[stream.dataset].add(stream.total)
        stream.fail()
        self.producer_streams.revoke(stream)
        self.producer_streams.drop(stream)
        self._outbox.add(ev.DropArena(stream.number))

    def sent(self, dataset: str) -> SentCounters:
        """Add up what was sent of a dataset since the daemon started."""
        whole = replace(self._sent_before[dataset])
        for stream in self.streams.values():
            if stream.dataset == dataset:
                whole.add(stream.total)
        return whole

    # producers

    def heard(self, number: int, message: msg.FromProducer) -> None:
        """Handle a message of a producer."""
        producer = self.pool.members.get(number)
        if producer is None:
            self._outbox.stale["producer"] += 1
            return
        producer.heard_at = self._outbox.now
        match message:
            case msg.Ready():
                self._ready(producer, message)
            case msg.Done():
                self._done(producer, message)
            case msg.Dropped(lease):
                record = self.pool.take_back(producer, lease)
                if record is not None:
                    record.stream.lose_chunk(record.chunk, is_suspect=False)
            case msg.Fail():
                self._lease_failed(producer, message)
            case msg.Cached():
                if self._cache_grants is not None:
                    self._cache_grants.add(producer, message)
            case msg.LastWords(text):
                producer.last_words = text[:ERROR_TEXT_MAX]
            case msg.Trouble(text):
                self._log_trouble(text[:ERROR_TEXT_MAX])
            case msg.Alive():
                pass
        producer.begin_idle(self._outbox.now)

    def _ready(self, producer: Producer, message: msg.Ready) -> None:
        if producer.state != "starting":
            self._outbox.stale["ready"] += 1  # killed for being late, and sent before it exited
            return
        environment = self.relevant(message.environment)
        expected = self.expected_environment(environment)
        if environment != expected:
            producer.last_words = (
                f"its libraries or plug-ins differ from the other producers': "
                f"{environment}, expected {expected}; restart the daemon after an upgrade"
            )
            self.pool.transition(producer, "kill")
            self._outbox.add(ev.KillProducer(producer.number))
            return
        if self.environment is None:
            self._outbox.log(INFO, _describe_pixels(expected))
        self.environment = expected
        producer.pid = message.pid
        self.note_confinement(producer, message.confinement)
        self.admit(producer)

    def _log_trouble(self, text: str) -> None:
        """Log once what is wrong with the installation; all producers report the same."""
        if text not in self._troubles and len(self._troubles) < TROUBLES_MAX:
            self._troubles.add(text)
            how = "OpenCV and Pillow make the pixels, about half as fast; run augd doctor"
            self._outbox.log(WARNING, f"{text}: {how}")

    def relevant(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Leave out of a producer's environment the decoders that no dataset here needs."""
        return relevant(environment, self._decoders)

    def expected_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the environment that a producer which reports this one must have.

        The first producer decides for all others.
        """
        return self.environment or self._catalogue.expect(environment)

    def admit(self, producer: Producer) -> None:
        """Make a producer ready that has the environment of the others, and send it the cache."""
        self.pool.transition(producer, "ready")
        self.failures.unhealthy = ""
        if producer.is_leaving:
            self._outbox.tell(producer.number, msg.Drain())
            return
        producer.begin_idle(self._outbox.now)
        if self._cache_grants is not None:
            assert self.environment is not None
            self._cache_grants.offer(producer, self.environment)

    def note_confinement(self, producer: Producer, confinement: str) -> None:
        """Note the confinement of a producer; log once when it can reach the network."""
        producer.confinement = confinement
        if "seccomp" in confinement or self._has_logged_unconfined:
            return
        self._has_logged_unconfined = True
        self._outbox.log(
            WARNING,
            f"producer {producer.number} is not confined: this kernel or container grants no "
            "seccomp filter. A malicious image that takes over a decoder could reach the network; "
            "serve only images that you trust, or allow seccomp",
        )

    def cache_full(self, reason: str) -> None:
        """Stop filling the cache."""
        if self.cache is not None:
            self.cache.stop()
        self._outbox.log(WARNING, f"the cache takes no more images: {reason}")

    def _done(self, producer: Producer, done: msg.Done) -> None:
        record = self.pool.take_back(producer, done.lease)
        self._count_times(producer, done)
        if record is None:
            self._outbox.stale["lease"] += 1
            return
        stream, chunk = record.stream, record.chunk
        producer.chunks_done += 1
        producer.rows_done += chunk.rows
        self.made.chunks += 1
        self.made.images += chunk.rows
        self.pool.exits_in_row = 0
        if chunk.suspect != NO_SAMPLE:
            self.failures.registers[stream.dataset].forgive(chunk.suspect)
        if stream.measure(chunk, done.cpu_ns, done.busy_ns):
            self._outbox.log(
                INFO,
                f"stream {stream.number}: a row takes {stream.chunk_size.row_ns / 1e6:.2g} ms "
                f"of CPU time: chunks of about {counted(stream.chunk_rows(), 'row')}",
            )
        stream.finish_chunk(chunk, done)
        if done.num_bad and not chunk.batch.is_abandoned:
            self.failures.check_bad_rows(stream, chunk.batch, done)

    def _count_times(self, producer: Producer, done: msg.Done) -> None:
        """Add the times and counts that a DONE reports, also one of a lease that is gone."""
        producer.busy_ns += done.busy_ns
        self.autoscaler.add_busy(done.busy_ns)
        producer.plan_ns += done.plan_ns
        producer.idle_ns += done.idle_ns
        if self.cache is not None:
            self.cache.hits += done.hits
            self.cache.misses += done.misses
        self.made.busy_ns += done.busy_ns
        self.made.idle_ns += done.idle_ns
        producer.unreported_idle_s = 0.0
        if done.readers_added > 2 * producer.readers_logged:  # bounds the lines of one producer
            self._outbox.log(
                INFO,
                f"producer {producer.number} ({_place_of(producer)}) waits for its files: "
                f"it reads {done.readers_added} more at a time",
            )
            producer.readers_logged = done.readers_added
        producer.readers_added = done.readers_added

    def _lease_failed(self, producer: Producer, fail: msg.Fail) -> None:
        record = self.pool.take_back(producer, fail.lease)
        if record is None:
            self._outbox.stale["lease"] += 1
            return
        self.failures.fail_lease(record, fail)

    # exits

    def reaped(self, event: ev.Reaped, *, is_draining: bool) -> None:
        """Remove a producer that exited, and put back the chunks that it had leased."""
        if event.producer not in self.pool.members:
            self._outbox.stale["producer"] += 1
            return
        how = _describe_exit(event, self.pool.members[event.producer])
        dead = self.pool.remove_exited(
            *(event.producer, how, self._outbox.now, event.is_tried_otherwise),
            kind=event.kind,
            is_draining=is_draining,
        )
        if self.cache is not None:
            self.cache.free(event.producer)
        # The daemon kills for several reasons; only silence at work makes a sample suspect.
        is_ours = event.kind in ("", ExitReason.KILLED)
        is_suspect = dead.was_silent if is_ours else ExitReason(event.kind).is_suspect
        current = self.failures.current_sample(dead, event) if is_suspect else None
        # Last lease first, so that each goes back in front and the order is kept.
        for place, record in reversed(list(enumerate(dead.leases.values()))):
            is_blamed = place == 0 and is_suspect and current is None
            record.stream.lose_chunk(record.chunk, is_suspect=is_blamed)
        if is_draining:
            return
        level = INFO if dead.is_leaving or event.kind == ExitReason.DRAINED else WARNING
        self._outbox.log(level, f"producer {dead.number} ({_place_of(dead)}) ended: {how}")
        if current is not None:
            self.failures.strike(*current)
        for record in dead.leases.values():
            self.failures.check_attempts(record)
        self.failures.check_health()

    # time and work

    def start_due(self) -> None:
        """Start the producers that are due."""
        for number in self.pool.due(self._outbox.now):
            self._outbox.add(ev.StartProducer(number))

    def autoscale(self) -> None:
        """Measure how many producers are needed, and start or drain some if the operator chose
        so."""
        now, pool = self._outbox.now, self.pool
        has_streams = bool(self.streams)
        if not self.autoscaler.look(now, len(pool.ready()), has_streams=has_streams):
            return
        if not self.producers_max:
            return
        num_remote = sum(producer.remote is not None for producer in pool.ready())
        change = self.autoscaler.change(pool.size + num_remote, self.producers_max + num_remote)
        change = max(change, 1 - pool.size)  # remote producers may leave at any moment
        if change:
            self._outbox.log(INFO, f"producers: changed from {pool.size} to {pool.size + change}")
        for _ in range(change):
            pool.grow(now)
        for _ in range(-change):
            producer = pool.shrink()
            if producer is not None:
                self._outbox.tell(producer.number, msg.Drain())

    def kill_hanging(self) -> None:
        """Kill producers that were silent for too long; remove remote ones whose host is silent."""
        now = self._outbox.now
        for producer in self.pool.overdue(now):
            remote = producer.remote
            if remote is not None and producer.alive_until(self.pool.patience_s) <= now:
                self.lose_producer(producer, "its host sent nothing for too long")
                continue
            if producer.state == "killed":
                self._log_unreaped(producer)
                continue
            producer.was_silent = producer.state == "ready"
            what = "at work" if producer.was_silent else "while it started"
            producer.last_words = f"silent for too long {what}, killed"
            # Now, and not when it is reaped: the kernel may keep it for ever.
            who = f"producer {producer.number} ({_place_of(producer)})"
            self._outbox.log(WARNING, f"{who} hangs: {producer.last_words}")
            producer.reap_deadline = now + REAP_S
            if remote is not None:
                remote.exit_deadline = now + REAP_S
            self.pool.transition(producer, "kill")
            self._outbox.add(ev.KillProducer(producer.number))

    def _log_unreaped(self, producer: Producer) -> None:
        """Log once that a producer outlives SIGKILL; its place and its rows wait for its exit."""
        producer.reap_deadline = None
        self._outbox.log(
            ERROR,
            f"producer {producer.number} ({_place_of(producer)}) was killed {REAP_S:g} s ago and "
            f"has not exited: {HELD_BY_KERNEL}. Its rows cannot be recomputed before it exits.",
        )

    def describe_remaining(self) -> str:
        """Name the producers that did not exit, for the last line of the log."""
        names = [f"{p.number} ({_place_of(p)})" for p in self.pool.members.values()]
        return f"killed producers have not exited: {', '.join(names)}: {HELD_BY_KERNEL}"

    def drain(self) -> None:
        """Have every producer finish its leases and exit; none is replaced."""
        self.pool.restart_at.clear()
        for producer in list(self.pool.members.values()):
            if producer.state == "ready":
                self._outbox.tell(producer.number, msg.Drain())
            elif producer.remote is not None:
                self.lose_producer(producer, "the daemon is draining", is_draining=True)
            elif producer.state == "starting":
                self._outbox.add(ev.KillProducer(producer.number))

    def kill_all(self) -> None:
        """Kill the producers that did not exit."""
        for producer in list(self.pool.members.values()):
            if producer.remote is None:
                self._outbox.add(ev.KillProducer(producer.number))
            else:
                self.lose_producer(producer, "it did not drain in time", is_draining=True)

    def lose_producer(self, producer: Producer, why: str, *, is_draining: bool = False) -> None:
        """Remove a remote producer; its leases go back at once.

        No wait is needed: only this daemon writes into the slots, and it accepts no rows of a
        producer that it does not know.
        """
        self._outbox.add(ev.ForgetProducer(producer.number, why))
        event = ev.Reaped(producer.number, why, ExitReason.LOST)
        self.reaped(event, is_draining=is_draining)


def _describe_pixels(environment: Mapping[str, str]) -> str:
    """Describe what renders pixels, from the environment of a producer."""
    kernels, opencv = environment.get("kernels", "none"), environment.get("opencv", "?")
    if kernels == "none":
        return f"pixels are made by OpenCV {opencv} and Pillow, without native kernels"
    return f"pixels are made by native kernels {kernels}, and OpenCV {opencv}"


_WHY = {
    ExitReason.MEMORY: "the kernel killed it because memory ran out; use fewer producers, or a "
    "larger limit",
    ExitReason.OUTSIDE: "another process sent the signal, and no sample is blamed; find the "
    "sender: a person, a script, a limit of the job",
    ExitReason.STOPPED: "it had been stopped from outside (SIGSTOP, a debugger) and could not "
    "answer",
}
"""What is known of an exit beyond its signal: the cause, and what to do."""


def _describe_exit(event: ev.Reaped, dead: Producer) -> str:
    """Describe an exit by the producer's last words and the class of its exit."""
    how, kind = dead.last_words or event.how, event.kind or ExitReason.ERROR
    if event.is_tried_otherwise:
        return f"{how} {NEXT_WITHOUT_KERNELS}"
    if kind == ExitReason.OUTSIDE and dead.last_words:
        return how  # it reported its reason before another process killed it
    why = _WHY.get(ExitReason(kind))
    return how if why is None else f"{how}: {why}"


def _place_of(producer: Producer) -> str:
    where = "" if producer.remote is None else f" on {producer.remote.host}"
    return f"pid {producer.pid}{where}"
