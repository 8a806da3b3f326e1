"""Samplers of the affine ops and the warps. Rows that they change take the matrix path.

`all_samplers` pairs them with their ops; the formulas are those of `plan/ops/affine.py`.

Each takes block 0: its first parameter from word 2, its second from word 0, p from word 3.

Invariants: those of `all_samplers`; a row for which the op was not drawn keeps its map's bits.
"""

from __future__ import annotations

import numpy as np

from augd.plan.geometry.affine import Linear, rotation, scaling, shearing
from augd.plan.geometry.frame import Bools, Frame
from augd.plan.ops.affine import Lens, LocalWarp, Rotate, Shear, Stretch, Translate, Zoom
from augd.plan.plan import LocalWarpField as Warp
from augd.plan.random.numerics import Floats
from augd.plan.random.philox import Ints, Words
from augd.plan.samplers.distributions import Chance, LogUniform, uniform

_U32 = np.array(32, np.uint64)


class RotateSampler:
    """Word 2: the angle."""

    num_blocks = 1

    def __init__(self, op: Rotate) -> None:
        self._turns = op.turns
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Turn about the frame's centre."""
        drawn = self._chance.of(frame, odd[0, 0])
        turns = uniform(even[0, 0], -self._turns, self._turns)
        frame.apply_linear(rotation(_neutral(turns, drawn, 0.0)), drawn)


class ZoomSampler:
    """Word 2: the factor of y; word 0: that of x, unless both are one."""

    num_blocks = 1

    def __init__(self, op: Zoom) -> None:
        self._height, self._width = op.height, op.width
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Multiply the sampling grid about the frame's centre."""
        drawn = self._chance.of(frame, odd[0, 0])
        y = _neutral(uniform(even[0, 0], 1.0 - self._height, 1.0 + self._height), drawn, 1.0)
        x = y
        if self._width is not None:
            x = _neutral(uniform(even[1, 0], 1.0 - self._width, 1.0 + self._width), drawn, 1.0)
        frame.apply_linear(scaling(x, y), drawn)


class ShearSampler:
    """Word 2: a, the slant of x; word 0: b, that of y."""

    num_blocks = 1

    def __init__(self, op: Shear) -> None:
        self._x, self._y = op.x, op.y
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Slant about the frame's centre."""
        drawn = self._chance.of(frame, odd[0, 0])
        a = _neutral(uniform(even[0, 0], -self._x, self._x), drawn, 0.0)
        b = _neutral(uniform(even[1, 0], -self._y, self._y), drawn, 0.0)
        frame.apply_linear(shearing(a, b), drawn)


class StretchSampler:
    """Word 2: the factor of x; word 0: that of y."""

    num_blocks = 1

    def __init__(self, op: Stretch) -> None:
        self._x, self._y = (LogUniform(1.0 / (1.0 + s), 1.0 + s) for s in (op.x, op.y))
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Enlarge each axis about the frame's centre."""
        drawn = self._chance.of(frame, odd[0, 0])
        x = _neutral(self._x(even[0, 0]), drawn, 1.0)
        y = _neutral(self._y(even[1, 0]), drawn, 1.0)
        frame.apply_linear(Linear(1.0 / x, 0.0, 0.0, 1.0 / y), drawn)


class TranslateSampler:
    """Word 2: x; word 0: y."""

    num_blocks = 1

    def __init__(self, op: Translate) -> None:
        self._x, self._y = op.x, op.y
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Move by shares of the frame's sides."""
        drawn = self._chance.of(frame, odd[0, 0])
        x = _neutral(uniform(even[0, 0], -self._x, self._x), drawn, 0.0)
        y = _neutral(uniform(even[1, 0], -self._y, self._y), drawn, 0.0)
        frame.shift(x * frame.sides[0], y * frame.sides[1], drawn)


class LensSampler:
    """Word 2: k."""

    num_blocks = 1

    def __init__(self, op: Lens) -> None:
        self._low, self._high = op.k
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Apply the lens to the output, whatever ops come after."""
        drawn = self._chance.of(frame, odd[0, 0])
        _, bent = frame.begin_matrix()
        bent |= True if drawn is None else drawn
        frame.lens = _neutral(uniform(even[0, 0], self._low, self._high), drawn, 0.0)


class LocalWarpSampler:
    """Words 2 (high) and 0 (low): the key of the noise field."""

    num_blocks = 1

    def __init__(self, op: LocalWarp) -> None:
        self._warp = Warp(op.alpha, op.sigma)
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Apply a noise field to the output, whatever ops come after."""
        drawn = self._chance.of(frame, odd[0, 0])
        if drawn is None:
            drawn = np.ones(frame.num_rows, np.bool_)
        _, bent = frame.begin_matrix()
        bent |= drawn
        high, low = (words.astype(np.uint64) for words in (even[0, 0], even[1, 0]))
        key: Words = high << _U32 | low
        frame.warp, frame.warp_key, frame.warp_on = self._warp, key, drawn


def _neutral(values: Floats, drawn: Bools | None, neutral: float) -> Floats:
    """Return the values, and `neutral` in rows for which the op was not drawn."""
    return values if drawn is None else np.where(drawn, values, neutral)
