"""The scheduler: one weighted move at a time, most of them traffic and some of them bad luck.

Uniform schedules reach almost none of the interesting states, hence the weights. A move returns
whether it changed anything; most of the time some have nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

from augd.broker import events as ev
from augd.broker.reader import Attach
from augd.wire import messages as msg
from augd.wire.ending import Ending
from tests.simulation.line import HANGUP, Line
from tests.simulation.rows import following
from tests.simulation.trainer import Trainer
from tests.simulation.worker import Poison, Worker
from tests.simulation.world import TRAINERS_MAX, World, step

NUM_STEPS = 500


def pick(world: World, things: list[Any]) -> Any:
    """Draw one of these; None when there are none."""
    return world.rng.choice(things) if things else None


# traffic


def hear_client(world: World) -> bool:
    """Bring a control message to the daemon; rarely twice, or again much later."""
    line = pick(world, [line for line in world.lines if line.up])
    if line is None:
        return False
    message = line.up.popleft()
    chance = world.rng.random()
    if chance < 0.03:
        line.up.appendleft(message)
        world.fault("doubled to the daemon")
    elif chance < 0.15:
        world.late.append((line.peer, message))
    world.daemon.hear(line.peer, message)
    return True


def hear_lifeline(world: World) -> bool:
    """Bring the word of a lifeline to the daemon."""
    line = pick(world, [line for line in world.lines if line.lifeline])
    if line is None or (line.lifeline[0] is HANGUP and world.rng.random() < 0.7):
        return False
    bring(world, line)
    return True


def bring(world: World, line: Line) -> None:
    """Bring what is first on a lifeline."""
    what = line.lifeline.popleft()
    if isinstance(what, Attach):
        world.late_attach.append((line, what))
    world.daemon.hear_lifeline(line, what)


def take(world: World) -> bool:
    """Bring a message to a trainer; rarely twice."""
    trainer = pick(world, [one for one in world.trainers if one.line.can_take()])
    if trainer is None:
        return False
    line = trainer.line
    if world.rng.random() < 0.04:
        line.down.appendleft(line.down[0])
        world.fault("doubled to a trainer")
    hand_over(world, trainer)
    return True


def hand_over(world: World, trainer: Trainer) -> None:
    """Let a trainer take a message, and count what became of it."""
    before = trainer.num_delivered, len(trainer.errors), trainer.num_lost
    trainer.take()
    world.num_delivered += trainer.num_delivered - before[0]
    for code in trainer.errors[before[1] :]:
        world.fault(f"error {code}")
        if code == "SAMPLE_FAILED":
            mend(world, trainer)
    if trainer.num_lost > before[2]:
        world.fault("a gap was found")


def mend(world: World, trainer: Trainer) -> None:
    """Replace the deadly files, where they end the stream and are not masked."""
    for poison in world.poison.values():
        if trainer.spec.bad == "fail" or not poison.has_crumb:
            poison.times = 0


def work(world: World) -> bool:
    """Let a producer do one thing; the dead go on until they are reaped."""
    workers = [*world.daemon.workers.values(), *world.orphans]
    worker = pick(world, workers)
    return worker is not None and worker.work(is_eager=world.rng.random() < 0.7)


def hear_worker(world: World) -> bool:
    """Bring a producer's message to the daemon."""
    workers = world.daemon.workers
    number = pick(world, [n for n, worker in workers.items() if worker.outbox])
    if number is not None:
        message = workers[number].outbox.popleft()
        world.ghosts.append((number, message))
        world.daemon.hear_worker(number, message)
    return number is not None


def release(world: World) -> bool:
    """Let a trainer give a batch back, not always the oldest."""
    trainer = pick(world, [trainer for trainer in world.trainers if trainer.held])
    if trainer is None or (trainer.is_slow and world.rng.random() < 0.7):
        return False
    trainer.release(world.rng.randrange(len(trainer.held)))
    return True


def turn_clock(world: World) -> bool:
    """Let time pass: a little, or up to what is due next."""
    deadline = world.daemon.broker.next_deadline()
    is_stuck = len(world.living()) < len(world.daemon.workers) or not world.daemon.workers
    if deadline is not None and world.rng.random() < (0.5 if is_stuck else 0.05):
        world.say_alive()
        world.now = max(world.now, deadline)
    world.now += world.rng.random() * 0.1
    world.daemon.tick()
    return True


def reap(world: World) -> bool:
    """Wait for a dead producer, or let one of a dead daemon be gone."""
    workers = world.daemon.workers
    number = pick(world, [n for n, worker in workers.items() if worker.ending is not None])
    if number is not None:
        world.fault(f"reaped {workers[number].ending}")
        world.daemon.reap(number)
    elif world.orphans:
        world.orphans.pop(0)
    else:
        return False
    return True


def notice(world: World) -> bool:
    """Let a trainer find that its connection is over, or that nothing comes."""
    trainer = pick(world, [one for one in world.trainers if is_stranded(one)])
    if trainer is not None:
        trainer.connect_again()
        world.fault("connected again")
    return trainer is not None


def is_stranded(trainer: Trainer) -> bool:
    """Whether nothing will come any more on the connection that is read."""
    line = trainer.line
    return (line.has_ended or line.is_lossy) and not line.can_take()


# what trainers do


def seek(world: World) -> bool:
    """Begin a pass elsewhere: another epoch, the middle of one, or the same again."""
    trainer = pick(world, world.trainers)
    if trainer is None:
        return False
    others = [one for one in world.trainers if one.share is not None and one is not trainer]
    is_again = trainer.due is not None and world.rng.random() < 0.3
    if trainer.share is not None and others and world.rng.random() < 0.7:
        world.fault("seek to a sharer")
        trainer.seek(following(trainer.layout, trainer.num_samples, pick(world, others).yielded))
    elif is_again:
        world.fault("the same epoch again")
        trainer.seek((trainer.yielded[0], 0))
    else:
        world.fault("seek")
        trainer.seek(world.place_for(trainer))
    return True


def checkpoint(world: World) -> bool:
    """Save a state."""
    trainer = pick(world, world.trainers)
    state = trainer and trainer.checkpoint()
    if state:
        world.checkpoints.append(state)
        world.fault("checkpoint")
    return bool(state)


def restore(world: World) -> bool:
    """Go back to a state: in the same program, or in a new one with another layout."""
    state, trainer = pick(world, list(world.checkpoints)), pick(world, world.trainers)
    if state is None or trainer is None:
        return False
    if trainer.spec == state.spec and world.rng.random() < 0.5:
        world.fault("loaded a state")
        trainer.load(state)
        return True
    world.fault("restored a state")
    end_trainer(world, trainer)
    world.come(state)
    return True


def come(world: World) -> bool:
    """Let another trainer begin."""
    if len(world.trainers) >= TRAINERS_MAX:
        return False
    world.come()
    return True


def leave(world: World) -> bool:
    """Let a trainer end, by itself or by a signal; another may come instead."""
    trainer = pick(world, world.trainers)
    if trainer is not None:
        end_trainer(world, trainer)
        if len(world.trainers) < 2:
            world.come()
    return trainer is not None


def end_trainer(world: World, trainer: Trainer) -> None:
    """End a trainer, either way."""
    world.trainers.remove(trainer)
    if world.rng.random() < 0.5:
        world.fault("trainer killed")
        trainer.die()
    else:
        world.fault("trainer left")
        trainer.close()


# faults


def cut(world: World) -> bool:
    """Break a connection: everything on the way is gone, and nothing goes through any more."""
    line = pick(world, [one for one in world.lines if not one.is_cut and not one.is_closed])
    if line is None:
        return False
    line.lose_everything()
    line.is_cut = True
    if line.reader.transport == "frames":
        line.has_ended = True
        line.lifeline.clear()
        line.lifeline.append(HANGUP)
        world.fault("connection cut")
    else:
        line.is_lossy = True  # its lifeline is another socket, and stands
        world.fault("messages lost")
    return True


def lose_one(world: World) -> bool:
    """Lose one batch, or the word that the epoch is over, where a queue was full."""
    kinds = msg.BatchReady, msg.EpochEnd
    lines = [one for one in world.lines if one.down and isinstance(one.down[-1], kinds)]
    line: Line | None = pick(world, lines)
    if line is not None:
        line.down.pop()
        line.is_lossy = True
        world.fault("one message lost")
    return line is not None


def worker_of(world: World) -> Worker | None:
    """Draw a producer."""
    worker: Worker | None = pick(world, list(world.daemon.workers.values()))
    return worker


def kill(world: World) -> bool:
    """SIGKILL a producer from outside, with an innocent sample in its hands."""
    worker = worker_of(world)
    if worker is None or worker.ending is not None:
        return False
    if worker.tasks:
        lease = worker.tasks[0].lease
        worker.crumb = (lease.lease, worker.tasks[0].row, 0)
    worker.die(Ending.OUTSIDE)
    return True


def fail_worker(world: World) -> bool:
    """Let a producer end by an error of its own, or report one and go on."""
    worker = worker_of(world)
    if worker is None or worker.ending is not None:
        return False
    if worker.tasks and worker.tasks[0].row == 0 and world.rng.random() < 0.3:
        worker.outbox.append(msg.Fail(worker.tasks.popleft().lease.lease, "ValueError: no"))
    else:
        worker.outbox.append(msg.LastWords("MemoryError"))
        worker.die(Ending.ERROR)
    return True


def stop(world: World) -> bool:
    """SIGSTOP a producer, or SIGCONT one, with an innocent sample in its hands."""
    worker = worker_of(world)
    if worker is None or worker.is_hanging:
        return False
    worker.is_stopped = not worker.is_stopped
    if worker.is_stopped and worker.tasks and worker.ending is None:
        worker.crumb = (worker.tasks[0].lease.lease, worker.tasks[0].row, 0)
    world.fault("stopped" if worker.is_stopped else "continued")
    return True


def hang(world: World) -> bool:
    """Let a producer hang where no sample is in its hands."""
    worker = worker_of(world)
    if worker is None or worker.ending is not None:
        return False
    worker.is_hanging = True
    worker.crumb = None
    world.fault("hangs")
    return True


def poison(world: World) -> bool:
    """Make a sample deadly."""
    rng = world.rng
    sample = rng.randrange(world.num_samples)
    if len(world.poison) >= 3 or sample in world.poison:
        return False
    ending = rng.choice([Ending.SIGNAL, Ending.SIGNAL, Ending.MEMORY, Ending.KILLED])
    has_crumb = rng.random() < 0.85
    times = rng.choice([1, 1, 2, 3, float("inf")]) if has_crumb else rng.choice([1, 2])
    world.poison[sample] = Poison(ending, times, has_crumb, rng.choice([1.0, 1.0, 0.6]))
    return True


def crash(world: World) -> bool:
    """SIGKILL the daemon, now or between two of the next things that it does."""
    world.daemon.actions_left = world.rng.randrange(12)
    return True


def drain(world: World) -> bool:
    """SIGTERM the daemon."""
    world.fault("drain")
    world.daemon.feed(ev.DrainAsked("SIGTERM"))
    return True


def repeat_late(world: World) -> bool:
    """Repeat a client's message, long after; its connection may be gone and the daemon new."""
    if not world.late:
        return False
    peer, message = world.rng.choice(world.late)
    world.fault("repeated late")
    world.daemon.hear(peer, message)
    return True


def repeat_attach(world: World) -> bool:
    """Repeat an ATTACH on another connection."""
    if not world.late_attach:
        return False
    line, attach = world.rng.choice(world.late_attach)
    if not world.daemon.broker.admits(attach.session, attach.token, is_framed=False):
        framed = line.reader.transport == "frames"
        world.daemon.feed(ev.PeerAttached(attach.session, attach.token, framed))
    return True


def haunt(world: World) -> bool:
    """Repeat a producer's message: of the dead, or of a lease that was answered."""
    if not world.ghosts:
        return False
    number, message = world.rng.choice(world.ghosts)
    if not isinstance(message, msg.Ready):
        world.fault("a ghost spoke")
        world.daemon.feed(ev.FromCrew(number, message))
    return True


WEIGHTS: dict[Callable[[World], bool], float] = {
    hear_client: 12,
    hear_lifeline: 6,
    take: 14,
    work: 30,
    hear_worker: 12,
    release: 9,
    reap: 2,
    turn_clock: 1,
    notice: 1.5,
    seek: 0.35,
    checkpoint: 0.4,
    restore: 0.12,
    come: 0.15,
    leave: 0.08,
    cut: 0.12,
    lose_one: 0.08,
    kill: 0.3,
    fail_worker: 0.08,
    stop: 0.4,
    hang: 0.08,
    poison: 0.15,
    crash: 0.06,
    drain: 0.02,
    repeat_late: 0.9,
    repeat_attach: 0.05,
    haunt: 0.5,
}


def play(world: World) -> None:
    """Make `NUM_STEPS` moves that change something."""
    moves, bounds = list(WEIGHTS), list(accumulate(WEIGHTS.values()))
    num_left = NUM_STEPS
    while num_left:
        for move in world.rng.choices(moves, cum_weights=bounds, k=num_left):
            if step(world, move):
                num_left -= 1
                world.check()
