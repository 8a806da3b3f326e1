"""Runs the program of a row: its colour steps, one after another, in place.

The renderer calls it after the geometry of a row and before erasing, for rows that have a step.
`augd/plan/program.py` says what each kind of step is. The native kernels run a row's program in one
call. Without them OpenCV and NumPy do (`program_steps.py`), with equal bytes but for JPEG, whose
bytes are those of OpenCV's libjpeg.

Neighbouring value tables compose to one, so that the row is read once for all of them. A matrix is
applied as by the colour pass (`colour_matrix.py`).

Invariants: RGB in grey levels 0..255. Each step, but a table within a composition, rounds once,
halves up, and clips. Tables, `equalize` and `autocontrast` equal Pillow's on every bit;
`autocontrast` cuts towards zero, as Pillow does. With the kernels nothing is allocated for a row,
but what libjpeg takes for JPEG.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from augd.pixels import native
from augd.pixels.colour_matrix import ColourPass
from augd.pixels.decode import Pixels
from augd.pixels.noise import add_noise, quantiles
from augd.pixels.program_steps import (
    TABLES,
    blur,
    equalize,
    recompress,
    sharpen,
    stretch_contrast,
    table_of,
)
from augd.plan.program import Program, StepKind

GREY: Final = 128
"""What a box is filled with."""

_WORD_BYTES: Final = 2  # of scratch memory, which holds numbers of 16 bits


class ProgramPass:
    """Runs programs on rows of one size. Owns its scratch buffers; for one thread at a time."""

    __slots__ = ("_colour_pass", "_kernels", "_quantiles", "_scratch")

    def __init__(self, height: int, width: int) -> None:
        """Take rows of this size. The buffers are made with the first one."""
        self._colour_pass = ColourPass()
        self._kernels = native.kernels
        self._scratch: NDArray[np.uint16] | None = None
        self._quantiles: NDArray[np.int16] | None = None

    def run(self, program: Program, number: int, row: Pixels) -> None:
        """Run the program of a chunk's row `number` on a C-contiguous uint8 row (h, w, 3).

        Raises:
            ValueError: a step's values are out of range.
        """
        if self._kernels is None:
            self._run_without_kernels(program, number, row)
            return
        if self._scratch is None or self._quantiles is None:
            size_bytes = self._kernels.program_scratch(*row.shape[:2])
            self._scratch = np.empty(-(-size_bytes // _WORD_BYTES), np.uint16)
            self._quantiles = quantiles()
        num_steps = program.kinds.shape[1]
        done = 0
        while done < num_steps:
            done = self._kernels.run_program(
                row, program.kinds, program.values, program.matrices, program.tables,
                self._scratch, self._quantiles, number, done,
            )  # fmt: skip
            if done < num_steps:  # a matrix of entries that are too large for the kernels
                self._apply_matrix(program, number, done, row)
                done += 1

    def _run_without_kernels(self, program: Program, number: int, row: Pixels) -> None:
        table = None
        for step, kind in enumerate(program.kinds[number].tolist()):
            values = program.values[number, step].tolist()
            if kind in TABLES:
                added = (
                    program.tables[number, int(values[0])]
                    if kind == StepKind.TABLE
                    else table_of(kind, values[0], values[1])
                )
                table = added if table is None else added[table]
                continue
            if table is not None:
                cv2.LUT(row, table, dst=row)
                table = None
            if kind == StepKind.NONE:
                return
            if kind == StepKind.MATRIX:
                self._apply_matrix(program, number, step, row)
            else:
                _run_step(kind, values, row)
        if table is not None:
            cv2.LUT(row, table, dst=row)

    def _apply_matrix(self, program: Program, number: int, step: int, row: Pixels) -> None:
        flat = program.matrices[number, int(program.values[number, step, 0])]
        colour = flat[:12].reshape(3, 4).tolist()
        pivot = flat[12:].reshape(3, 3).tolist() if flat[12:].any() else None
        self._colour_pass.apply(colour, pivot, row)


def _run_step(kind: int, values: list[float], row: Pixels) -> None:
    if kind == StepKind.EQUALIZE:
        equalize(row)
    elif kind == StepKind.AUTOCONTRAST:
        stretch_contrast(row)
    elif kind == StepKind.SHARPNESS:
        sharpen(row, values[0])
    elif kind == StepKind.BLUR:
        blur(row, values[0], int(values[1]))
    elif kind == StepKind.NOISE:
        add_noise(row, values[0], (int(values[1]), int(values[2])))
    elif kind == StepKind.JPEG:
        recompress(row, int(values[0]))
    elif kind == StepKind.BOX:
        left, top, right, bottom = map(int, values)
        row[top:bottom, left:right] = GREY
    else:
        raise ValueError(f"expected a kind of step, got {kind}")
