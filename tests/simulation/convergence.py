"""When the faults stop: everybody must get on, and in the end nothing may be left."""

from __future__ import annotations

from augd.server.daemon.broker import events as ev
from tests.simulation import delivery_moves, remote_host
from tests.simulation.rows import Violation
from tests.simulation.world import World, step

BATCHES = 5
ROUNDS_MAX = 150


def get_on(world: World) -> None:
    """Move without faults until every trainer got some batches more."""
    world.fault("the faults stop")
    heal(world)
    goals = {trainer.name: trainer.num_delivered + BATCHES for trainer in world.trainers}
    for _ in range(ROUNDS_MAX):
        move_all(world)
        world.check()
        if all(one.num_delivered >= goals[one.name] for one in world.trainers):
            return
    late = {one.name: goals[one.name] - one.num_delivered for one in world.trainers}
    raise Violation(f"no progress, batches missing: {late}; {world.daemon.broker.snapshot()}")


def heal(world: World) -> None:
    """End what would go on for ever: only samples that a current sample names stay deadly."""
    world.daemon.actions_left = float("inf")
    for poison in world.poison.values():
        poison.times = poison.times if poison.is_named else 0
    for worker in world.daemon.workers.values():
        worker.is_stopped = False


def move_all(world: World) -> None:
    """Let everything that is on the way arrive, and half a second pass."""
    for move in (
        delivery_moves.reap,
        hear_lifelines,
        delivery_moves.hear_client,
        delivery_moves.notice,
    ):
        while step(world, move):
            pass
    for trainer in list(world.trainers):
        while trainer.line.can_take():
            delivery_moves.hand_over(world, trainer)
        while trainer.held:
            trainer.release(0)
    while step(world, delivery_moves.hear_client):
        pass
    for worker in list(world.daemon.workers.values()):
        while worker.work(is_eager=True):
            pass
    while step(world, delivery_moves.hear_worker):
        pass
    step(world, remote_host.settle)
    pass_time(world)


def hear_lifelines(world: World) -> bool:
    """Bring all that is on the lifelines; an end is never late now."""
    lines = [line for line in world.lines if line.lifeline]
    for line in lines:
        delivery_moves.bring(world, line)
    return bool(lines)


def pass_time(world: World) -> None:
    """Let half a second pass, or as much as it takes to find a producer that hangs."""
    deadline = world.daemon.broker.next_deadline()
    world.say_alive()
    is_stuck = any(worker.is_hanging for worker in world.daemon.workers.values())
    is_stuck |= any(one.number and one.is_stuck for one in world.remote_hosts)
    is_greeting = any(one.line.reader.state != "open" for one in world.trainers)
    world.now += 0.5
    if is_stuck and deadline is not None and not is_greeting:
        world.now = max(world.now, deadline)
    step(world, lambda world: world.daemon.tick())


def end(world: World) -> None:
    """Let all leave, then the daemon: no session, no stream, no lease, no memory may be left."""
    for trainer in world.trainers:
        trainer.close()
    world.trainers.clear()
    for _ in range(20):
        move_all(world)
        if is_empty(world):
            break
    else:
        raise Violation(f"something is left: {world.daemon.broker.snapshot()}")
    daemon, record = world.daemon, world.daemon.record
    if daemon.arenas or any(record.leases.values()) or any(record.reading.values()):
        raise Violation(f"left: {daemon.arenas}, {record.leases}, {record.reading}")
    daemon.feed(ev.DrainAsked("the end"))
    for _ in range(20):
        if daemon.has_stopped:
            world.end_daemon()
            return
        settle_drain(world)
    raise Violation(f"the daemon does not end: {daemon.broker.snapshot()}")


def settle_drain(world: World) -> None:
    """Let the producers of a draining daemon end, without a new daemon being started."""
    daemon = world.daemon
    for number, worker in list(daemon.workers.items()):
        while worker.work(is_eager=True):
            pass
        if worker.ending is not None:
            daemon.reap(number)
    remote_host.settle(world)
    if not daemon.has_stopped:
        world.now += 1.0
        daemon.tick()


def is_empty(world: World) -> bool:
    """Whether nobody is connected and nobody works."""
    broker = world.daemon.broker
    scheduler = broker._scheduler
    has_leases = any(producer.leases for producer in scheduler.pool.members.values())
    return not (broker._sessions.sessions or scheduler.streams or has_leases)
