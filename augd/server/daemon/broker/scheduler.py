"""The broker's half that makes batches: streams, the producers, and what kills them.

Theory of operation. Streams hold chunks that wait; producers that are hungry get them, in
proportion to what each stream lacks. A dead producer's chunks go back in front of their
queues. How it died decides what follows: by a signal of its own, by hanging, or for want of
memory, with a sample in hand: a strike against that sample
(augd/server/daemon/broker/quarantine.py). By somebody else's SIGKILL: nothing. With no sample in
hand: the chunk is the suspect, and ends its stream when it has ended three producers.

It knows no client: what a stream's sessions must hear is left in `failures` and `verdicts`, which
the clients' half takes after each event. Pure: no I/O, no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heapreplace

from augd.errors import counted
from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.plan.size_mismatch import is_misfit
from augd.protocol import epoch_layout
from augd.protocol import messages as msg
from augd.protocol.exit_reason import KEPT, TRIED_OTHERWISE, ExitReason
from augd.protocol.limits import QUARANTINE_MAX
from augd.protocol.quarantine import as_entries
from augd.protocol.slot_layout import chunk_layout
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.autoscaling import Autoscaler
from augd.server.daemon.broker.bad_sample_log import BadSampleLog, name_row
from augd.server.daemon.broker.cache_allocator import CacheAllocator
from augd.server.daemon.broker.counters import MadeCounters, SentCounters
from augd.server.daemon.broker.dataset_facts import DatasetFacts, relevant
from augd.server.daemon.broker.outbox import ERROR, ERROR_TEXT_MAX, INFO, WARNING, Outbox
from augd.server.daemon.broker.producers import DEPTH, REAP_S, LeaseRecord, Producer, ProducerPool
from augd.server.daemon.broker.quarantine import QuarantineRegister
from augd.server.daemon.broker.stream import (
    NO_SAMPLE,
    BatchState,
    Chunk,
    StreamState,
    remote_rows_max,
)

ATTEMPTS_MAX = 3  # a chunk that ended this many producers ends its stream instead of a fourth
TROUBLES_MAX = 16  # that are logged; all producers of a host have one installation
LACK_MIN = 0.001  # no stream is so sated that its next turn never comes


@dataclass(frozen=True, slots=True)
class Failure:
    """A stream can't go on; its sessions must hear why."""

    stream: StreamState
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class QuarantineVerdict:
    """A sample of a stream was quarantined."""

    stream: StreamState
    entry: msg.Quarantined
    text: str


class Scheduler:
    """Streams, the crew, and who makes what."""

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
        self._complaints = BadSampleLog()
        self._troubles: set[str] = set()  # as they were logged
        self._sent_before = {name: SentCounters() for name in datasets}  # of streams that are gone
        self._catalogue = catalogue
        self._datasets = datasets
        self.cache = cache
        self.pool = ProducerPool(num_producers, patience_s)
        self.streams: dict[int, StreamState] = {}
        self.staffing = Autoscaler()
        self.producers_max = 0  # where the crew follows what is needed: how many it may have
        self.registers = {
            name: QuarantineRegister(facts.quarantine) for name, facts in datasets.items()
        }
        self.environment: dict[str, str] | None = None
        self._decoders = {name for facts in datasets.values() for name in facts.decoders}
        self.unhealthy = ""
        self.failures: list[Failure] = []
        self.verdicts: list[QuarantineVerdict] = []
        self._has_warned_of_open = False
        self._turn = 0.0  # virtual time of the leases: see lease_out

    # streams

    def stream_of(self, number: int, lease: int) -> StreamState | None:
        """Return the stream of a lease; None when that producer doesn't have it."""
        producer = self.pool.members.get(number)
        record = producer.leases.get(lease) if producer is not None else None
        return None if record is None else record.stream

    def add(self, stream: StreamState) -> None:
        """Take a new stream on; its arena is asked for."""
        self.streams[stream.number] = stream
        size_bytes = stream.arena_bytes
        self._outbox.add(ev.MakeArena(stream.number, size_bytes))

    def arena_made(self, stream: StreamState) -> None:
        """Have the rows of a stream made, now that its memory stands."""
        stream.has_arena = True

    def drop(self, stream: StreamState) -> None:
        """Forget a stream that nobody reads any more."""
        del self.streams[stream.number]
        self._sent_before[stream.dataset].add(stream.total)
        stream.fail()
        self.revoke(stream)
        for producer in self._told(stream):
            producer.streams.discard(stream.number)
            self._tell(producer, msg.Drop(stream.number))
        self._outbox.add(ev.DropArena(stream.number))

    def sent(self, dataset: str) -> SentCounters:
        """Add up what was sent of a data set since the daemon started."""
        whole = replace(self._sent_before[dataset])
        for stream in self.streams.values():
            if stream.dataset == dataset:
                whole.add(stream.total)
        return whole

    def mask(self, stream: StreamState) -> None:
        """Tell the producers a stream's whole quarantine, before they make more of it."""
        for producer in self._told(stream):
            self._tell(producer, _mask_of(stream))

    def _told(self, stream: StreamState) -> list[Producer]:
        """Return the producers that know of a stream."""
        return [one for one in self.pool.ready() if stream.number in one.streams]

    def revoke(self, stream: StreamState) -> None:
        """Ask producers, once, to skip leases of this stream that nobody waits for any more."""
        for producer in self.pool.ready():
            stale = [
                lease
                for lease, record in producer.leases.items()
                if record.stream is stream
                and record.chunk.batch.is_abandoned
                and not record.is_revoked
            ]
            for lease in stale:
                producer.leases[lease].is_revoked = True
            if stale:
                self._tell(producer, msg.Revoke(tuple(stale)))

    def _fail(self, stream: StreamState, code: str, text: str) -> None:
        stream.fail()
        self.revoke(stream)
        self.failures.append(Failure(stream, code, text))

    # producers

    def heard(self, number: int, message: msg.FromProducer) -> None:
        """Take a producer's message."""
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
                self._failed(producer, message)
            case msg.Cached():
                self._cached(producer, message)
            case msg.LastWords(text):
                producer.last_words = text[:ERROR_TEXT_MAX]
            case msg.Trouble(text):
                self._note_trouble(text[:ERROR_TEXT_MAX])
            case msg.Alive():
                pass
        producer.rest_if_idle(self._outbox.now)

    def _ready(self, producer: Producer, message: msg.Ready) -> None:
        if producer.state != "starting":
            self._outbox.stale["ready"] += 1  # killed for being late, it spoke before it died
            return
        environment = self.relevant(message.environment)
        expected = self.expected_environment(environment)
        if environment != expected:
            producer.last_words = (
                f"its libraries or plug-ins differ from the other producers': "
                f"{environment}, expected {expected}; restart the daemon after an upgrade"
            )
            self.pool.turn(producer, "kill")
            self._outbox.add(ev.KillProducer(producer.number))
            return
        if self.environment is None:
            self._outbox.log(INFO, _say_pixels(expected))
        self.environment = expected
        producer.pid = message.pid
        self.note_confinement(producer, message.confinement)
        self.take_on(producer)

    def _note_trouble(self, text: str) -> None:
        """Say once what is wrong with the installation; all producers say the same."""
        if text not in self._troubles and len(self._troubles) < TROUBLES_MAX:
            self._troubles.add(text)
            how = "OpenCV and Pillow make the pixels, about half as fast; augd doctor says more"
            self._outbox.log(WARNING, f"{text}: {how}")

    def relevant(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Leave out of a producer's environment the decoders that no data set here takes."""
        return relevant(environment, self._decoders)

    def expected_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return what a producer must have said that says this; the first one decides for all."""
        return self.environment or self._catalogue.expect(environment)

    def take_on(self, producer: Producer) -> None:
        """Tell a producer that agrees with the others what there is to make."""
        self.pool.turn(producer, "ready")
        self.unhealthy = ""
        if producer.is_leaving:
            self._tell(producer, msg.Drain())
            return
        producer.rest_if_idle(self._outbox.now)
        if self._has_cache(producer):
            assert self.cache is not None
            self._tell_cache(producer, self.cache)

    def note_confinement(self, producer: Producer, confinement: str) -> None:
        """Keep what holds a producer in, and say once when nothing keeps it from the network."""
        producer.confinement = confinement
        if "seccomp" in confinement or self._has_warned_of_open:
            return
        self._has_warned_of_open = True
        self._outbox.log(
            WARNING,
            f"producer {producer.number} is not confined: this kernel or container grants no "
            "seccomp filter. An image made to take over a decoder would reach the network; serve "
            "only images that you trust, or allow seccomp",
        )

    def _has_cache(self, producer: Producer) -> bool:
        return self.cache is not None and producer.remote is None  # it goes by fds

    def _tell_stream(self, producer: Producer, stream: StreamState) -> None:
        """Tell a producer of a stream, and of its data set, before the first lease of each.

        Not before it is needed: a link holds some 160 messages that nobody read yet, and a daemon
        may serve more data sets and streams than that.
        """
        if stream.number in producer.streams:
            return
        producer.streams.add(stream.number)
        spec = stream.spec
        if stream.dataset not in producer.datasets:
            producer.datasets.add(stream.dataset)
            facts = self._datasets[stream.dataset]
            root = facts.root if producer.remote is None else ""  # it has one of its own
            has_cache = self._has_cache(producer)
            self._tell(producer, msg.DatasetMessage(stream.dataset, root, facts.digest, has_cache))
        arrays, slot_bytes, num_slots = stream.arrays, stream.slot_bytes, len(stream.slots)
        if producer.remote is not None:  # memory for the chunks that it may have at a time
            rows = remote_rows_max(spec.layout.batch_size)
            (arrays, slot_bytes), num_slots = chunk_layout(arrays, rows), DEPTH
        use = msg.StreamMessage(
            stream=stream.number,
            dataset=stream.dataset,
            recipe=spec.recipe,
            layout=spec.layout,
            seed=spec.seed,
            shuffle=spec.shuffle,
            arrays=arrays,
            slot_bytes=slot_bytes,
            num_slots=num_slots,
            chosen=stream.chosen,
            selection=msg.Selection() if producer.remote is None else spec.selection,
        )
        self._tell(producer, use)
        if stream.quarantine:
            self._tell(producer, _mask_of(stream))

    def _tell_cache(self, producer: Producer, cache: CacheAllocator) -> None:
        assert self.environment is not None
        other = cache.decodes_as(self.environment)
        if other is not None:
            self._outbox.add(ev.ClearCache(other))
        facts = cache.facts
        self._tell(producer, msg.CacheMessage(facts.size_bytes, facts.is_checked))
        self._give_rooms(producer, cache)

    def _give_rooms(self, producer: Producer, cache: CacheAllocator, wanted_bytes: int = 0) -> None:
        for start, end in cache.next_rooms(producer.number, wanted_bytes):
            self._tell(producer, msg.Room(start, end))

    def _cached(self, producer: Producer, message: msg.Cached) -> None:
        """Have the pictures found that a producer wrote, and give it room for more."""
        if self.cache is None or producer.state == "starting" or producer.remote is not None:
            return
        for entry in message.entries:
            if self.cache.put(producer.number, message.dataset, entry):
                self._outbox.add(ev.PutCached(message.dataset, entry))
        self._give_rooms(producer, self.cache, message.wanted_bytes)

    def cache_full(self, reason: str) -> None:
        """Fill the cache no further."""
        if self.cache is not None:
            self.cache.stop()
        self._outbox.log(WARNING, f"the cache is filled no further: {reason}")

    def _done(self, producer: Producer, done: msg.Done) -> None:
        record = self.pool.take_back(producer, done.lease)
        producer.busy_ns += done.busy_ns
        self.staffing.worked(done.busy_ns)
        producer.plan_ns += done.plan_ns
        producer.idle_ns += done.idle_ns
        if self.cache is not None:
            self.cache.hits += done.hits
            self.cache.misses += done.misses
        self.made.busy_ns += done.busy_ns
        self.made.idle_ns += done.idle_ns
        producer.rested_s = 0.0
        if done.readers_added > 2 * producer.readers_said:  # a few times, whatever it says
            self._outbox.log(
                INFO,
                f"producer {producer.number} ({_place_of(producer)}) waits for its files: "
                f"{done.readers_added} more are read at a time",
            )
            producer.readers_said = done.readers_added
        producer.readers_added = done.readers_added
        if record is None:
            self._outbox.stale["lease"] += 1
            return
        stream, chunk = record.stream, record.chunk
        producer.chunks_done += 1
        producer.rows_done += chunk.rows
        self.made.chunks += 1
        self.made.images += chunk.rows
        self.pool.deaths_in_row = 0
        if chunk.suspect != NO_SAMPLE:
            self.registers[stream.dataset].forgive(chunk.suspect)
        if stream.learn_pace(chunk, done.cpu_ns, done.busy_ns):
            self._outbox.log(
                INFO,
                f"stream {stream.number}: a row takes {stream.row_ns / 1e6:.2g} ms of CPU time: "
                f"chunks of about {counted(stream.chunk_rows(), 'row')}",
            )
        stream.finish_chunk(chunk, done)
        if done.num_bad and not chunk.batch.is_abandoned:
            self._judge_bad(stream, chunk.batch, done)

    def _judge_bad(self, stream: StreamState, batch: BatchState, done: msg.Done) -> None:
        first = done.bad[0] if done.bad else msg.BadRow(-1, "?", "unknown")
        name = name_row(first)
        if stream.spec.bad != "mask":
            self._outbox.log(WARNING, name)
            text = f'bad {name}. Mend or remove the file, or connect with bad="mask".'
            text = f"{name}." if is_misfit(first.reason) else text
            self._fail(stream, "SAMPLE_FAILED", text)
            return
        for line in self._complaints.new(stream.dataset, done.bad):
            self._outbox.log(WARNING, line)
        samples = epoch_layout.samples_of_rank(stream.spec.layout, stream.num_samples, 0)
        # Rounded up, so that one bad photo of a small folder is not yet an error.
        allowed = math.ceil(stream.spec.max_bad_fraction * samples)
        num_bad = stream.num_bad_of(batch.epoch)
        if num_bad > allowed:
            todo = "`augd check` names all such files: mend or remove them, or allow more"
            if is_misfit(first.reason):
                todo = "The files are good, and the recipe does not fit them"
            text = (
                f"{num_bad} bad samples in epoch {batch.epoch}, more than the {allowed} that "
                f"max_bad_fraction={stream.spec.max_bad_fraction} allows; the last: {name}. {todo}"
            )
            self._fail(stream, "SAMPLE_FAILED", text)

    def _failed(self, producer: Producer, fail: msg.Fail) -> None:
        record = self.pool.take_back(producer, fail.lease)
        if record is None:
            self._outbox.stale["lease"] += 1
            return
        record.stream.lose_chunk(record.chunk, is_suspect=True)
        if not record.chunk.batch.is_abandoned:
            text = f"a producer failed: {fail.text}" if fail.code == "INTERNAL" else fail.text
            self._fail(record.stream, fail.code, text)

    # deaths

    def reaped(self, event: ev.Reaped, *, is_draining: bool) -> None:
        """Take a producer that ended out, and put back what it was making."""
        if event.producer not in self.pool.members:
            self._outbox.stale["producer"] += 1
            return
        how = _in_full(event, self.pool.members[event.producer])
        dead = self.pool.remove_exited(
            *(event.producer, how, self._outbox.now, event.is_tried_otherwise),
            kind=event.kind,
            is_draining=is_draining,
        )
        if self.cache is not None:
            self.cache.leave(event.producer)
        # Its daemon kills for several reasons, of which only silence at work blames a sample.
        is_ours = event.kind in ("", ExitReason.KILLED)
        is_suspect = dead.was_silent if is_ours else ExitReason(event.kind).is_suspect
        in_hand = self._in_hand(dead, event) if is_suspect else None
        # Last lease first, so that each goes back in front and the order is kept.
        for place, record in reversed(list(enumerate(dead.leases.values()))):
            is_blamed = place == 0 and is_suspect and in_hand is None
            record.stream.lose_chunk(record.chunk, is_suspect=is_blamed)
        if is_draining:
            return
        level = INFO if dead.is_leaving or event.kind == ExitReason.DRAINED else WARNING
        self._outbox.log(level, f"producer {dead.number} ({_place_of(dead)}) ended: {how}")
        if in_hand is not None:
            self._strike(*in_hand)
        for record in dead.leases.values():
            if record.chunk.attempt >= ATTEMPTS_MAX and not record.chunk.batch.is_abandoned:
                self._fail(record.stream, "SAMPLE_FAILED", self._blame(record.chunk))
                self.pool.deaths_in_row = 0  # the chunk was at fault, not the producers
        if self.pool.is_unhealthy():
            self._give_up()

    def _in_hand(self, dead: Producer, event: ev.Reaped) -> tuple[LeaseRecord, int, int] | None:
        """Find what the producer had in hand: its lease, the row of its chunk, the sample."""
        if event.current_sample is None or event.current_sample[0] not in dead.leases:
            return None
        lease, row, sample = event.current_sample
        record = dead.leases[lease]
        # What a producer wrote is not believed as far as the memory of others: no other data
        # set's sample is looked up in this one.
        num_samples = self._datasets[record.stream.dataset].num_samples
        is_sound = 0 <= sample < num_samples and 0 <= row < record.chunk.rows
        return (record, row, sample) if is_sound else None

    def _strike(self, record: LeaseRecord, row: int, sample: int) -> None:
        """Have the sample made again alone, or quarantine it."""
        stream, chunk = record.stream, record.chunk
        is_last = self.registers[stream.dataset].strike(sample)
        entry = (sample, *stream.place_of(chunk, row))
        how = f"sample {sample} ended its producer twice ({self.pool.last_death})"
        if chunk.batch.is_abandoned:
            # Nobody waits for it any more, but it killed: who opens next must be told.
            if is_last and stream.spec.bad == "mask":
                self._write_down(stream, entry, how)
            return
        if not is_last:
            if chunk.suspect == NO_SAMPLE:
                stream.isolate(chunk, row, sample)
            return
        self.pool.deaths_in_row = 0  # the sample was at fault, not the producers
        if stream.spec.bad == "fail":
            text = f'{how}. Mend or remove the file, or connect with bad="mask".'
            self._fail(stream, "SAMPLE_FAILED", text)
        elif len(stream.quarantine) >= QUARANTINE_MAX:
            text = f"{how}, and {QUARANTINE_MAX} are quarantined already: it is not the samples"
            self._fail(stream, "QUARANTINE_LIMIT", text)
        else:
            self._quarantine(stream, chunk.batch, entry, how)

    def _quarantine(
        self, stream: StreamState, batch: BatchState, entry: msg.Quarantined, how: str
    ) -> None:
        """Mask a sample from its place on; what was made beyond that place is made again."""
        text = self._write_down(stream, entry, how)
        sample, epoch, position = entry
        stream.quarantine[sample] = (epoch, position)
        stream.rewind(batch)
        self.revoke(stream)
        self.mask(stream)
        self.verdicts.append(QuarantineVerdict(stream, entry, text))

    def _write_down(self, stream: StreamState, entry: msg.Quarantined, how: str) -> str:
        """Have a verdict hold for every stream of this content that opens from now on."""
        assert stream.content is not None
        _, epoch, position = entry
        text = f"{how}: quarantined from position {position} of epoch {epoch} on"
        digest = stream.content.digest
        self.registers[stream.dataset].add(digest, [entry])
        self._outbox.add(ev.KeepQuarantine(stream.dataset, digest, entry, how))
        self._outbox.log(ERROR, text)
        return text

    def _blame(self, chunk: Chunk) -> str:
        batch = chunk.batch
        return (
            f"rows {chunk.first_row}..{chunk.first_row + chunk.rows - 1} of batch {batch.number} "
            f"of epoch {batch.epoch} ended {counted(chunk.attempt, 'producer')} one after "
            f"another (the last: "
            f"{self.pool.last_death}), with no sample in hand"
        )

    def _give_up(self) -> None:
        """Tell every client that producers keep dying; they are tried again with pauses."""
        self.unhealthy = (
            f"{self.pool.deaths_in_row} producers died in a row without finishing a chunk; the "
            f"last: {self.pool.last_death[:ERROR_TEXT_MAX]}. See the daemon's output, then try "
            "again."
        )
        for stream in list(self.streams.values()):
            if not stream.is_failed:
                self._fail(stream, "PRODUCERS_UNHEALTHY", self.unhealthy)

    # time and work

    def start_due(self) -> None:
        """Start the producers that are due."""
        for number in self.pool.due(self._outbox.now):
            self._outbox.add(ev.StartProducer(number))

    def staff(self) -> None:
        """Look how many producers are needed, and follow that if the operator says so."""
        now, pool = self._outbox.now, self.pool
        has_streams = bool(self.streams)
        if not self.staffing.look(now, len(pool.ready()), has_streams=has_streams):
            return
        if not self.producers_max:
            return
        num_lent = sum(producer.remote is not None for producer in pool.ready())
        change = self.staffing.change(pool.size + num_lent, self.producers_max + num_lent)
        change = max(change, 1 - pool.size)  # who lends may leave at any moment
        if change:
            self._outbox.log(INFO, f"producers: {pool.size} are {pool.size + change} from now on")
        for _ in range(change):
            pool.grow(now)
        for _ in range(-change):
            producer = pool.shrink()
            if producer is not None:
                self._tell(producer, msg.Drain())

    def kill_hanging(self) -> None:
        """Kill producers that were silent for too long, or give up remote ones that are nowhere."""
        now = self._outbox.now
        for producer in self.pool.overdue(now):
            remote = producer.remote
            if remote is not None and producer.lives_until(self.pool.patience_s) <= now:
                self.lose(producer, "nothing was heard from its host for too long")
                continue
            if producer.state == "killed":
                self._tell_kept(producer)
                continue
            producer.was_silent = producer.state == "ready"
            what = "at work" if producer.was_silent else "while it started"
            producer.last_words = f"silent for too long {what}, killed"
            # Now, and not when it was reaped: that may never be.
            who = f"producer {producer.number} ({_place_of(producer)})"
            self._outbox.log(WARNING, f"{who} hangs: {producer.last_words}")
            producer.kept_at = now + REAP_S
            if remote is not None:
                remote.part_at = now + REAP_S
            self.pool.turn(producer, "kill")
            self._outbox.add(ev.KillProducer(producer.number))

    def _tell_kept(self, producer: Producer) -> None:
        """Say once that a producer did not end of SIGKILL: its place and its rows wait for it."""
        producer.kept_at = None
        self._outbox.log(
            ERROR,
            f"producer {producer.number} ({_place_of(producer)}) was killed {REAP_S:g} s ago and "
            f"is still there: {KEPT}. Its rows cannot be made again before it is gone.",
        )

    def say_left(self) -> str:
        """Name the producers that did not end, for the last line of a log."""
        names = [f"{p.number} ({_place_of(p)})" for p in self.pool.members.values()]
        return f"producers that were killed are left: {', '.join(names)}: {KEPT}"

    def drain(self) -> None:
        """Have every producer finish what it has in hand, and end; the dead are not replaced."""
        self.pool.restart_at.clear()
        for producer in list(self.pool.members.values()):
            if producer.state == "ready":
                self._tell(producer, msg.Drain())
            elif producer.remote is not None:
                self.lose(producer, "the daemon is draining", is_draining=True)
            elif producer.state == "starting":
                self._outbox.add(ev.KillProducer(producer.number))

    def kill_all(self) -> None:
        """Kill what did not end by itself."""
        for producer in list(self.pool.members.values()):
            if producer.remote is None:
                self._outbox.add(ev.KillProducer(producer.number))
            else:
                self.lose(producer, "it did not drain in time", is_draining=True)

    def lose(self, producer: Producer, why: str, *, is_draining: bool = False) -> None:
        """Count on a remote producer no more: what it had goes back at once.

        Nothing is waited for: only this daemon writes into the slots, and it takes no rows of a
        producer that it doesn't know.
        """
        self._outbox.add(ev.ForgetProducer(producer.number, why))
        event = ev.Reaped(producer.number, why, ExitReason.LOST)
        self.reaped(event, is_draining=is_draining)

    def lease_out(self) -> None:
        """Fill the hungry producers, one chunk each in turns; fresh ones get suspects alone.

        Whose chunk is next is chosen by start-time fair queueing, so that rows go out in proportion
        to `lack`: each lease moves its stream on by rows / lack in a virtual time; the one that
        stands furthest back is next. A stream that waited for credit does not save its turns up.
        Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996.
        """
        reserved_for_suspects = self._lease_suspects()
        pending = sum(stream.num_pending() for stream in self.streams.values())
        if not pending:
            return
        depth = self.pool.depth(pending)
        under_low_water = [
            producer
            for producer in self.pool.under_low_water(depth)
            if producer is not reserved_for_suspects
        ]
        if not under_low_water:
            return
        waiting = [stream for stream in self.streams.values() if stream.has_pending()]
        queue = [(max(one.turn, self._turn), at, one) for at, one in enumerate(waiting)]
        heapify(queue)
        while under_low_water:
            for producer in under_low_water:
                if not queue:
                    return
                _, at, stream = queue[0]
                is_here = producer.remote is None
                batch_size = stream.spec.layout.batch_size
                chunk = stream.next_chunk(None if is_here else remote_rows_max(batch_size))
                assert chunk is not None
                self._lease(producer, stream, chunk)
                if stream.has_pending():
                    heapreplace(queue, (stream.turn, at, stream))
                else:
                    heappop(queue)
            under_low_water = [
                producer for producer in under_low_water if len(producer.leases) < depth
            ]

    def _lease_suspects(self) -> Producer | None:
        """Lease suspects to fresh producers; returns one that must become idle for those left."""
        for stream in self.streams.values():
            while stream.has_suspects() and (producer := self.pool.fresh()) is not None:
                chunk = stream.next_suspect()
                assert chunk is not None
                self._lease(producer, stream, chunk)
        are_left = any(stream.has_suspects() for stream in self.streams.values())
        return self.pool.reserved_for_suspects() if are_left else None

    def _lease(self, producer: Producer, stream: StreamState, chunk: Chunk) -> None:
        self._tell_stream(producer, stream)
        number = self._outbox.number()
        if not producer.leases:
            producer.work(self._outbox.now)
        self._turn = max(stream.turn, self._turn)
        stream.turn = self._turn + chunk.rows / max(stream.demand(), LACK_MIN)
        batch = chunk.batch
        position, first_row, slot = batch.position, chunk.first_row, batch.slot.index
        if producer.remote is not None:  # the same rows, at the head of a slot of its own
            position, first_row, slot = position + first_row, 0, producer.free_slot()
        record = LeaseRecord(stream, chunk, at=slot)
        self.pool.assign_lease(producer, number, record, self._outbox.now)
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
        self._tell(producer, lease)

    def _tell(self, producer: Producer, message: msg.ToProducer) -> None:
        self._outbox.tell(producer.number, message)


def _say_pixels(environment: Mapping[str, str]) -> str:
    """Say what makes the pixels, as a producer tells it."""
    kernels, opencv = environment.get("kernels", "none"), environment.get("opencv", "?")
    if kernels == "none":
        return f"pixels are made by OpenCV {opencv} and Pillow, without native kernels"
    return f"pixels are made by native kernels {kernels}, and OpenCV {opencv}"


_WHY = {
    ExitReason.MEMORY: "the kernel killed it for want of memory; have fewer producers, or a larger "
    "limit",
    ExitReason.OUTSIDE: "somebody else ended it, no sample and no fault of its own; look "
    "for who sends this signal: a person, a script, a limit of the job",
    ExitReason.STOPPED: "it had been stopped from outside (SIGSTOP, a debugger) and could not "
    "answer",
}
"""What is known of an end beyond its signal: who is to blame, and what to do."""


def _in_full(event: ev.Reaped, dead: Producer) -> str:
    """Say how a producer ended: its own words, and what its kernel knows of the end."""
    how, kind = dead.last_words or event.how, event.kind or ExitReason.ERROR
    if event.is_tried_otherwise:
        return f"{how} {TRIED_OTHERWISE}"
    if kind == ExitReason.OUTSIDE and dead.last_words:
        return how  # it said why it ends before somebody was faster
    why = _WHY.get(ExitReason(kind))
    return how if why is None else f"{how}: {why}"


def _place_of(producer: Producer) -> str:
    where = "" if producer.remote is None else f" on {producer.remote.host}"
    return f"pid {producer.pid}{where}"


def _mask_of(stream: StreamState) -> msg.Mask:
    return msg.Mask(stream.number, as_entries(stream.quarantine))
