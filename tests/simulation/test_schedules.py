"""Hundreds of schedules keep every rule, get on when the faults stop, and leave nothing.

AUGD_SCHEDULES sets how many (`make soak` runs 10,000); one alone is replayed by
`python -c "from tests.simulation.world import run; run(SEED)"`.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from augd.broker import stream as stream_module
from tests.simulation.coverage import watch_transitions
from tests.simulation.world import run

SCHEDULES = int(os.environ.get("AUGD_SCHEDULES", "500"))
BLOCK = 50


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """What happened in all schedules of this module, counted by its kind."""
    return Counter()


@pytest.mark.parametrize("first", range(0, SCHEDULES, BLOCK))
def test_schedules_keep_every_rule_and_get_on(
    first: int, seen: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch_transitions(monkeypatch, seen)
    for seed in range(first, min(first + BLOCK, SCHEDULES)):
        world = run(seed)
        seen.update(world.seen)
        seen["delivered"] += world.num_delivered
