"""The laws of colour: what each op draws against its exact distribution, in float.

PCA's own laws stand in `test_planner_laws`. Every check is wrong but once in a million times,
with fixed seeds; beside most stands a known wrong law that it must tell.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from augd.plan.colour_matrix import GREY_WEIGHTS
from augd.plan.geometry.frame import Frame
from augd.plan.random.philox import Purpose, mix, philox_words, stream_counter
from augd.plan.samplers.colour import ColourOrderSampler
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
