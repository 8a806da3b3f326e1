"""Samplers: one per op, drawing its parameters for all rows of a chunk at once.

Where it stands: the planner pairs each op of the recipe with its sampler, gives it its own
blocks of random words, and lets it act on the frame.

A sampler says how many blocks of 4 words it takes per row (`num_blocks`) and reads them as two
arrays of (2, num_blocks, n), int64 below 2**32, in the layout that `Philox.run` leaves:

    even[0] word 2    even[1] word 0    odd[0] word 3    odd[1] word 1

Which word serves what is fixed here and is part of the plan's scheme: changing it changes what
every seed gives, and `content.PLAN_SCHEME` must change with it.

Invariants: a sampler draws the same number of words whatever the image, keeps nothing between
calls, and uses no operation whose bits depend on the processor (`numerics.py`).
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import numpy as np

from augd.plan.frame import Bools, Frame
from augd.plan.numerics import Floats, exp, log
from augd.plan.ops import CenterCrop, Mirror, Op, Pca, RandomResizedCrop, Resize
from augd.plan.rng import Ints, normals

_TRIES: Final = 10
_TRY_BLOCKS: Final = 5
_UNIT: Final = 2.0**-32

# A resize may make an image of at most this size, however long and thin the photo is: the
# limit that decoding has by default.
MAX_SCALED_AREA_PX: Final = 64_000_000


class Sampler(Protocol):
    """What the planner needs of an op."""

    num_blocks: int

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Draw the op's parameters from its words and apply them to the frame."""


class LogUniform:
    """exp(U(log low, log high)) from words, by a table of exp and a cubic between its knots.

    Within 2e-12, relatively; both ends are approached to within a word's step.
    """

    __slots__ = ("_mask", "_shift", "_step", "_table")

    def __init__(self, low: float, high: float) -> None:
        start, end = log(np.array([low, high])).tolist()
        # The next term of the series is (span / knots)**4 / 24.
        bits = 8 if end - start <= 0.6 else 13
        self._step = (end - start) * _UNIT
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


class RandomResizedCropSampler:
    """Blocks 0 to 4: the area (word 2, then 0) and aspect (3, then 1) of tries 0..4, then 5..9.

    Block 5: x (word 2) and y (word 0). The fallback after ten tries is torchvision's.
    """

    num_blocks = _TRY_BLOCKS + 1

    def __init__(self, op: RandomResizedCrop) -> None:
        low, high = op.scale
        self._area_step = (high - low) * _UNIT
        self._area_start = low + 0.5 * self._area_step
        self._ratio = op.ratio
        self._aspect = LogUniform(*op.ratio)
        self._target = _target(op.size_px)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Take the first try that fits, place it, and resize it."""
        sides = frame.sides
        if sides.shape[1] != frame.num_rows:
            sides = np.repeat(sides, frame.num_rows, axis=1)
        box, is_accepted = self._first_fit(sides, even[:, :_TRY_BLOCKS], odd[:, :_TRY_BLOCKS])
        room = sides - box
        room += 1.0
        offset = even[:, _TRY_BLOCKS].astype(np.float64)
        offset *= room
        offset *= _UNIT
        np.floor(offset, offset)
        if not is_accepted.all():
            self._fall_back(np.flatnonzero(~is_accepted), sides, offset, box)
        frame.cut(offset, box)
        frame.resample(self._target)

    def _first_fit(
        self, sides: Floats, area_words: Ints, ratio_words: Ints
    ) -> tuple[Floats, Bools]:
        """Return the box of the first try that fits, (2, n), and whether there was one."""
        num_rows = sides.shape[1]
        area = area_words.astype(np.float64)
        area *= self._area_step
        area += self._area_start
        area *= sides[0] * sides[1]
        aspect = self._aspect(ratio_words)
        boxes = np.empty((2, *area.shape))
        np.multiply(area, aspect, boxes[0])
        np.divide(area, aspect, boxes[1])
        np.sqrt(boxes, boxes)
        np.rint(boxes, boxes)
        fits = boxes <= sides[:, None, None, :]
        fits &= boxes >= 1.0
        fits_both = (fits[0] & fits[1]).reshape(_TRIES, num_rows)
        chosen = fits_both.argmax(axis=0)
        chosen *= num_rows
        chosen += np.arange(num_rows)
        return boxes.reshape(2, -1).take(chosen, axis=1), fits_both.reshape(-1).take(chosen)

    def _fall_back(self, rows: Ints, sides: Floats, offset: Floats, box: Floats) -> None:
        """Clamp the whole extent to the ratio and centre it. Source: torchvision."""
        low, high = self._ratio
        for row in rows.tolist():
            width, height = sides[:, row].tolist()
            fallback_width, fallback_height = width, height
            if width / height < low:
                fallback_height = max(1, round(width / low))
            elif width / height > high:
                fallback_width = max(1, round(height * high))
            box[:, row] = fallback_width, fallback_height
            offset[0, row] = (width - fallback_width) // 2
            offset[1, row] = (height - fallback_height) // 2


class ResizeSampler:
    """Draws nothing."""

    num_blocks = 0

    def __init__(self, op: Resize) -> None:
        self._short = op.short
        self._target = None if op.size_px is None else _target(op.size_px)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Resize the frame to the size, or by its short side."""
        if self._target is not None:
            frame.resample(self._target)
            return
        assert self._short is not None
        # Truncated as torchvision's int(short * long / short_side): the quotient of two such
        # numbers is never rounded up to a whole one.
        scaled = np.floor(self._short * frame.sides / np.minimum(frame.sides[0], frame.sides[1]))
        is_too_large = scaled[0] * scaled[1] > MAX_SCALED_AREA_PX
        if is_too_large.any():
            frame.refuse(is_too_large, self._explain)
            scaled[:, is_too_large] = self._short
        frame.resample(scaled)

    def _explain(self, width: int, height: int) -> str:
        return (
            f"resize: expected at most {MAX_SCALED_AREA_PX // 1_000_000} megapixels after "
            f"short={self._short}, got an image of {width}x{height}. "
            "Cut or remove this image, or give resize a size"
        )


class CenterCropSampler:
    """Draws nothing."""

    num_blocks = 0

    def __init__(self, op: CenterCrop) -> None:
        self._target = _target(op.size_px)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Cut the middle; the offset is half the rest, half to even (torchvision)."""
        room = frame.sides - self._target
        sides = self._target
        is_too_small = (room < 0.0).any(axis=0)
        if is_too_small.any():
            frame.refuse(np.broadcast_to(is_too_small, frame.num_rows), self._explain)
            sides = np.minimum(frame.sides, self._target)
            room = frame.sides - sides
        room *= 0.5
        frame.cut(np.rint(room, room), sides)

    def _explain(self, width: int, height: int) -> str:
        target_width, target_height = (int(side) for side in self._target[:, 0])
        return (
            f"center_crop: expected an image of at least {target_width}x{target_height}, "
            f"got {width}x{height}. Put a resize before the center_crop, or make it smaller"
        )


class MirrorSampler:
    """Block 0, word 0."""

    num_blocks = 1

    def __init__(self, op: Mirror) -> None:
        self._threshold = _threshold(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Flip the rows whose word lies below p."""
        frame.flip(even[1, 0] < self._threshold)


class PcaSampler:
    """Block 0: the components take words 2, 0 and 1, and p takes word 3."""

    num_blocks = 1

    def __init__(self, op: Pca) -> None:
        sizes = op.eigval if op.mode == "eigval" else tuple(math.sqrt(v) for v in op.eigval)
        steps = np.array(sizes) * op.alpha_std * 255.0
        # (component, channel, 1): what one alpha of a standard deviation adds, in grey levels.
        self._steps: Floats = (np.array(op.eigvec) * steps).T[:, :, None].copy()
        self._threshold = _threshold(op.p)
        self._is_always = op.p == 1

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Add three independent normal steps along the components."""
        words = np.empty((3, frame.num_rows), np.int64)
        words[:2] = even[:, 0]
        words[2] = odd[1, 0]
        terms = normals(words)[:, None, :] * self._steps
        # Summed by hand: a matrix product may fuse or reorder, and so change bits by CPU.
        added: Floats = terms[0] + terms[1]
        added += terms[2]
        if not self._is_always:
            added *= odd[0, 0] < self._threshold
        frame.add_colour(added)


def sampler_of(op: Op) -> Sampler:
    """Make the sampler of an op."""
    match op:
        case RandomResizedCrop():
            return RandomResizedCropSampler(op)
        case Resize():
            return ResizeSampler(op)
        case CenterCrop():
            return CenterCropSampler(op)
        case Mirror():
            return MirrorSampler(op)
        case Pca():
            return PcaSampler(op)


def _target(size_px: tuple[int, int]) -> Floats:
    """Turn (height, width) into the frame's (2, 1), width first."""
    height, width = size_px
    return np.array([[width], [height]], np.float64)


def _threshold(p: float) -> Ints:
    """Return the number of words, of 2**32, that lie below probability `p`."""
    return np.array(round(p * 2**32), np.int64)
