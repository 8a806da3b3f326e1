"""Random schedules of the whole protocol: the real broker, real readers, and bad luck.

A seeded, weighted scheduler moves one thing at a time: a message on one of its ways, a row
being written, a producer dying, hanging or being reaped, a client that releases, seeks or
leaves. After every step: no slot is written while a client reads it, credit is never
exceeded, batches come in order, every epoch is whole. When the faults stop, everything must
move on. Uniform schedules reach almost none of the interesting states, hence the weights;
the second half of this file breaks a rule of the protocol at a time and expects to be told.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from augd.broker import events as ev
from augd.broker import reader as reader_module
from augd.broker import stream as stream_module
from augd.broker.core import Broker, DatasetFacts
from augd.broker.reader import Attach, Deliver, PassEnded, Reader
from augd.broker.stream import Batch, Slot, Stream
from augd.errors import ProducersUnhealthy, SampleFailed
from augd.wire import cut
from augd.wire import messages as msg

NUM_SCHEDULES = 300
NUM_STEPS = 600
RECIPE = {"ops": [{"op": "center_crop", "size": 1}]}

Row = tuple[int, int]  # (epoch, position in the epoch); position -1 is padding


class Violation(AssertionError):
    """A rule of the protocol was broken."""


@dataclass
class Worker:
    """A producer process: what it was told, what it writes, what it says."""

    inbox: deque[msg.ToProducer] = field(default_factory=deque)
    outbox: deque[msg.FromProducer] = field(default_factory=deque)
    tasks: deque[msg.Lease] = field(default_factory=deque)
    open_leases: dict[int, msg.Lease] = field(default_factory=dict)  # until the broker knows
    is_dead: bool = False
    is_hanging: bool = False


class Trainer:
    """A client: its reader, the batches that it holds, and what it expects next."""

    def __init__(self, number: int, spec: msg.Spec) -> None:
        self.peer = b"peer %d" % number
        self.reader = Reader(spec, f"nonce {number}")
        self.layout = spec.layout
        self.inbox: deque[msg.ToClient] = deque()
        self.outbox: deque[Any] = deque()
        self.held: list[tuple[msg.BatchReady, list[Row]]] = []
        self.stream = 0
        self.cursor = (0, 0)
        self.is_due_to_end = False
        self.num_delivered = 0
        self.credit_heard: dict[int, int] = {}  # opening -> what the broker was told


class World:
    """Broker, workers and trainers, and the queues between them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.num_samples = self.rng.randint(5, 17)
        facts = DatasetFacts("0" * 32, "/d", self.num_samples, (1, 1))
        self.broker = Broker("i", "/a", {"d": facts}, self.rng.randint(1, 3))
        self.now = 0.0
        self.workers: dict[int, Worker] = {}
        self.trainers: list[Trainer] = []
        self.layouts: dict[int, msg.Layout] = {}
        self.memory: dict[tuple[int, int], list[Row]] = {}
        self.readable: dict[tuple[int, int], int] = {}  # (stream, slot) -> generation
        self.late: list[tuple[bytes, msg.FromClient]] = []
        self.ghosts: list[tuple[int, msg.FromProducer]] = []
        self.num_made = 0
        self.feed(ev.Tick())
        for _ in range(self.rng.randint(1, 2)):
            self.come()
        weighted: dict[Callable[[], bool], float] = {
            self.hear_client: 12,
            self.deliver_to_trainer: 12,
            self.work: 20,
            self.hear_worker: 10,
            self.release: 8,
            self.kill: 0.4,
            self.reap: 2,
            self.hang: 0.1,
            self.turn_clock: 1,
            self.seek: 0.4,
            self.leave: 0.1,
            self.repeat_late: 0.5,
            self.haunt: 0.4,
        }
        self.moves, self.weights = list(weighted), list(weighted.values())
        self.num_delivered = 0

    # the daemon's loop

    def feed(self, event: ev.Event) -> None:
        events = deque([event])
        while events:
            for action in self.broker.handle(events.popleft(), self.now):
                self.act(action, events)

    def act(self, action: ev.Action, events: deque[ev.Event]) -> None:
        match action:
            case ev.Send(peer, message):
                for trainer in self.trainers:
                    if trainer.peer == peer:
                        self.check_sent(trainer, message)
                        trainer.inbox.append(message)
            case ev.Tell(number, message):
                self.check_told(number, message)
                self.workers[number].inbox.append(message)
            case ev.MakeArena(stream):
                events.append(ev.ArenaMade(stream))
            case ev.StartProducer(number):
                self.workers[number] = Worker()
                self.workers[number].outbox.append(msg.Ready(1, {"lib": "1"}))
            case ev.KillProducer(number):
                self.workers[number].is_dead = True
            case _:
                pass

    def check_sent(self, trainer: Trainer, message: msg.ToClient) -> None:
        if isinstance(message, msg.Opened):
            trainer.stream = message.stream
        if not isinstance(message, msg.BatchReady):
            return
        if message.sequence >= trainer.credit_heard.get(message.opening, 0):
            raise Violation(f"credit exceeded by {message}")
        place = (trainer.stream, message.slot)
        if any(place == (one.stream, one.slot) for one in self.leases_out()):
            raise Violation(f"sent while it is written: {message}")
        if place in self.readable:
            raise Violation(f"sent while it is read: {message}")
        self.readable[place] = message.generation

    def check_told(self, number: int, message: msg.ToProducer) -> None:
        if isinstance(message, msg.UseStream):
            self.layouts[message.stream] = message.layout
            for slot in range(message.num_slots):
                rows = [(-1, -1)] * message.layout.batch_size
                self.memory.setdefault((message.stream, slot), rows)
        if not isinstance(message, msg.Lease):
            return
        if (message.stream, message.slot) in self.readable:
            raise Violation(f"leased while it is read: {message}")
        mine = set(range(message.first_row, message.first_row + message.rows))
        for other in self.leases_out():
            theirs = range(other.first_row, other.first_row + other.rows)
            same_slot = (other.stream, other.slot) == (message.stream, message.slot)
            if same_slot and not mine.isdisjoint(theirs):
                raise Violation(f"two leases write the same rows: {message} and {other}")
        self.workers[number].open_leases[message.lease] = message

    def leases_out(self) -> Iterator[msg.Lease]:
        for worker in self.workers.values():
            yield from worker.open_leases.values()

    # moves

    def step(self) -> None:
        """Make one move that changes something; most of the time some have nothing to do."""
        while not self.rng.choices(self.moves, self.weights)[0]():
            pass
        self.check_held()

    def check_held(self) -> None:
        for trainer in self.trainers:
            for batch, expected in trainer.held:
                found = self.memory[trainer.stream, batch.slot][: batch.rows]
                if found != expected:
                    raise Violation(f"{batch} changed in the trainer's hands: {found}")

    def pick(self, things: list[Any]) -> Any:
        return self.rng.choice(things) if things else None

    def hear_client(self) -> bool:
        trainer = self.pick([trainer for trainer in self.trainers if trainer.outbox])
        if trainer is None:
            return False
        message = trainer.outbox.popleft()
        if isinstance(message, msg.Release | msg.Flow) and self.rng.random() < 0.1:
            self.late.append((trainer.peer, message))
        self.hear_message(trainer, message)
        return True

    def hear_message(self, trainer: Trainer, message: Any) -> None:
        if isinstance(message, Attach):
            self.feed(ev.PeerAttached(message.session, message.token))
            return
        match message:
            case msg.Open(_, opening):
                trainer.credit_heard[opening] = message.credit
                kept = set(message.held)
                for (stream, slot), generation in list(self.readable.items()):
                    if stream == trainer.stream and (slot, generation) not in kept:
                        del self.readable[stream, slot]
            case msg.Flow(_, opening, credit):
                known = trainer.credit_heard.get(opening, 0)
                trainer.credit_heard[opening] = max(known, credit)
            case msg.Release(_, slot, generation):
                if self.readable.get((trainer.stream, slot)) == generation:
                    del self.readable[trainer.stream, slot]
            case msg.Bye():
                self.forget(trainer)
        self.feed(ev.FromPeer(trainer.peer, message))

    def forget(self, trainer: Trainer) -> None:
        for place in [place for place in self.readable if place[0] == trainer.stream]:
            del self.readable[place]

    def deliver_to_trainer(self) -> bool:
        trainer = self.pick([trainer for trainer in self.trainers if trainer.inbox])
        if trainer is None:
            return False
        message = trainer.inbox.popleft()
        if isinstance(message, msg.BatchReady) and self.rng.random() < 0.05:
            trainer.inbox.appendleft(message)  # doubled on the way
        self.hand_over(trainer, message)
        return True

    def hand_over(self, trainer: Trainer, message: msg.ToClient) -> None:
        try:
            outcomes = trainer.reader.handle(message)
        except (SampleFailed, ProducersUnhealthy):
            trainer.outbox.extend(trainer.reader.seek(*trainer.cursor))
            trainer.is_due_to_end = False
            return
        for outcome in outcomes:
            if isinstance(outcome, Attach):
                trainer.outbox.append(outcome)
                trainer.outbox.extend(trainer.reader.attached())
            elif isinstance(outcome, Deliver):
                self.receive(trainer, outcome.batch)
            elif isinstance(outcome, PassEnded):
                self.end_epoch(trainer, outcome.end)

    def receive(self, trainer: Trainer, batch: msg.BatchReady) -> None:
        layout, total = trainer.layout, self.num_samples
        if (batch.epoch, batch.position) != trainer.cursor or trainer.is_due_to_end:
            raise Violation(f"{batch} came, expected {trainer.cursor}")
        rows = self.expected_rows(layout, batch.epoch, batch.position)
        found = self.memory[trainer.stream, batch.slot][: batch.rows]
        if found != rows:
            raise Violation(f"{batch} holds {found}, expected {rows}")
        trainer.held.append((batch, rows))
        trainer.num_delivered += 1
        self.num_delivered += 1
        after = batch.position + cut.global_batch(layout)
        trainer.is_due_to_end = cut.batches_left(layout, total, after) == 0
        trainer.cursor = (batch.epoch + 1, 0) if trainer.is_due_to_end else (batch.epoch, after)

    def end_epoch(self, trainer: Trainer, end: msg.EpochEnd) -> None:
        if not trainer.is_due_to_end or trainer.cursor != (end.epoch + 1, 0):
            raise Violation(f"{end} came, expected {trainer.cursor}")
        trainer.is_due_to_end = False

    def expected_rows(self, layout: msg.Layout, epoch: int, position: int) -> list[Row]:
        first = position + layout.rank * layout.batch_size
        count = cut.batch_rows(layout, self.num_samples, position)
        places = range(first, first + count)
        return [(epoch, place if place < self.num_samples else -1) for place in places]

    def work(self) -> bool:
        # The dead work on until they are reaped: what the kernel has not stopped yet may write.
        worker = self.pick([worker for worker in self.workers.values() if not worker.is_hanging])
        if worker is None:
            return False
        if worker.inbox and not worker.is_dead and self.rng.random() < 0.7:
            self.obey(worker, worker.inbox.popleft())
        elif worker.tasks:
            self.write(worker.tasks[0])
            if not worker.is_dead and self.rng.random() < 0.6:
                lease = worker.tasks.popleft()
                worker.outbox.append(msg.Done(lease.lease))
        else:
            return False
        return True

    def obey(self, worker: Worker, message: msg.ToProducer) -> None:
        if isinstance(message, msg.Lease):
            worker.tasks.append(message)
        elif isinstance(message, msg.Revoke):
            for lease in [task for task in worker.tasks if task.lease in message.leases]:
                worker.tasks.remove(lease)
                worker.outbox.append(msg.Dropped(lease.lease))

    def write(self, lease: msg.Lease) -> None:
        rows = self.memory[lease.stream, lease.slot]
        expected = self.expected_rows(self.layouts[lease.stream], lease.epoch, lease.position)
        last = lease.first_row + lease.rows
        rows[lease.first_row : last] = expected[lease.first_row : last]
        self.num_made += 1

    def hear_worker(self) -> bool:
        number = self.pick([n for n, worker in self.workers.items() if worker.outbox])
        if number is not None:
            self.take_word(number, self.workers[number].outbox.popleft())
        return number is not None

    def take_word(self, number: int, message: msg.FromProducer) -> None:
        if isinstance(message, msg.Done | msg.Dropped):
            self.workers[number].open_leases.pop(message.lease, None)
            self.ghosts.append((number, message))
        self.feed(ev.FromCrew(number, message))

    def kill(self) -> bool:
        worker = self.pick(list(self.workers.values()))
        if worker is not None:
            worker.is_dead = True
        return worker is not None

    def hang(self) -> bool:
        worker = self.pick(list(self.workers.values()))
        if worker is not None:
            worker.is_hanging = True
        return worker is not None

    def reap(self) -> bool:
        number = self.pick([n for n, worker in self.workers.items() if worker.is_dead])
        if number is None:
            return False
        worker = self.workers[number]
        while worker.outbox:  # what it said before it died
            self.take_word(number, worker.outbox.popleft())
        self.ghosts += [(number, msg.Done(lease)) for lease in worker.open_leases]
        del self.workers[number]
        self.feed(ev.Reaped(number, "SIGKILL"))
        return True

    def haunt(self) -> bool:
        """A word of the dead, or one said twice: its lease is gone."""
        if self.ghosts:
            number, message = self.rng.choice(self.ghosts)
            self.feed(ev.FromCrew(number, message))
        return bool(self.ghosts)

    def turn_clock(self) -> bool:
        deadline = self.broker.next_deadline()
        is_stuck = all(worker.is_hanging for worker in self.workers.values())  # or all are gone
        is_settled = all(trainer.stream for trainer in self.trainers)
        if deadline is not None and is_stuck and is_settled:
            self.now = max(self.now, deadline)
        self.now += self.rng.random() * 0.1
        self.feed(ev.Tick())
        return True

    def release(self) -> bool:
        trainer = self.pick([trainer for trainer in self.trainers if trainer.held])
        if trainer is not None:
            self.give_back(trainer, self.rng.randrange(len(trainer.held)))
        return trainer is not None

    def give_back(self, trainer: Trainer, place: int) -> None:
        batch, _ = trainer.held.pop(place)
        trainer.outbox.extend(trainer.reader.release(batch.slot, batch.generation))

    def seek(self) -> bool:
        trainer = self.pick([t for t in self.trainers if t.reader.state in ("opening", "open")])
        if trainer is None:
            return False
        layout, step = trainer.layout, cut.global_batch(trainer.layout)
        number = self.rng.randrange(cut.batches_left(layout, self.num_samples))
        trainer.cursor = (self.rng.randrange(3), number * step)
        trainer.is_due_to_end = False
        trainer.outbox.extend(trainer.reader.seek(*trainer.cursor))
        return True

    def come(self) -> None:
        rng = self.rng
        world = rng.choice([1, 1, 2])
        layout = msg.Layout(rng.randint(1, 5), rng.randrange(world), world, rng.random() < 0.3)
        if cut.batches_left(layout, self.num_samples) == 0:
            layout = msg.Layout(layout.batch_size)
        spec = msg.Spec("d", RECIPE, layout, prefetch=rng.randint(1, 4))
        trainer = Trainer(len(self.layouts) * 100 + rng.randrange(100), spec)
        trainer.outbox.extend(trainer.reader.start(""))
        self.trainers.append(trainer)

    def leave(self) -> bool:
        trainer = self.pick([t for t in self.trainers if t.reader.state == "open"])
        if trainer is None:
            return False
        self.trainers.remove(trainer)
        self.forget(trainer)
        if self.rng.random() < 0.5:
            self.feed(ev.PeerGone(trainer.reader.session))
        else:
            self.feed(ev.FromPeer(trainer.peer, msg.Bye(trainer.reader.session)))
        self.come()
        return True

    def repeat_late(self) -> bool:
        """A RELEASE or FLOW that comes again, long after."""
        if self.late:
            peer, message = self.late.pop(self.rng.randrange(len(self.late)))
            self.feed(ev.FromPeer(peer, message))
            return True
        return False

    # the end of bad luck

    def calm_down(self, num_batches: int = 6) -> None:
        """Let everything move without faults; every trainer must get on."""
        for worker in self.workers.values():
            worker.is_dead = worker.is_dead or worker.is_hanging
        goals = [trainer.num_delivered + num_batches for trainer in self.trainers]
        for _ in range(400):
            self.move_all()
            self.check_held()
            if all(t.num_delivered >= g for t, g in zip(self.trainers, goals, strict=True)):
                return
        raise Violation(f"no progress: {self.broker.snapshot()}")

    def move_all(self) -> None:
        for _ in range(len([w for w in self.workers.values() if w.is_dead])):
            self.reap()
        for trainer in self.trainers:
            while trainer.outbox:
                self.hear_message(trainer, trainer.outbox.popleft())
            while trainer.inbox:
                self.hand_over(trainer, trainer.inbox.popleft())
            while trainer.held:
                self.give_back(trainer, 0)
        for number, worker in list(self.workers.items()):
            while worker.inbox:
                self.obey(worker, worker.inbox.popleft())
            while worker.tasks:
                lease = worker.tasks.popleft()
                self.write(lease)
                worker.outbox.append(msg.Done(lease.lease))
            while worker.outbox:
                self.take_word(number, worker.outbox.popleft())
        self.now += 0.5
        self.feed(ev.Tick())


def run_schedule(seed: int) -> World:
    world = World(seed)
    for _ in range(NUM_STEPS):
        world.step()
    world.calm_down()
    return world


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of about two rows, so that small batches have several."""
    monkeypatch.setattr(stream_module, "CHUNK_ROWS", 2)


@pytest.mark.parametrize("block", range(6))
def test_schedules_keep_every_rule_and_move_on(block: int) -> None:
    size = NUM_SCHEDULES // 6
    delivered = restarts = 0
    stale: set[str] = set()
    for seed in range(block * size, (block + 1) * size):
        try:
            world = run_schedule(seed)
        except Exception as error:
            error.add_note(f"schedule {seed}")
            raise
        delivered += world.num_delivered
        snapshot = world.broker.snapshot()
        restarts += snapshot["restarts"]
        stale |= snapshot["stale"].keys()
    # The schedules are worth something: they deliver, they kill, and they reach the late messages.
    assert delivered > 20 * size
    assert restarts > size
    assert {"generation", "opening", "lease"} <= stale


# Rules taken out, one at a time: the schedules above must notice each.


def _ignore_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan_ahead(self: Stream) -> None:
        while self.has_arena and self.opening:
            slot = next((slot for slot in self.slots if slot.state == "free"), None)
            if slot is None:
                return
            self._begin(slot)

    def sendable(self: Stream) -> Iterator[Batch]:
        credit, self.credit = self.credit, 2**62
        try:
            yield from honest(self)
        finally:
            self.credit = credit

    honest = Stream.sendable
    monkeypatch.setattr(Stream, "plan_ahead", plan_ahead)
    monkeypatch.setattr(Stream, "sendable", sendable)


def _reuse_slots_under_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    def abandon(self: Stream, batch: Batch) -> None:
        batch.is_abandoned = True
        self._num_pending -= len(batch.pending)
        batch.pending.clear()
        batch.slot.take("abandon")
        self._give_up(batch.slot, "drained")

    monkeypatch.setattr(Stream, "_abandon", abandon)
    monkeypatch.setattr(Stream, "_drain", lambda self, batch: None)


def _ignore_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    def release(self: Stream, index: int, generation: int) -> bool:
        slot: Slot = self.slots[index]
        if slot.state != "sent":
            return False
        self._give_up(slot, "release")
        return True

    monkeypatch.setattr(Stream, "release", release)


def _ignore_openings(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_current(self: Reader, message: Any) -> bool:
        return bool(message.session == self.session)

    monkeypatch.setattr(reader_module.Reader, "_is_current", is_current)


def _forget_held_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Stream.reopen

    def reopen(self: Stream, opening: int, epoch: int, position: int, credit: int, _: Any) -> None:
        honest(self, opening, epoch, position, credit, ())

    monkeypatch.setattr(Stream, "reopen", reopen)


def _take_doubled_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Reader._batch

    def batch(self: Reader, message: msg.BatchReady) -> Any:
        if message.sequence < self._sequence and message.slot not in self._held:
            self._sequence = message.sequence
        return honest(self, message)

    monkeypatch.setattr(Reader, "_batch", batch)


def _lose_chunks_of_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_chunk(self: Stream, chunk: Any, *, is_suspect: bool) -> None:
        chunk.batch.slot.writers -= 1
        if chunk.batch.is_abandoned:
            self._drain(chunk.batch)

    monkeypatch.setattr(Stream, "lose_chunk", lose_chunk)


def _send_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Stream.sendable

    def sendable(self: Stream) -> Iterator[Batch]:
        self.batches = type(self.batches)(
            sorted(self.batches, key=lambda batch: (batch.missing > 0, batch.sequence))
        )
        return honest(self)

    monkeypatch.setattr(Stream, "sendable", sendable)


def _free_slots_when_a_producer_is_only_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Broker._settle

    def settle(self: Broker) -> None:
        for producer in list(self._crew.hanging(self._now)):
            self._out.append(ev.KillProducer(producer.number))
            for record in producer.leases.values():
                record.stream.lose_chunk(record.chunk, is_suspect=False)
            producer.leases.clear()
        honest(self)

    monkeypatch.setattr(Broker, "_settle", settle)


BROKEN = [
    _ignore_credit,
    _reuse_slots_under_writers,
    _ignore_generations,
    _ignore_openings,
    _forget_held_slots,
    _take_doubled_batches,
    _lose_chunks_of_the_dead,
    _send_out_of_order,
    _free_slots_when_a_producer_is_only_killed,
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__.strip("_"))
def test_a_broken_rule_is_noticed(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    with pytest.raises((Violation, reader_module.ProtocolError)):
        for seed in range(NUM_SCHEDULES):
            run_schedule(seed)
