"""Other hosts: a producer with memory of its own, its relay, and a connection that may break.

What it makes lies in its own memory until the daemon has taken it. What it says too late, after its
connection is over, finds no lease. The moves that bring them on stand here as well.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.server.daemon.broker import events as ev
from tests.simulation.rows import Row
from tests.simulation.worker import Arena, Worker

if TYPE_CHECKING:
    from tests.simulation.world import World

HOSTS_MAX = 2


class RemoteHost:
    """A host with one producer. `number` is 0 while it is not connected."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.peer = name.encode()
        self.number = 0
        self.token = ""
        self.is_attached = False
        self.is_silent = False  # nothing goes through, and nobody is told
        self.worker = Worker(world.meet)
        self.down: deque[msg.Message] = deque()
        self.leases: dict[int, msg.Lease] = {}
        self.arenas: dict[int, Arena] = {}

    @property
    def is_stuck(self) -> bool:
        """Whether only time will tell the daemon about it."""
        return self.is_silent or self.worker.is_hanging or not self.is_attached

    def join(self) -> None:
        """Offer a producer that holds no lease."""
        self.worker = Worker(self.world.meet, is_up=True)
        self.down.clear()
        self.leases.clear()
        self.is_attached = False
        join = msg.Join("host", 1, {"d": "0" * 32}, {"lib": "1"}, "seccomp")
        self.world.daemon.feed(ev.FromPeer(self.peer, join))

    def joined(self, message: msg.ToClient) -> None:
        """Hear the answer to JOIN."""
        if isinstance(message, msg.Joined):
            self.number, self.token = message.producer, message.token
            self.world.daemon.remote_hosts[self.number] = self

    def lose(self, *, is_told: bool) -> None:
        """Let the connection be over; what was on its way comes as a ghost or never."""
        number, self.number = self.number, 0
        self.is_silent = False
        for lease in list(self.leases.values()):
            self.world.remote_ghosts.append((number, msg.Done(lease.lease), self.rows_of(lease)))
        if is_told and number:
            self.world.daemon.feed(ev.RemoteProducerGone(number, "cut"))

    def rows_of(self, lease: msg.Lease) -> list[Row]:
        """Read a lease's rows as they lie in this host's memory at this moment."""
        slot = self.arenas[lease.stream].slots[lease.slot]
        return slot[lease.first_row : lease.first_row + lease.rows]

    def obey(self) -> bool:
        """Take one message of the daemon."""
        if not self.down:
            return False
        message = self.down.popleft()
        match message:
            case msg.Part():
                self.lose(is_told=False)
            case msg.Kill():
                self.worker.die(ExitReason.KILLED)
            case msg.StreamMessage(stream):
                arena = Arena(message.num_slots, message.arrays[0].shape[0])
                self.arenas[stream] = arena
                whole = message.chosen is None
                count = self.world.num_samples if whole else message.chosen.num_samples
                self.worker.inbox.append((message, (arena, count)))
            case msg.Lease(lease):
                self.leases[lease] = message
                self.worker.inbox.append((message, None))
            case _:
                self.worker.inbox.append((message, None))  # type: ignore[arg-type]
        return True

    def speak(self) -> bool:
        """Bring one message to the daemon, a DONE with its rows; at last the producer's end."""
        if self.worker.outbox:
            message = self.worker.outbox.popleft()
            rows = None
            if isinstance(message, msg.Done | msg.Dropped | msg.Fail):
                lease = self.leases.pop(message.lease)
                rows = self.rows_of(lease) if isinstance(message, msg.Done) else None
            self.world.daemon.hear_remote(self.number, message, rows)
        elif self.worker.ending is not None:
            worker, number, self.number = self.worker, self.number, 0
            ended = msg.Ended("ended", str(worker.ending), worker.current_sample)  # type: ignore[arg-type]
            self.world.fault(f"reaped {worker.ending} elsewhere")
            self.world.daemon.hear_remote(number, ended)
        else:
            return False
        return True

    def beat(self) -> None:
        """Say that the host lives, and the producer that it works."""
        if not self.number or not self.is_attached or self.is_silent:
            return
        is_idle = not self.leases
        self.world.daemon.hear_remote(self.number, msg.Beat(is_idle))
        if self.number and self.leases and self.worker.is_alive:
            self.world.daemon.hear_remote(self.number, msg.Alive(next(iter(self.leases))))


# moves


def connect(world: World) -> bool:
    """Let a host join, or attach when it did."""
    host = world.rng.choice(world.remote_hosts) if world.remote_hosts else None
    if host is None or (host.is_attached and host.number):
        return False
    if not host.number:
        host.join()
    else:
        world.daemon.feed(ev.RemoteProducerAttached(host.number, host.token))
        host.is_attached = True
    return True


def bring_on(world: World) -> bool:
    """Let a host do one thing, eager or not."""
    able = [
        one for one in world.remote_hosts if one.number and one.is_attached and not one.is_silent
    ]
    if not able:
        return False
    host = world.rng.choice(able)
    moves = [host.obey, host.speak, lambda: host.worker.work(is_eager=True)]
    return world.rng.choices(moves, (3, 2, 5))[0]()


def break_off(world: World) -> bool:
    """Cut a host's connection, or let it fall silent, or lose its producer, or let it leave."""
    able = [
        one for one in world.remote_hosts if one.number and one.is_attached and not one.is_silent
    ]
    if not able:
        return False
    host, chance = world.rng.choice(able), world.rng.random()
    if chance < 0.5:
        world.fault("a host is cut off")
        host.lose(is_told=True)
    elif chance < 0.65:
        world.fault("a host falls silent")
        host.is_silent = True
    elif chance < 0.8:
        host.worker.die(ExitReason.OUTSIDE)
    else:
        host.worker.die(ExitReason.DRAINED)
    return True


def haunt(world: World) -> bool:
    """Bring rows of a connection that is over."""
    if not world.remote_ghosts:
        return False
    world.fault("rows came late")
    world.daemon.hear_remote(*world.rng.choice(world.remote_ghosts))
    return True


def settle(world: World) -> None:
    """Let everything of every host arrive; silent ones stay silent until their time is over."""
    for host in world.remote_hosts:
        while (
            host.number
            and host.is_attached
            and not host.is_silent
            and (host.obey() or host.worker.work(is_eager=True) or host.speak())
        ):
            pass
