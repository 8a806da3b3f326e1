"""Windows at native scale, padding, jitter and views: where they lie, and when they cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from augd.plan.plan import Plan
from tests.support.plans import move, plan_of, planner_of

PADDED = {"op": "random_crop", "size": 32, "pad": 4}


def plan_sizes(ops, sizes, ids=None, **fields) -> Plan:
    """Plan one sample per (width, height)."""
    planner = planner_of(ops, seed=1, **fields)
    widths, heights = np.array(sizes, np.int32).T
    ids = np.arange(len(sizes)) if ids is None else np.array(ids)
    return planner.plan(ids, np.zeros(len(sizes), np.int64), widths, heights)


def test_a_window_of_native_scale_is_never_resampled():
    plan = plan_of([{"op": "random_crop", "size": [30, 40]}], num=300)
    x, y, width, height = plan.crop.T
    assert set(width) == {40}
    assert set(height) == {30}
    assert (x.min(), y.min()) >= (0, 0)
    assert (plan.scaled == [40, 30]).all()
    assert (plan.window == 0).all()
    assert plan.matrix is None
    assert plan.bent is None


def test_a_window_that_reaches_into_the_padding_takes_the_matrix_path():
    plan = plan_of([PADDED], num=500, size=(32, 32))
    inside = ~plan.bent
    # One of 9x9 places lies inside.
    assert 0 < inside.sum() < 30
    assert plan.crop[inside].tolist() == [[0, 0, 32, 32]] * inside.sum()
    places = set()
    for matrix in plan.matrix:
        ((x, y),) = move(matrix, (0, 0))
        assert matrix[:, :2].tolist() == [[1, 0], [0, 1]]
        places.add((x, y))
    assert places == {(x, y) for x in range(-4, 5) for y in range(-4, 5)}
    assert not plan.halvings.any()


def test_a_mirrored_window_in_the_padding_is_the_mirror_image_of_the_window():
    flip, still = {"op": "mirror", "p": 1}, {"op": "mirror", "p": 0}
    plain = plan_of([PADDED, still], num=30, size=(32, 32)).matrix
    after = plan_of([PADDED, flip], num=30, size=(32, 32)).matrix
    for straight, mirrored in zip(plain, after, strict=True):
        assert move(mirrored, (0.5, 3)) == move(straight, (31.5, 3))


def test_a_padded_window_of_a_larger_photo_stays_exact_where_it_can():
    plan = plan_of([{"op": "random_crop", "size": 100, "pad": 10}], num=400)
    offset = np.array([move(m, (0, 0))[0] for m in plan.matrix])
    leaves = (offset < 0).any(axis=1) | (offset > np.array([400, 275])).any(axis=1)
    np.testing.assert_array_equal(plan.bent, leaves)
    assert plan.crop[~leaves, :2].tolist() == offset[~leaves].tolist()
    assert 0 < leaves.sum() < 100


def test_the_image_goes_on_in_the_padding_of_a_smaller_frame():
    ops = [{"op": "center_crop", "size": 60}, {"op": "random_crop", "size": 60, "pad": 10}]
    plan = plan_of(ops, num=100, size=(100, 100))
    assert not plan.bent.any()
    assert plan.crop[:, :2].min() == 10
    assert plan.crop[:, :2].max() == 30


def test_small_images_are_resized_up_until_the_window_fits():
    ops = [{"op": "random_crop", "size": [60, 80]}]
    plan = plan_sizes(ops, [(40, 30), (20, 60), (33, 47), (500, 375), (80, 60)])
    assert plan.scaled[:3].tolist() == [[80, 60], [80, 240], [80, 113]]
    assert plan.crop[:3].tolist() == [[0, 0, 40, 30], [0, 0, 20, 60], [0, 0, 33, 47]]
    # A row is planned as it would be alone, whatever its neighbours need.
    alone = plan_sizes(ops, [(500, 375)], ids=[3])
    for name in ("crop", "scaled", "window"):
        np.testing.assert_array_equal(getattr(plan, name)[3:4], getattr(alone, name))
    assert plan.crop[4].tolist() == [0, 0, 80, 60]
    assert plan.impossible == {}


def test_padding_counts_towards_the_window_before_anything_is_resized():
    plan = plan_sizes([{"op": "random_crop", "size": 32, "pad": 2}], [(28, 28), (26, 40)])
    assert move(plan.matrix[0], (0, 0), (32, 32)) == [(-2, -2), (30, 30)]
    # 26 + 4 is too small: resized to 28, the long side to 43.
    assert plan.matrix[1, 0, 0] == pytest.approx(26 / 28)
    assert plan.matrix[1, 1, 1] == pytest.approx(40 / 43)


def test_min_area_keeps_the_aspect_and_the_share():
    plan = plan_of([{"op": "random_crop", "size": 64, "min_area": 0.5}], num=500)
    x, y, width, height = plan.crop.T
    share = width * height / (500 * 375)
    assert 0.497 < share.min() < 0.51
    assert 0.99 < share.max() <= 1
    assert np.abs(width / height - 500 / 375).max() < 0.01
    assert (x + width).max() == 500
    assert (y + height).max() == 375
    assert (plan.scaled == 64).all()


def test_scale_jitter_resizes_by_the_short_side_and_cuts_anywhere():
    plan = plan_sizes([{"op": "scale_jitter"}], [(500, 375), (375, 500)] * 200)
    short = plan.scaled.min(axis=1)
    assert short.min() >= 256
    assert short.max() <= 480
    for (width, height), s in zip(plan.scaled.tolist(), short.tolist(), strict=True):
        assert max(width, height) == int(s * 500 / 375)
    assert (plan.window >= 0).all()
    assert (plan.window + 224 <= plan.scaled).all()


FIVE = [(0, 0), (101, 0), (0, 32), (101, 32), (50, 16)]


def test_five_views_are_the_corners_and_the_centre():
    ops = [{"op": "resize", "short": 256}, {"op": "five_crop", "size": [224, 240]}]
    plan = plan_of(ops, size=(500, 375), num=2)
    # 341x256 after the resize; half of 101 goes to the even 50.
    assert [tuple(w) for w in plan.window.tolist()] == FIVE * 2
    assert (plan.scaled == [341, 256]).all()
    assert not plan.mirror.any()


def test_ten_views_are_those_five_and_the_five_of_the_mirror_image():
    ops = [{"op": "resize", "short": 256}, {"op": "ten_crop", "size": [224, 240]}]
    plan = plan_of(ops, size=(500, 375))
    assert plan.mirror.tolist() == [False] * 5 + [True] * 5
    windows = [tuple(w) for w in plan.window.tolist()]
    assert windows[:5] == FIVE
    # The mirror image's left is the image's right, and 101 - 50 are left of the centre.
    assert windows[5:] == [(101, 0), (0, 0), (101, 32), (0, 32), (51, 16)]


def test_multi_scale_makes_ten_views_of_every_scale():
    plan = plan_of([{"op": "multi_scale", "short": [224, 640]}], size=(500, 375), num=3)
    assert plan.crop.shape == (60, 4)
    assert plan.scaled.tolist() == ([[298, 224]] * 10 + [[853, 640]] * 10) * 3
    assert plan.window[:10].tolist()[4] == [37, 0]
    assert plan.window[10:20].tolist()[3] == [629, 416]
    assert plan.mirror.tolist() == ([False] * 5 + [True] * 5) * 6
    five = plan_of([{"op": "multi_scale", "short": [224, 640], "flip": False}], size=(500, 375))
    assert five.scaled.tolist() == [[298, 224]] * 5 + [[853, 640]] * 5
    assert not five.mirror.any()


def test_what_comes_before_a_view_op_is_drawn_once_per_sample():
    ops = [{"op": "random_resized_crop", "size": 80}, {"op": "rotate", "factor": 0.1}]
    ops += [{"op": "pca"}, {"op": "ten_crop", "size": 64}]
    plan = plan_of(ops, num=4)
    by_sample = plan.matrix.reshape(4, 10, 2, 3)
    assert (by_sample[:, :5, :, :2] == by_sample[:, :1, :, :2]).all()
    assert len({tuple(m.ravel()) for m in by_sample[:, 0]}) == 4
    colour = plan.colour.reshape(4, 10, 12)
    assert (colour == colour[:, :1]).all()


def test_views_are_drawn_apart_and_the_first_is_that_of_one_view():
    ops = [
        {"op": "random_resized_crop"},
        {"op": "mirror"},
        {"op": "rotate", "factor": 0.1, "p": 0.5},
        {"op": "pca"},
        {"op": "erase", "p": 0.5},
    ]
    three, one = plan_of(ops, num=50, views=3), plan_of(ops, num=50)
    for name in ("crop", "mirror", "matrix", "bent", "halvings", "colour", "erase"):
        many = getattr(three, name)
        np.testing.assert_array_equal(many[::3], getattr(one, name))
    assert len({tuple(crop) for crop in three.crop.tolist()}) > 140


def test_a_sample_that_cannot_be_made_is_named_once_with_its_sizes():
    sizes = [(500, 375), (100, 90), (300, 223)]
    plan = plan_sizes([{"op": "ten_crop"}], sizes)
    assert plan.impossible == {
        1: "ten_crop: expected an image of at least 224x224, got 100x90. "
        "Put a resize before the ten_crop, or make it smaller",
        2: "ten_crop: expected an image of at least 224x224, got 300x223. "
        "Put a resize before the ten_crop, or make it smaller",
    }
    plan = plan_sizes([{"op": "multi_scale"}], [(500, 375), (30_000, 1)])
    assert plan.impossible == {
        1: "multi_scale: expected at most 64 megapixels after short=[224, 256, 384, 480, 640], "
        "got an image of 30000x1. Cut or remove this image"
    }
    plan = plan_sizes([{"op": "scale_jitter"}], [(1, 30_000), (500, 375)])
    assert plan.impossible == {
        0: "scale_jitter: expected at most 64 megapixels after short=[256, 480], "
        "got an image of 1x30000. Cut or remove this image"
    }
    plan = plan_sizes([{"op": "random_crop", "size": 224}], [(1, 30_000), (500, 375)])
    assert plan.impossible == {
        0: "random_crop: expected at most 64 megapixels after size=[224, 224], "
        "got an image of 1x30000. Cut or remove this image"
    }
    other = plan_sizes([{"op": "rotate", "factor": 0.1}], [(500, 375), (375, 500)], views=2)
    assert list(other.impossible) == [1]
    assert "got 375x500" in other.impossible[1]


def test_padding_samples_are_never_impossible():
    plan = plan_sizes([{"op": "ten_crop"}], [(500, 375), (0, 0)], ids=[4, -1])
    assert plan.impossible == {}


def test_fields_are_none_by_the_recipe_alone():
    crop = {"op": "random_resized_crop"}
    plan = plan_of([crop, {"op": "rotate", "factor": 0.1, "p": 0}], num=3)
    assert plan.matrix is not None
    assert not plan.bent.any()
    assert (plan.lens, plan.warp, plan.warp_key, plan.warp_on) == (None,) * 4
    assert (plan.colour, plan.pivot, plan.erase) == (None,) * 3
    plan = plan_of(
        [crop, {"op": "lens", "p": 0}, {"op": "local_warp", "alpha": 1, "sigma": 2, "p": 0}]
    )
    assert (plan.lens.tolist(), plan.warp_on.tolist()) == ([0.0], [False])
    assert plan.warp == (1.0, 2.0)
    kinds = {
        name: (getattr(plan, name).dtype.name, getattr(plan, name).shape)
        for name in ("matrix", "bent", "halvings", "lens", "warp_key", "warp_on")
    }
    assert kinds == {
        "matrix": ("float64", (1, 2, 3)),
        "bent": ("bool", (1,)),
        "halvings": ("int8", (1,)),
        "lens": ("float64", (1,)),
        "warp_key": ("uint64", (1,)),
        "warp_on": ("bool", (1,)),
    }
    plan = plan_of([crop, {"op": "contrast"}, {"op": "erase"}], num=3)
    assert (plan.pivot.shape, plan.pivot.dtype) == ((3, 3, 3), "float64")
    assert (plan.erase.shape, plan.erase.dtype) == ((3, 1, 4), "int32")
    assert plan.matrix is None
