"""Samplers of the colour ops that are no matrix. Each hands the frame one `PixelStep`.

`all_samplers` pairs them with their ops; the formulas are those of `plan/ops/pixel_steps.py`.

Each takes block 0: its first parameter from word 2, its second from word 0, p from word 3.

Invariants: those of `all_samplers`; a row for which the op was not drawn gets no step.
"""

from __future__ import annotations

import numpy as np

from augd.plan.geometry.frame import Bools, Frame
from augd.plan.ops.base import Number, WholeNumber
from augd.plan.ops.pixel_steps import (
    Autocontrast,
    Equalize,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    Invert,
    Jpeg,
    Posterize,
    Sharpness,
    Solarize,
    SolarizeAdd,
)
from augd.plan.program import NUM_VALUES, PixelStep, StepKind, Uint8s
from augd.plan.random.numerics import Floats, exp, log
from augd.plan.random.philox import Ints
from augd.plan.samplers.distributions import Chance, uniform, whole_numbers


class _PixelStepSampler:
    """Draws the parameters that are the step's values."""

    num_blocks = 1
    _kind = StepKind.NONE

    def __init__(self, p: float) -> None:
        self._chance = Chance(p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Add the op's step."""
        values = np.zeros((NUM_VALUES, frame.num_rows))
        self._draw(values, even, odd)
        kind = _kind_of(self._kind, self._chance.of(frame, odd[0, 0]), frame.num_rows)
        frame.steps.append(PixelStep(kind, values))

    def _draw(self, values: Floats, even: Ints, odd: Ints) -> None:
        """Write the values that are drawn; the base has none."""


class PosterizeSampler(_PixelStepSampler):
    """Word 2: the bits."""

    _kind = StepKind.POSTERIZE

    def __init__(self, op: Posterize) -> None:
        super().__init__(op.p)
        self._bits = op.bits

    def _draw(self, values: Floats, even: Ints, odd: Ints) -> None:
        values[0] = _draw_whole(self._bits, even[0, 0])


class SolarizeSampler(_PixelStepSampler):
    """Word 2: the threshold."""

    _kind = StepKind.SOLARIZE

    def __init__(self, op: Solarize) -> None:
        super().__init__(op.p)
        self._threshold = op.threshold

    def _draw(self, values: Floats, even: Ints, odd: Ints) -> None:
        values[0] = _draw_number(self._threshold, even[0, 0])


class SolarizeAddSampler(_PixelStepSampler):
    """Word 2: what is added; word 0: the threshold."""

    _kind = StepKind.SOLARIZE_ADD

    def __init__(self, op: SolarizeAdd) -> None:
        super().__init__(op.p)
        self._add, self._threshold = op.add, op.threshold

    def _draw(self, values: Floats, even: Ints, odd: Ints) -> None:
        values[0] = _draw_whole(self._add, even[0, 0])
        values[1] = _draw_number(self._threshold, even[1, 0])


class InvertSampler(_PixelStepSampler):
    """Draws nothing but p."""

    _kind = StepKind.INVERT

    def __init__(self, op: Invert) -> None:
        super().__init__(op.p)


class EqualizeSampler(_PixelStepSampler):
    """Draws nothing but p."""

    _kind = StepKind.EQUALIZE

    def __init__(self, op: Equalize) -> None:
        super().__init__(op.p)


class AutocontrastSampler(_PixelStepSampler):
    """Draws nothing but p."""

    _kind = StepKind.AUTOCONTRAST

    def __init__(self, op: Autocontrast) -> None:
        super().__init__(op.p)


class SharpnessSampler(_PixelStepSampler):
    """Word 2: the factor."""

    _kind = StepKind.SHARPNESS

    def __init__(self, op: Sharpness) -> None:
        super().__init__(op.p)
        self._factor = op.factor

    def _draw(self, values: Floats, even: Ints, odd: Ints) -> None:
        values[0] = _draw_number(self._factor, even[0, 0])


class GaussianBlurSampler(_PixelStepSampler):
    """Word 2: sigma."""

    _kind = StepKind.BLUR

    def __init__(self, op: GaussianBlur) -> None:
        super().__init__(op.p)
        self._sigma, self._radius = op.sigma, float(op.radius or 0)

    def _draw(self, values: Floats, even: Ints, odd: Ints) -> None:
        values[0] = _draw_number(self._sigma, even[0, 0])
        values[1] = self._radius


class GaussianNoiseSampler(_PixelStepSampler):
    """Word 2: the standard deviation; words 0 (low) and 1 (high): the key of the noise."""

    _kind = StepKind.NOISE

    def __init__(self, op: GaussianNoise) -> None:
        super().__init__(op.p)
        self._std = op.std

    def _draw(self, values: Floats, even: Ints, odd: Ints) -> None:
        values[0] = _draw_number(self._std, even[0, 0])
        values[1], values[2] = even[1, 0], odd[1, 0]


class JpegSampler(_PixelStepSampler):
    """Word 2: the quality."""

    _kind = StepKind.JPEG

    def __init__(self, op: Jpeg) -> None:
        super().__init__(op.p)
        self._quality = op.quality

    def _draw(self, values: Floats, even: Ints, odd: Ints) -> None:
        values[0] = _draw_whole(self._quality, even[0, 0])


class GammaSampler:
    """Word 2: the exponent."""

    num_blocks = 1

    def __init__(self, op: Gamma) -> None:
        self._gamma = op.gamma
        self._table = None if isinstance(op.gamma, tuple) else gamma_tables(np.array([op.gamma]))
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Add a table to each row for which the op was drawn. values[1] is the exponent."""
        kind = _kind_of(StepKind.TABLE, self._chance.of(frame, odd[0, 0]), frame.num_rows)
        values = np.zeros((NUM_VALUES, frame.num_rows))
        values[1] = _draw_number(self._gamma, even[0, 0])
        tables = np.zeros((frame.num_rows, 256), np.uint8)
        rows = np.flatnonzero(kind)
        tables[rows] = gamma_tables(values[1, rows]) if self._table is None else self._table
        frame.steps.append(PixelStep(kind, values, tables))


_LOG_LEVELS = log(np.arange(1, 256) / 255.0)


def gamma_tables(exponents: Floats) -> Uint8s:
    """Return floor(255.999 (x / 255)^g) of all grey levels, uint8 (n, 256)."""
    tables = np.zeros((len(exponents), 256), np.uint8)
    # Below e**-700, and so below the least level.
    powers = exp(np.maximum(exponents[:, None] * _LOG_LEVELS, -700.0))
    np.floor(powers * 255.999, out=powers)
    tables[:, 1:] = powers
    return tables


def _kind_of(kind: StepKind, drawn: Bools | None, num_rows: int) -> Uint8s:
    """Return the kind of each row: NONE where nothing was drawn."""
    kinds = np.full(num_rows, kind, np.uint8)
    if drawn is not None:
        kinds *= drawn
    return kinds


def _draw_number(value: Number, words: Ints) -> Floats | float:
    return uniform(words, *value) if isinstance(value, tuple) else value


def _draw_whole(value: WholeNumber, words: Ints) -> Floats | float:
    return whole_numbers(words, *value) if isinstance(value, tuple) else float(value)
