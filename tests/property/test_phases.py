"""The planner of an epoch is that of its phase: a function of the epoch and of nothing before."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from augd.plan.planner.view_group_planner import ViewGroupPlanner
from augd.plan.recipe.phases import Phase, expand_stream, parse_stream_recipe
from tests.support.examples import examples

NUM = 9
CROPS = st.sampled_from([8, 16, 24]).map(
    lambda size: {"op": "random_resized_crop", "size": size, "scale": [0.2, 1]}
)
MORE = st.lists(
    st.sampled_from([{"op": "mirror"}, {"op": "brightness"}, {"op": "rotate", "degrees": 20}]),
    max_size=3,
)
PLAIN = st.builds(
    lambda crop, more, views: {"ops": [crop, *more], "views": views},
    CROPS,
    MORE,
    st.integers(1, 3),
)
BORDERS = st.lists(st.integers(1, 30), min_size=1, max_size=5, unique=True).map(sorted)


def planned(phase: Phase, epoch: int) -> list[np.ndarray]:
    planner = ViewGroupPlanner(phase, 11, phase.sizes(None))
    sides = (np.full(NUM, side, np.int32) for side in (90, 60))
    plans = planner.plan(np.arange(NUM), np.full(NUM, epoch, np.int64), *sides)
    arrays = ((plan.crop, plan.mirror, plan.scaled, plan.matrix, plan.colour) for plan in plans)
    return [array for plan in arrays for array in plan if array is not None]


@examples(15)
@given(borders=BORDERS, data=st.data())
def test_an_epoch_is_planned_by_its_phase_alone(borders: list[int], data: Any) -> None:
    begins = [0, *borders]
    recipes = [data.draw(PLAIN) for _ in begins]
    phases = [{"from_epoch": n, **one} for n, one in zip(begins, recipes, strict=True)]
    whole = parse_stream_recipe({"phases": phases})
    assert parse_stream_recipe(expand_stream(whole)) == whole
    epoch = data.draw(st.integers(0, 40))
    number = max(n for n, begin in enumerate(begins) if begin <= epoch)
    (alone,) = parse_stream_recipe(recipes[number]).phases
    found, expected = planned(whole.at(epoch), epoch), planned(alone, epoch)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
