"""Moves of bad luck: what breaks, dies, hangs, lies, or comes again."""

from __future__ import annotations

from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.server.daemon.broker import events as ev
from tests.simulation.delivery_moves import pick
from tests.simulation.line import HANGUP, Line
from tests.simulation.worker import Poison, Worker
from tests.simulation.world import World


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
    kinds = msg.BatchMessage, msg.EpochEnd
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
        worker.current_sample = (lease.lease, worker.tasks[0].row, 0)
    worker.die(ExitReason.OUTSIDE)
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
        worker.die(ExitReason.ERROR)
    return True


def stop(world: World) -> bool:
    """SIGSTOP a producer, or SIGCONT one, with an innocent sample in its hands."""
    worker = worker_of(world)
    if worker is None or worker.is_hanging:
        return False
    worker.is_stopped = not worker.is_stopped
    if worker.is_stopped and worker.tasks and worker.ending is None:
        worker.current_sample = (worker.tasks[0].lease.lease, worker.tasks[0].row, 0)
    world.fault("stopped" if worker.is_stopped else "continued")
    return True


def hang(world: World) -> bool:
    """Let a producer hang where no sample is in its hands."""
    worker = worker_of(world)
    if worker is None or worker.ending is not None:
        return False
    worker.is_hanging = True
    worker.current_sample = None
    world.fault("hangs")
    return True


def poison(world: World) -> bool:
    """Make a sample deadly."""
    rng = world.rng
    sample = rng.randrange(world.num_samples)
    if len(world.poison) >= 3 or sample in world.poison:
        return False
    ending = rng.choice(
        [ExitReason.SIGNAL, ExitReason.SIGNAL, ExitReason.MEMORY, ExitReason.KILLED]
    )
    is_named = rng.random() < 0.85
    times = rng.choice([1, 1, 2, 3, float("inf")]) if is_named else rng.choice([1, 2])
    world.poison[sample] = Poison(ending, times, is_named, rng.choice([1.0, 1.0, 0.6]))
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
    lines = world.daemon.lines
    known = [one for one in world.late if one[0] in lines and not lines[one[0]].is_cut]
    peer, message = world.rng.choice(known or list(world.late))
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
        world.daemon.feed(ev.FromLocalProducer(number, message))
    return True
