"""The sampler of own ops: it calls a plug-in's code for each row that the op is applied to.

The planner makes one for each own op of a recipe, beside the samplers of the built-in ops.
Geometric ops return matrices, and their rows take the matrix path. Others leave an `Edit` with the
row, which the producer applies when the row is finished.

Word 3 of block 0 tells whether the op is applied, as for other ops. The op's own numbers follow
(`op_random`).

Invariants: the only place of the planner where Python runs for each row; a row of no sample, of
unknown size, or that an earlier op rejected, is never passed to a plug-in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from augd.plan.geometry.affine import Linear
from augd.plan.geometry.frame import Frame
from augd.plan.ops.base import name_of
from augd.plan.ops.plugin import Edit, OwnOpError, Plugin, SampleInfo, own_op_error, type_name
from augd.plan.random.numerics import Floats
from augd.plan.random.op_random import OpRandom
from augd.plan.random.philox import Ints
from augd.plan.samplers.distributions import Chance

# Beyond these a row shows nothing of its image, and halving it or its region could overflow.
_REDUCTION_MAX: Final = 64.0
_OFFSET_MAX_PX: Final = 1e6
_AFFINE: Final = (0.0, 0.0, 1.0)

OnDraw = Callable[[int, int, Any], None]
"""Told the op's address in the recipe, the row, and the parameters that it drew for it."""


def address_of(place: int, number: int | None = None) -> int:
    """Return the number of an op among all of a recipe: its place, and which one of a group."""
    return place if number is None else place | (number + 1) << 8


class PluginSampler:
    """Word 3 of block 0: whether the op is applied."""

    num_blocks = 1

    def __init__(
        self,
        op: Plugin,
        key: int,
        place: int,
        num_draws: int,
        num_views: int,
        on_draw: OnDraw | None = None,
        number: int | None = None,
        *,
        first_view: int = 0,
    ) -> None:
        """Take the op, its place in the random counter, and how rows stand for views.

        `on_draw` is called with what was drawn. `number` is that of an op in the group at `place`.
        Views are counted from `first_view` on.
        """
        self._first_view = first_view
        self._op = op
        self._key, self._place = key, place
        self._num_draws, self._num_views = num_draws, num_views
        self._chance = Chance(op.p)
        self._on_draw = on_draw
        self._number = number

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Draw each row's parameters, and apply its matrix or leave an edit with it."""
        rows = self._rows(frame, odd[0, 0])
        sides = np.broadcast_to(frame.sides, (2, frame.num_rows))
        if self._op.is_after_colour:
            edits = frame.edits = frame.edits or [[] for _ in range(frame.num_rows)]
            for row in rows:
                told = self._tell(frame, sides, row)
                edits[row].append(Edit(self._op, self._draw(told, row), told.sample, told.epoch))
            return
        maps = np.tile(np.eye(3), (frame.num_rows, 1, 1))
        for row in rows:
            told = self._tell(frame, sides, row)
            maps[row] = self._matrix(self._draw(told, row), told)
        is_bent = np.zeros(frame.num_rows, np.bool_)
        is_bent[rows] = True
        linear = Linear(*(maps[:, i, j] for i in (0, 1) for j in (0, 1)))
        frame.place(linear, maps[:, 0, 2], maps[:, 1, 2], is_bent)

    def _rows(self, frame: Frame, words: Ints) -> list[int]:
        assert frame.ids is not None and frame.is_known is not None
        is_shown = (frame.ids >= 0) & frame.is_known
        drawn = self._chance.of(frame, words)
        if drawn is not None:
            is_shown &= drawn
        found: list[int] = np.flatnonzero(is_shown).tolist()
        return [row for row in found if row not in frame.impossible]

    def _tell(self, frame: Frame, sides: Floats, row: int) -> SampleInfo:
        assert frame.ids is not None and frame.epochs is not None
        return SampleInfo(
            int(frame.ids[row]),
            int(frame.epochs[row]),
            self._first_view + row % self._num_views,
            *map(int, frame.image[:, row]),
            *map(int, sides[:, row]),
            *map(int, frame.out_sides[:, 0]),
        )

    def _draw(self, told: SampleInfo, row: int) -> Any:
        view = self._first_view + row % self._num_draws
        dice = OpRandom(self._key, told.sample, told.epoch, self._place, view, self._number)
        try:
            params = self._op.sample(dice, told)
        except Exception as error:
            raise own_op_error(self._op, "sample", told.sample, told.epoch, error) from error
        if self._on_draw is not None:
            self._on_draw(address_of(self._place, self._number), row, params)
        return params

    def _matrix(self, params: Any, told: SampleInfo) -> Floats:
        try:
            returned = self._op.matrix(params, told)
        except Exception as error:
            raise own_op_error(self._op, "matrix", told.sample, told.epoch, error) from error
        wrong = ""
        try:
            found = np.array(returned, np.float64)
        except (TypeError, ValueError):
            found, wrong = np.eye(3), type_name(returned)
        wrong = wrong or _objection(found)
        if wrong:
            what = f"matrix: expected 3x3 finite numbers with the last row 0, 0, 1, got {wrong}"
            raise OwnOpError(name_of(self._op), told.sample, told.epoch, what)
        return found


def _objection(found: Floats) -> str:
    """Describe what is wrong with a matrix; empty if nothing is."""
    if found.shape != (3, 3):
        return f"an array of {_times(found.shape)}" if found.shape else "a single number"
    if not np.isfinite(found).all():
        return f"{found.tolist()}"
    if tuple(found[2]) != _AFFINE:
        return f"the last row {found[2].tolist()}: perspective does not compose to one resample"
    if np.abs(found[:2, :2]).max() > _REDUCTION_MAX or np.abs(found[:2, 2]).max() > _OFFSET_MAX_PX:
        return (
            f"{found.tolist()}, which shrinks more than {_REDUCTION_MAX:g} times or moves by more "
            f"than {_OFFSET_MAX_PX:g} px"
        )
    return ""


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
