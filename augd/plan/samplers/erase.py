"""Samplers of the ops that fill boxes of the finished row.

`all_samplers` pairs them with their ops; the formulas are those of `plan/ops/erase.py`. Each hands
the frame a `BoxStep`.

The blocks of the fill come last: none for a colour; for "pixel" one, whose words 2 (high) and 0
(low) are the key; for "random" one for each box, whose words 2, 0 and 1 are R, G and B.

Invariants: those of `all_samplers`; boxes lie within the output.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from augd.plan.boxes import BoxStep
from augd.plan.geometry.frame import Bools, Frame
from augd.plan.ops.base import Number
from augd.plan.ops.erase import CoarseDropout, Cutout, Erase, Fill, as_range
from augd.plan.random.numerics import Floats
from augd.plan.random.philox import Ints, Words, normals
from augd.plan.samplers.distributions import (
    TRY_BLOCKS,
    BoxLaw,
    Chance,
    places,
    uniform,
    whole_numbers,
)

_U32: Final = np.array(32, np.uint64)

# ImageNet's constants, in grey levels.
_MEAN: Final = np.array([[255 * 0.485], [255 * 0.456], [255 * 0.406]])
_STD: Final = np.array([[255 * 0.229], [255 * 0.224], [255 * 0.225]])

_BLOCKS_OF_ERASED: Final = TRY_BLOCKS + 1


class _Filler:
    """Makes a step of boxes, from the words of their fill."""

    def __init__(self, fill: Fill, most: int) -> None:
        self.num_blocks = {"pixel": 1, "random": most}.get(fill if isinstance(fill, str) else "", 0)
        self._fill = fill

    def fill(self, boxes: Floats, even: Ints, odd: Ints) -> BoxStep:
        """Add the fill to boxes, (k, 4, n)."""
        if self._fill == "mean":
            return BoxStep(boxes)
        if self._fill == "pixel":
            high, low = (words.astype(np.uint64) for words in (even[0, 0], even[1, 0]))
            keys: Words = high << _U32 | low
            return BoxStep(boxes, keys=keys)
        colours = np.empty((len(boxes), 3, boxes.shape[2]), np.uint8)
        if self._fill == "random":
            for box, colour in enumerate(colours):
                words = np.stack([even[0, box], even[1, box], odd[1, box]])
                levels = np.floor(normals(words) * _STD + (_MEAN + 0.5))
                colour[...] = np.clip(levels, 0.0, 255.0)
        else:
            colours[...] = np.array(self._fill, np.uint8)[:, None]
        return BoxStep(boxes, colours)


class EraseSampler:
    """Box b has blocks 6 b to 6 b + 5: ten tries, then its x (word 2) and y (word 0).

    Block 5 has p (word 3) and the number of boxes (word 1), too.
    """

    def __init__(self, op: Erase) -> None:
        self._least, self._most = op.num_boxes
        self._filler = _Filler(op.fill or "mean", self._most)
        self.num_blocks = _BLOCKS_OF_ERASED * self._most + self._filler.num_blocks
        self._boxes = BoxLaw(op.area, op.ratio)
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Take the first rectangle that fits the output, and place it; so for each box."""
        sides = np.repeat(frame.out_sides, frame.num_rows, axis=1)
        drawn = self._chance.of(frame, odd[0, TRY_BLOCKS])
        count: Floats | None = None
        if self._most > 1:
            count = whole_numbers(odd[1, TRY_BLOCKS], self._least, self._most)
        boxes = np.empty((self._most, 4, frame.num_rows))
        for number, box in enumerate(boxes):
            first = number * _BLOCKS_OF_ERASED
            part = slice(first, first + _BLOCKS_OF_ERASED)
            is_erased = self._draw_box(box, sides, even[:, part], odd[:, part], count)
            if count is not None:
                is_erased = is_erased & (count > number)
            if drawn is not None:
                is_erased = is_erased & drawn
            box *= is_erased
        fill = slice(self._most * _BLOCKS_OF_ERASED, None)
        frame.boxes.append(self._filler.fill(boxes, even[:, fill], odd[:, fill]))

    def _draw_box(
        self, out: Floats, sides: Floats, even: Ints, odd: Ints, count: Floats | None
    ) -> Bools:
        """Write a box, (4, n). Returns where it fits."""
        out[2:], fits = self._boxes.first_fit(sides, even, odd, count)
        out[:2] = places(even[:, TRY_BLOCKS], np.maximum(sides - out[2:], 0.0))
        return fits


class CoarseDropoutSampler:
    """Block 0: p (word 3), the number of boxes (word 1). Block 1 + b: box b's x, y (words 2, 0).

    Word 3 is its height, word 1 its width.
    """

    def __init__(self, op: CoarseDropout) -> None:
        self._least, self._most = (int(end) for end in as_range(op.count))
        self._filler = _Filler(op.fill, self._most)
        self.num_blocks = 1 + self._most + self._filler.num_blocks
        self._height, self._width = op.height, op.width
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Draw sides and place of each box."""
        drawn = self._chance.of(frame, odd[0, 0])
        count = whole_numbers(odd[1, 0], self._least, self._most)
        boxes = np.empty((self._most, 4, frame.num_rows))
        for number, box in enumerate(boxes):
            block = 1 + number
            box[2] = _draw_side(odd[1, block], self._width, frame.out_sides[0])
            box[3] = _draw_side(odd[0, block], self._height, frame.out_sides[1])
            box[:2] = places(even[:, block], frame.out_sides - box[2:])
            box *= count > number
            if drawn is not None:
                box *= drawn
        fill = slice(1 + self._most, None)
        frame.boxes.append(self._filler.fill(boxes, even[:, fill], odd[:, fill]))


def _draw_side(words: Ints, share: Number, side: Floats) -> Floats:
    low, high = as_range(share)
    shares = uniform(words, low, high) if high > low else np.full(words.shape, low)
    return np.clip(np.floor(shares * side), 1.0, side)


class CutoutSampler:
    """Block 0: the middle's x and y (words 2, 0), p (word 3)."""

    def __init__(self, op: Cutout) -> None:
        self._filler = _Filler(op.fill, 1)
        self.num_blocks = 1 + self._filler.num_blocks
        self._size = float(op.size)
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Cut a square about a pixel at the row's edges."""
        drawn = self._chance.of(frame, odd[0, 0])
        start = places(even[:, 0], frame.out_sides - 1.0) - float(self._size // 2)
        end = np.minimum(start + self._size, frame.out_sides)
        np.maximum(start, 0.0, out=start)
        boxes = np.concatenate([start, end - start])[None]
        if drawn is not None:
            boxes *= drawn
        frame.boxes.append(self._filler.fill(boxes, even[:, 1:], odd[:, 1:]))
