"""Runs the program of a row: its colour steps, one after another, in place.

The renderer calls it after the geometry of a row and before erasing, for rows that have a step.
`augd/plan/program.py` says what each kind of step is.

Neighbouring value tables compose to one, so that the row is read once for all of them. A matrix is
applied as by the colour pass (`colour_matrix.py`).

Invariants: RGB in grey levels 0..255; a table equals Pillow's op on every bit; each step but a
table within a composition rounds once.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from augd.pixels.colour_matrix import ColourPass
from augd.pixels.decode import Pixels
from augd.plan.program import Program, StepKind

GREY: Final = 128
"""What a box is filled with."""

_LEVELS: Final = np.arange(256)


class ProgramPass:
    """Runs programs on rows of one size. Owns its scratch buffers; for one thread at a time."""

    __slots__ = ("_colour_pass", "_next_table", "_table")

    def __init__(self, height: int, width: int) -> None:
        self._colour_pass = ColourPass()
        self._table = np.empty(256, np.uint8)
        self._next_table = np.empty(256, np.uint8)

    def run(self, program: Program, number: int, row: Pixels) -> None:
        """Run the program of a chunk's row `number` on a C-contiguous uint8 row (h, w, 3)."""
        has_table = False
        for step, kind in enumerate(program.kinds[number].tolist()):
            if kind in _TABLES:
                self._add_table(program, number, step, kind, is_first=not has_table)
                has_table = True
                continue
            if has_table:
                cv2.LUT(row, self._table, dst=row)
                has_table = False
            if kind == StepKind.NONE:
                return
            self._apply(program, number, step, kind, row)
        if has_table:
            cv2.LUT(row, self._table, dst=row)

    def _apply(self, program: Program, number: int, step: int, kind: int, row: Pixels) -> None:
        if kind == StepKind.BOX:
            left, top, right, bottom = map(int, program.values[number, step].tolist())
            row[top:bottom, left:right] = GREY
            return
        assert kind == StepKind.MATRIX, kind
        flat = program.matrices[number, int(program.values[number, step, 0])]
        colour = flat[:12].reshape(3, 4).tolist()
        pivot = flat[12:].reshape(3, 3).tolist() if flat[12:].any() else None
        self._colour_pass.apply(colour, pivot, row)

    def _add_table(
        self, program: Program, number: int, step: int, kind: int, *, is_first: bool
    ) -> None:
        """Compose a step's table with those right before it."""
        first, second = program.values[number, step, :2].tolist()
        if kind == StepKind.TABLE:
            table = program.tables[number, int(first)]
        else:
            table = _table_of(kind, first, second)
        if is_first:
            np.copyto(self._table, table)
        else:
            table.take(self._table, out=self._next_table)
            self._table, self._next_table = self._next_table, self._table


_TABLES: Final = frozenset(
    (
        StepKind.TABLE,
        StepKind.POSTERIZE,
        StepKind.SOLARIZE,
        StepKind.SOLARIZE_ADD,
        StepKind.INVERT,
    )
)


def _table_of(kind: int, first: float, second: float) -> Pixels:
    """Return the values that the 256 grey levels become. Source: Pillow, `ImageOps`."""
    if kind == StepKind.POSTERIZE:
        made = _LEVELS & -(1 << (8 - int(first)))
    elif kind == StepKind.SOLARIZE:
        made = np.where(first > _LEVELS, _LEVELS, 255 - _LEVELS)
    elif kind == StepKind.SOLARIZE_ADD:
        raised = np.clip(_LEVELS + int(first), 0, 255)
        made = np.where(second > _LEVELS, raised, _LEVELS)
    else:
        made = 255 - _LEVELS
    return made.astype(np.uint8)
