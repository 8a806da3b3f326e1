"""Regions of bent rows: whatever a tap touches was decoded, and no more is reduced than 1.5."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augd.plan.geometry.affine import Affine
from augd.plan.geometry.source_region import count_halvings, find_region
from augd.plan.planner.planner import Plan
from tests.support.examples import examples
from tests.support.plans import plan_of

FILLS = ("reflect", "constant", "nearest", "wrap")
SIZINGS = [
    [{"op": "random_resized_crop", "size": [24, 31]}],
    [{"op": "random_resized_crop", "size": 40, "scale": [0.02, 0.1], "ratio": [0.2, 5]}],
    [{"op": "resize", "size": [17, 50]}],
    [{"op": "scale_jitter", "short": [30, 60], "crop": 28}],
    [{"op": "random_crop", "size": [30, 20], "pad": 12}],
    [{"op": "random_crop", "size": 33, "min_area": 0.3}, {"op": "center_crop", "size": 20}],
]
BENDS = [
    {"op": "mirror"},
    {"op": "rotate", "factor": 0.5},
    {"op": "zoom", "height": 0.9, "width": 0.5},
    {"op": "shear", "x": 0.8, "y": 0.5},
    {"op": "stretch", "x": 1.0, "y": 3.0},
    {"op": "translate", "x": 1.0, "y": 0.7},
    {"op": "lens", "k": [-0.3, 0.9]},
    {"op": "local_warp", "alpha": 7, "sigma": 3, "p": 0.5},
    {"op": "rotate", "factor": 0.1, "p": 0.5},
]


def output_positions(plan: Plan, row: int, height: int, width: int, sign: tuple[int, int]):
    """Return displaced positions of all pixel centres, (2, h, w), warped as far as can be."""
    y, x = np.mgrid[:height, :width] + 0.5
    dx, dy = x - width / 2, y - height / 2
    if plan.lens is not None:
        radius = np.hypot(dx, dy) / (np.hypot(width, height) / 2)
        factor = 1 + plan.lens[row] * radius**2
        dx, dy = dx * factor, dy * factor
    x, y = width / 2 + dx, height / 2 + dy
    if plan.warp is not None and plan.warp_on[row]:
        x, y = x + sign[0] * plan.warp.alpha, y + sign[1] * plan.warp.alpha
    return np.stack([x, y])


def folded(pixels: np.ndarray, side: int, fill: str) -> np.ndarray:
    """Return where in the image pixels are taken from; those of a constant are left out."""
    if fill == "constant":
        return pixels[(pixels >= 0) & (pixels < side)]
    if fill == "nearest":
        return np.clip(pixels, 0, side - 1)
    if fill == "wrap":
        return pixels % side
    pixels = pixels % (2 * side)
    return np.where(pixels < side, pixels, 2 * side - 1 - pixels)


def assert_covered(plan: Plan, row: int, out: tuple[int, int], size, fill: str) -> None:
    matrix, block = plan.matrix[row], 2 ** int(plan.halvings[row])
    box = plan.crop[row].tolist()
    for sign in ((-1, -1), (1, 1), (-1, 1), (1, -1)):
        x, y = output_positions(plan, row, *out, sign)
        for axis, side in enumerate(size):
            position = matrix[axis, 0] * x + matrix[axis, 1] * y + matrix[axis, 2]
            first = np.floor(position / block - 0.5).astype(int) * block
            # Both taps of the axis, each the mean of a block.
            pixels = np.concatenate([first.ravel() + step for step in range(2 * block)])
            touched = folded(pixels, side, fill)
            if len(touched):
                assert box[axis] <= touched.min()
                assert touched.max() < box[axis] + box[2 + axis]


@examples(80)
@given(
    sizing=st.sampled_from(SIZINGS),
    bends=st.lists(st.sampled_from(BENDS), min_size=1, max_size=4),
    before=st.booleans(),
    fill=st.sampled_from(FILLS),
    size=st.tuples(st.integers(1, 700), st.integers(1, 500)),
    seed=st.integers(0, 2**32),
)
def test_whatever_a_tap_touches_lies_in_the_region(sizing, bends, before, fill, size, seed):
    unique = [b for i, b in enumerate(bends) if b["op"] not in {c["op"] for c in bends[:i]}]
    ops = [*unique, *sizing] if before else [*sizing, *unique]
    plan = plan_of(ops, num=4, size=size, seed=seed, fill=fill)
    if plan.matrix is None:
        return
    height, width = output_of(ops)
    for row in range(4):
        x, y, w, h = plan.crop[row].tolist()
        assert 0 <= x < x + w <= size[0]
        assert 0 <= y < y + h <= size[1]
        if not plan.bent[row]:
            assert plan.halvings[row] == 0
            continue
        if row in plan.impossible:
            continue
        block = 2 ** int(plan.halvings[row])
        for start, side, whole in ((x, w, size[0]), (y, h, size[1])):
            assert start % block == 0
            assert (start + side) % block == 0 or start + side == whole
        assert_covered(plan, row, (height, width), size, fill)
        lens = 1 + 3 * max(0.0, 0.0 if plan.lens is None else float(plan.lens[row]))
        reduction = np.linalg.svd(plan.matrix[row, :, :2])[1][0] * lens / block
        assert reduction <= 1.5 + 1e-9
        assert block == 1 or reduction > 0.75 - 1e-9


def output_of(ops) -> tuple[int, int]:
    size = next(op.get("size", op.get("crop")) for op in reversed(ops) if {"size", "crop"} & {*op})
    return (size, size) if isinstance(size, int) else tuple(size)


def test_the_check_tells_a_region_that_is_too_small():
    plan = plan_of([SIZINGS[0][0], {"op": "rotate", "factor": 0.1}], num=20)
    for row in range(20):
        assert_covered(plan, row, (24, 31), (500, 375), "constant")
    # Away from the image's edges there is at most one block to spare.
    inner = [row for row in range(20) if (plan.crop[row, :2] > 0).all()]
    assert len(inner) > 3
    for row in inner:
        cut = 2 << int(plan.halvings[row])
        for change in ([cut, 0, -cut, 0], [0, cut, 0, -cut]):
            plan.crop[row] += np.array(change, np.int32)
            with pytest.raises(AssertionError):
                assert_covered(plan, row, (24, 31), (500, 375), "constant")
            plan.crop[row] -= np.array(change, np.int32)


@pytest.mark.parametrize(
    ("reduction", "halvings"),
    [
        (0.1, 0),
        (1.0, 0),
        (1.5, 0),
        (1.5000001, 1),
        (3.0, 1),
        (3.1, 2),
        (6.0, 2),
        (96.0, 6),
        (1e9, 16),
    ],
)
def test_halvings_leave_a_reduction_of_at_most_one_and_a_half(reduction, halvings):
    assert count_halvings(np.array([reduction])).tolist() == [halvings]


@pytest.mark.parametrize(
    ("fill", "region"),
    [
        ("constant", [0, 20, 1, 9]),
        ("nearest", [0, 20, 1, 9]),
        ("reflect", [0, 20, 51, 9]),
        ("wrap", [0, 20, 80, 9]),
    ],
)
def test_a_row_beside_the_image_gets_its_nearest_edge_or_what_the_fill_takes(fill, region):
    affine = Affine(1)
    affine.move(-50.0, 21.0)
    found = find_region(
        affine,
        np.array([[7.0], [7.0]]),
        np.array([[0.0], [0.0], [80.0], [60.0]]),
        fill,
        np.zeros(1, np.int8),
        1.0,
        0.0,
    )
    assert found[:, 0].tolist() == region
