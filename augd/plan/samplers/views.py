"""Samplers of the view ops: which window of the frame each view of a sample is.

`all_samplers` pairs them with their ops. They draw nothing. The rows of a sample stand one after
the other, so that a row's number tells its view.

Invariants: those of `all_samplers`.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from augd.plan.geometry.frame import Frame
from augd.plan.ops.views import FiveCrop, MultiScale, TenCrop
from augd.plan.random.numerics import Floats
from augd.plan.random.philox import Ints
from augd.plan.samplers.crop import measure_room, resample_short, target_of

# Shares of the room left of and above the window: TL, TR, BL, BR, C.
_CORNERS: Final = np.array([[0.0, 1.0, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0, 0.5]])


class CornerCropSampler:
    """Draws nothing."""

    num_blocks = 0

    def __init__(self, op: FiveCrop | TenCrop) -> None:
        self._num_views = op.num_views
        self._target = target_of(op.size_px)
        self._name = "five_crop" if op.num_views == 5 else "ten_crop"

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Flip views 5 to 9, then cut the corners and the centre."""
        view = np.arange(frame.num_rows) % self._num_views
        _cut_corners(frame, view, self._num_views > 5, self._target, self._name)


class MultiScaleSampler:
    """Draws nothing."""

    num_blocks = 0

    def __init__(self, op: MultiScale) -> None:
        self._num_views = op.num_views
        self._per_scale = op.num_views // len(op.short)
        self._short: Floats = np.array(op.short, np.float64)
        self._asked = f"multi_scale: short={list(op.short)}"
        self._target = target_of(op.crop_px)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Resize by the view's scale, then flip and cut."""
        view = np.arange(frame.num_rows) % self._num_views
        resample_short(frame, self._short[view // self._per_scale], self._asked)
        within = view % self._per_scale
        _cut_corners(frame, within, self._per_scale > 5, self._target, "multi_scale")


def _cut_corners(frame: Frame, view: Ints, flips: bool, target: Floats, name: str) -> None:
    if flips:
        frame.flip(view >= 5)
    room, sides = measure_room(frame, target, name)
    # Whole numbers stay as they are; the centre goes half to even (torchvision).
    frame.cut(np.rint(room * _CORNERS[:, view % 5]), sides)
