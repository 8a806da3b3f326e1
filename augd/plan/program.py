"""Programs: the colour steps of each row, where some are no matrix; compiled for a chunk at once.

Samplers hand their steps to the frame. If one of them is a `PixelStep`, the planner compiles all of
them to a `Program` in place of one matrix. `augd/pixels/program.py` runs it.

Neighbouring matrices of a row compose, as in `colour_matrix`, until a step of another kind stands
between them. Neighbouring tables are composed when the program runs.

Invariants: the shapes depend on the recipe and the number of rows alone. A row that drew nothing
has no step. A row that drew matrices alone has one, with the bits that it has without a program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from augd.plan.colour_matrix import IDENTITY, ColourMatrix, ColourStep, reorder
from augd.plan.random.numerics import Floats
from augd.plan.random.philox import Ints

Uint8s = NDArray[np.uint8]

NUM_VALUES: Final = 4
MATRIX_SIZE: Final = 21
"""Of A | b row by row (12), then C (9)."""


class StepKind(IntEnum):
    """What a step does to a row. `values` are its numbers."""

    NONE = 0
    """The row's program ends."""
    MATRIX = 1
    """y = A x + b + C mean(row), rounded once. values[0]: the number of the matrix."""
    TABLE = 2
    """y = table[x] in all channels. values[0]: the number of the table."""
    POSTERIZE = 3
    """The highest bits are kept. values[0]: how many, 1 to 8."""
    SOLARIZE = 4
    """x if x < t, else 255 - x. values[0]: t, 0 to 256."""
    SOLARIZE_ADD = 5
    """x + a, clipped, if x < t, else x. values[0]: a; values[1]: t."""
    INVERT = 6
    """255 - x."""
    EQUALIZE = 7
    AUTOCONTRAST = 8
    SHARPNESS = 9
    """values[0]: the factor; 1 changes nothing."""
    BLUR = 10
    """values[0]: sigma in px; values[1]: the radius in px, 0 for max(1, ceil(3 sigma))."""
    NOISE = 11
    """values[0]: the standard deviation in grey levels; values[1], values[2]: the low and the high
    32 bits of the row's key."""
    JPEG = 12
    """values[0]: the quality, 1 to 100."""
    BOX = 13
    """A box of grey 128. values: left, top, right, bottom in whole px within the row, the last two
    excluded."""


class PixelStep(NamedTuple):
    """One op's part for n rows, where it is no matrix in all of them."""

    kind: Uint8s
    """(n,): a `StepKind`, NONE where nothing was drawn, never MATRIX."""
    values: Floats
    """(4, n)"""
    tables: Uint8s | None = None
    """(n, 256), read where `kind` is TABLE."""
    matrix: ColourStep | None = None
    """For rows that take a matrix in this place; the identity in all others."""


Step = ColourStep | PixelStep


class StepOrder(NamedTuple):
    """The order of the steps from `first` to before `end`, which differs from row to row."""

    first: int
    end: int
    order: Ints
    """(end - first, n): which of these steps comes at each place."""


@dataclass(frozen=True, slots=True)
class Program:
    """The steps of m rows. All arrays are C-contiguous.

    K, J and T are the most steps, matrices and tables that a row of the recipe can have.
    """

    kinds: Uint8s
    """(m, K): a `StepKind` each; a row ends at its first NONE."""
    values: Floats
    """(m, K, 4)"""
    matrices: Floats
    """(m, J, 21): A | b row by row, then C."""
    tables: Uint8s
    """(m, T, 256)"""


def in_order(steps: Sequence[Step], orders: Sequence[StepOrder]) -> list[Step]:
    """Return steps that are to be applied one after another: those of the ranges are permuted."""
    ordered = list(steps)
    for first, end, order in orders:
        ordered[first:end] = _reorder(ordered[first:end], order)
    return ordered


def compile_program(steps: Sequence[Step], num_rows: int) -> Program:
    """Compile the steps of all rows, which come in this order."""
    compiler = _Compiler(steps, num_rows)
    for step in steps:
        compiler.add(step)
    return compiler.finish()


class _Compiler:
    """Writes step after step, and composes the matrices that no other step stands between."""

    def __init__(self, steps: Sequence[Step], num_rows: int) -> None:
        pixel_steps = [step for step in steps if isinstance(step, PixelStep)]
        num_matrices = sum(
            isinstance(step, ColourStep) or step.matrix is not None for step in steps
        )
        num_matrices = min(num_matrices, len(pixel_steps) + 1)
        num_tables = sum(step.tables is not None for step in pixel_steps)
        num_steps = len(pixel_steps) + num_matrices
        self._kinds = np.zeros((num_rows, num_steps), np.uint8)
        self._values = np.zeros((num_rows, num_steps, NUM_VALUES))
        self._matrices = np.zeros((num_rows, num_matrices, MATRIX_SIZE))
        self._tables = np.zeros((num_rows, num_tables, 256), np.uint8)
        self._steps_of = np.zeros(num_rows, np.int64)
        self._matrices_of = np.zeros(num_rows, np.int64)
        self._tables_of = np.zeros(num_rows, np.int64)
        self._composed = ColourMatrix(num_rows)
        self._num_rows = num_rows

    def add(self, step: Step) -> None:
        """Put a step after those so far."""
        if isinstance(step, ColourStep):
            self._composed.apply(step)
            return
        if step.matrix is not None:
            self._composed.apply(step.matrix)
        rows = np.flatnonzero(step.kind)
        if not rows.size:
            return
        self._write_matrices(rows)
        at = self._append(rows, step.kind[rows])
        self._values[rows, at] = step.values[:, rows].T
        if step.tables is not None:
            self._write_tables(rows[step.kind[rows] == StepKind.TABLE], step.tables)

    def finish(self) -> Program:
        """Write what is left, and return the program."""
        self._write_matrices(np.arange(self._num_rows))
        return Program(self._kinds, self._values, self._matrices, self._tables)

    def _append(self, rows: Ints, kind: Uint8s | StepKind) -> Ints:
        """Append a step to some rows. Returns its place in each."""
        at = self._steps_of[rows]
        self._kinds[rows, at] = kind
        self._steps_of[rows] += 1
        return at

    def _write_matrices(self, rows: Ints) -> None:
        """Write the composed matrices of some rows, which begin anew after them."""
        composed = self._composed
        if composed.linear is None and composed.shift is None:
            return
        flat = _flatten(composed, rows)
        is_changed = (flat != _UNCHANGED).any(axis=1)
        if not is_changed.any():
            return
        changed = rows[is_changed]
        number = self._matrices_of[changed]
        at = self._append(changed, StepKind.MATRIX)
        self._values[changed, at, 0] = number
        self._matrices[changed, number] = flat[is_changed]
        self._matrices_of[changed] += 1
        _forget(composed, changed)

    def _write_tables(self, rows: Ints, tables: Uint8s) -> None:
        """Write the tables of rows whose last step is a TABLE."""
        number = self._tables_of[rows]
        self._values[rows, self._steps_of[rows] - 1, 0] = number
        self._tables[rows, number] = tables[rows]
        self._tables_of[rows] += 1


def _flat_identity() -> Floats:
    flat = np.zeros(MATRIX_SIZE)
    flat[[0, 5, 10]] = 1.0
    return flat


_UNCHANGED: Final = _flat_identity()


def _flatten(matrix: ColourMatrix, rows: Ints) -> Floats:
    """Write A | b and C of some rows as (k, 21)."""
    flat = np.empty((len(rows), MATRIX_SIZE))
    flat[...] = _UNCHANGED
    with_shift = flat[:, :12].reshape(-1, 3, 4)
    if matrix.linear is not None:
        with_shift[:, :, :3] = matrix.linear[:, :, rows].transpose(2, 0, 1)
    if matrix.shift is not None:
        with_shift[:, :, 3] = matrix.shift[:, rows].T
    flat[:, :12] = with_shift.reshape(-1, 12)
    if matrix.pivot is not None:
        flat[:, 12:] = matrix.pivot[:, :, rows].transpose(2, 0, 1).reshape(-1, 9)
    return flat


def _forget(matrix: ColourMatrix, rows: Ints) -> None:
    """Make the matrices of some rows the identity. The steps' own arrays stay as they are."""
    if matrix.linear is not None:
        matrix.linear = matrix.linear.copy()
        matrix.linear[:, :, rows] = IDENTITY
    if matrix.shift is not None:
        matrix.shift = matrix.shift.copy()
        matrix.shift[:, rows] = 0.0
    if matrix.pivot is not None:
        matrix.pivot = matrix.pivot.copy()
        matrix.pivot[:, :, rows] = 0.0


def _reorder(steps: Sequence[Step], order: Ints) -> Sequence[Step]:
    """Make the steps of each place, where rows differ in which op stands there."""
    matrices = [step if isinstance(step, ColourStep) else step.matrix for step in steps]
    pixel_steps = [step if isinstance(step, PixelStep) else None for step in steps]
    with_matrix: list[ColourStep] | list[None] = [None] * len(steps)
    if any(matrix is not None for matrix in matrices):
        with_matrix = reorder([matrix or ColourStep() for matrix in matrices], order)
    if not any(pixel_steps):
        return [matrix for matrix in with_matrix if matrix is not None]
    num_rows = order.shape[1]
    kind = np.zeros((len(steps), num_rows), np.uint8)
    values = np.zeros((len(steps), NUM_VALUES, num_rows))
    has_tables = any(step is not None and step.tables is not None for step in pixel_steps)
    tables = np.zeros((len(steps), num_rows if has_tables else 0, 256), np.uint8)
    for number, step in enumerate(pixel_steps):
        if step is not None:
            kind[number], values[number] = step.kind, step.values
            if step.tables is not None:
                tables[number] = step.tables
    every = np.arange(num_rows)
    return [
        PixelStep(
            kind[chosen, every],
            values[chosen, :, every].T,
            tables[chosen, every] if has_tables else None,
            matrix,
        )
        for chosen, matrix in zip(order, with_matrix, strict=True)
    ]
