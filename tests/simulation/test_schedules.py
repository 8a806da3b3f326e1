"""Hundreds of schedules keep every rule, get on when the faults stop, and leave nothing.

`make soak` runs 10,000, in about ten minutes. One of them alone is replayed by
`python -c "from tests.simulation.world import run; run(SEED)"`.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from tests.simulation.coverage import expected, transitions_counted
from tests.simulation.world import run
from tests.support.budget import spend

SCHEDULES = spend(300, soak=10_000)
BLOCK = 50
BLOCKS = range(0, SCHEDULES, BLOCK)


@cache
def run_block(first: int) -> Counter[str]:
    """Run the schedules of a block; returns how often each thing happened in them."""
    seen: Counter[str] = Counter()
    with transitions_counted(seen):
        for seed in range(first, min(first + BLOCK, SCHEDULES)):
            world = run(seed)
            seen.update(world.seen)
            seen["delivered"] += world.num_delivered
    return seen


@pytest.mark.longer("10,000 simulated schedules instead of 300")
@pytest.mark.parametrize("first", BLOCKS)
def test_schedules_keep_every_rule_and_get_on(first: int) -> None:
    assert run_block(first)["delivered"] > 20 * min(BLOCK, SCHEDULES - first)


def test_the_schedules_reach_everything() -> None:
    seen: Counter[str] = Counter()
    for first in BLOCKS[:10]:
        seen.update(run_block(first))
    assert {name for name in expected() if seen[name] < 2} == set()
