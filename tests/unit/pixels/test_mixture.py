"""Rows of aug_mix: against torchvision's ops, blended by hand, and what blending leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from augd.diagnostics.drawn_params import Draws
from augd.pixels.decode import Pixels
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlans
from augd.plan.plan import MIX_UNIT, Plan
from augd.plan.planner.planner import Planner
from augd.plan.recipe.recipe import parse_recipe
from tests.support.policies import FILL, PICTURES, act

pytestmark = pytest.mark.usefixtures("kernels")

SEED = 3


def rows_of(picture: Pixels, num: int, *ops: dict[str, Any]) -> tuple[Plan, Pixels, Draws]:
    height, width = picture.shape[:2]
    size = {"op": "resize", "size": [height, width]}
    plain = {"ops": [size, *ops], "fill": "constant", "fill_value": list(FILL)}
    recipe = parse_recipe(plain)
    planner = Planner(recipe, SEED, (height, width))
    sides = (np.full(num, side, np.int32) for side in (width, height))
    plan = planner.plan(np.arange(num), np.zeros(num, np.int64), *sides)
    renderer, row_plans = Renderer.of(recipe, (height, width)), RowPlans(plan, 0, num)
    out = np.empty((num, *picture.shape), np.uint8)
    for row in range(num):
        renderer.render(picture, row_plans[row], out[row])
    return plan, out, Draws(recipe, SEED, (height, width))


def differences(name: str, op: dict[str, Any]) -> list[float]:
    """Return how far each row is from torchvision's chains, blended with the same weights."""
    picture = PICTURES[name]
    _, out, draws = rows_of(picture, 30, op)
    found = []
    for row in range(30):
        (steps,) = draws.of(row, 0)
        drawn = steps[0].drawn
        assert drawn is not None
        total = drawn["image"] * picture.astype(float)
        for chain in drawn["chains"]:
            image = Image.fromarray(picture)
            for layer in chain["layers"]:
                image = act(image, layer)
            total += chain["weight"] * np.asarray(image)
        found.append(float(np.abs(out[row] - total).mean()))
    return found


@pytest.mark.parametrize("name", ["photo", "flat", "two-valued", "noise"])
def test_chains_of_one_op_are_torchvisions(name: str) -> None:
    assert max(differences(name, {"op": "aug_mix", "depth": 1, "severity": 7})) < 0.8


def test_chains_of_several_ops_are_as_near_as_the_page_says() -> None:
    assert np.mean(differences("photo", {"op": "aug_mix"})) < 0.7


def test_weights_are_whole_and_sum_to_one() -> None:
    plan, _, _ = rows_of(PICTURES["smooth"], 50, {"op": "aug_mix"})
    assert plan.mixture is not None
    assert (plan.mixture.weights.sum(axis=1) == MIX_UNIT).all()
    assert (plan.mixture.weights >= 0).all()


def test_rows_that_are_not_blended_keep_their_bytes() -> None:
    plan, out, _ = rows_of(PICTURES["noise"], 20, {"op": "aug_mix", "p": 0.5})
    assert plan.mixture is not None
    is_kept = plan.mixture.weights[:, 0] == MIX_UNIT
    assert 0 < is_kept.sum() < 20
    for row in np.flatnonzero(is_kept):
        np.testing.assert_array_equal(out[row], PICTURES["noise"])


def test_chains_begin_at_the_finished_row() -> None:
    """Blending after a colour op is blending its row."""
    colour = {"op": "invert"}
    _, after, _ = rows_of(PICTURES["photo"], 8, colour, {"op": "aug_mix"})
    inverted = np.ascontiguousarray(255 - PICTURES["photo"])
    blank = {"op": "mirror", "p": 0.0}
    _, alone, _ = rows_of(inverted, 8, blank, {"op": "aug_mix"})
    np.testing.assert_array_equal(after, alone)


def test_a_flat_row_stays_flat_under_ops_that_keep_it() -> None:
    """The weights sum to the unit, so that equal chains give the row itself."""
    picture = np.zeros((40, 50, 3), np.uint8)
    op = {"op": "aug_mix", "all_ops": False, "severity": 1}  # level 0: solarize from 255 on
    _, out, _ = rows_of(picture, 30, op)
    assert not out.any()


def test_erase_comes_after_the_blend() -> None:
    whole = {"op": "erase", "area": [0.5, 0.6], "ratio": [0.9, 1.1]}
    _, out, _ = rows_of(PICTURES["photo"], 6, {"op": "aug_mix"}, whole)
    for row in out:
        assert ((row == (124, 116, 104)).all(axis=2)).mean() > 0.4
