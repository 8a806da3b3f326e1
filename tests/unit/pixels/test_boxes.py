"""Boxes of finished rows: which pixels are filled, and with what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from augd.pixels import native
from augd.pixels.boxes import FilledBox, fill_boxes
from augd.pixels.decode import Pixels
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlans
from augd.plan.planner.planner import Plan, Planner
from augd.plan.recipe.recipe import parse_recipe

pytestmark = pytest.mark.usefixtures("kernels")

SIDE = 96
IMAGE = np.full((SIDE, SIDE, 3), 7, np.uint8)
NUM = 12


def render(*ops: dict[str, Any], num: int = NUM) -> tuple[Plan, Pixels]:
    recipe = parse_recipe({"ops": [{"op": "resize", "size": SIDE}, *ops]})
    sides = (np.full(num, SIDE, np.int32) for _ in range(2))
    plan = Planner(recipe, 5, (SIDE, SIDE)).plan(np.arange(num), np.zeros(num, np.int64), *sides)
    renderer, row_plans = Renderer.of(recipe, (SIDE, SIDE)), RowPlans(plan, 0, num)
    out = np.empty((num, *IMAGE.shape), np.uint8)
    for row in range(num):
        renderer.render(IMAGE, row_plans[row], out[row])
    return plan, out


def masks_of(plan: Plan) -> np.ndarray:
    """Return which pixels lie in a box, (rows, h, w)."""
    assert plan.erase is not None
    masks = np.zeros((len(plan.erase), SIDE, SIDE), np.bool_)
    for mask, boxes in zip(masks, plan.erase.tolist(), strict=True):
        for x, y, width, height in boxes:
            mask[y : y + height, x : x + width] = True
    return masks


@pytest.mark.parametrize(
    ("op", "colour"),
    [
        ({"op": "erase"}, (124, 116, 104)),
        ({"op": "erase", "count": [1, 4]}, (124, 116, 104)),
        ({"op": "erase", "count": 2, "fill": [1, 2, 3]}, (1, 2, 3)),
        ({"op": "coarse_dropout", "count": 5, "p": 0.5}, (0, 0, 0)),
        ({"op": "coarse_dropout", "fill": "mean"}, (124, 116, 104)),
        ({"op": "cutout", "size": 30}, (128, 128, 128)),
    ],
)
def test_boxes_are_filled_and_nothing_else_is(op: dict[str, Any], colour: tuple[int, ...]) -> None:
    plan, rows = render(op)
    masks = masks_of(plan)
    assert masks.any()
    assert (rows[masks] == colour).all()
    assert (rows[~masks] == 7).all()


def test_pixels_are_normal_about_imagenets_mean_clipped_and_independent() -> None:
    plan, rows = render(
        {"op": "erase", "fill": "pixel", "area": [0.3, 0.33], "ratio": [1, 1]}, num=40
    )
    masks = masks_of(plan)
    assert (rows[~masks] == 7).all()
    drawn = rows[masks].astype(float)
    mean, std = 255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])
    assert np.abs(np.median(drawn, axis=0) - mean).max() < 1
    low, high = np.percentile(drawn, [25, 75], axis=0)
    assert np.abs((high - low) / 1.349 - std).max() < 1
    assert drawn.min() == 0 and drawn.max() == 255
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.02
    assert abs(np.corrcoef(drawn[1:, 0], drawn[:-1, 0])[0, 1]) < 0.02


def test_boxes_of_one_row_have_noise_of_their_own_and_equal_rows_equal_noise() -> None:
    row, other = (np.zeros((20, 40, 3), np.uint8) for _ in range(2))
    boxes = [FilledBox((20 * number, 0, 20, 20), None, 2**63 + 5, number) for number in range(2)]
    fill_boxes(row, boxes)
    assert (row[:, :20] != row[:, 20:]).mean() > 0.9
    fill_boxes(other, boxes)
    np.testing.assert_array_equal(row, other)
    fill_boxes(other, [boxes[0]._replace(key=2**63 + 6)])
    assert (row[:, :20] != other[:, :20]).mean() > 0.9


def test_a_random_fill_is_one_colour_for_each_box() -> None:
    plan, rows = render({"op": "erase", "fill": "random"})
    masks = masks_of(plan)
    assert plan.erase_fill is not None
    colours = plan.erase_fill.colours[:, 0]
    for row, mask, colour in zip(rows, masks, colours, strict=True):
        assert (row[mask] == colour).all()
    assert len({tuple(colour) for colour in colours.tolist()}) == NUM


def test_later_boxes_lie_over_earlier_ones_and_steps_of_colour_come_before() -> None:
    whole = {"op": "coarse_dropout", "count": 1, "height": 1, "width": 1}
    _, rows = render({**whole, "fill": [9, 9, 9]}, {"op": "invert"}, {"op": "cutout", "size": 200})
    assert (rows == 128).all()


def test_bytes_are_the_same_with_and_without_the_kernels() -> None:
    ops = [
        {"op": "erase", "fill": "pixel", "count": [1, 3]},
        {"op": "coarse_dropout", "fill": "pixel"},
        {"op": "cutout", "fill": "random"},
    ]
    _, rows = render(*ops)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "kernels", None)
        _, plain = render(*ops)
    np.testing.assert_array_equal(rows, plain)


def test_ops_that_fill_boxes_may_stand_in_groups_and_more_than_once() -> None:
    ops = [
        {"op": "erase", "fill": [1, 1, 1]},
        {"op": "erase", "count": 2, "fill": [2, 2, 2]},
        {"op": "coarse_dropout", "fill": [3, 3, 3]},
        {"op": "cutout", "size": 9, "fill": [4, 4, 4]},
    ]
    _, rows = render({"op": "one_of", "ops": ops}, num=60)
    found = [set(np.unique(row)) - {7} for row in rows]
    assert all(len(levels) == 1 for levels in found)
    assert set.union(*found) == {1, 2, 3, 4}
    _, rows = render({"op": "all_of", "ops": ops, "p": 0.5}, num=60)
    found = [4 in row for row in rows]
    assert 10 < sum(found) < 50
    assert all((3 in row) <= has for row, has in zip(rows, found, strict=True))
