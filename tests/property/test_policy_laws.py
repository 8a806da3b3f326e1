"""The laws of the policies: how often each op, level and sign comes, over 10**5 rows.

Seeds are fixed. Numbers that are drawn from few values are compared as such; beside most laws
stands a known wrong one that the test must tell.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest

from augd.plan.geometry.frame import Frame
from augd.plan.ops import policy_tables as tables
from augd.plan.ops.auto_augment_lists import AUTO_POLICIES
from augd.plan.ops.policy_tables import PolicyOp
from augd.plan.random.philox import Purpose, mix, philox_words, stream_counter
from augd.plan.recipe.recipe import parse_recipe
from augd.plan.samplers.all_samplers import sampler_of
from augd.plan.samplers.policy_layer import DrawnLayer
from tests.support.laws import assert_counts, assert_independent, assert_rate, assert_uniform

NUM = 100_000
SIDES = np.array([[224.0], [160.0]])


def draw(op: dict, seed: int = 5) -> list[DrawnLayer]:
    """Return what a policy draws for samples 0..NUM-1."""
    (struct,) = parse_recipe({"ops": [op]}).ops
    sampler = sampler_of(struct)
    ids = np.arange(NUM, dtype=np.uint64)
    words = np.stack(
        [
            philox_words(mix(seed, Purpose.PARAMS), ids, 0, stream_counter(1, 0, block))
            for block in range(sampler.num_blocks)
        ],
        axis=1,
    ).astype(np.int64)
    frame = Frame(np.repeat(SIDES, NUM, axis=1), SIDES)
    return sampler.draw(frame, words[[2, 0]], words[[3, 1]])


def shares_of(values: np.ndarray, expected: list[float]) -> None:
    """Compare the counts of equal values with shares, the smallest value first."""
    found, counts = np.unique(values, return_counts=True)
    assert len(found) == len(expected), found
    assert_counts(counts, np.array(expected))


def test_torchvision_takes_each_of_fourteen_ops_and_either_sign_as_often():
    layers = draw({"op": "rand_augment"})
    assert len(layers) == 2
    for layer in layers:
        assert_counts(np.bincount(layer.op, minlength=16)[[r.op for r in tables.TORCHVISION]])
        turned = layer.number[layer.op == PolicyOp.ROTATE]
        assert set(np.unique(turned)) == {-9.0, 9.0}
        assert_rate(turned > 0, 0.5)
        bright = layer.number[layer.op == PolicyOp.BRIGHTNESS]
        np.testing.assert_allclose(np.unique(bright), [0.73, 1.27])
        assert_rate(bright > 1, 0.5)
        assert set(layer.number[layer.op == PolicyOp.POSTERIZE]) == {7.0}
    assert_independent(layers[0].op, layers[1].op, parts=5)
    with pytest.raises(AssertionError):
        assert_independent(layers[0].op, layers[0].op, parts=5)


def test_timm_applies_each_layer_by_p_with_normal_levels():
    for layer in draw({"op": "rand_augment", "spec": "rand-m9-mstd0.5-inc1"}):
        is_applied = layer.op != PolicyOp.IDENTITY
        assert_rate(is_applied, 0.5)
        with pytest.raises(AssertionError):
            assert_rate(is_applied, 0.51)
        counts = np.bincount(layer.op[is_applied], minlength=16)
        assert_counts(counts[[rule.op for rule in tables.TIMM_INCREASING]])
        # Levels above 10 are clipped to it: two standard deviations.
        is_clipped = layer.level == 10.0
        beyond = 0.5 * math.erfc(2 / math.sqrt(2))
        assert_rate(is_clipped, beyond)
        inner = (layer.level[~is_clipped] - 9.0) / 0.5
        below = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in inner.tolist()])
        assert_uniform(below, 0.0, 1.0 - beyond)
        bits = layer.number[layer.op == PolicyOp.POSTERIZE]
        # 4 - int(4 s): 2 bits below level 7.5, then 1; never 0, which level 10 asks for.
        assert set(bits) == {1.0, 2.0}
        assert bits[layer.level[layer.op == PolicyOp.POSTERIZE] == 10.0].min() == 1.0


def test_a_standard_deviation_above_100_is_uniform_from_0():
    for layer in draw({"op": "rand_augment", "style": "timm", "level": 8, "std": 101}):
        assert_uniform(layer.level, 0.0, 8.0)


def test_op_sign_level_and_application_are_drawn_apart():
    layer, other = draw({"op": "rand_augment", "style": "timm", "std": 101})
    is_applied = layer.op != PolicyOp.IDENTITY
    assert_independent(is_applied, layer.level)
    assert_independent(is_applied, other.op != PolicyOp.IDENTITY)
    assert_independent(layer.level, other.level)
    assert_independent(layer.op[is_applied], layer.level[is_applied])
    turned = layer.op == PolicyOp.ROTATE
    assert_independent(layer.number[turned] > 0, layer.level[turned], parts=5)


def number_of(op, is_zero):
    """Tell timm's Desaturate, which at level 10 leaves grey, from its Color."""
    return op + 18 * ((op == PolicyOp.COLOR) & is_zero)


@pytest.mark.parametrize(
    ("name", "rules_and_weights"),
    [("weights", tables.TIMM_WEIGHTS), ("3aw", tables.TIMM_3A_WEIGHTS)],
)
def test_weighted_ops_come_by_weight_without_replacement(name, rules_and_weights):
    rules, weights = rules_and_weights
    share = np.array(weights) / sum(weights)
    first, second = draw({"op": "rand_augment", "style": "timm", "choice": name, "p": 1})
    ops = [number_of(rule.op, rule.base == 0.5) for rule in rules]
    first_op, second_op = (number_of(one.op, one.number == 0.0) for one in (first, second))
    assert_counts(np.bincount(first_op, minlength=36)[ops], share)
    odds = share / (1 - share)
    again = share * (odds.sum() - odds)
    assert_counts(np.bincount(second_op, minlength=36)[ops], again)
    assert not (first_op == second_op).any()
    with pytest.raises(AssertionError):
        assert_counts(np.bincount(second_op, minlength=36)[ops], share)


def test_all_weighted_layers_together_take_every_op_once():
    layers = draw({"op": "rand_augment", "style": "timm", "choice": "3aw", "layers": 14, "p": 1})
    taken = np.sort(np.stack([layer.op for layer in layers]), axis=0)
    assert (taken == np.sort([rule.op for rule in tables.TIMM_3A_WEIGHTS[0]])[:, None]).all()


def test_tf_is_not_clipped_and_cuts_out_anywhere():
    layer, _ = draw({"op": "rand_augment", "style": "tf", "level": 15})
    assert_counts(np.bincount(layer.op, minlength=18)[[rule.op for rule in tables.TF]])
    assert (layer.op != PolicyOp.IDENTITY).all()
    assert set(np.abs(layer.number[layer.op == PolicyOp.ROTATE])) == {45.0}
    assert set(layer.number[layer.op == PolicyOp.SOLARIZE_ADD]) == {165.0}
    is_cut = layer.op == PolicyOp.CUTOUT
    assert set(layer.number[is_cut]) == {60.0}
    x, y = layer.centre[:, is_cut]
    assert_counts(np.bincount(x.astype(int), minlength=224))
    assert_counts(np.bincount(y.astype(int), minlength=160))
    assert_independent(x, y)


def test_trivial_augment_takes_every_op_at_every_bin():
    (layer,) = draw({"op": "trivial_augment"})
    table = np.zeros((16, 31))
    np.add.at(table, (layer.op, layer.level.astype(int)), 1)
    assert_counts(table[[rule.op for rule in tables.TRIVIAL_WIDE]])
    bits = layer.number[layer.op == PolicyOp.POSTERIZE]
    shares_of(bits, [share / 31 for share in (3, 5, 5, 5, 5, 5, 3)])
    assert bits.min() == 2
    assert bits.max() == 8
    sheared = layer.op == PolicyOp.SHEAR_X
    is_moved = sheared & (layer.level > 0)
    assert_rate(layer.number[is_moved] > 0, 0.5)
    assert_independent(layer.number[is_moved] > 0, layer.level[is_moved], parts=5)


@pytest.mark.parametrize("name", AUTO_POLICIES)
def test_auto_augment_applies_its_pairs_by_their_probabilities(name):
    first, second = draw({"op": "auto_augment", "policy": name})
    expected: Counter[tuple[int, int]] = Counter()
    for pair in AUTO_POLICIES[name]:
        for is_first, is_second in product((True, False), repeat=2):
            chance = 1 / 25
            for one, is_applied in zip(pair, (is_first, is_second), strict=True):
                chance *= one.tenths / 10 if is_applied else 1 - one.tenths / 10
            key = pair[0].op * is_first, pair[1].op * is_second
            expected[key] += chance
    found = Counter(zip(first.op.tolist(), second.op.tolist(), strict=True))
    possible = [key for key, share in expected.items() if share > 0]
    assert set(found) <= set(possible)
    assert_counts(
        np.array([found[key] for key in possible]),
        np.array([expected[key] for key in possible]),
    )
    for layer in (first, second):
        turned = layer.number[layer.op == PolicyOp.ROTATE]
        if len(turned):
            assert_rate(turned > 0, 0.5)


def test_auto_augment_has_levels_of_its_pairs():
    first, _ = draw({"op": "auto_augment"})
    # Posterize .4 8; .6 7; .8 5: 8 - round(4 k / 9) bits.
    bits = first.number[first.op == PolicyOp.POSTERIZE]
    assert set(bits) == {4.0, 5.0, 6.0}
    shares_of(bits, [0.4 / 1.8, 0.6 / 1.8, 0.8 / 1.8])


def test_three_augment_takes_each_third_with_uniform_sigma():
    (layer,) = draw({"op": "three_augment"})
    ops = [PolicyOp.COLOR, PolicyOp.SOLARIZE, PolicyOp.BLUR]
    assert_counts(np.bincount(layer.op, minlength=18)[ops])
    assert set(layer.number[layer.op == PolicyOp.COLOR]) == {0.0}
    assert set(layer.number[layer.op == PolicyOp.SOLARIZE]) == {128.0}
    assert_uniform(layer.number[layer.op == PolicyOp.BLUR], 0.1, 2.0)


@pytest.mark.parametrize(
    "op",
    [
        {"op": "trivial_augment", "p": 0.3},
        {"op": "three_augment", "p": 0.3},
        {"op": "rand_augment", "p": 0.3, "style": "timm"},
    ],
    ids=lambda op: op["op"],
)
def test_a_policy_follows_p(op):
    layer = draw(op)[0]
    lazy = 1 / 14 if op["op"] == "trivial_augment" else 0.0
    assert_rate(layer.op != PolicyOp.IDENTITY, 0.3 * (1 - lazy))


def test_auto_augment_follows_p():
    always = draw({"op": "auto_augment"})
    layers = draw({"op": "auto_augment", "p": 0.3})
    is_any = (layers[0].op != 0) | (layers[1].op != 0)
    would = (always[0].op != 0) | (always[1].op != 0)
    assert_rate(is_any[would], 0.3)
    assert not is_any[~would].any()


@pytest.mark.parametrize("style", ["torchvision", "timm", "tf"])
@pytest.mark.parametrize("increasing", [False, True])
def test_posterize_keeps_a_bit_at_every_level(style, increasing):
    for level in range(31 if style == "torchvision" else 11):
        op = {"op": "rand_augment", "style": style, "level": level}
        if style == "timm":
            op["increasing"] = increasing
        (struct,) = parse_recipe({"ops": [op]}).ops
        sampler = sampler_of(struct)
        rule = next(i for i, one in enumerate(sampler.table.ops) if one == PolicyOp.POSTERIZE)
        share = np.array([level / sampler.top_level])
        numbers = sampler.table.numbers(np.array([rule]), share, np.array([True]), SIDES)
        assert 1 <= numbers[0] <= 8
