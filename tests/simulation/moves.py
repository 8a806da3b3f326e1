"""The scheduler: one weighted move at a time, most of them traffic and some of them bad luck.

Uniform schedules reach almost none of the interesting states, hence the weights. A move returns
whether it changed anything; most of the time some have nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from tests.simulation import faults, outpost, programs, traffic
from tests.simulation.world import World, step

NUM_STEPS = 500

WEIGHTS: dict[Callable[[World], bool], float] = {
    traffic.hear_client: 12,
    traffic.hear_lifeline: 6,
    traffic.take: 14,
    traffic.work: 30,
    traffic.hear_worker: 12,
    traffic.release: 9,
    traffic.reap: 2,
    traffic.turn_clock: 1,
    traffic.notice: 1.5,
    outpost.connect: 2,
    outpost.bring_on: 30,
    outpost.break_off: 0.2,
    outpost.haunt: 0.3,
    programs.seek: 0.35,
    programs.checkpoint: 0.4,
    programs.restore: 0.12,
    programs.come: 0.15,
    programs.leave: 0.08,
    faults.cut: 0.12,
    faults.lose_one: 0.08,
    faults.kill: 0.3,
    faults.fail_worker: 0.08,
    faults.stop: 0.4,
    faults.hang: 0.08,
    faults.poison: 0.15,
    faults.crash: 0.06,
    faults.drain: 0.02,
    faults.repeat_late: 0.9,
    faults.repeat_attach: 0.05,
    faults.haunt: 0.5,
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
