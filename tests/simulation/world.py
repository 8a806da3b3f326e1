"""The world of a schedule: one daemon at a time, its producers, trainers, and what is on the way.

Everything random comes from one seed, so that a schedule can be replayed by its number:
`python -c "from tests.simulation.world import run; run(SEED)"`.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
from msgspec.structs import replace

from augd.protocol import epoch_layout
from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.server.daemon.broker import chunk_size
from tests.simulation import invariants
from tests.simulation.daemon import Crashed, Daemon
from tests.simulation.line import Line
from tests.simulation.remote_host import HOSTS_MAX, RemoteHost
from tests.simulation.rows import Place, Violation, following, sample_at
from tests.simulation.trainer import Checkpoint, Trainer
from tests.simulation.worker import Poison, Worker

RECIPE = {"ops": [{"op": "center_crop", "size": 1}]}
TRAINERS_MAX = 4


class Store:
    """What survives the daemon: entries by content, written down one by one."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, msg.Quarantined]] = []

    def write(self, content: str, entry: msg.Quarantined) -> None:
        """Append an entry; it is on disk when this returns."""
        self.entries.append((content, entry))

    def by_content(self) -> dict[str, tuple[msg.Quarantined, ...]]:
        """Return all entries, as the daemon loads them."""
        return {
            content: tuple(entry for other, entry in self.entries if other == content)
            for content, _ in self.entries
        }


class World:
    """Everything, and the primitive ways to change it; augd's own code runs inside."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.now = 0.0
        self.num_samples = rng.randint(5, rng.choice([7, 17]))
        self.limit = rng.randint(3, self.num_samples)  # of streams that choose
        self.num_producers = rng.randint(1, 3)
        self.store = Store()
        self.kept: list[tuple[str, msg.Quarantined]] = []  # what must be in the store
        self.poison: dict[int, Poison] = {}
        self.deaths: Counter[int] = Counter()
        self.seen: Counter[str] = Counter()
        self.story: deque[Any] = deque(maxlen=40)
        self.remote_hosts = [
            RemoteHost(self, f"host {n}") for n in range(rng.randrange(HOSTS_MAX + 1))
        ]
        self.remote_ghosts: deque[Any] = deque(maxlen=40)
        self.lines: list[Line] = []
        self.trainers: list[Trainer] = []
        self.orphans: list[Worker] = []  # of a daemon that was killed
        self.late: deque[tuple[bytes, msg.FromClient]] = deque(maxlen=40)
        self.late_attach: deque[tuple[Line, Any]] = deque(maxlen=8)
        self.ghosts: deque[tuple[int, msg.FromProducer]] = deque(maxlen=40)
        self.checkpoints: deque[Checkpoint] = deque(maxlen=6)
        self.num_trainers = 0
        self.num_lives = 0
        self.num_delivered = 0
        self.bad: Literal["mask", "fail"] = "fail" if rng.random() < 0.1 else "mask"
        self.menu = [self.any_spec(), self.any_spec()]
        max_lag = rng.choice([None, None, 0, 1, 2])
        lag = max_lag if max_lag is None else min(max_lag, self.menu[0].prefetch)
        at: Literal["next", "here"] = "next" if rng.random() < 0.5 else "here"
        wait_s = rng.choice([0.0, 1.0])
        self.share = msg.Share(at, rng.choice([1, 2, 3]), wait_s, lag)
        self.is_sharing = rng.random() < 0.6
        self.daemon = self.start_daemon()
        for _ in range(rng.randint(2, 4) if self.is_sharing else rng.randint(1, 3)):
            self.come()

    # what is noted

    def note(self, what: Any) -> None:
        """Keep the last events and actions, and count their kinds."""
        self.story.append(what)
        self.seen[type(what).__name__] += 1
        message = getattr(what, "message", None)
        if message is not None:
            self.seen[type(message).__name__] += 1

    def fault(self, name: str) -> None:
        """Note a piece of bad luck."""
        self.story.append(name)
        self.seen[name] += 1

    def tell_story(self) -> str:
        """Return what happened last."""
        lines = "\n".join(f"  {one}" for one in self.story)
        command = f"from tests.simulation.world import run; run({self.seed})"
        return f'schedule {self.seed}; replay: python -c "{command}"; the last events:\n{lines}'

    def look(self, daemon: Daemon) -> None:
        """Check the broker after an event."""
        invariants.check_broker(daemon)

    # daemon

    def start_daemon(self) -> Daemon:
        """Start a daemon, with what was written down."""
        self.num_lives += 1
        self.daemon = Daemon(self, self.num_lives)
        self.daemon.tick()
        return self.daemon

    def crash(self) -> None:
        """SIGKILL the daemon; its producers die soon, and a new one is started, maybe elsewhere."""
        self.end_daemon()
        if self.kept and self.rng.random() < 0.2:
            self.fault("started without its quarantine")
            self.kept.clear()
            self.store.entries.clear()
        self.start_daemon()

    def end_daemon(self) -> None:
        """Let the daemon be gone."""
        old = self.daemon
        for name, count in old.broker._outbox.stale.items():
            self.seen[f"stale {name}"] += count
        old.cut_everybody()
        for worker in old.workers.values():
            worker.die(ExitReason.OUTSIDE)
            self.orphans.append(worker)
        self.ghosts.clear()
        self.remote_ghosts.clear()
        for remote_host in self.remote_hosts:
            remote_host.number = 0
            remote_host.is_silent = False

    def keep(self, content: str, entry: msg.Quarantined) -> None:
        """Write an entry down; nobody may be convicted who did not kill twice."""
        sample, *place = entry
        is_known = any(other[0] == sample for _, other in self.kept)
        if self.deaths[sample] < (1 if is_known else 2):
            raise Violation(f"sample {sample} is quarantined after {self.deaths[sample]} deaths")
        if sample not in {sample_at(n, *place) for n in (self.num_samples, self.limit)}:
            raise Violation(f"sample {sample} is quarantined from {place}, where another stands")
        self.kept.append((content, entry))
        self.store.write(content, entry)

    # producers

    def meet(self, worker: Worker, sample: int) -> bool:
        """Let a producer decode a sample; says whether that ends it."""
        poison = self.poison.get(sample)
        if poison is None or poison.times <= 0 or self.rng.random() > poison.chance:
            return False
        poison.times -= 1
        self.deaths[sample] += 1
        self.fault(f"poison {poison.ending} {'with' if poison.is_named else 'without'} crumb")
        if not poison.is_named:
            worker.current_sample = None
        if poison.ending == ExitReason.KILLED:
            worker.is_hanging = True
        else:
            worker.die(poison.ending)
        return True

    def kill_by_daemon(self, worker: Worker) -> None:
        """SIGKILL from the daemon."""
        if worker.is_stopped:
            self.fault("stopped producer killed")
        worker.die(ExitReason.KILLED)

    def living(self) -> list[Worker]:
        """List the producers of the daemon that hear and speak."""
        return [worker for worker in self.daemon.workers.values() if worker.is_alive]

    def say_alive(self) -> None:
        """Let all who live say so, before time jumps."""
        for number, worker in list(self.daemon.workers.items()):
            if worker.is_alive and worker.tasks and number in self.daemon.workers:
                self.daemon.hear_worker(number, msg.Alive(worker.tasks[0].lease.lease))
        for remote_host in self.remote_hosts:
            remote_host.beat()

    # trainers

    def num_samples_of(self, spec: msg.Spec) -> int:
        """Return how many samples an epoch has."""
        return self.num_samples if spec.selection.limit is None else self.limit

    def any_layout(self, num_samples: int) -> msg.Layout:
        """Draw a layout that leaves at least one batch."""
        rng = self.rng
        world = rng.choice([1, 1, 2])
        layout = msg.Layout(rng.randint(1, 5), rng.randrange(world), world, rng.random() < 0.3)
        is_empty = epoch_layout.batches_left(layout, num_samples) == 0
        return msg.Layout(layout.batch_size) if is_empty else layout

    def any_spec(self, content: msg.Spec | None = None) -> msg.Spec:
        """Draw a spec, of the content of another one if asked."""
        if content is None:
            limit = self.limit if self.rng.random() < 0.15 else None
            seed, selection = self.rng.randrange(2), msg.Selection(limit=limit)
            content = msg.Spec("d", RECIPE, msg.Layout(1), seed=seed, selection=selection)
        return replace(
            content,
            layout=self.any_layout(self.num_samples_of(content)),
            bad=self.bad,
            max_bad_fraction=1.0,
            prefetch=self.rng.randint(1, 4),
        )

    def make_trainer(self, spec: msg.Spec, share: msg.Share | None) -> Trainer:
        """Make a trainer that is not connected yet."""
        self.num_trainers += 1
        name = f"trainer {self.num_trainers}"
        transport: Literal["memfd", "frames"] = "memfd" if self.rng.random() < 0.67 else "frames"
        trainer = Trainer(
            name,
            spec,
            self.num_samples_of(spec),
            transport,
            share,
            self.connect,
            is_stingy=self.rng.random() < 0.2,
            is_slow=self.rng.random() < 0.3,
        )
        self.trainers.append(trainer)
        return trainer

    def connect(self, line: Line) -> None:
        """Put a new connection on the table."""
        self.daemon.lines[line.peer] = line
        self.lines = [one for one in self.lines if not (one.is_closed and is_quiet(one))]
        self.lines.append(line)

    def come(self, state: Checkpoint | None = None) -> None:
        """Let a trainer begin, anew or from a state and then maybe with another layout."""
        if state is not None:
            is_same = self.rng.random() < 0.4
            spec = state.spec if is_same else self.any_spec(state.spec)
            total = self.num_samples_of(spec)
            place = following(spec.layout, total, state.place)
            due = following(spec.layout, total, state.due)
            self.make_trainer(spec, None).begin(place, due, state.quarantine)
            return
        if self.is_sharing and self.rng.random() < 0.8:
            spec, share = self.menu[0], self.share
        else:
            spec, share = self.rng.choice(self.menu), None
        is_open_ended = share is not None and share.at == "next"
        self.make_trainer(spec, share).begin((0, 0), None if is_open_ended else (0, 0))

    def place_for(self, trainer: Trainer) -> Place:
        """Draw a place where a batch of this layout begins."""
        layout = trainer.layout
        number = self.rng.randrange(epoch_layout.batches_left(layout, trainer.num_samples))
        return self.rng.randrange(3), number * epoch_layout.global_batch(layout)

    def check(self) -> None:
        """Check what must hold after every step."""
        for trainer in self.trainers:
            trainer.check_held()
        invariants.check_bounds(self)


def is_quiet(line: Line) -> bool:
    """Whether nothing is on the way to the daemon any more."""
    return not line.up and not line.lifeline


def step(world: World, move: Any) -> bool:
    """Make one move; the daemon may be killed in the middle of it."""
    try:
        has_moved = move(world)
    except Crashed:
        world.fault("killed between two actions")
        world.crash()
        return True
    if world.daemon.has_stopped:
        world.crash()
    return bool(has_moved)


@contextmanager
def small_chunks() -> Iterator[None]:
    """Have chunks of about two rows, so that small batches have several, and of all if quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_size, "CHUNK_ROWS", 2)
        patch.setattr(chunk_size, "QUICK_CHUNKS_MIN", 1)
        yield


def run(seed: int) -> World:
    """Run one schedule to its end.

    Raises:
        Violation: a rule was broken; a note tells the seed and what happened last.
    """
    from tests.simulation import convergence, moves

    world = None
    try:
        with small_chunks():
            world = World(seed)
            moves.play(world)
            convergence.get_on(world)
            convergence.end(world)
    except Exception as error:
        error.add_note(f"schedule {seed}" if world is None else world.tell_story())
        raise
    return world
