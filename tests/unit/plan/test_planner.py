"""Plans against a scalar reading of the definitions, at the edges, and frozen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augd.plan.ops.all_ops import IMAGENET_EIGVAL, IMAGENET_EIGVEC
from augd.plan.planner.planner import Plan, Planner
from augd.plan.random.philox import Purpose, mix, normals, philox_words, stream_counter
from augd.plan.recipe.recipe import output_size, parse_recipe
from augd.plan.size_mismatch import is_misfit

CROP = {"op": "random_resized_crop"}


def planner_of(ops, seed=0, first_size_px=None):
    recipe = parse_recipe(ops if isinstance(ops, str) else {"ops": ops})
    return Planner(recipe, seed, output_size(recipe, first_size_px))


def plan_of(planner: Planner, sizes, ids=None, epoch=0) -> Plan:
    """Plan one row per (width, height)."""
    widths, heights = np.array(sizes, np.int32).reshape(-1, 2).T
    ids = np.arange(len(widths)) if ids is None else np.array(ids)
    return planner.plan(ids.astype(np.int64), np.full(len(ids), epoch, np.int64), widths, heights)


def rows_of(plan: Plan):
    return [
        (tuple(crop), tuple(scaled), tuple(window), mirror)
        for crop, scaled, window, mirror in zip(
            plan.crop.tolist(),
            plan.scaled.tolist(),
            plan.window.tolist(),
            plan.mirror.tolist(),
            strict=True,
        )
    ]


# Frozen: a change of any of these needs a new `content.PLAN_SCHEME`. Seed 11, preset imagenet:
# (id, epoch, width, height, crop, mirror, what is added to R, G, B in hexadecimal).
IMAGENET_ROWS = [
    (
        0,
        0,
        500,
        375,
        (134, 124, 171, 212),
        False,
        ["-0x1.9b088f6aa2e69p+1", "-0x1.b26febae0c183p+1", "-0x1.cf28643a229dep+1"],
    ),
    (
        1,
        0,
        500,
        375,
        (247, 45, 208, 250),
        False,
        ["0x1.526c541788f6ep+1", "0x1.5a9a93e5cfeb3p+1", "0x1.6cc943102785ep+1"],
    ),
    (
        0,
        1,
        500,
        375,
        (109, 10, 387, 318),
        False,
        ["0x1.551d5fdd1f092p+0", "0x1.051cd32512a25p+1", "0x1.50dfd48174a98p+1"],
    ),
    (
        0,
        0,
        375,
        500,
        (83, 220, 171, 212),
        False,
        ["-0x1.9b088f6aa2e69p+1", "-0x1.b26febae0c183p+1", "-0x1.cf28643a229dep+1"],
    ),
    (
        48123,
        90,
        1024,
        1024,
        (61, 117, 947, 824),
        False,
        ["0x1.f01b714666759p+1", "0x1.f6890b977aa96p+1", "0x1.c1b80f6fb8a3ep+1"],
    ),
    (
        1099511627781,
        4294967295,
        333,
        500,
        (30, 18, 261, 197),
        True,
        ["0x1.56d14cb974168p-1", "0x1.61b49c2464f0dp-1", "0x1.74894225a9275p-1"],
    ),
    (
        7,
        2,
        1000,
        100,
        (433, 0, 133, 100),
        False,
        ["-0x1.7d716e5c80446p-3", "-0x1.ba71f1140679ep-6", "0x1.7b3f41380680cp-2"],
    ),
    (
        8,
        2,
        1,
        1,
        (0, 0, 1, 1),
        True,
        ["-0x1.b871512e3a92cp+0", "-0x1.167ab5a0e7a00p+1", "-0x1.f7f6176407d00p+0"],
    ),
    (
        9,
        2,
        4000,
        3000,
        (908, 920, 2432, 1995),
        False,
        ["-0x1.7efda24ab4a3dp+1", "-0x1.6bcc54552db3dp+1", "-0x1.5f55b529c4461p+1"],
    ),
]


@pytest.mark.parametrize("row", IMAGENET_ROWS, ids=lambda row: f"id{row[0]}-epoch{row[1]}")
def test_the_plan_of_imagenet_is_frozen(row):
    sample, epoch, width, height, crop, mirror, added = row
    plan = plan_of(planner_of("imagenet", seed=11), [(width, height)], [sample], epoch)
    assert plan.colour is not None
    assert rows_of(plan) == [(crop, (224, 224), (0, 0), mirror)]
    assert [value.hex() for value in plan.colour[0, :, 3].tolist()] == added
    np.testing.assert_array_equal(plan.colour[0, :, :3], np.eye(3))


def reference_crop(sample, epoch, width, height, scale, ratio, seed):
    """Read the law of random_resized_crop off the definitions, for one image and op 0."""
    key = mix(seed, Purpose.PARAMS)
    blocks = [
        [
            int(word) / 2**32
            for word in philox_words(key, np.array([sample], np.uint64), epoch, draw).ravel()
        ]
        for draw in (stream_counter(0, 0, number) for number in range(6))
    ]
    half = 0.5 / 2**32
    draws = [(block[2], block[3]) for block in blocks[:5]]
    draws += [(block[0], block[1]) for block in blocks[:5]]
    for share, aspect in draws:
        area = width * height * (scale[0] + (scale[1] - scale[0]) * (share + half))
        low, high = math.log(ratio[0]), math.log(ratio[1])
        r = math.exp(low + (high - low) * (aspect + half))
        w, h = round(math.sqrt(area * r)), round(math.sqrt(area / r))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(blocks[5][2] * (width - w + 1)), int(blocks[5][0] * (height - h + 1))
            return x, y, w, h
    w, h = width, height
    if width / height < ratio[0]:
        h = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = max(1, round(height * ratio[1]))
    return (width - w) // 2, (height - h) // 2, w, h


@pytest.mark.parametrize(
    ("scale", "ratio"),
    [
        ((0.08, 1.0), (3 / 4, 4 / 3)),
        ((0.9, 1.0), (0.5, 2.0)),
        ((0.001, 1.0), (0.01, 100.0)),
        ((1.0, 1.0), (2.0, 2.0)),
    ],
)
def test_random_resized_crop_equals_the_scalar_definition(scale, ratio):
    planner = planner_of([{**CROP, "scale": scale, "ratio": ratio}], seed=5)
    sizes = [(500, 375), (375, 500), (1000, 100), (1, 1), (3, 2), (7, 4000), (65500, 9)] * 20
    ids = [7 * row if row % 3 else row + 2**40 for row in range(len(sizes))]
    plan = plan_of(planner, sizes, ids, epoch=3)
    expected = [
        reference_crop(sample, 3, width, height, scale, ratio, 5)
        for sample, (width, height) in zip(ids, sizes, strict=True)
    ]
    assert [tuple(crop) for crop in plan.crop.tolist()] == expected


def test_the_fallback_is_the_centred_clamp_of_torchvision():
    # An area of nine tenths never fits an image ten times as wide as high.
    planner = planner_of([{**CROP, "scale": [0.9, 1.0]}])
    plan = plan_of(planner, [(1000, 100), (100, 1000), (1000, 100)])
    assert plan.crop.tolist() == [[433, 0, 133, 100], [0, 433, 100, 133], [433, 0, 133, 100]]
    inside = plan_of(planner_of([{**CROP, "scale": [1, 1], "ratio": [0.9, 1.2]}]), [(10, 10)] * 9)
    assert [0, 0, 10, 10] in inside.crop.tolist()


@pytest.mark.parametrize(
    ("size", "scaled", "window"),
    [
        ((500, 375), (341, 256), (58, 16)),  # 58.5 to even
        ((375, 500), (256, 341), (16, 58)),
        ((375, 503), (256, 343), (16, 60)),  # 59.5 to even
        ((256, 256), (256, 256), (16, 16)),
        ((1, 1), (256, 256), (16, 16)),
        ((100, 33), (775, 256), (276, 16)),  # 775.75 truncated, 275.5 to even
    ],
)
def test_eval_resizes_the_short_side_and_cuts_the_centre(size, scaled, window):
    plan = plan_of(planner_of("eval"), [size])
    assert rows_of(plan) == [((0, 0, *size), scaled, window, False)]
    assert plan.colour is None
    assert plan.impossible == {}


def test_none_takes_images_of_the_first_ones_size_only():
    planner = planner_of("none", first_size_px=(64, 48))
    plan = plan_of(planner, [(64, 48), (48, 64), (0, 0)], [0, 1, -1])
    assert rows_of(plan)[0] == ((0, 0, 64, 48), (64, 48), (0, 0), False)
    assert plan.impossible == {
        1: "size: expected 64x48 as the dataset's first image, since the recipe has no op that "
        "decides the size, got 48x64. Add a resize or a crop to the recipe"
    }
    assert is_misfit(plan.impossible[1])


def test_center_crop_alone_cuts_at_native_scale_or_says_why_not():
    planner = planner_of([{"op": "center_crop", "size": [40, 60]}])
    plan = plan_of(planner, [(65, 45), (60, 40), (59, 99)])
    assert rows_of(plan)[:2] == [
        ((2, 2, 60, 40), (60, 40), (0, 0), False),
        ((0, 0, 60, 40), (60, 40), (0, 0), False),
    ]
    assert plan.impossible == {
        2: "center_crop: expected an image of at least 60x40, got 59x99. "
        "Put a resize before the center_crop, or make it smaller"
    }
    assert is_misfit(plan.impossible[2])


def test_a_photo_so_thin_that_its_resize_would_be_enormous_is_refused():
    plan = plan_of(planner_of("eval"), [(500, 375), (30_000, 1), (976, 1)])
    assert plan.impossible == {
        1: "resize: expected at most 64 megapixels after short=256, got an image of 30000x1. "
        "Cut or remove this image, or give resize a size"
    }
    assert plan.scaled.tolist()[2] == [256 * 976, 256]


def test_crops_nest_before_and_after_the_resample():
    ops = [
        {"op": "center_crop", "size": 100},
        {**CROP, "size": [50, 70], "scale": [0.25, 0.25], "ratio": [1, 1]},
        {"op": "center_crop", "size": [45, 64]},
    ]
    plan = plan_of(planner_of(ops), [(300, 201)] * 200)
    x, y, width, height = plan.crop.T
    assert set(width) == set(height) == {50}
    # The centre crop of 300x201 begins at (100, 50), 50.5 going to even; boxes lie inside it.
    assert (x.min(), x.max(), y.min(), y.max()) == (100, 150, 50, 100)
    assert plan.scaled.tolist()[0] == [70, 50]
    assert plan.window.tolist()[0] == [3, 2]


def test_resize_to_a_size_squashes():
    plan = plan_of(planner_of([{"op": "resize", "size": [180, 190]}]), [(500, 375), (20, 900)])
    assert [row[:3] for row in rows_of(plan)] == [
        ((0, 0, 500, 375), (190, 180), (0, 0)),
        ((0, 0, 20, 900), (190, 180), (0, 0)),
    ]


def test_resize_after_a_native_crop_takes_its_short_side():
    ops = [{"op": "center_crop", "size": [300, 400]}, {"op": "resize", "short": 200}]
    assert rows_of(plan_of(planner_of(ops), [(500, 375)])) == [
        ((50, 38, 400, 300), (266, 200), (0, 0), False)
    ]


def test_a_flip_before_a_cut_moves_the_cut_to_the_other_side():
    flip = {"op": "mirror", "p": 1}
    cut = {"op": "center_crop", "size": 224}
    short = {"op": "resize", "short": 256}
    # 341 - 224 = 117 px are left: 58 to the left and 59 to the right of the window.
    assert plan_of(planner_of([short, cut, flip]), [(500, 375)]).window.tolist() == [[58, 16]]
    assert plan_of(planner_of([short, flip, cut]), [(500, 375)]).window.tolist() == [[59, 16]]
    twice = plan_of(planner_of([flip, short, flip, cut]), [(500, 375)])
    assert rows_of(twice) == [((0, 0, 500, 375), (341, 256), (58, 16), False)]
    native = plan_of(planner_of([flip, {"op": "center_crop", "size": 2}]), [(5, 5)])
    assert native.crop.tolist() == [[1, 2, 2, 2]]


def test_mirror_follows_p():
    sizes = [(4, 4)] * 50
    for p, expected in ((0, False), (1, True)):
        planner = planner_of([{"op": "mirror", "p": p}], first_size_px=(4, 4))
        assert set(plan_of(planner, sizes).mirror.tolist()) == {expected}


def test_colour_is_pca_of_the_words_in_grey_levels():
    plan = plan_of(planner_of([{"op": "pca"}], seed=2, first_size_px=(4, 4)), [(4, 4)] * 9)
    ids = np.arange(9, dtype=np.uint64)
    words = philox_words(mix(2, Purpose.PARAMS), ids, 0, stream_counter(0, 0, 0))
    alphas = 0.1 * normals(words[[2, 0, 1]])
    added = np.array(IMAGENET_EIGVEC) @ (alphas.T * IMAGENET_EIGVAL).T * 255
    assert plan.colour is not None
    assert plan.colour.shape == (9, 3, 4)
    np.testing.assert_allclose(plan.colour[:, :, 3].T, added, rtol=1e-12)


def test_two_colour_ops_add_up_and_draw_apart():
    pca = {"op": "pca"}
    both, first = (
        plan_of(planner_of(ops, first_size_px=(4, 4)), [(4, 4)] * 9).colour
        for ops in ([pca, pca], [pca])
    )
    assert both is not None
    assert first is not None
    second = both[:, :, 3] - first[:, :, 3]
    np.testing.assert_array_equal(both[:, :, :3], first[:, :, :3])
    assert np.abs(second - first[:, :, 3]).min() > 0


def test_shapes_and_types_are_those_of_the_contract():
    plan = plan_of(planner_of("imagenet"), [(500, 375)] * 5)
    assert plan.colour is not None
    found = [(a.shape, a.dtype) for a in (plan.crop, plan.scaled, plan.window, plan.mirror)]
    assert found == [((5, 4), "int32"), ((5, 2), "int32"), ((5, 2), "int32"), ((5,), "bool")]
    assert (plan.colour.shape, plan.colour.dtype) == ((5, 3, 4), "float64")


def test_no_rows_are_an_empty_plan():
    for name in ("imagenet", "eval"):
        assert plan_of(planner_of(name), []).crop.shape == (0, 4)


@pytest.mark.parametrize("name", ["imagenet", "eval"])
def test_padding_rows_are_planned_without_error_or_effect(name):
    planner = planner_of(name)
    with_padding = plan_of(planner, [(500, 375), (0, 0), (30, 40)], [5, -1, 9])
    without = plan_of(planner, [(500, 375), (30, 40)], [5, 9])
    assert with_padding.impossible == {}
    assert [rows_of(with_padding)[i] for i in (0, 2)] == rows_of(without)


def test_an_earlier_plan_is_not_overwritten_by_a_later_one():
    planner = planner_of("imagenet")
    first = plan_of(planner, [(500, 375)] * 4)
    before = rows_of(first), first.colour.tolist()
    plan_of(planner, [(300, 200)] * 4, [9, 8, 7, 6], epoch=4)
    assert (rows_of(first), first.colour.tolist()) == before
