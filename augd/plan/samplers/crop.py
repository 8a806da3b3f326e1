"""Samplers of the ops of the exact path: crops, resizes and flips.

`all_samplers` pairs them with their ops. They narrow, resample and flip the frame.

Invariants: those of `all_samplers`.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from augd.plan.geometry.frame import Bools, Frame
from augd.plan.ops.crop import (
    CenterCrop,
    Mirror,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    ScaleJitter,
    VerticalFlip,
)
from augd.plan.random.numerics import Floats
from augd.plan.random.philox import Ints
from augd.plan.samplers.distributions import TRY_BLOCKS, BoxLaw, places, uniform
from augd.plan.size_mismatch import resize_first

# A resize may make an image of at most this size, however long and thin the original is: the limit
# that decoding has by default.
MAX_SCALED_AREA_PX: Final = 64_000_000


class RandomResizedCropSampler:
    """Blocks 0 to 4: the ten tries. Block 5: x (word 2) and y (word 0).

    The fallback after ten tries is torchvision's.
    """

    num_blocks = TRY_BLOCKS + 1

    def __init__(self, op: RandomResizedCrop) -> None:
        self._boxes = BoxLaw(op.scale, op.ratio)
        self._ratio = op.ratio
        self._target = target_of(op.size_px)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Take the first try that fits, place it, and resize it."""
        sides = frame.sides
        if sides.shape[1] != frame.num_rows:
            sides = np.repeat(sides, frame.num_rows, axis=1)
        box, is_accepted = self._boxes.first_fit(sides, even, odd)
        offset = places(even[:, TRY_BLOCKS], sides - box)
        if not is_accepted.all():
            self._fall_back(np.flatnonzero(~is_accepted), sides, offset, box)
        frame.cut(offset, box)
        frame.resample(self._target)

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


class RandomCropSampler:
    """Block 0: x (word 2), y (word 0), and with `min_area` the area (word 3)."""

    num_blocks = 1

    def __init__(self, op: RandomCrop) -> None:
        self._target = target_of(op.size_px)
        self._pad = float(op.pad)
        self._min_area = op.min_area

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Cut a window at native scale, or one of a drawn area."""
        if self._min_area is not None:
            self._cut_area(frame, self._min_area, even, odd)
            return
        room = frame.sides + 2.0 * self._pad - self._target
        is_too_small = (room < 0.0).any(axis=0)
        if is_too_small.any():
            self._enlarge(frame, np.broadcast_to(is_too_small, frame.num_rows))
            room = frame.sides + 2.0 * self._pad - self._target
        offset = places(even[:, 0], room)
        if self._pad:
            offset -= self._pad
            frame.cut_anywhere(offset, self._target)
        else:
            frame.cut(offset, self._target)

    def _cut_area(self, frame: Frame, low: float, even: Ints, odd: Ints) -> None:
        root = np.sqrt(uniform(odd[0, 0], low, 1.0))
        box = np.maximum(np.rint(frame.sides * root), 1.0)
        frame.cut(places(even[:, 0], frame.sides - box), box)
        frame.resample(self._target)

    def _enlarge(self, frame: Frame, is_too_small: Bools) -> None:
        """Resize small frames up until the window, less its padding, fits."""
        least = np.maximum(self._target - 2.0 * self._pad, 1.0)
        sides = np.broadcast_to(frame.sides, (2, frame.num_rows))
        # The side that lacks more becomes exactly what is needed.
        is_wide = least[0] * sides[1] < least[1] * sides[0]
        by_width = np.stack([np.broadcast_to(least[0], is_wide.shape), sides[1] * least[0]])
        by_width[1] = np.floor(by_width[1] / sides[0])
        by_height = np.stack([sides[0] * least[1], np.broadcast_to(least[1], is_wide.shape)])
        by_height[0] = np.floor(by_height[0] / sides[1])
        scaled = np.where(is_too_small, np.where(is_wide, by_height, by_width), sides)
        width, height = (int(side) for side in self._target[:, 0])
        check_scaled(frame, scaled, least, f"random_crop: size=[{height}, {width}]")
        frame.enlarge(is_too_small, scaled)


class ScaleJitterSampler:
    """Block 0: x (word 2), y (word 0) and the short side (word 3)."""

    num_blocks = 1

    def __init__(self, op: ScaleJitter) -> None:
        self._low, self._high = op.short
        self._target = target_of(op.crop_px)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Resize by a drawn short side, then cut anywhere."""
        short = places(odd[0, 0], np.array(float(self._high - self._low))) + self._low
        resample_short(frame, short, f"scale_jitter: short=[{self._low}, {self._high}]")
        frame.cut(places(even[:, 0], frame.sides - self._target), self._target)


class ResizeSampler:
    """Draws nothing."""

    num_blocks = 0

    def __init__(self, op: Resize) -> None:
        self._short = op.short
        self._target = None if op.size_px is None else target_of(op.size_px)
        self._longest = None if op.longest_px is None else target_of(op.longest_px)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Resize the frame to the size, by its short side, or into a padded one."""
        if self._target is not None:
            frame.resample(self._target)
        elif self._longest is not None:
            ratio = np.minimum(*(self._longest / frame.sides))
            scaled = np.maximum(np.rint(frame.sides * ratio), 1.0)
            frame.resample(scaled)
            frame.pad(np.floor((self._longest - scaled) * 0.5), self._longest)
        elif self._short is not None:
            resample_short(frame, self._short, f"resize: short={self._short}")


class CenterCropSampler:
    """Draws nothing."""

    num_blocks = 0

    def __init__(self, op: CenterCrop) -> None:
        self._target = target_of(op.size_px)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Cut the middle; the offset is half the rest, half to even (torchvision)."""
        room, sides = measure_room(frame, self._target, "center_crop")
        room *= 0.5
        frame.cut(np.rint(room, room), sides)


class MirrorSampler:
    """Block 0, word 0."""

    num_blocks = 1

    def __init__(self, op: Mirror) -> None:
        self._threshold = np.array(round(op.p * 2**32), np.int64)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Flip the rows whose word lies below p."""
        frame.flip(_among_chosen(frame, even[1, 0] < self._threshold))


class VerticalFlipSampler:
    """Block 0, word 0."""

    num_blocks = 1

    def __init__(self, op: VerticalFlip) -> None:
        self._threshold = np.array(round(op.p * 2**32), np.int64)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Turn the rows upside down whose word lies below p."""
        frame.flip_vertically(_among_chosen(frame, even[1, 0] < self._threshold))


def _among_chosen(frame: Frame, drawn: Bools) -> Bools:
    """Return the drawn rows among those that a group has chosen."""
    return drawn if frame.chosen is None else drawn & frame.chosen


def target_of(size_px: tuple[int, int]) -> Floats:
    """Turn (height, width) into the frame's (2, 1), width first."""
    height, width = size_px
    return np.array([[width], [height]], np.float64)


def measure_room(frame: Frame, target: Floats, name: str) -> tuple[Floats, Floats]:
    """Return by how much the frame exceeds the window, and the window's sides.

    Rejects rows whose frame is smaller; their window is the whole frame.
    """
    room = frame.sides - target
    is_too_small = (room < 0.0).any(axis=0)
    if not is_too_small.any():
        return room, target
    target_width, target_height = (int(side) for side in target[:, 0])
    frame.refuse(
        np.broadcast_to(is_too_small, frame.num_rows),
        lambda width, height: (
            f"{name}: expected an image of at least {target_width}x{target_height}, "
            f"got {width}x{height}. {resize_first(name)}"
        ),
    )
    sides = np.minimum(frame.sides, target)
    return frame.sides - sides, sides


def resample_short(frame: Frame, short: Floats | int, asked: str) -> None:
    """Resize the short side to `short`, one for all or (n,); the long side is truncated."""
    # As torchvision's int(short * long / short_side): the quotient of two such numbers is never
    # rounded up to a whole one.
    scaled = np.floor(short * frame.sides / np.minimum(frame.sides[0], frame.sides[1]))
    check_scaled(frame, scaled, short, asked)
    frame.resample(scaled)


def check_scaled(frame: Frame, scaled: Floats, instead: Floats | int, asked: str) -> None:
    """Reject rows that a resize would make enormous, and set their size to `instead`."""
    is_too_large = scaled[0] * scaled[1] > MAX_SCALED_AREA_PX
    if not is_too_large.any():
        return
    name, _, parameter = asked.partition(": ")
    advice = ", or give resize a size" if name == "resize" else ""
    frame.refuse(
        np.broadcast_to(is_too_large, frame.num_rows),
        lambda width, height: (
            f"{name}: expected at most {MAX_SCALED_AREA_PX // 1_000_000} megapixels after "
            f"{parameter}, got an image of {width}x{height}. "
            f"Cut or remove this image{advice}"
        ),
    )
    np.copyto(scaled, instead, where=is_too_large)
