"""The laws of the colour ops that are no matrix: what each draws against its exact distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from augd.plan.program import Program, StepKind
from tests.support.laws import assert_counts, assert_independent, assert_rate, assert_uniform
from tests.support.plans import plan_of

NUM = 100_000
SIZE = {"op": "resize", "size": 8}


def program_of(*ops: dict[str, Any], num: int = NUM) -> Program:
    program = plan_of([SIZE, *ops], num=num).program
    assert program is not None
    return program


def values_of(op: dict[str, Any], num: int = NUM) -> np.ndarray:
    """Return the values of the only step, (4, num)."""
    program = program_of(op, num=num)
    assert (program.kinds[:, 0] == program.kinds[0, 0]).all()
    return program.values[:, 0].T


@pytest.mark.parametrize(("low", "high"), [(1, 8), (4, 8), (3, 4)])
def test_posterize_draws_each_number_of_bits_as_often(low: int, high: int) -> None:
    bits = values_of({"op": "posterize", "bits": [low, high]})[0]
    counts = np.bincount(bits.astype(int), minlength=high + 1)
    assert counts[:low].sum() == 0, "0 bits would be black"
    assert counts.sum() == NUM
    assert_counts(counts[low:])


def test_solarize_draws_its_threshold_uniformly() -> None:
    threshold = values_of({"op": "solarize", "threshold": [20, 256]})[0]
    assert_uniform(threshold, 20, 256)


def test_solarize_add_draws_both_apart() -> None:
    add, threshold = values_of({"op": "solarize_add", "add": [-9, 110], "threshold": [0, 256]})[:2]
    counts = np.bincount(add.astype(int) + 9)
    assert len(counts) == 120
    assert_counts(counts)
    assert_uniform(threshold, 0, 256)
    assert_independent(add, threshold)


def test_gamma_draws_its_exponent_uniformly() -> None:
    values = values_of({"op": "gamma", "gamma": [0.5, 2.0]}, num=20_000)
    assert_uniform(values[1], 0.5, 2.0)


@pytest.mark.parametrize(
    ("op", "low", "high"),
    [
        ({"op": "sharpness", "factor": [0.1, 1.9]}, 0.1, 1.9),
        ({"op": "gaussian_blur"}, 0.1, 2.0),
        ({"op": "gaussian_noise", "std": [5, 20]}, 5, 20),
    ],
)
def test_strengths_are_uniform(op: dict[str, Any], low: float, high: float) -> None:
    assert_uniform(values_of(op)[0], low, high)


def test_jpeg_draws_each_quality_as_often() -> None:
    quality = values_of({"op": "jpeg", "quality": [40, 60]})[0]
    assert_counts(np.bincount(quality.astype(int), minlength=61)[40:])


def test_noise_has_a_key_of_its_own_in_each_row_and_view() -> None:
    program = plan_of([SIZE, {"op": "gaussian_noise", "std": [1, 2]}], num=20_000, views=2).program
    assert program is not None
    std, low, high = program.values[:, 0, :3].T
    keys = low + high * 2.0**32
    assert len(np.unique(keys)) > 39_990
    assert_uniform(low, 0, 2.0**32)
    assert_uniform(high, 0, 2.0**32)
    assert_independent(low, high)
    assert_independent(std, low)


@pytest.mark.parametrize(
    "op",
    [
        {"op": "equalize"},
        {"op": "autocontrast"},
        {"op": "sharpness", "factor": 2},
        {"op": "gaussian_blur", "sigma": 1.5, "radius": 4},
        {"op": "jpeg", "quality": 30},
        {"op": "posterize", "bits": 4},
        {"op": "solarize", "threshold": 7.5},
        {"op": "solarize_add", "add": 40},
        {"op": "invert"},
        {"op": "gamma", "gamma": 2},
    ],
)
def test_p_is_the_probability_that_a_step_acts_and_a_number_is_fixed(op: dict[str, Any]) -> None:
    program = program_of({**op, "p": 0.3}, num=20_000)
    assert_rate(program.kinds[:, 0] != StepKind.NONE, 0.3)
    drawn = program.kinds[:, 0] != StepKind.NONE
    assert len(np.unique(program.values[drawn], axis=0)) == 1
    assert not program.values[~drawn].any()


def test_each_op_draws_apart() -> None:
    program = program_of(
        {"op": "invert", "p": 0.5}, {"op": "posterize", "bits": 2, "p": 0.5}, num=20_000
    )
    drawn = [(program.kinds == kind).any(axis=1) for kind in (StepKind.INVERT, StepKind.POSTERIZE)]
    assert_rate(drawn[0] & drawn[1], 0.25)
    assert_rate(drawn[0] | drawn[1], 0.75)


def test_values_stay_where_an_op_is_added_behind() -> None:
    """What an op draws depends on its own place in the recipe, not on the others."""
    op = {"op": "solarize", "threshold": [0, 256], "p": 0.5}
    alone = program_of(op, num=500)
    beside = program_of(op, {"op": "gamma", "gamma": [0.5, 2]}, {"op": "contrast"}, num=500)
    drawn = alone.kinds[:, 0] == StepKind.SOLARIZE
    np.testing.assert_array_equal(beside.kinds[:, 0] == StepKind.SOLARIZE, drawn)
    np.testing.assert_array_equal(beside.values[drawn, 0], alone.values[drawn, 0])
