"""Distributions: from random words to the numbers that samplers need.

Between the words of `philox` and the samplers, which fix what each word is used for.

A sampler reads its words as two arrays of (2, num_blocks, n), int64 below 2**32, in the layout that
`Philox.run` leaves:

    even[0] word 2    even[1] word 0    odd[0] word 3    odd[1] word 1

Invariants: one number from one word, whatever the numbers before; no operation whose bits depend on
the processor (`numerics.py`).
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np

from augd.plan.geometry.frame import Bools, Frame
from augd.plan.random.numerics import Floats, exp, log
from augd.plan.random.philox import Ints

TRIES: Final = 10
TRY_BLOCKS: Final = 5
UNIT: Final = 2.0**-32


class Sampler(Protocol):
    """What the planner needs of an op."""

    num_blocks: int

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Draw the op's parameters from its words and apply them to the frame."""


def uniform(words: Ints, low: float, high: float) -> Floats:
    """Return U(low, high), each end approached to half a step of 2**-32 of the range."""
    step = (high - low) * UNIT
    x = words.astype(np.float64)
    x *= step
    x += low + 0.5 * step
    return x


def places(words: Ints, room: Floats) -> Floats:
    """Return U{0..room} as whole numbers, both ends included; `room` below 2**20."""
    x = words.astype(np.float64)
    x *= room + 1.0
    x *= UNIT
    return np.floor(x, x)


def whole_numbers(words: Ints, low: int, high: int) -> Floats:
    """Return U{low..high}, both ends included, as floats; fewer than 2**20 of them."""
    x = words.astype(np.float64)
    x *= float(high - low + 1)
    x *= UNIT
    np.floor(x, x)
    x += float(low)
    return x


def sort_keys(even: Ints, odd: Ints) -> Ints:
    """Return the words of all blocks, (4 num_blocks, n), in the order words 2, 0, 3, 1 of each."""
    words = np.concatenate([even, odd]).transpose(1, 0, 2)
    return words.reshape(words.shape[0] * words.shape[1], words.shape[2])


class Chance:
    """Whether an op is applied, drawn with probability p."""

    __slots__ = ("_is_always", "_threshold")

    def __init__(self, p: float) -> None:
        # So many of the 2**32 words lie below p.
        self._threshold = np.array(round(p * 2**32), np.int64)
        self._is_always = p == 1

    def __call__(self, words: Ints) -> Bools | None:
        """Return the rows that are drawn; None for all of them."""
        return None if self._is_always else words < self._threshold

    def of(self, frame: Frame, words: Ints) -> Bools | None:
        """Return the drawn rows among those that a group has chosen; None for all rows."""
        drawn, chosen = self(words), frame.chosen
        if drawn is None or chosen is None:
            return chosen if drawn is None else drawn
        return drawn & chosen


class LogUniform:
    """exp(U(log low, log high)) from words, by a table of exp and a cubic between its knots.

    Within 2e-12, relatively; both ends are approached to within a word's step.
    """

    __slots__ = ("_mask", "_shift", "_step", "_table")

    def __init__(self, low: float, high: float) -> None:
        start, end = log(np.array([low, high])).tolist()
        # The next term of the series is (span / knots)**4 / 24.
        bits = 8 if end - start <= 0.6 else 13
        self._step = (end - start) * UNIT
        self._shift = np.array(32 - bits, np.int64)
        self._mask = np.array((1 << (32 - bits)) - 1, np.int64)
        knots = np.arange(1 << bits, dtype=np.float64) * 2.0 ** (32 - bits) + 0.5
        self._table = exp(start + knots * self._step)

    def __call__(self, words: Ints) -> Floats:
        """Return the numbers that `words` (int64 below 2**32, any shape) stand for."""
        x = np.bitwise_and(words, self._mask).astype(np.float64)
        x *= self._step
        total = x * (1 / 6)
        total += 0.5
        total *= x
        total += 1.0
        total *= x
        total += 1.0
        total *= self._table.take(np.right_shift(words, self._shift))
        return total


class BoxLaw:
    """Boxes of U(area) and log-uniform aspect; the first of ten that fits is taken.

    The area takes words 2, then 0, and the aspect words 3, then 1, of blocks 0..4: tries 0..4,
    then 5..9.
    """

    __slots__ = ("_area_start", "_area_step", "_aspect")

    def __init__(self, area: tuple[float, float], ratio: tuple[float, float]) -> None:
        low, high = area
        self._area_step = (high - low) * UNIT
        self._area_start = low + 0.5 * self._area_step
        self._aspect = LogUniform(*ratio)

    def first_fit(
        self, sides: Floats, even: Ints, odd: Ints, count: Floats | None = None
    ) -> tuple[Floats, Bools]:
        """Return the box of the first try that fits `sides`, (2, n), and whether there was one.

        With `count`, (n,), the area is divided by it.
        """
        num_rows = sides.shape[1]
        area = even[:, :TRY_BLOCKS].astype(np.float64)
        area *= self._area_step
        area += self._area_start
        area *= sides[0] * sides[1] if count is None else sides[0] * sides[1] / count
        aspect = self._aspect(odd[:, :TRY_BLOCKS])
        boxes = np.empty((2, *area.shape))
        np.multiply(area, aspect, boxes[0])
        np.divide(area, aspect, boxes[1])
        np.sqrt(boxes, boxes)
        np.rint(boxes, boxes)
        fits = boxes <= sides[:, None, None, :]
        fits &= boxes >= 1.0
        fits_both = (fits[0] & fits[1]).reshape(TRIES, num_rows)
        chosen = fits_both.argmax(axis=0)
        chosen *= num_rows
        chosen += np.arange(num_rows)
        return boxes.reshape(2, -1).take(chosen, axis=1), fits_both.reshape(-1).take(chosen)
