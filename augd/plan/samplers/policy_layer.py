"""One layer of a policy: from a drawn op and its number, for each row, to the frame.

Used by the samplers of `policies`. A layer moves the frame of the rows that drew a geometric op,
and adds one `PixelStep`, whose kind differs from row to row.

Invariants: those of `all_samplers`; a row whose op changes nothing, such as a rotation by 0
degrees, keeps its bits and gets no step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

from augd.plan.colour_matrix import GREY, IDENTITY, ColourStep
from augd.plan.geometry.affine import Linear
from augd.plan.geometry.frame import Bools, Frame
from augd.plan.ops.policy_tables import GEOMETRIC, PolicyOp, Rounding, Rule
from augd.plan.program import NUM_VALUES, PixelStep, StepKind
from augd.plan.random.numerics import Floats, sin_cos
from augd.plan.random.philox import Ints

# Numbers, since to look up a member of an enum costs as much as a step on a chunk of rows.
_MOVES: Final = tuple(
    map(int, (PolicyOp.SHEAR_X, PolicyOp.SHEAR_Y, PolicyOp.TRANSLATE_X, PolicyOp.TRANSLATE_Y))
)
_ROTATE: Final = int(PolicyOp.ROTATE)
_BRIGHTNESS: Final = int(PolicyOp.BRIGHTNESS)
_COLOR: Final = int(PolicyOp.COLOR)
_CONTRAST: Final = int(PolicyOp.CONTRAST)
_SOLARIZE: Final = int(PolicyOp.SOLARIZE)
_SOLARIZE_ADD: Final = int(PolicyOp.SOLARIZE_ADD)
_CUTOUT: Final = int(PolicyOp.CUTOUT)

_IS_GEOMETRIC: Final = np.array([op in GEOMETRIC for op in PolicyOp])
_SOLARIZE_ADD_BELOW: Final = 128.0

_KIND_OF: Final = {
    PolicyOp.SHARPNESS: StepKind.SHARPNESS,
    PolicyOp.POSTERIZE: StepKind.POSTERIZE,
    PolicyOp.SOLARIZE: StepKind.SOLARIZE,
    PolicyOp.SOLARIZE_ADD: StepKind.SOLARIZE_ADD,
    PolicyOp.AUTOCONTRAST: StepKind.AUTOCONTRAST,
    PolicyOp.EQUALIZE: StepKind.EQUALIZE,
    PolicyOp.INVERT: StepKind.INVERT,
    PolicyOp.CUTOUT: StepKind.BOX,
    PolicyOp.BLUR: StepKind.BLUR,
}
_KINDS: Final = np.array([_KIND_OF.get(op, StepKind.NONE) for op in PolicyOp], np.uint8)

# The number with which an op changes nothing; NaN, which equals nothing, where there is none.
_NEUTRAL_OF: Final = {
    PolicyOp.BRIGHTNESS: 1.0,
    PolicyOp.COLOR: 1.0,
    PolicyOp.CONTRAST: 1.0,
    PolicyOp.SHARPNESS: 1.0,
    PolicyOp.POSTERIZE: 8.0,
    PolicyOp.SOLARIZE: 256.0,
    PolicyOp.AUTOCONTRAST: np.nan,
    PolicyOp.EQUALIZE: np.nan,
    PolicyOp.INVERT: np.nan,
}
_NEUTRAL: Final[Floats] = np.array([_NEUTRAL_OF.get(op, 0.0) for op in PolicyOp])


class DrawnLayer(NamedTuple):
    """What a layer drew for n rows, (n,) each."""

    op: Ints
    """A `PolicyOp`; IDENTITY where the layer is not applied."""
    number: Floats
    """The op's number with its sign, as `policy_tables` says; 0 where it has none."""
    level: Floats
    centre: Floats | None = None
    """(2, n): x, y of a cutout's centre, in pixels; None in policies without one."""


class RuleTable:
    """The rules of a policy as arrays, so that rows look theirs up at once."""

    __slots__ = (
        "_base",
        "_high",
        "_is_down",
        "_is_nearest",
        "_is_signed",
        "_low",
        "_side",
        "_slope",
        "has_geometry",
        "ops",
    )

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.ops: Ints = np.array([rule.op for rule in rules], np.int64)
        self._slope = np.array([rule.slope for rule in rules])
        self._base = np.array([rule.base for rule in rules])
        self._low = np.array([rule.low for rule in rules])
        self._high = np.array([rule.high for rule in rules])
        self._is_signed = np.array([rule.is_signed for rule in rules])
        self._is_down = np.array([rule.rounding == Rounding.DOWN for rule in rules])
        self._is_nearest = np.array([rule.rounding == Rounding.NEAREST for rule in rules])
        # Which row of (1, width, height) a number is multiplied by.
        self._side = np.array(
            [
                (1 if rule.op == PolicyOp.TRANSLATE_X else 2) if rule.is_of_side else 0
                for rule in rules
            ]
        )
        self.has_geometry = any(rule.op in GEOMETRIC for rule in rules)

    def numbers(self, chosen: Ints, share: Floats, is_negative: Bools, sides: Floats) -> Floats:
        """Return the numbers of the `chosen` rules, (n,), at a share of their ranges.

        `sides` are (width, height) of the frame, (2, n) or (2, 1).
        """
        number: Floats = self._slope.take(chosen)
        number *= share
        side = self._side.take(chosen)
        if side.any():
            number *= np.where(side == 1, sides[0], np.where(side == 2, sides[1], 1.0))
        np.trunc(number, out=number, where=self._is_down.take(chosen))
        np.rint(number, out=number, where=self._is_nearest.take(chosen))
        np.negative(number, out=number, where=is_negative & self._is_signed.take(chosen))
        number += self._base.take(chosen)
        np.maximum(number, self._low.take(chosen), out=number)
        np.minimum(number, self._high.take(chosen), out=number)
        return number


def apply_layer(frame: Frame, drawn: DrawnLayer, *, has_geometry: bool) -> None:
    """Move the frame of the rows that drew geometry, and add the step of the others."""
    if has_geometry:
        _move(frame, drawn)
    frame.steps.append(pixel_step(drawn, frame.out_sides))


def _move(frame: Frame, drawn: DrawnLayer) -> None:
    """Put the geometric ops of all rows in front at once: the identity in the other rows."""
    op, number = drawn.op, drawn.number
    shear_x, shear_y, move_x, move_y = (np.where(op == moved, number, 0.0) for moved in _MOVES)
    turned = np.flatnonzero(op == _ROTATE)
    sine, cosine = np.zeros(len(op)), np.ones(len(op))
    sine[turned], cosine[turned] = sin_cos(number[turned] / 360.0)
    linear = Linear(cosine, shear_x - sine, shear_y + sine, cosine)
    # A rotation is about the centre c: p -> L p + (c - L c). Shears keep the top left corner.
    centre_x, centre_y = 0.5 * frame.sides[0], 0.5 * frame.sides[1]
    x = (1.0 - cosine) * centre_x + sine * centre_y - move_x
    y = (1.0 - cosine) * centre_y - sine * centre_x - move_y
    frame.place(linear, x, y, _IS_GEOMETRIC.take(op) & (number != 0.0))


def pixel_step(drawn: DrawnLayer, out_sides: Floats) -> PixelStep:
    """Return the step of rows that drew an op of colour; no step where it changes nothing."""
    op, number = drawn.op, drawn.number
    kind = _KINDS.take(op)
    kind[number == _NEUTRAL.take(op)] = 0  # StepKind.NONE
    values = np.zeros((NUM_VALUES, len(op)))
    # A value is inverted from the threshold on, which need not be whole as it is published.
    values[0] = number
    np.ceil(number, out=values[0], where=op == _SOLARIZE)
    values[1][op == _SOLARIZE_ADD] = _SOLARIZE_ADD_BELOW
    if drawn.centre is not None:
        is_box = op == _CUTOUT
        low = np.clip(drawn.centre - number, 0.0, out_sides)
        high = np.clip(drawn.centre + number, 0.0, out_sides)
        np.copyto(values, np.concatenate([low, high]), where=is_box)
    return PixelStep(kind, values, None, _matrix(op, number))


def _matrix(op: Ints, number: Floats) -> ColourStep:
    """Return f x, f x + (1 - f) grey of the pixel, or f x + (1 - f) grey of the row's mean."""
    is_color, is_contrast = op == _COLOR, op == _CONTRAST
    is_scaled = is_color | is_contrast | (op == _BRIGHTNESS)
    factor = np.where(is_scaled, number, 1.0)
    rest = 1.0 - factor
    linear = IDENTITY * factor
    linear += GREY * np.where(is_color, rest, 0.0)
    return ColourStep(linear, pivot=GREY * np.where(is_contrast, rest, 0.0))


def without_unapplied(op: Ints, is_applied: Iterable[Bools | None]) -> Ints:
    """Replace the op of rows that a layer is not applied to by IDENTITY."""
    for mask in is_applied:
        if mask is not None:
            op = op * mask
    return op
