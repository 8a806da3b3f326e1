"""The laws of colour: what each op draws against its exact distribution, in float.

PCA's own laws stand in `test_planner_laws`. Every check is wrong but once in a million times,
with fixed seeds; beside most stands a known wrong law that it must tell.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from augd.plan.colour_matrix import GREY_WEIGHTS
from augd.plan.geometry.frame import Frame
from augd.plan.random.philox import Purpose, mix, philox_words, stream_counter
from augd.plan.recipe.recipe import parse_recipe
from augd.plan.samplers.colour import ColorJitterSampler, ColourOrderSampler
from tests.support.laws import assert_counts, assert_independent, assert_rate, assert_uniform
from tests.support.plans import plan_of

NUM = 20_000
SIZE = {"op": "resize", "size": 8}
G = np.array(GREY_WEIGHTS)


def colour_of(*ops, **fields) -> np.ndarray:
    return plan_of([SIZE, *ops], num=NUM, **fields).colour


def test_rgb_shift_draws_each_channel_apart():
    shift = colour_of({"op": "rgb_shift"})[:, :, 3]
    for channel in shift.T:
        assert_uniform(channel, -20, 20)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert_independent(shift[:, a], shift[:, b])
    with pytest.raises(AssertionError):
        assert_independent(shift[:, 0], shift[:, 0])  # legacy Keras: one number for all
    # The notes' purple cast: R and B up, G down, is as likely as any other of the eight.
    up = shift > 0
    assert_rate(up[:, 0] & ~up[:, 1] & up[:, 2], 1 / 8)


@pytest.mark.parametrize("v", [0.4, 1.0])
def test_brightness_multiplies_by_one_minus_v_to_one_plus_v(v):
    colour = colour_of({"op": "brightness", "v": v})
    assert_uniform(colour[:, 0, 0], 1 - v, 1 + v)
    np.testing.assert_array_equal(colour[:, :, :3], np.eye(3) * colour[:, :1, :1])
    assert not colour[:, :, 3].any()


@pytest.mark.parametrize("v", [0.4, 1.0])
def test_contrast_takes_from_one_minus_v_to_one_plus_v_about_the_mean_grey(v):
    plan = plan_of([SIZE, {"op": "contrast", "v": v}], num=NUM)
    factor = plan.colour[:, 0, 0]
    assert_uniform(factor, 1 - v, 1 + v)
    np.testing.assert_array_equal(plan.colour[:, :, :3], np.eye(3) * factor[:, None, None])
    pivot = (1 - factor)[:, None, None] * np.tile(G, (3, 1))
    np.testing.assert_allclose(plan.pivot, pivot, atol=1e-12)


@pytest.mark.parametrize("v", [0.4, 1.0])
def test_saturation_takes_from_one_minus_v_to_one_plus_v_of_the_colour(v):
    colour = colour_of({"op": "saturation", "v": v})
    factor = 1 - colour[:, 0, 1] / G[1]
    assert_uniform(factor, 1 - v, 1 + v)
    expected = factor[:, None, None] * np.eye(3) + (1 - factor)[:, None, None] * np.tile(G, (3, 1))
    np.testing.assert_allclose(colour[:, :, :3], expected, atol=1e-12)


@pytest.mark.parametrize("h", [0.1, 0.5])
def test_hue_turns_uniformly_to_both_sides(h):
    colour = colour_of({"op": "hue", "h": h})
    chroma = np.array([[0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
    pure = np.linalg.inv(np.vstack([G, chroma])) @ np.array([0, 1, 0])
    i, q = chroma @ (colour[:, :, :3] @ pure).T
    assert_uniform(np.arctan2(q, i) / (2 * np.pi), -h, h)
    np.testing.assert_allclose(np.hypot(i, q), 1)


COLOURS = [
    {"op": "brightness"},
    {"op": "contrast"},
    {"op": "saturation"},
    {"op": "hue", "h": 0.1},
    {"op": "grayscale"},
    {"op": "rgb_shift"},
    {"op": "pca"},
]


@pytest.mark.parametrize("op", COLOURS, ids=lambda op: op["op"])
@pytest.mark.parametrize("p", [0.2, 0.9])
def test_colour_ops_follow_p(op, p):
    colour = colour_of({**op, "p": p})
    assert_rate((colour != np.eye(3, 4)).any(axis=(1, 2)), p)


def test_colour_ops_draw_apart():
    places = {
        "brightness": lambda plan: plan.colour[:, 0, 0],
        "contrast": lambda plan: plan.colour[:, 0, 0],
        "saturation": lambda plan: plan.colour[:, 0, 1],
        "hue": lambda plan: plan.colour[:, 0, 1],
        "rgb_shift": lambda plan: plan.colour[:, 0, 3],
        "pca": lambda plan: plan.colour[:, 0, 3],
    }
    drawn = []
    for place, op in enumerate(op for op in COLOURS if op["op"] in places):
        still = [{"op": "mirror", "p": 0}] * place
        drawn.append(places[op["op"]](plan_of([SIZE, *still, op], num=NUM)))
    for number, values in enumerate(drawn):
        for other in drawn[:number]:
            assert_independent(values, other)


def test_shuffled_orders_are_uniform():
    """Three ops that do not commute: which of the six orders, read from one row at a time."""
    ops = [{"op": "rgb_shift", "max": 40}, {"op": "brightness", "v": 0.9}, {"op": "grayscale"}]
    still = {"op": "mirror", "p": 0}
    shift = plan_of([SIZE, ops[0]], num=NUM).colour[:, :, 3]
    factor = plan_of([SIZE, still, ops[1]], num=NUM).colour[:, 0, 0]
    found = plan_of([SIZE, *ops], num=NUM, shuffle_colour=True).colour[:, :, 3]
    counts = []
    for order in permutations(range(3)):
        added = np.zeros((NUM, 3))
        for number in order:
            if number == 0:
                added = added + shift
            elif number == 1:
                added = added * factor[:, None]
            else:
                added = np.repeat(added @ G[:, None], 3, axis=1)
        counts.append(np.isclose(added, found, atol=1e-9).all(axis=1))
    # Brightness and grayscale commute: the orders fall into four cases, told apart by whether
    # the shift comes before each of them: (neither, brightness, grayscale, both).
    cases = dict(zip(permutations(range(3)), counts, strict=True))
    both, neither = cases[0, 1, 2], cases[1, 2, 0]
    assert_rate(both, 1 / 3)
    assert_rate(neither, 1 / 3)
    assert_rate(cases[1, 0, 2], 1 / 6)
    assert_rate(cases[2, 0, 1], 1 / 6)
    assert (both | neither | cases[1, 0, 2] | cases[2, 0, 1]).all()


@pytest.mark.parametrize("num_ops", [2, 3, 4, 5])
def test_every_permutation_of_the_colour_ops_is_as_likely_as_any(num_ops):
    sampler = ColourOrderSampler(num_ops)
    ids = np.arange(NUM, dtype=np.uint64)
    blocks = [
        philox_words(mix(1, Purpose.PARAMS), ids, 0, stream_counter(255, 0, draw)).view(np.int64)
        for draw in range(sampler.num_blocks)
    ]
    words = np.stack(blocks, axis=1)
    frame = Frame(np.ones((2, NUM)), np.ones((2, 1)))
    sampler.sample(frame, words[[2, 0]], words[[3, 1]])
    order = frame.colour_order
    assert order is not None
    assert (np.sort(order, axis=0) == np.arange(num_ops)[:, None]).all()
    code = sum(order[place] * num_ops**place for place in range(num_ops))
    _, counts = np.unique(code, return_counts=True)
    assert len(counts) == len(list(permutations(range(num_ops))))
    assert_counts(counts)


def test_the_order_is_independent_of_what_the_ops_draw():
    ops = [{"op": "rgb_shift", "max": 40}, {"op": "grayscale"}]
    plain = plan_of([SIZE, ops[0]], num=NUM).colour[:, :, 3]
    shuffled = colour_of(*ops, shuffle_colour=True)[:, :, 3]
    is_last = np.isclose(plain, shuffled, atol=1e-9).all(axis=1)
    assert_rate(is_last, 0.5)
    assert_rate(is_last[plain[:, 0] > 0], 0.5)


JITTER = {"op": "color_jitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}


def numbers_of(op: dict[str, Any], num: int = 100_000) -> tuple[np.ndarray, np.ndarray]:
    """Draw what the jitter's sampler draws: factors and turns (4, num), and the order (4, num)."""
    recipe = parse_recipe({"ops": [op]})
    key = mix(3, Purpose.PARAMS)
    ids = np.arange(num, dtype=np.uint64)
    blocks = [philox_words(key, ids, 0, stream_counter(0, 0, draw)) for draw in range(3)]
    words = np.stack(blocks, axis=1).astype(np.int64)
    return ColorJitterSampler(recipe.ops[0]).draw(words[[2, 0]], words[[3, 1]])


def test_the_jitter_draws_each_factor_by_its_strength_and_apart():
    op = {**JITTER, "contrast": 1.5, "saturation": [0.5, 3.0]}
    (brightness, contrast, saturation, turns), order = numbers_of(op)
    assert_uniform(brightness, 0.6, 1.4)
    assert_uniform(contrast, 0.0, 2.5)
    assert_uniform(saturation, 0.5, 3.0)
    assert_uniform(turns, -0.1, 0.1)
    for a, b in ((brightness, contrast), (contrast, saturation), (saturation, turns)):
        assert_independent(a, b)
    assert_independent(turns, order[0], parts=4)
    places = [(one == order.T).all(axis=1).sum() for one in permutations(range(4))]
    assert sum(places) == order.shape[1]
    assert_counts(np.array(places))


def test_the_jitter_has_one_coin_and_leaves_the_bits_of_rows_without_it():
    plain = colour_of({"op": "mirror"}, {"op": "pca"})
    plan = plan_of([SIZE, {**JITTER, "p": 0.8}, {"op": "pca"}], num=NUM)
    jittered = (plan.colour != plain).any(axis=(1, 2))
    assert_rate(jittered, 0.8)
    assert plan.colour[~jittered].tobytes() == plain[~jittered].tobytes()
    assert not plan.pivot[~jittered].any()


def test_the_jitter_is_its_four_ops_in_its_order():
    op = {**JITTER, "p": 1.0}
    plan = plan_of([op], num=200, seed=3, size=(8, 8))
    numbers, order = numbers_of(op, num=200)
    chroma = np.array([[0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
    yiq = np.vstack([G, chroma])
    rng = np.random.default_rng(1)
    for row in range(200):
        pixels = rng.uniform(0, 255, (50, 3))
        before = pixels
        for number in order[:, row]:
            factor = numbers[number, row]
            if number == 0:
                pixels = pixels * factor
            elif number == 1:
                pixels = factor * pixels + (1 - factor) * (pixels @ G).mean()
            elif number == 2:
                pixels = factor * pixels + (1 - factor) * (pixels @ G)[:, None]
            else:
                cos, sin = np.cos(2 * np.pi * factor), np.sin(2 * np.pi * factor)
                turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
                pixels = pixels @ (np.linalg.inv(yiq) @ turn @ yiq).T
        made = before @ plan.colour[row, :, :3].T + plan.colour[row, :, 3]
        made = made + plan.pivot[row] @ before.mean(axis=0)
        np.testing.assert_allclose(made, pixels, atol=1e-9)
