"""View groups as planned: views are numbered through all groups, and share the decoding alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from augd.plan.plan import Plan
from augd.plan.planner.view_group_planner import ViewGroupPlanner
from augd.plan.recipe.phases import parse_stream_recipe
from tests.support.examples import examples

NUM = 40
OPS = [
    {"op": "random_resized_crop", "size": 48},
    {"op": "mirror"},
    {"op": "rotate", "degrees": 30, "p": 0.5},
    {"op": "brightness", "v": 0.4},
    {"op": "contrast", "v": 0.4},
]


def plans_of(recipe: dict[str, Any], size: tuple[int, int] = (900, 700)) -> list[Plan]:
    (phase,) = parse_stream_recipe(recipe).phases
    planner = ViewGroupPlanner(phase, 3, phase.sizes(None))
    widths, heights = (np.full(NUM, side, np.int32) for side in size)
    return planner.plan(np.arange(NUM), np.full(NUM, 2, np.int64), widths, heights)


def fields_of(plan: Plan, num_views: int) -> dict[str, np.ndarray]:
    names = ("crop", "scaled", "window", "mirror", "colour", "pivot", "matrix", "bent", "scale")
    found = {name: getattr(plan, name) for name in names}
    return {
        name: array.reshape(NUM, num_views, *array.shape[1:])
        for name, array in found.items()
        if array is not None
    }


@examples(12)
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    scaled_decode=st.sampled_from(["off", "auto"]),
    shuffle=st.booleans(),
)
def test_groups_of_one_recipe_are_its_views(
    counts: list[int], scaled_decode: str, shuffle: bool
) -> None:
    """Whatever the groups, view n draws what view n of `views = N` draws."""
    settings = {"scaled_decode": scaled_decode, "shuffle_colour": shuffle}
    total = sum(counts)
    (whole,) = plans_of({**settings, "views": total, "ops": OPS})
    groups = [{"name": f"g{n}", "count": count, "ops": OPS} for n, count in enumerate(counts)]
    parts = plans_of({**settings, "views": groups})
    expected = fields_of(whole, total)
    found = [fields_of(plan, count) for plan, count in zip(parts, counts, strict=True)]
    for name, array in expected.items():
        joined = np.concatenate([part[name] for part in found], axis=1)
        np.testing.assert_array_equal(joined, array, err_msg=name)


def test_two_views_of_one_recipe_differ() -> None:
    group = {"name": "global", "ops": OPS}
    one, two = (fields_of(plan, 1) for plan in plans_of({"views": [group, group]}))
    is_same = (one["crop"] == two["crop"]).all(axis=(1, 2))
    assert not is_same.any()
    assert 0.2 < (one["mirror"] == two["mirror"]).mean() < 0.8
    (both,) = plans_of({"views": [{**group, "count": 2}]})
    crops = fields_of(both, 2)["crop"]
    assert not (crops[:, 0] == crops[:, 1]).all(axis=1).any()


def test_another_group_changes_the_decoded_scale_alone() -> None:
    big = {"name": "big", "ops": [{"op": "resize", "size": 400}]}
    small = {"name": "small", "ops": [{"op": "resize", "size": 50}]}
    beside = plans_of({"scaled_decode": "auto", "views": [big, small]})
    assert [plan.scale.tolist() for plan in beside if plan.scale is not None] == [[1] * NUM] * 2
    (alone,) = plans_of({"scaled_decode": "auto", "views": [small]})
    assert alone.scale is not None and set(alone.scale.tolist()) == {8}
    np.testing.assert_array_equal(alone.scaled, beside[1].scaled)
