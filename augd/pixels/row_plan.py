"""RowPlan: the plan of a single row, as plain Python numbers.

The planner writes a chunk's plan as arrays, and the renderer makes one row at a time. Reading an
array's element costs more than using it, so a chunk's arrays are turned into lists once.

Invariants: nothing is drawn or decided here; one `RowPlan` is filled again and again, so that
reading a row allocates nothing of an image's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from augd.pixels.boxes import FilledBox, list_boxes
from augd.plan.plan import LocalWarpField, Mixture, Plan
from augd.plan.program import Program

Matrix = Sequence[Sequence[float]]


@dataclass(slots=True)
class RowPlan:
    """The plan of one row for the renderer. The fields mean what they mean in a `Plan`.

    With `matrix` the row takes the matrix path: `origin`, `picture`, `halvings`, `scale`, `lens`,
    `warp` and `warp_key` count, and `scaled`, `window`, `mirror` and `flip` don't.
    """

    scaled: tuple[int, int] = (0, 0)
    window: tuple[int, int] = (0, 0)
    mirror: bool = False
    flip: bool = False
    inset: tuple[int, int, int, int] | None = None
    is_bicubic: bool | None = None
    """None where the recipe's filter is not drawn."""
    colour: Matrix | None = None
    pivot: Matrix | None = None
    program: Program | None = None
    """The chunk's; None where the row has no step. Its row is `program_row`."""
    program_row: int = 0
    erase: Sequence[FilledBox] = ()
    matrix: Matrix | None = None
    origin: tuple[int, int] = (0, 0)
    """x, y of the region in the stored image."""
    picture: tuple[int, int, int, int] | None = None
    halvings: int = 0
    scale: int = 1
    """The region was decoded at 1/scale, which is log2(scale) of the halvings."""
    lens: float = 0.0
    warp: LocalWarpField | None = None
    """None where none was drawn for the row."""
    warp_key: int = 0
    mixture: RowMixture | None = None
    """The chunk's. Its row is `mixture_row`."""
    mixture_row: int = 0


class RowMixture:
    """What the rows `first` to `end` of a plan are blended with."""

    __slots__ = ("chains", "weights")

    def __init__(self, mixture: Mixture, first: int, end: int) -> None:
        self.chains = [RowPlans(chain, first, end) for chain in mixture.chains]
        self.weights: list[list[int]] = mixture.weights[first:end].tolist()


class RowPlans:
    """The row plans of the rows `first` to `end` of a plan, counted from 0.

    `crop` is the region that each row needs, as (x, y, width, height). It is decoded at 1/`scale`.
    """

    __slots__ = (
        "_affine_rows",
        "_first",
        "_has_steps",
        "_program",
        "_row",
        "_rows",
        "_warp",
        "crop",
        "scale",
    )

    def __init__(self, plan: Plan, first: int, end: int) -> None:
        part = slice(first, end)
        num_rows = len(plan.crop[part])
        self.crop: list[tuple[int, int, int, int]] = plan.crop[part].tolist()
        self.scale: list[int] = _column(plan.scale, part, num_rows, 1)
        self._row = RowPlan()
        self._rows: list[tuple[Any, ...]] = list(
            zip(
                plan.scaled[part].tolist(),
                plan.window[part].tolist(),
                plan.mirror[part].tolist(),
                _column(plan.flip, part, num_rows, False),
                _column(plan.inset, part, num_rows),
                _column(plan.is_bicubic, part, num_rows),
                _column(plan.colour, part, num_rows),
                _column(plan.pivot, part, num_rows),
                list_boxes(plan, part, num_rows),
                strict=True,
            )
        )
        self._program, self._first = plan.program, first
        if plan.program is not None:
            self._has_steps: list[bool] = (plan.program.kinds[part, 0] != 0).tolist()
        if plan.mixture is not None:
            self._row.mixture = RowMixture(plan.mixture, first, end)
        self._warp = plan.warp
        self._affine_rows = None if plan.matrix is None else _affine_rows(plan, part, num_rows)

    def __getitem__(self, row: int) -> RowPlan:
        """Return the plan of a row. It is valid until the next call."""
        filled = self._row
        (
            filled.scaled,
            filled.window,
            filled.mirror,
            filled.flip,
            filled.inset,
            filled.is_bicubic,
            filled.colour,
            filled.pivot,
            filled.erase,
        ) = self._rows[row]
        if self._program is not None:
            filled.program = self._program if self._has_steps[row] else None
            filled.program_row = self._first + row
        filled.mixture_row = row
        if self._affine_rows is not None:
            (
                is_bent,
                matrix,
                filled.halvings,
                filled.lens,
                is_warped,
                key,
                filled.picture,
            ) = self._affine_rows[row]
            filled.matrix = matrix if is_bent else None
            filled.origin = self.crop[row][:2]
            filled.scale = self.scale[row]
            filled.warp = self._warp if is_warped else None
            filled.warp_key = key
        return filled


def _affine_rows(plan: Plan, part: slice, num_rows: int) -> list[tuple[Any, ...]]:
    return list(
        zip(
            _column(plan.bent, part, num_rows, False),
            _column(plan.matrix, part, num_rows),
            _column(plan.halvings, part, num_rows, 0),
            _column(plan.lens, part, num_rows, 0.0),
            _column(plan.warp_on, part, num_rows, False),
            _column(plan.warp_key, part, num_rows, 0),
            _column(plan.picture, part, num_rows),
            strict=True,
        )
    )


def _column(
    array: NDArray[Any] | None, part: slice, num_rows: int, missing: object = None
) -> list[Any]:
    """Return one entry for each row, of an array that only some recipes have."""
    found: list[Any] = [missing] * num_rows if array is None else array[part].tolist()
    return found
