"""Samplers of the colour ops and of their shuffled order.

`all_samplers` pairs them with their ops. Each hands the frame one step, which `colour_matrix`
composes. The formulas are those of `plan/ops/colour.py`.

Each takes block 0, its one parameter from word 2 and p from word 3, unless stated otherwise.

Invariants: those of `all_samplers`; a row for which the op was not drawn keeps its colours' bits.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from augd.plan.colour_matrix import GREY, IDENTITY, ColourStep, compose
from augd.plan.geometry.frame import Bools, Frame
from augd.plan.ops.colour import (
    Brightness,
    ColorJitter,
    Contrast,
    Grayscale,
    Hue,
    Pca,
    RgbShift,
    Saturation,
)
from augd.plan.random.numerics import Floats, sin_cos
from augd.plan.random.philox import Ints, normals
from augd.plan.samplers.distributions import Chance, sort_keys, uniform

# Rows I and Q of the NTSC transform; each sums to 0, so that greys have no chroma.
_CHROMA: Final = ((0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


# Factors and turn, (4, 1), that change nothing.
_UNJITTERED: Final = np.array([[1.0], [1.0], [1.0], [0.0]])


class PcaSampler:
    """Block 0: the components take words 2, 0 and 1, and p takes word 3."""

    num_blocks = 1

    def __init__(self, op: Pca) -> None:
        sizes = op.eigval if op.mode == "eigval" else tuple(math.sqrt(v) for v in op.eigval)
        steps = np.array(sizes) * op.alpha_std * 255.0
        # (component, channel, 1): what one alpha of a standard deviation adds, in grey levels.
        self._steps: Floats = (np.array(op.eigvec) * steps).T[:, :, None].copy()
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Add three independent normal steps along the components."""
        drawn = normals(_three(even, odd))[:, None, :] * self._steps
        # Summed by hand: a matrix product may fuse or reorder, and so change bits by CPU.
        added: Floats = drawn[0] + drawn[1]
        added += drawn[2]
        frame.steps.append(ColourStep(shift=_drawn_only(added, self._chance.of(frame, odd[0, 0]))))


class RgbShiftSampler:
    """R, G and B take words 2, 0 and 1."""

    num_blocks = 1

    def __init__(self, op: RgbShift) -> None:
        self._max = op.max
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Add a number to each channel."""
        added = uniform(_three(even, odd), -self._max, self._max)
        frame.steps.append(ColourStep(shift=_drawn_only(added, self._chance.of(frame, odd[0, 0]))))


class _FactorSampler:
    """Draws f ~ U(1-v, 1+v), 1 where the op is not drawn."""

    num_blocks = 1

    def __init__(self, op: Brightness | Contrast | Saturation) -> None:
        self._v = op.v
        self._chance = Chance(op.p)

    def _factor(self, frame: Frame, even: Ints, odd: Ints) -> Floats:
        drawn = self._chance.of(frame, odd[0, 0])
        factor = uniform(even[0, 0], 1.0 - self._v, 1.0 + self._v)
        return factor if drawn is None else np.where(drawn, factor, 1.0)


class BrightnessSampler(_FactorSampler):
    """Word 2: the factor."""

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Multiply all channels."""
        frame.steps.append(ColourStep(IDENTITY * self._factor(frame, even, odd)))


class ContrastSampler(_FactorSampler):
    """Word 2: the factor."""

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Spread about the mean grey of the row."""
        factor = self._factor(frame, even, odd)
        frame.steps.append(ColourStep(IDENTITY * factor, pivot=GREY * (1.0 - factor)))


class SaturationSampler(_FactorSampler):
    """Word 2: the factor."""

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Blend with the grey of the pixel."""
        frame.steps.append(ColourStep(_blend_with_grey(self._factor(frame, even, odd))))


class HueSampler:
    """Word 2: the angle."""

    num_blocks = 1

    def __init__(self, op: Hue) -> None:
        self._h = op.h
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Turn the chroma plane: luma + cos (chroma) + sin (chroma turned by a quarter)."""
        drawn = self._chance.of(frame, odd[0, 0])
        turns = uniform(even[0, 0], -self._h, self._h)
        frame.steps.append(
            ColourStep(_turn(turns if drawn is None else np.where(drawn, turns, 0.0)))
        )


class ColorJitterSampler:
    """Block 0: brightness, contrast and saturation take words 2, 0 and 1, and p takes word 3.

    Block 1: the hue takes word 2. Block 2: the keys that sort the four, words 2, 0, 3, 1.
    """

    num_blocks = 3

    def __init__(self, op: ColorJitter) -> None:
        self._factors = op.factors
        self._turns = op.turns
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Apply the four in the order of the row, as one matrix."""
        drawn = self._chance.of(frame, odd[0, 0])
        numbers, order = self.draw(even, odd)
        if drawn is not None:
            numbers = np.where(drawn, numbers, _UNJITTERED)
        brightness, contrast, saturation, turns = numbers
        steps = [
            ColourStep(IDENTITY * brightness),
            ColourStep(IDENTITY * contrast, pivot=GREY * (1.0 - contrast)),
            ColourStep(_blend_with_grey(saturation)),
            ColourStep(_turn(turns)),
        ]
        whole = compose(steps, order, frame.num_rows)
        frame.steps.append(ColourStep(whole.linear, whole.shift, whole.pivot))

    def draw(self, even: Ints, odd: Ints) -> tuple[Floats, Ints]:
        """Return three factors and the turn, (4, n), and which of them comes at each place."""
        words = (*_three(even, odd), even[0, 1])
        ranges = (*self._factors, self._turns)
        numbers = np.stack(
            [uniform(of, low, high) for of, (low, high) in zip(words, ranges, strict=True)]
        )
        # Stable, since the places of equal keys are otherwise free to differ by CPU.
        return numbers, np.argsort(sort_keys(even[:, 2:], odd[:, 2:]), axis=0, kind="stable")


class GrayscaleSampler:
    """Draws nothing but p."""

    num_blocks = 1

    def __init__(self, op: Grayscale) -> None:
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Replace all channels by the pixel's grey."""
        drawn = self._chance.of(frame, odd[0, 0])
        kept = np.zeros(frame.num_rows) if drawn is None else np.where(drawn, 0.0, 1.0)
        frame.steps.append(ColourStep(_blend_with_grey(kept)))


class ColourOrderSampler:
    """One word per op, in the order words 2, 0, 3, 1 of block 0, then of block 1: a sort key.

    Keys are 32 bits, so that two are equal, and an order is off by as much, once in 2**32.
    """

    def __init__(self, num_ops: int) -> None:
        self.num_blocks = (num_ops + 3) // 4
        self._num_ops = num_ops

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Draw in which order the colour ops come."""
        keys = sort_keys(even, odd)[: self._num_ops]
        # Stable, since the places of equal keys are otherwise free to differ by CPU.
        frame.colour_order = np.argsort(keys, axis=0, kind="stable")


def _three(even: Ints, odd: Ints) -> Ints:
    """Return words 2, 0 and 1 of block 0, one per channel or component."""
    words = np.empty((3, even.shape[2]), np.int64)
    words[:2] = even[:, 0]
    words[2] = odd[1, 0]
    return words


def _drawn_only(added: Floats, drawn: Bools | None) -> Floats:
    if drawn is not None:
        added *= drawn
    return added


def _turn(turns: Floats) -> Floats:
    """Return the matrices that turn the chroma plane."""
    sine, cosine = sin_cos(turns)
    # Written as the identity and what is added, so that no turn changes no bit.
    turned: Floats = IDENTITY + _CHROMA_KEPT * (cosine - 1.0) + _CHROMA_TURNED * sine
    return turned


def _blend_with_grey(kept: Floats) -> Floats:
    """Return the matrices of kept x + (1 - kept) grey."""
    return IDENTITY * kept + GREY * (1.0 - kept)


def _chroma_matrices() -> tuple[Floats, Floats]:
    """Return what takes RGB to its chroma, as RGB, and to its chroma turned by a quarter.

    With T the rows (g, I, Q): T^-1 [0; I; Q] and T^-1 [0; -Q; I], by Cramer's rule.
    """
    grey, (i, q) = GREY[0, :, 0].tolist(), _CHROMA

    def cross(a: tuple[float, ...], b: tuple[float, ...]) -> Floats:
        return np.array(
            [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
        )

    # Columns of the inverse that I and Q are multiplied by.
    volume = cross(i, q)
    whole = grey[0] * volume[0] + grey[1] * volume[1] + grey[2] * volume[2]
    from_i, from_q = cross(q, tuple(grey)) / whole, cross(tuple(grey), i) / whole
    row_i, row_q = np.array(i), np.array(q)
    kept = from_i[:, None] * row_i + from_q[:, None] * row_q
    turned = from_q[:, None] * row_i - from_i[:, None] * row_q
    return kept[:, :, None], turned[:, :, None]


_CHROMA_KEPT, _CHROMA_TURNED = _chroma_matrices()
