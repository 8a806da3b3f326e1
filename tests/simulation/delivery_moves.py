"""Moves that bring things on: messages on their ways, rows into memory, time, and the dead.

A move returns whether there was anything to do.
"""

from __future__ import annotations

from typing import Any

from augd.client.session import Attach
from tests.simulation.line import HANGUP, Line
from tests.simulation.trainer import Trainer
from tests.simulation.world import World


def pick(world: World, things: list[Any]) -> Any:
    """Draw one of these; None when there are none."""
    return world.rng.choice(things) if things else None


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
        if trainer.spec.bad == "fail" or not poison.is_named:
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
