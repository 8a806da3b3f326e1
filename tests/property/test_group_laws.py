"""The laws of groups: how often each op is chosen, one coin for all, and every order as often."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from augd.plan.program import StepKind
from tests.support.laws import assert_counts, assert_independent, assert_rate
from tests.support.plans import plan_of

NUM = 100_000
SIZE = {"op": "resize", "size": 8}
OPS: list[dict[str, Any]] = [
    {"op": "invert"},
    {"op": "posterize", "bits": 2},
    {"op": "solarize"},
    {"op": "solarize_add", "add": 9},
]
KINDS = [StepKind.INVERT, StepKind.POSTERIZE, StepKind.SOLARIZE, StepKind.SOLARIZE_ADD]


def kinds_of(*ops: dict[str, Any], num: int = NUM, **fields: Any) -> np.ndarray:
    program = plan_of([SIZE, *ops], num=num, **fields).program
    assert program is not None
    return program.kinds


@pytest.mark.parametrize("weights", [None, [1, 2, 3, 4], [0.5, 0, 7, 1e-3 * 400], [1, 0, 0, 1]])
def test_one_of_draws_each_op_by_its_weight(weights: list[float] | None) -> None:
    kinds = kinds_of({"op": "one_of", "ops": OPS, **({"weights": weights} if weights else {})})
    assert not kinds[:, 1:].any(), "exactly one"
    shares = np.array(weights or [1] * 4) / sum(weights or [1] * 4)
    counts = np.array([(kinds[:, 0] == kind).sum() for kind in KINDS])
    assert counts.sum() == NUM
    assert not counts[shares == 0].any()
    assert_counts(counts[shares > 0], shares[shares > 0])


def test_the_ops_own_probabilities_come_after_the_choice() -> None:
    kinds = kinds_of({"op": "one_of", "ops": [{**OPS[0], "p": 0.25}, OPS[1]], "p": 0.5})
    assert_rate(kinds[:, 0] == StepKind.INVERT, 0.5 * 0.5 * 0.25)
    assert_rate(kinds[:, 0] == StepKind.POSTERIZE, 0.25)


def test_all_of_has_one_coin() -> None:
    kinds = kinds_of({"op": "all_of", "ops": [*OPS[:2], {**OPS[2], "p": 0.3}], "p": 0.8})
    drawn = kinds[:, 0] == StepKind.INVERT
    assert_rate(drawn, 0.8)
    np.testing.assert_array_equal(drawn, kinds[:, 1] == StepKind.POSTERIZE)
    third = kinds[:, 2] == StepKind.SOLARIZE
    assert not third[~drawn].any()
    assert_rate(third[drawn], 0.3)


@pytest.mark.parametrize("num_ops", [2, 3, 4])
def test_all_of_draws_each_order_as_often(num_ops: int) -> None:
    kinds = kinds_of({"op": "all_of", "ops": OPS[:num_ops], "shuffle": True})[:, :num_ops]
    counts = [int((kinds == order).all(axis=1).sum()) for order in permutations(KINDS[:num_ops])]
    assert sum(counts) == NUM
    assert_counts(np.array(counts))


def test_without_shuffle_the_order_is_the_lists() -> None:
    kinds = kinds_of({"op": "all_of", "ops": OPS}, num=100)
    np.testing.assert_array_equal(kinds[:, :4], [KINDS] * 100)


def test_groups_choose_apart_from_each_other_and_from_what_their_ops_draw() -> None:
    first, second = (
        {"op": "one_of", "ops": [OPS[0], {"op": "mirror", "p": 0}]},
        {"op": "one_of", "ops": [OPS[1], {"op": "mirror", "p": 0}]},
    )
    kinds = kinds_of(first, second)
    both = [(kinds == kind).any(axis=1) for kind in (StepKind.INVERT, StepKind.POSTERIZE)]
    assert_rate(both[0] & both[1], 0.25)
    group = {"op": "one_of", "ops": [{"op": "solarize", "threshold": [0, 256]}] * 2}
    program = plan_of([SIZE, group], num=NUM).program
    assert program is not None
    # Which of two equal ops was chosen, by the group's word, and what it drew.
    alone = {**group, "ops": [group["ops"][0], {"op": "mirror", "p": 0}]}
    first_chosen = kinds_of(alone)[:, 0] == StepKind.SOLARIZE
    threshold = program.values[:, 0, 0]
    assert_independent(threshold[first_chosen][:20_000], threshold[~first_chosen][:20_000])
    assert_rate(threshold[first_chosen] < 128, 0.5)
    assert_rate(threshold[~first_chosen] < 128, 0.5)


def test_views_draw_apart() -> None:
    kinds = kinds_of({"op": "one_of", "ops": OPS[:2]}, num=20_000, views=2)
    views = (kinds[:, 0] == StepKind.INVERT).reshape(-1, 2)
    assert_rate(views[:, 0] & views[:, 1], 0.25)
