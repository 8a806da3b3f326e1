"""Colour matrices against a scalar reading of the definitions, pixel by pixel."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest

from augd.plan.colour_matrix import GREY_WEIGHTS
from augd.plan.ops.all_ops import OPS_BY_NAME
from tests.support.plans import plan_of

G = np.array(GREY_WEIGHTS)
PIXELS = np.random.default_rng(3).uniform(0, 255, (50, 3))
SIZE = {"op": "resize", "size": 8}
STILL = {"op": "mirror", "p": 0}


def render(plan, row: int, pixels: np.ndarray = PIXELS) -> np.ndarray:
    """Apply y = A x + b + C mean, unrounded."""
    out = pixels @ plan.colour[row, :, :3].T + plan.colour[row, :, 3]
    return out if plan.pivot is None else out + plan.pivot[row] @ pixels.mean(axis=0)


def factor_of(ops, row: int) -> float:
    """Read the factor of the last op off its own plan, others left out by p = 0."""
    alone = [*({**op, "p": 0} if "op" in op else op for op in ops[1:-1])]
    plan = plan_of([ops[0], *alone, ops[-1]], num=row + 1)
    if ops[-1]["op"] == "saturation":
        return float(1 - (plan.colour[row, 0, 1] / G[1]))
    return float(plan.colour[row, 0, 0])


def apply(op: dict, factor: float, pixels: np.ndarray) -> np.ndarray:
    """Read the definition: one op on all pixels of a row."""
    match op["op"]:
        case "brightness":
            return factor * pixels
        case "contrast":
            return factor * pixels + (1 - factor) * (pixels @ G).mean()
        case "saturation":
            return factor * pixels + (1 - factor) * (pixels @ G)[:, None]
    raise AssertionError(op)


BRIGHT, CONTRAST, SATURATE = ({"op": name} for name in ("brightness", "contrast", "saturation"))


@pytest.mark.parametrize(
    "ops",
    [
        [BRIGHT],
        [CONTRAST],
        [SATURATE],
        [BRIGHT, CONTRAST],
        [CONTRAST, BRIGHT],
        [CONTRAST, SATURATE, CONTRAST],
        [BRIGHT, SATURATE, CONTRAST, BRIGHT, CONTRAST, SATURATE],
    ],
    ids=lambda ops: "-".join(op["op"][:3] for op in ops),
)
def test_matrices_compose_to_what_the_ops_do_one_by_one(ops):
    plan = plan_of([SIZE, *ops], num=6)
    for row in range(6):
        expected = PIXELS
        for number, op in enumerate(ops):
            expected = apply(op, factor_of([SIZE, *ops[: number + 1]], row), expected)
        np.testing.assert_allclose(render(plan, row), expected, atol=1e-9)


def test_a_shift_before_contrast_moves_the_pivot_and_one_after_does_not():
    shift = {"op": "rgb_shift", "max": 40}
    for ops, before in (([shift, CONTRAST], True), ([CONTRAST, shift], False)):
        plan = plan_of([SIZE, *ops], num=5)
        place = ops.index(shift)
        alone = plan_of([SIZE, *([STILL] * place), shift], num=5)
        other = [*ops]
        other[place] = STILL
        factor = plan_of([SIZE, *other], num=5).colour[:, 0, 0]
        for row in range(5):
            added = alone.colour[row, :, 3]
            x = PIXELS + added if before else PIXELS
            expected = apply(CONTRAST, factor[row], x) + (0 if before else added)
            np.testing.assert_allclose(render(plan, row), expected, atol=1e-9)


def test_grey_weights_keep_greys_grey():
    grey = np.repeat(np.linspace(0, 255, 9)[:, None], 3, axis=1)
    for op in ({"op": "hue", "h": 0.5}, SATURATE, {"op": "grayscale"}):
        plan = plan_of([SIZE, op], num=20)
        for row in range(20):
            np.testing.assert_allclose(render(plan, row, grey), grey, atol=1e-9)


def test_grayscale_is_the_luma_of_each_pixel():
    plan = plan_of([SIZE, {"op": "grayscale"}])
    np.testing.assert_allclose(render(plan, 0), np.repeat(PIXELS @ G[:, None], 3, axis=1))


def test_hue_turns_the_chroma_of_yiq_and_keeps_luma():
    plan = plan_of([SIZE, {"op": "hue", "h": 0.5}], num=200)
    turns = []
    for row in range(200):
        luma, *before = colorsys.rgb_to_yiq(0.8, 0.3, 0.1)
        after = render(plan, row, np.array([[0.8, 0.3, 0.1]]))[0]
        assert after @ G == pytest.approx(0.8 * G[0] + 0.3 * G[1] + 0.1 * G[2])
        # The exact rows of NTSC; colorsys rounds them to two digits.
        i, q = np.array([[0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]]) @ after
        i0, q0 = np.array(
            [[0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]]
        ) @ np.array([0.8, 0.3, 0.1])
        assert math.hypot(i, q) == pytest.approx(math.hypot(i0, q0))
        assert (i0, q0) == pytest.approx(before, abs=0.01)
        assert luma == pytest.approx(after @ G, abs=0.01)
        turns.append((math.atan2(q, i) - math.atan2(q0, i0)) / (2 * math.pi) % 1)
    assert len({round(turn * 10) for turn in turns}) == 11


@pytest.mark.parametrize(
    "op",
    [
        *(BRIGHT, CONTRAST, SATURATE, {"op": "hue", "h": 0.5}),
        *({"op": "grayscale"}, {"op": "pca"}, {"op": "rgb_shift"}),
    ],
    ids=lambda op: op["op"],
)
def test_a_row_without_the_op_keeps_its_bits(op):
    plan = plan_of([SIZE, {**op, "p": 0}], num=3)
    assert plan.colour.tolist() == [np.eye(3, 4).tolist()] * 3
    assert plan.pivot is None or not plan.pivot.any()
    assert OPS_BY_NAME[op["op"]].is_colour


def test_shuffled_colour_is_one_of_the_orders_of_its_ops():
    ops = [BRIGHT, {"op": "rgb_shift", "max": 40}, CONTRAST]
    fixed = [
        plan_of([SIZE, *([STILL] * place), op, *([STILL] * (2 - place))], num=40)
        for place, op in enumerate(ops)
    ]
    shuffled = plan_of([SIZE, *ops], num=40, shuffle_colour=True)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    found = set()
    for row in range(40):
        for order in orders:
            pixels = PIXELS
            for number in order:
                pixels = render(fixed[number], row, pixels)
            if np.allclose(pixels, render(shuffled, row), atol=1e-9):
                found.add(order)
                break
        else:
            pytest.fail("no order of the ops gives this row")
    # Brightness and contrast commute: the first of the orders that are alike is found.
    assert found == set(orders) - {(1, 2, 0), (2, 0, 1)}


def test_shuffling_changes_no_parameter():
    ops = [SIZE, {"op": "rgb_shift"}, {"op": "pca"}, {"op": "erase"}]
    plain, shuffled = plan_of(ops, num=20), plan_of(ops, num=20, shuffle_colour=True)
    # Shifts add up to the same in any order, but for the last bit.
    np.testing.assert_allclose(plain.colour, shuffled.colour, rtol=1e-14)
    np.testing.assert_array_equal(plain.erase, shuffled.erase)
