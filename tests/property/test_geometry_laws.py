"""The laws of geometry: what each op draws against its exact distribution.

Every check is wrong but once in a million times, with fixed seeds; beside most stands a known
wrong law that it must tell.
"""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augd.plan.plan import Plan
from augd.plan.planner.planner import Planner
from augd.plan.recipe.recipe import PRESETS, output_size, parse_recipe
from tests.support.examples import examples
from tests.support.laws import (
    assert_counts,
    assert_independent,
    assert_mean,
    assert_rate,
    assert_uniform,
)
from tests.support.plans import plan_of

NUM = 20_000
SIZE = {"op": "resize", "size": 100}
CROP = {"op": "random_resized_crop"}


class CropLaw:
    """The law of random_resized_crop on a photo, by integrals over the share s of the area.

    For each s, the aspects r whose box fits, or has given sides, are an interval of log r.
    """

    def __init__(self, width: int, height: int) -> None:
        self.area = width * height
        self.share = 0.08 + 0.92 * (np.arange(100_000) + 0.5) / 100_000
        self.low, self.high = math.log(3 / 4), math.log(4 / 3)
        fits = self._aspects(0.5, width + 0.5, 0.5, height + 0.5)
        self.accepted = float(fits.mean())
        self.mean_share = float((fits * self.share).mean() / self.accepted)
        square = float((fits * self.share**2).mean() / self.accepted)
        self.variance = square - self.mean_share**2

    def box_rate(self, width: int, height: int) -> float:
        """Return how often one try gives exactly this box."""
        return float(self._aspects(width - 0.5, width + 0.5, height - 0.5, height + 0.5).mean())

    def _aspects(self, w0: float, w1: float, h0: float, h1: float) -> np.ndarray:
        """Return the probability that both sides, before rounding, lie within, for each s."""
        area = self.share * self.area
        first = np.maximum(np.log(w0 * w0 / area), np.log(area / (h1 * h1)))
        last = np.minimum(np.log(w1 * w1 / area), np.log(area / (h0 * h0)))
        length = np.minimum(last, self.high) - np.maximum(first, self.low)
        return np.maximum(length, 0) / (self.high - self.low)


@pytest.mark.parametrize(
    ("size", "fallback"), [((500, 375), (500, 375)), ((600, 400), (533, 400))], ids=["4:3", "3:2"]
)
def test_crops_of_photos_are_accepted_as_often_as_the_law_says(size, fallback):
    """The fallback is what is left of ten tries, so its rate shows that of acceptance."""
    law = CropLaw(*size)
    crop = plan_of([CROP], num=NUM, size=size).crop
    failed = (1 - law.accepted) ** 10
    by_chance = law.box_rate(*fallback) / law.accepted * (1 - failed)
    assert_rate((crop[:, 2:] == fallback).all(axis=1), failed + by_chance)


@pytest.mark.parametrize(
    ("size", "known"), [((500, 375), 0.433), ((600, 400), 0.389)], ids=["4:3", "3:2"]
)
def test_crops_of_photos_take_the_mean_share_of_the_law(size, known):
    law = CropLaw(*size)
    crop = plan_of([CROP], num=NUM, size=size).crop
    share = crop[:, 2] * crop[:, 3] / (size[0] * size[1])
    failed = (1 - law.accepted) ** 10
    assert failed < 1e-4
    assert law.mean_share == pytest.approx(known, abs=0.001)
    assert_mean(share, law.mean_share, law.variance, 0.92)
    with pytest.raises(AssertionError):
        # TensorFlow's law, uniform in height.
        assert_mean(share - 0.062, law.mean_share, law.variance, 0.92)


def test_scale_jitter_draws_every_side_and_both_ends():
    plan = plan_of([{"op": "scale_jitter"}], num=NUM, size=(375, 375))
    short = plan.scaled[:, 0]
    counts = np.bincount(short - 256, minlength=225)
    assert len(counts) == 225
    assert_counts(counts)
    for end in (256, 480):
        assert_rate(short == end, 1 / 225)
    with pytest.raises(AssertionError):
        # torchvision's RandomResize, which never draws the upper end.
        assert_rate(np.minimum(short, 479) == 480, 1 / 225)
    room = short - 224 + 1
    assert_uniform((plan.window[:, 0] + np.random.default_rng(0).random(NUM)) / room)
    assert (plan.window[:, 0] == 0).any()
    assert (plan.window[:, 1] == room - 1).any()
    assert_independent(plan.window[:, 0] / room, plan.window[:, 1] / room)
    assert_independent(plan.window[:, 0] / room, short)


@pytest.mark.parametrize("pad", [0, 4])
def test_random_crop_is_even_over_all_places_and_reaches_both_ends(pad):
    ops = [{"op": "random_crop", "size": 32, "pad": pad}]
    plan = plan_of(ops, num=NUM, size=(37, 40))
    offset = plan.crop[:, :2] if plan.matrix is None else plan.matrix[:, :, 2]
    places = 6 + 2 * pad, 9 + 2 * pad
    counts = np.zeros(places)
    np.add.at(counts, tuple((offset + pad).astype(int).T), 1)
    assert_counts(counts)
    assert (counts > 0).all()


def test_min_area_draws_the_area_uniformly():
    crop = plan_of([{"op": "random_crop", "size": 9, "min_area": 0.3}], num=NUM, size=(5000, 4000))
    share = crop.crop[:, 2] * crop.crop[:, 3] / 20e6
    assert_uniform(share, 0.3, 1)
    with pytest.raises(AssertionError):
        assert_uniform(np.sqrt(share), math.sqrt(0.3), 1)


def linear_of(op, **more) -> np.ndarray:
    """Return the 2x2 parts of an op in the output's frame, (n, 2, 2)."""
    plan = plan_of([SIZE, op], num=NUM, size=(100, 100), **more)
    assert plan.bent.all()
    return plan.matrix[:, :, :2]


@pytest.mark.parametrize("op", [{"factor": 0.1}, {"degrees": 36}])
def test_rotate_is_uniform_over_36_degrees_to_either_side_for_a_tenth(op):
    linear = linear_of({"op": "rotate", **op})
    angle = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert_uniform(angle, -36, 36)
    np.testing.assert_allclose(np.linalg.det(linear), 1, atol=1e-12)
    np.testing.assert_allclose(linear[:, 0, 0], linear[:, 1, 1])
    with pytest.raises(AssertionError):
        assert_uniform(angle, -38, 38)
    with pytest.raises(AssertionError):
        assert_uniform(angle / 2, -36, 36)  # a factor of half turns


def test_zoom_is_uniform_and_above_one_is_out():
    plan = plan_of([SIZE, {"op": "zoom", "height": 0.2, "width": 0.3}], num=NUM, size=(100, 100))
    x, y = plan.matrix[:, 0, 0], plan.matrix[:, 1, 1]
    assert_uniform(y, 0.8, 1.2)
    assert_uniform(x, 0.7, 1.3)
    assert_independent(x, y)
    # Out: the output's corner shows what lies outside the image, which is filled.
    corner = plan.matrix[:, 0, 2]
    np.testing.assert_allclose(corner, 50 - 50 * x, atol=1e-9)
    assert ((corner < 0) == (x > 1)).all()
    linear = linear_of({"op": "zoom", "height": 0.2})
    np.testing.assert_array_equal(linear[:, 0, 0], linear[:, 1, 1])


def test_shear_draws_the_entries_of_the_forward_matrix():
    forward = np.linalg.inv(linear_of({"op": "shear", "x": 0.3, "y": 0.2}))
    np.testing.assert_allclose(forward[:, [0, 1], [0, 1]], 1)
    assert_uniform(forward[:, 0, 1], -0.3, 0.3)
    assert_uniform(forward[:, 1, 0], -0.2, 0.2)
    assert_independent(forward[:, 0, 1], forward[:, 1, 0])


def test_stretch_is_uniform_in_the_logarithm():
    linear = linear_of({"op": "stretch", "x": 0.3, "y": 1.0})
    x, y = np.log(linear[:, 0, 0]), np.log(linear[:, 1, 1])
    assert_uniform(x, -math.log(1.3), math.log(1.3))
    assert_uniform(y, -math.log(2), math.log(2))
    assert_independent(x, y)
    with pytest.raises(AssertionError):
        assert_uniform(linear[:, 1, 1], 0.5, 2)


def test_translate_is_uniform_and_not_rounded():
    moved = plan_of([SIZE, {"op": "translate", "x": 0.3, "y": 0.1}], num=NUM, size=(100, 100))
    x, y = moved.matrix[:, :, 2].T
    assert_uniform(x, -30, 30)
    assert_uniform(y, -10, 10)
    assert_independent(x, y)
    assert len(np.unique(x)) > NUM - 10


def test_lens_and_local_warp_draw_uniformly():
    ops = [{"op": "lens", "k": [-0.1, 0.3]}, {"op": "local_warp", "alpha": 3, "sigma": 4, "p": 0.5}]
    plan = plan_of(ops, num=NUM)
    assert_uniform(plan.lens, -0.1, 0.3)
    assert_uniform(plan.warp_key.astype(np.float64), 0, 2.0**64)
    assert_uniform((plan.warp_key & np.uint64(2**32 - 1)).astype(np.float64), 0, 2.0**32)
    assert len(np.unique(plan.warp_key)) == NUM
    assert_rate(plan.warp_on, 0.5)


BENDING = [
    {"op": "rotate", "factor": 0.1},
    {"op": "zoom", "height": 0.2},
    {"op": "shear", "x": 0.2},
    {"op": "stretch", "x": 0.2},
    {"op": "translate", "x": 0.2},
    {"op": "lens"},
    {"op": "local_warp", "alpha": 3, "sigma": 4},
]


@pytest.mark.parametrize("op", BENDING, ids=lambda op: op["op"])
@pytest.mark.parametrize("p", [0.2, 0.9])
def test_rows_are_bent_at_the_rate_of_p(op, p):
    assert_rate(plan_of([SIZE, {**op, "p": p}], num=NUM).bent, p)


def test_ops_draw_apart_from_each_other_and_from_the_mirror():
    """Each op's first parameter, whatever its place, is independent of every other's."""
    ops = [CROP, {"op": "mirror"}, *BENDING]
    drawn = {}
    for place in range(2, len(ops)):
        still = [{"op": "mirror", "p": 0}] * len(ops)
        still[0], still[place] = SIZE, ops[place]
        plan = plan_of(still, num=NUM, size=(100, 100))
        name = ops[place]["op"]
        if name in ("rotate", "shear"):
            drawn[name] = plan.matrix[:, 0, 1]
        elif name in ("zoom", "stretch"):
            drawn[name] = plan.matrix[:, 0, 0]
        elif name == "translate":
            drawn[name] = plan.matrix[:, 0, 2]
        else:
            drawn[name] = plan.lens if name == "lens" else plan.warp_key.astype(float)
    crop = plan_of([CROP], num=NUM, size=(100, 100)).crop
    drawn["crop"] = crop[:, 0] + np.random.default_rng(0).random(NUM)
    mirror = plan_of(ops[:2], num=NUM, size=(100, 100)).mirror
    names = list(drawn)
    for number, name in enumerate(names):
        assert_rate(mirror[drawn[name] > np.median(drawn[name])], 0.5)
        for other in names[:number]:
            assert_independent(drawn[name], drawn[other])


def test_erase_draws_area_and_aspect_uniformly_at_a_uniform_place():
    crop = {"op": "random_resized_crop", "size": 4000}
    erase = {"op": "erase", "area": [0.02, 0.3], "ratio": [0.5, 2]}
    x, y, width, height = plan_of([crop, erase], num=NUM).erase[:, 0].T.astype(float)
    area, aspect = width * height / 16e6, np.log(width / height)
    assert_uniform(area, 0.02, 0.3)
    assert_uniform(aspect, -math.log(2), math.log(2))
    assert_independent(area, aspect)
    jitter = np.random.default_rng(0).random((2, NUM))
    assert_uniform((x + jitter[0]) / (4000 - width + 1))
    assert_uniform((y + jitter[1]) / (4000 - height + 1))
    assert_independent(x / (4000 - width), y / (4000 - height))


def test_erase_follows_p_and_stays_in_the_output():
    plan = plan_of([CROP, {"op": "erase", "p": 0.3, "ratio": [0.2, 5]}], num=NUM)
    x, y, width, height = plan.erase[:, 0].T
    assert_rate(width > 0, 0.3)
    assert (plan.erase[width == 0] == 0).all()
    assert (x + width).max() <= 224
    assert (y + height).max() <= 224
    assert set(x[width > 0]) >= {0, 1}


def test_views_are_independent_and_of_the_same_law():
    plan = plan_of([CROP, {"op": "mirror"}], num=NUM, size=(1024, 1024), views=3)
    area = (plan.crop[:, 2] * plan.crop[:, 3]).reshape(NUM, 3)
    mirror = plan.mirror.reshape(NUM, 3)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert_independent(area[:, a], area[:, b])
        assert_counts(np.bincount(2 * mirror[:, a] + mirror[:, b], minlength=4))
    assert_rate(plan.mirror, 0.5)


def test_another_epoch_another_seed_and_another_sample_draw_anew():
    ops = [CROP, {"op": "rotate", "factor": 0.1}, {"op": "pca"}]
    here = plan_of(ops, num=NUM, size=(1024, 1024))
    for other in (
        plan_of(ops, num=NUM, size=(1024, 1024), epoch=1),
        plan_of(ops, num=NUM, size=(1024, 1024), seed=2),
    ):
        assert_independent(here.crop[:, 2], other.crop[:, 2])
        assert_independent(here.matrix[:, 0, 1], other.matrix[:, 0, 1])
        assert_independent(here.colour[:, 0, 3], other.colour[:, 0, 3])
    assert_independent(here.crop[:-1, 2], here.crop[1:, 2])


# Everything at once, for what follows.
EVERYTHING = [
    CROP,
    {"op": "mirror"},
    *({**op, "p": 0.7} for op in BENDING),
    {"op": "pca"},
    {"op": "rgb_shift"},
    {"op": "contrast"},
    {"op": "saturation"},
    {"op": "hue", "h": 0.1, "p": 0.5},
    {"op": "grayscale", "p": 0.2},
    {"op": "erase", "p": 0.5},
]
USUAL = {"imagenet", "alexnet", "vgg", "resnet", "inception", "cifar", "keras-small", "eval"}
USUAL |= {"ten-crop", "torchvision-v2", "deit", "deit3", "simclr", "cifar-aa"}
RECIPES = [
    *({"ops": EVERYTHING, "shuffle_colour": s, "views": v} for s, v in ((False, 1), (True, 3))),
    *(PRESETS[name] for name in sorted(PRESETS) if name in USUAL),
    {"ops": [{"op": "multi_scale", "short": [100, 200], "crop": 90}]},
    {"ops": [{"op": "random_crop", "size": 200, "pad": 3}, {"op": "rotate", "degrees": 9}]},
    {"ops": [{"op": "rotate", "degrees": 90}, CROP], "fill": "wrap"},
    {"ops": [CROP, {"op": "rotate", "degrees": 9, "p": 0.5}], "scaled_decode": "auto", "views": 2},
]
SIDES = st.integers(1, 3000)
ROWS = st.lists(
    st.tuples(st.integers(0, 2**48), st.integers(0, 2**32 - 1), SIDES, SIDES),
    min_size=1,
    max_size=12,
)


def plan_rows(planner: Planner, rows: list[tuple[int, int, int, int]]) -> Plan:
    ids, epochs, widths, heights = np.array(rows, np.int64).reshape(-1, 4).T
    return planner.plan(ids, epochs, widths.astype(np.int32), heights.astype(np.int32))


def arrays_in(value: object) -> list[np.ndarray]:
    """The arrays of a plan's field: itself, or those of a program or a fill."""
    if not is_dataclass(value):
        return [value]
    return [getattr(value, field.name) for field in fields(value)]


@examples(80)
@given(plain=st.sampled_from(RECIPES), rows=ROWS, cut=st.integers(0, 12), seed=st.integers(0, 9))
def test_a_sample_is_planned_alike_in_any_batch(plain, rows, cut, seed):
    recipe = parse_recipe(plain)
    planner = Planner(recipe, seed, output_size(recipe, None))
    whole = plan_rows(planner, rows)
    parts = [plan_rows(planner, part) for part in (rows[:cut], rows[cut:])]
    for field in fields(Plan):
        value = getattr(whole, field.name)
        pieces = [getattr(part, field.name) for part in parts]
        if field.name == "impossible":
            first = len(rows[:cut])
            moved = {first + sample: reason for sample, reason in pieces[1].items()}
            assert value == {**pieces[0], **moved}
        elif field.name == "warp" or value is None:
            assert pieces == [value, value]
        else:
            for array, *of_parts in zip(*map(arrays_in, [value, *pieces]), strict=True):
                assert len(array) == len(rows) * planner.num_views
                np.testing.assert_array_equal(array, np.concatenate(of_parts))
