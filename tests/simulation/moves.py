"""The scheduler: one weighted move at a time, most of them traffic and some of them bad luck.

Uniform schedules reach almost none of the interesting states, hence the weights. A move returns
whether it changed anything; most of the time some have nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from tests.simulation import delivery_moves, fault_moves, remote_host, trainer_moves
from tests.simulation.world import World, step

NUM_STEPS = 500

WEIGHTS: dict[Callable[[World], bool], float] = {
    delivery_moves.hear_client: 12,
    delivery_moves.hear_lifeline: 6,
    delivery_moves.take: 14,
    delivery_moves.work: 30,
    delivery_moves.hear_worker: 12,
    delivery_moves.release: 9,
    delivery_moves.reap: 2,
    delivery_moves.turn_clock: 1,
    delivery_moves.notice: 1.5,
    remote_host.connect: 2,
    remote_host.bring_on: 30,
    remote_host.break_off: 0.2,
    remote_host.haunt: 0.3,
    trainer_moves.seek: 0.35,
    trainer_moves.checkpoint: 0.4,
    trainer_moves.restore: 0.12,
    trainer_moves.come: 0.15,
    trainer_moves.leave: 0.08,
    fault_moves.cut: 0.12,
    fault_moves.lose_one: 0.08,
    fault_moves.kill: 0.3,
    fault_moves.fail_worker: 0.08,
    fault_moves.stop: 0.4,
    fault_moves.hang: 0.08,
    fault_moves.poison: 0.15,
    fault_moves.crash: 0.06,
    fault_moves.drain: 0.02,
    fault_moves.repeat_late: 0.9,
    fault_moves.repeat_attach: 0.05,
    fault_moves.haunt: 0.5,
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
