"""Boxes that ops fill, against their laws: numbers, sides, places and colours over many rows."""

from __future__ import annotations

import numpy as np

from augd.plan.plan import Plan
from tests.support.laws import assert_counts, assert_independent, assert_rate, assert_uniform
from tests.support.plans import plan_of

NUM = 100_000
SIDE = 4000
CROP = {"op": "random_resized_crop", "size": SIDE}
SMALL = {"op": "random_resized_crop", "size": [20, 30]}


def boxes_of(plan: Plan) -> np.ndarray:
    """Return x, y, width and height, (4, boxes, rows)."""
    assert plan.erase is not None
    return plan.erase.T.astype(float)


def assert_placed_uniformly(start: np.ndarray, side: np.ndarray, whole: int, seed: int) -> None:
    jitter = np.random.default_rng(seed).random(start.shape)
    assert_uniform((start + jitter) / (whole - side + 1))


def test_several_erased_boxes_share_the_area_and_have_draws_of_their_own() -> None:
    op = {"op": "erase", "area": [0.02, 0.3], "ratio": [0.5, 2], "count": [1, 3]}
    x, y, width, height = boxes_of(plan_of([CROP, op], num=NUM))
    count = (width > 0).sum(axis=0)
    assert ((width > 0) == (np.arange(3)[:, None] < count)).all()
    assert_counts(np.bincount(count)[1:])
    area = width * height / SIDE**2 * count
    for number in range(3):
        there = count > number
        assert_uniform(area[number, there], 0.02, 0.3)
        assert_uniform(np.log(width[number, there] / height[number, there]), -np.log(2), np.log(2))
        assert_placed_uniformly(x[number, there], width[number, there], SIDE, 2 * number)
        assert_placed_uniformly(y[number, there], height[number, there], SIDE, 2 * number + 1)
    all_there = count == 3
    for values in (area, x / (SIDE - width), y / (SIDE - height)):
        assert_independent(values[0, all_there], values[1, all_there])
        assert_independent(values[1, all_there], values[2, all_there])


def test_the_first_box_of_several_of_a_fixed_number_is_placed_as_the_only_one_is() -> None:
    op = {"op": "erase", "area": [0.1, 0.1], "ratio": [1, 1], "p": 0.4}
    alone = boxes_of(plan_of([CROP, op], num=1000))
    two = boxes_of(plan_of([CROP, {**op, "area": [0.2, 0.2], "count": 2}], num=1000))
    np.testing.assert_array_equal(two[:, 0], alone[:, 0])
    assert_rate(two[2, 1] > 0, 0.4)
    assert ((two[2, 0] > 0) == (two[2, 1] > 0)).all()


def test_a_random_fill_is_normal_about_the_mean_for_each_channel_and_box() -> None:
    op = {"op": "erase", "fill": "random", "count": 2, "area": [0.02, 0.02], "ratio": [1, 1]}
    fill = plan_of([CROP, op], num=NUM).erase_fill
    assert fill is not None and not fill.is_noise.any()
    colours = fill.colours.astype(float)
    mean, std = 255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])
    for of in range(3):
        levels = np.sort(colours[:, 0, of])
        # Clipped at 0 and 255; the quartiles are not.
        for share, quantile in ((0.25, -0.6745), (0.5, 0.0), (0.75, 0.6745)):
            assert abs(levels[int(share * NUM)] - (mean[of] + std[of] * quantile)) < 1.5
    assert_independent(colours[:, 0, 0], colours[:, 0, 1])
    assert_independent(colours[:, 0, 2], colours[:, 1, 2])


def test_noise_has_a_key_for_each_row() -> None:
    fill = plan_of([CROP, {"op": "erase", "fill": "pixel", "count": 2}], num=NUM).erase_fill
    assert fill is not None and fill.is_noise.all()
    assert (fill.keys[:, 0] == fill.keys[:, 1]).all()
    assert len(np.unique(fill.keys[:, 0])) == NUM
    for shift in (0, 24, 56):
        assert_counts(np.bincount((fill.keys[:, 0] >> np.uint64(shift)).astype(np.uint8)))


def test_dropped_boxes_have_uniform_numbers_sides_and_places() -> None:
    op = {"op": "coarse_dropout", "count": [2, 5], "height": [0.1, 0.4], "width": 0.25, "p": 0.7}
    x, y, width, height = boxes_of(plan_of([CROP, op], num=NUM))
    count = (width > 0).sum(axis=0)
    assert_rate(count > 0, 0.7)
    assert_counts(np.bincount(count)[2:])
    assert (width[width > 0] == SIDE // 4).all()
    for number in range(5):
        there = count > number
        jitter = np.random.default_rng(number).random(there.sum())
        assert_uniform(height[number, there] + jitter, 0.1 * SIDE, 0.4 * SIDE + 1)
        assert_placed_uniformly(x[number, there], width[number, there], SIDE, 10 + number)
        assert_placed_uniformly(y[number, there], height[number, there], SIDE, 20 + number)
    assert_independent(height[0, count == 5], height[1, count == 5])


def test_dropped_boxes_have_a_pixel_at_least_and_the_row_at_most() -> None:
    tiny = {"op": "coarse_dropout", "height": 0.001, "width": 1}
    x, y, width, height = boxes_of(plan_of([SMALL, tiny], num=500))
    assert set(height[0]) == {1} and set(width[0]) == {30}
    assert set(x[0]) == {0} and set(y[0]) == set(range(20))


def test_a_cutouts_middle_is_a_uniform_pixel_and_its_square_is_cut_at_the_edges() -> None:
    for size in (9, 8, 1, 75):
        plan = plan_of([SMALL, {"op": "cutout", "size": size, "p": 0.9}], num=NUM)
        x, y, width, height = boxes_of(plan)[:, 0]
        there = width > 0
        assert_rate(there, 0.9)
        assert (height[there] > 0).all() and not (x + y + height)[~there].any()
        starts = np.arange(30) - size // 2
        left, right = np.maximum(starts, 0), np.minimum(starts + size, 30)
        expected = dict[tuple[int, int], int]()
        for edges in zip(left.tolist(), (right - left).tolist(), strict=True):
            expected[edges] = expected.get(edges, 0) + 1
        keys = list(expected)
        found = [((x == at) & (width == side)).sum() for at, side in keys]
        assert sum(found) == there.sum()
        if len(keys) > 1:
            assert_counts(np.array(found), np.array([expected[key] for key in keys]) / 30)
        assert (y + height).max() == 20 and y.min() == 0
