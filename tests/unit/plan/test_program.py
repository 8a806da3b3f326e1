"""Programs of many rows: which steps stand where, and that rows do not know of each other."""

from __future__ import annotations

import numpy as np
import pytest

from augd.plan.colour_matrix import IDENTITY, ColourStep, compose
from augd.plan.params_layout import NUM_PARAMS, NUM_PARAMS_WITH_STEPS, STEPS
from augd.plan.params_writer import describe
from augd.plan.program import (
    PixelStep,
    Program,
    StepKind,
    StepOrder,
    compile_program,
    in_order,
)
from tests.support.plans import plan_of, planner_of

SIZE = {"op": "resize", "size": 8}


def brighten(*factors: float) -> ColourStep:
    return ColourStep(IDENTITY * np.array(factors))


def pixel_step(*kinds: StepKind, value: float = 5.0) -> PixelStep:
    return PixelStep(np.array(kinds, np.uint8), np.full((4, len(kinds)), value))


def kinds_of(program: Program) -> list[list[int]]:
    return [[kind for kind in row if kind] for row in program.kinds.tolist()]


def test_neighbouring_matrices_of_a_row_are_one_until_another_step_comes_between() -> None:
    steps = [
        brighten(2.0, 2.0, 1.0),
        brighten(3.0, 3.0, 1.0),
        pixel_step(StepKind.INVERT, StepKind.NONE, StepKind.NONE),
        brighten(0.5, 0.5, 1.0),
    ]
    program = compile_program(steps, 3)
    assert kinds_of(program) == [[1, 6, 1], [1], []]
    assert program.matrices[0, :2, 0].tolist() == [6.0, 0.5]
    assert program.matrices[1, 0, 0] == 3.0
    assert program.values[0, :3, 0].tolist() == [0.0, 5.0, 1.0]


def test_a_row_that_drew_matrices_alone_has_the_bits_of_a_recipe_without_steps() -> None:
    colours = [{"op": "contrast"}, {"op": "hue", "h": 0.2}, {"op": "saturation"}, {"op": "pca"}]
    never = {"op": "invert", "p": 0.0}
    plain = plan_of([SIZE, {"op": "mirror", "p": 0.0}, *colours], num=50)
    mixed = plan_of([SIZE, never, *colours], num=50)
    assert mixed.colour is None and mixed.pivot is None and mixed.program is not None
    assert plain.program is None and plain.colour is not None and plain.pivot is not None
    assert kinds_of(mixed.program) == [[StepKind.MATRIX]] * 50
    flat = np.concatenate([plain.colour.reshape(50, 12), plain.pivot.reshape(50, 9)], axis=1)
    assert mixed.program.matrices[:, 0].tobytes() == flat.tobytes()


def test_a_matrix_that_changes_nothing_is_no_step() -> None:
    plan = plan_of(
        [SIZE, {"op": "brightness", "p": 0.5}, {"op": "contrast", "p": 0.0}, {"op": "invert"}],
        num=100,
    )
    assert plan.program is not None
    found = kinds_of(plan.program)
    assert {tuple(row) for row in found} == {(1, 6), (6,)}


def test_a_step_may_be_a_matrix_in_some_rows() -> None:
    step = pixel_step(StepKind.INVERT, StepKind.NONE, StepKind.NONE)._replace(
        matrix=brighten(1.0, 2.0, 1.0)
    )
    program = compile_program([brighten(1.5, 1.5, 1.0), step], 3)
    assert kinds_of(program) == [[1, 6], [1], []]
    assert program.matrices[:2, 0, 0].tolist() == [1.5, 3.0]


def test_tables_are_numbered_by_row() -> None:
    made = [np.full((2, 256), number, np.uint8) for number in (7, 9)]
    steps = [
        pixel_step(StepKind.TABLE, StepKind.NONE)._replace(tables=made[0]),
        pixel_step(StepKind.TABLE, StepKind.TABLE)._replace(tables=made[1]),
    ]
    program = compile_program(steps, 2)
    assert program.values[0, :, 0].tolist() == [0.0, 1.0]
    assert program.values[1, 0, 0] == 0.0
    assert program.tables[:, :, 0].tolist() == [[7, 9], [9, 0]]


@pytest.mark.parametrize("with_pixel_step", [False, True])
def test_ranges_of_steps_are_permuted_row_by_row(with_pixel_step: bool) -> None:
    shift = ColourStep(shift=np.full((3, 2), 10.0))
    last = (
        pixel_step(StepKind.POSTERIZE, StepKind.POSTERIZE)
        if with_pixel_step
        else brighten(0.5, 0.5)
    )
    steps = [brighten(2.0, 2.0), shift, last]
    ordered = in_order(steps, [StepOrder(0, 2, np.array([[0, 1], [1, 0]]))])
    program = compile_program(ordered, 2)
    offset = program.matrices[:, 0, 3].tolist()
    assert offset == ([10.0, 20.0] if with_pixel_step else [5.0, 10.0])


def test_steps_of_all_kinds_are_permuted_with_what_they_hold() -> None:
    tables = np.full((2, 256), 3, np.uint8)
    steps = [
        pixel_step(StepKind.TABLE, StepKind.TABLE)._replace(tables=tables),
        brighten(2.0, 2.0),
        pixel_step(StepKind.SOLARIZE, StepKind.SOLARIZE, value=77.0),
    ]
    ordered = in_order(steps, [StepOrder(0, 3, np.array([[0, 2], [1, 1], [2, 0]]))])
    program = compile_program(ordered, 2)
    assert kinds_of(program) == [[2, 1, 4], [4, 1, 2]]
    assert program.values[0, 2, 0] == program.values[1, 0, 0] == 77.0
    assert (program.tables[:, 0] == 3).all()


def test_composition_leaves_the_samplers_arrays_alone() -> None:
    first = brighten(2.0, 2.0)
    assert first.linear is not None
    before = first.linear.copy()
    compile_program([first, pixel_step(StepKind.INVERT, StepKind.INVERT), brighten(3.0, 3.0)], 2)
    np.testing.assert_array_equal(first.linear, before)


def test_the_shapes_of_a_program_depend_on_the_recipe_alone() -> None:
    ops = [
        SIZE,
        {"op": "brightness", "p": 0.3},
        {"op": "posterize", "bits": [1, 8], "p": 0.3},
        {"op": "gamma", "gamma": [0.5, 2], "p": 0.3},
    ]
    planner = planner_of(ops)
    shapes = set()
    for first in range(40):
        ids, sides = np.arange(first, first + 1), np.full(1, 9, np.int32)
        program = planner.plan(ids, np.zeros(1, np.int64), sides, sides).program
        assert program is not None
        arrays = (program.kinds, program.values, program.matrices, program.tables)
        assert all(array.flags.c_contiguous for array in arrays)
        shapes.add(tuple(array.shape for array in arrays))
    assert shapes == {((1, 3), (1, 3, 4), (1, 1, 21), (1, 1, 256))}


def test_a_rows_program_does_not_depend_on_the_rows_beside_it() -> None:
    ops = [
        SIZE,
        {"op": "contrast", "p": 0.5},
        {"op": "solarize", "threshold": [0, 256], "p": 0.5},
        {"op": "hue", "h": 0.1},
        {"op": "gamma", "gamma": [0.5, 2], "p": 0.5},
        {"op": "brightness", "p": 0.5},
        {"op": "invert", "p": 0.5},
    ]
    planner = planner_of(ops, views=2)
    sides = np.full(60, 9, np.int32)
    whole = planner.plan(np.arange(60), np.full(60, 3), sides, sides).program
    assert whole is not None
    for chunk in (1, 7, 25):
        for first in range(0, 60, chunk):
            ids = np.arange(first, min(first + chunk, 60))
            part = planner.plan(ids, np.full(len(ids), 3), sides[ids], sides[ids]).program
            assert part is not None
            rows = slice(2 * first, 2 * first + 2 * len(ids))
            for name in ("kinds", "values", "matrices", "tables"):
                found, expected = getattr(part, name), getattr(whole, name)[rows]
                assert found.tobytes() == expected.tobytes(), name


def test_a_program_composes_as_one_matrix_does() -> None:
    """Drawn at random: the composition of matrices alone is that of `compose`, bit for bit."""
    rng = np.random.default_rng(0)
    steps = [
        ColourStep(rng.normal(size=(3, 3, 5)), rng.normal(size=(3, 5)), rng.normal(size=(3, 3, 5)))
        for _ in range(4)
    ]
    program = compile_program([*steps, pixel_step(*[StepKind.NONE] * 5)], 5)
    composed = compose(steps, None, 5)
    pivot = composed.stack_pivot()
    assert pivot is not None
    flat = np.concatenate([composed.stack().reshape(5, 12), pivot.reshape(5, 9)], axis=1)
    assert program.matrices[:, 0].tobytes() == flat.tobytes()


def test_parameters_have_the_first_steps_with_their_matrices() -> None:
    ops = [
        SIZE,
        {"op": "contrast"},
        {"op": "solarize", "threshold": [0, 256], "p": 0.5},
        {"op": "hue", "h": 0.1},
    ]
    plan = plan_of(ops, num=20)
    assert plan.program is not None
    numbers = describe(plan, 1, (8, 8), num_params=NUM_PARAMS_WITH_STEPS)
    assert numbers.shape == (20, 206)
    np.testing.assert_array_equal(numbers[:, :NUM_PARAMS], describe(plan, 1, (8, 8)))
    steps = numbers[:, NUM_PARAMS:].reshape(20, *STEPS[2])
    for row, kinds in enumerate(kinds_of(plan.program)):
        assert steps[row, : len(kinds), 0].tolist() == kinds
        assert not steps[row, len(kinds) :].any()
        numbers_of = [one for one, kind in enumerate(kinds) if kind == StepKind.MATRIX]
        for number, step in enumerate(numbers_of):
            np.testing.assert_array_equal(steps[row, step, 1:], plan.program.matrices[row, number])
    inverted = np.argwhere(steps[:, :, 0] == StepKind.SOLARIZE)
    for row, step in inverted:
        assert steps[row, step, 1] == plan.program.values[row, step, 0]
    long = plan_of([SIZE, *[{"op": "invert"}] * 11], num=2)
    assert describe(long, 1, (8, 8), num_params=NUM_PARAMS_WITH_STEPS)[0, -22] == StepKind.INVERT
