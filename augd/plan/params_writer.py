"""Writes what happened to each row of a chunk as numbers: the values of `augd.plan.params_layout`.

Runs after the planner, for streams that request parameters. They are computed from a plan alone;
nothing is drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from augd.plan.params_layout import MAX_STEPS, NUM_PARAMS, STEP_NUMBERS
from augd.plan.plan import Plan
from augd.plan.program import Program, StepKind
from augd.plan.random.numerics import Floats


def describe(
    plan: Plan,
    num_views: int,
    out_size: tuple[int, int],
    first_view: int = 0,
    *,
    num_params: int = NUM_PARAMS,
) -> Floats:
    """Write float64 (m, num_params) of a plan's m rows of `out_size`, (height, width), as `PARAMS`
    lays them out.

    The views of a sample are counted from `first_view` on. With `NUM_PARAMS_WITH_STEPS` numbers the
    last ones are `STEPS`.
    """
    num_rows = len(plan.crop)
    found = np.zeros((num_rows, num_params))
    found[:, 0:4] = plan.crop
    found[:, 4] = plan.mirror
    found[:, 6:12] = _exact_matrix(plan, *out_size).reshape(num_rows, 6)
    if plan.bent is not None and plan.matrix is not None:
        found[plan.bent, 4] = 0.0
        found[:, 5] = plan.bent
        found[plan.bent, 6:12] = plan.matrix[plan.bent].reshape(-1, 6)
    if plan.lens is not None:
        found[:, 12] = plan.lens
    found[:, 13:25] = np.eye(3, 4).ravel() if plan.colour is None else _flat(plan.colour)
    if plan.erase is not None:
        found[:, 25:29] = plan.erase[:, 0]
    if plan.program is not None and num_params > NUM_PARAMS:
        found[:, NUM_PARAMS:] = describe_steps(plan.program).reshape(num_rows, -1)
    found[:, 29] = first_view + np.arange(num_rows) % num_views
    return found


def describe_steps(program: Program) -> Floats:
    """Write float64 (m, 8, 22) of a program's m rows, as `STEPS` lays them out."""
    num_rows, num_steps = program.kinds.shape
    shown = min(num_steps, MAX_STEPS)
    found = np.zeros((num_rows, MAX_STEPS, 1 + STEP_NUMBERS))
    kinds, values = program.kinds[:, :shown], program.values[:, :shown]
    found[:, :shown, 0] = kinds
    found[:, :shown, 1 : 1 + values.shape[2]] = values
    rows, steps = np.nonzero(kinds == StepKind.MATRIX)
    found[rows, steps, 1:] = program.matrices[rows, values[rows, steps, 0].astype(np.int64)]
    return found


def _flat(colour: Floats) -> Floats:
    return colour.reshape(len(colour), 12)


def _exact_matrix(plan: Plan, out_height: int, out_width: int) -> Floats:
    """Return (m, 2, 3): crop, resize, window and flips of the exact path as one map."""
    step = plan.crop[:, 2:] / plan.scaled
    sign = np.where(plan.mirror, -1.0, 1.0)
    matrix = np.zeros((len(plan.crop), 2, 3))
    matrix[:, 0, 0] = sign * step[:, 0]
    matrix[:, 1, 1] = step[:, 1]
    matrix[:, :, 2] = plan.crop[:, :2] + plan.window * step
    width: NDArray[np.int32] | int = out_width
    height: NDArray[np.int32] | int = out_height
    if plan.inset is not None:
        width, height = plan.inset[:, 2], plan.inset[:, 3]
    matrix[:, 0, 2] += plan.mirror * width * step[:, 0]
    if plan.flip is not None:
        matrix[plan.flip, 1, 1] *= -1.0
        matrix[:, 1, 2] += plan.flip * height * step[:, 1]
    if plan.inset is not None:
        matrix[:, 0, 2] -= matrix[:, 0, 0] * plan.inset[:, 0]
        matrix[:, 1, 2] -= matrix[:, 1, 1] * plan.inset[:, 1]
    return matrix
