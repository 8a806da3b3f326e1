"""The laws of aug_mix: weights, depths, ops and levels over 10**5 rows, with fixed seeds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from augd.plan.geometry.frame import Frame
from augd.plan.ops import policy_tables as tables
from augd.plan.ops.policy_tables import PolicyOp
from augd.plan.plan import MIX_UNIT
from augd.plan.random.gamma_law import WORDS, GammaLaw, shares
from augd.plan.random.philox import Purpose, mix, philox_words, stream_counter
from augd.plan.recipe.recipe import parse_recipe
from augd.plan.samplers.all_samplers import sampler_of
from augd.plan.samplers.policy_layer import DrawnLayer
from tests.support.laws import (
    assert_counts,
    assert_independent,
    assert_mean,
    assert_rate,
    assert_uniform,
)

NUM = 100_000
SIDES = np.array([[224.0], [160.0]])


@cache
def draw(**parameters) -> tuple[list[list[DrawnLayer]], np.ndarray]:
    """Return what aug_mix draws for samples 0..NUM-1: chains, and weights as shares."""
    (struct,) = parse_recipe({"ops": [{"op": "aug_mix", **parameters}]}).ops
    sampler = sampler_of(struct)
    ids = np.arange(NUM, dtype=np.uint64)
    words = np.stack(
        [
            philox_words(mix(5, Purpose.PARAMS), ids, 0, stream_counter(1, 0, block))
            for block in range(sampler.num_blocks)
        ],
        axis=1,
    ).astype(np.int64)
    even, odd = words[[2, 0]], words[[3, 1]]
    chains = sampler.draw(Frame(np.repeat(SIDES, NUM, axis=1), SIDES), even, odd)
    return chains, sampler.draw_weights(even, odd) / MIX_UNIT


def test_weights_are_beta_and_dirichlet():
    _, weights = draw()
    assert weights.shape == (NUM, 4)
    assert (weights >= 0).all()
    np.testing.assert_array_equal(weights.sum(axis=1), 1.0)
    # Beta(1, 1) is uniform; Dirichlet(1, 1, 1) has margins Beta(1, 2), whose law is 1 - (1 - w)^2.
    assert_uniform(weights[:, 0])
    is_mixed = weights[:, 0] < 0.9  # so that what rounding to 2**-16 takes is little
    parts = weights[is_mixed, 1:] / weights[is_mixed, 1:].sum(axis=1, keepdims=True)
    for part in parts.T:
        assert_uniform(1 - (1 - part) ** 2)
        assert_independent(part, weights[is_mixed, 0])
    with pytest.raises(AssertionError):
        assert_uniform(parts[:, 0])
    assert_independent(parts[:, 0] / (parts[:, 0] + parts[:, 1]), parts[:, 2])


def test_weights_follow_alpha():
    _, weights = draw(alpha=0.5, width=1)
    # Beta(1/2, 1/2) is the arcsine law; the last bits of both ends are lost in 2**-16.
    inner = (weights[:, 0] > 0.001) & (weights[:, 0] < 0.999)
    low, high = (2 / np.pi * np.arcsin(np.sqrt(edge)) for edge in (0.001, 0.999))
    assert_rate(inner, high - low)
    assert_uniform(2 / np.pi * np.arcsin(np.sqrt(weights[inner, 0])), low, high)


@pytest.mark.parametrize("shape", [0.1, 0.5, 1.0, 2.0, 7.5, 100.0])
def test_gamma_numbers_have_their_mean_and_variance(shape):
    ids = np.arange(NUM, dtype=np.uint64)
    blocks = [philox_words(7, ids, 0, block) for block in range(3)]
    words = np.concatenate(blocks).astype(np.int64)[:WORDS]
    numbers = GammaLaw(shape)(words)
    assert (numbers > 0).all()
    # Clipped where fewer than one in 10**9 lie, so that Bernstein's bound is finite.
    span = 25 * max(1.0, shape)
    assert (np.abs(numbers - shape) < span).all()
    assert_mean(numbers, shape, shape, span)
    assert_mean((numbers - shape) ** 2, shape, 2 * shape**2 + 6 * shape, span**2)


def test_exponential_numbers_are_exponential():
    ids = np.arange(NUM, dtype=np.uint64)
    words = np.concatenate([philox_words(8, ids, 0, block) for block in range(3)]).astype(np.int64)
    assert_uniform(np.exp(-GammaLaw(1.0)(words[:WORDS])))


def test_shares_of_two_are_one():
    numbers = np.array([[1e-290, 3.0], [1e-290, 1.0]])
    np.testing.assert_array_equal(shares(numbers), [[0.5, 0.75], [0.5, 0.25]])


def test_chains_have_one_to_three_ops_of_thirteen():
    chains, _ = draw()
    assert len(chains) == 3
    depths = []
    for layers in chains:
        assert len(layers) == 3
        is_there = np.stack([layer.op != PolicyOp.IDENTITY for layer in layers])
        depth = is_there.sum(axis=0)
        assert_counts(np.bincount(depth, minlength=4)[1:])
        assert (is_there == (np.arange(3)[:, None] < depth)).all()
        depths.append(depth)
        for layer in layers:
            there = layer.op != PolicyOp.IDENTITY
            counts = np.bincount(layer.op[there], minlength=18)
            assert_counts(counts[[rule.op for rule in tables.AUG_MIX_ALL]])
            assert_counts(np.bincount(layer.level.astype(int), minlength=3))
            turned = layer.number[(layer.op == PolicyOp.ROTATE) & (layer.level > 0)]
            assert_rate(turned > 0, 0.5)
    assert_independent(depths[0], depths[1], parts=3)
    assert_independent(chains[0][0].op, chains[1][0].op, parts=5)


def test_chains_of_the_paper_have_its_nine_ops():
    chains, _ = draw(all_ops=False, depth=2, width=1, severity=10)
    ((first, second),) = chains
    for layer in (first, second):
        counts = np.bincount(layer.op, minlength=18)
        assert_counts(counts[[rule.op for rule in tables.AUG_MIX_PAPER]])
        assert_counts(np.bincount(layer.level.astype(int), minlength=10))
        bits = layer.number[layer.op == PolicyOp.POSTERIZE]
        assert set(bits) == {1.0, 2.0, 3.0, 4.0}


def test_aug_mix_follows_p():
    _, weights = draw(p=0.3)
    assert_rate(weights[:, 0] < 1.0, 0.3)
    _, always = draw()
    assert_independent(weights[:, 0] < 1.0, always[:, 0])
