"""What must hold after every step, seen from inside the broker and from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from augd.server.daemon.broker.batch_state import NO_SAMPLE
from augd.server.daemon.broker.producers import DEPTH
from augd.server.daemon.broker.sessions import SESSIONS_MAX
from augd.server.daemon.broker.stream import StreamState
from tests.simulation.rows import Violation

if TYPE_CHECKING:
    from tests.simulation.daemon import Daemon
    from tests.simulation.world import World


def check_broker(daemon: Daemon) -> None:
    """Check that the broker's records agree with each other."""
    scheduler = daemon.broker._scheduler
    writers: dict[int, int] = {}
    for producer in scheduler.pool.members.values():
        if len(producer.leases) > DEPTH:
            raise Violation(f"{producer.number} has {len(producer.leases)} leases")
        suspects = [one for one in producer.leases.values() if one.chunk.suspect != NO_SAMPLE]
        if suspects and len(producer.leases) > 1:
            raise Violation(f"producer {producer.number} has a suspect and something else")
        for record in producer.leases.values():
            slot = id(record.chunk.batch.slot)
            writers[slot] = writers.get(slot, 0) + 1
    for stream in scheduler.streams.values():
        check_stream(stream, writers)


def check_stream(stream: StreamState, writers: dict[int, int]) -> None:
    """Check that a slot is owed, read and written as its state says."""
    owners = {batch.slot.index: batch for batch in stream.batches}
    if len(owners) != len(stream.batches):
        raise Violation(f"two batches in one slot of stream {stream.number}")
    for slot in stream.slots:
        batch = owners.get(slot.index)
        if slot.writers != writers.get(id(slot), 0):
            raise Violation(f"{slot} counts writers that are not there")
        is_used = slot.unsent > 0 or bool(slot.holders)
        if slot.state == "free" and (is_used or slot.writers or batch):
            raise Violation(f"free and in use: {slot}")
        if slot.state in ("filling", "ready") and (batch is None or slot.holders):
            raise Violation(f"made for nobody, or read already: {slot}")
        if slot.state == "sent" and (slot.writers or not is_used):
            raise Violation(f"sent, and written or read by nobody: {slot}")
        if slot.state == "draining" and not slot.writers:
            raise Violation(f"draining without an end: {slot}")
        if batch is not None:
            owed = sum(r.next <= batch.sequence for r in stream.clients.values())
            if slot.unsent != owed or not owed:
                raise Violation(f"owed to {owed} readers: {slot}")


def check_bounds(world: World) -> None:
    """Check that nothing grows without bound."""
    broker = world.daemon.broker
    if len(broker._sessions.sessions) > SESSIONS_MAX:
        raise Violation(f"{len(broker._sessions.sessions)} sessions")
    if len(broker._scheduler.streams) > len(broker._sessions.sessions):
        raise Violation("there are streams of nobody")
    num_remote = len(broker._remotes.members())
    if len(broker._scheduler.pool.members) > world.num_producers + num_remote:
        raise Violation("there are more producers than places")
