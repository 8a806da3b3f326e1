"""Ops of test time: each makes several rows, the views, of one sample, always the same ones.

Gathered by `all_ops`, sampled by `plan/samplers/views.py`. A view op is the last op of its recipe.
What the ops before it draw holds for all views of a sample.
"""

from __future__ import annotations

from typing import ClassVar

from augd.plan.ops.base import (
    BaseOp,
    Extent,
    Size,
    check_always,
    check_first_resample,
    check_fits,
    check_side,
    pair,
    shorten,
    store_size,
)
from augd.plan.ops.crop import CropWindow


class _CornerCrop(CropWindow, frozen=True, kw_only=True):
    """Windows of `size` at the corners and in the centre."""

    size: Size = 224


class FiveCrop(_CornerCrop, tag="five_crop", frozen=True, kw_only=True):
    """Cut the four corners and the centre: views TL, TR, BL, BR, C.

    The centre's offset is half the difference, rounded half to even. On a frame that was not
    resized and is smaller than the window, the sample cannot be made and is masked.
    Source: torchvision, `five_crop`.
    """

    @property
    def num_views(self) -> int:
        """Return 5."""
        return 5


class TenCrop(_CornerCrop, tag="ten_crop", frozen=True, kw_only=True):
    """Cut the five views of the image, then the five of its mirror image.

    In the order TL, TR, BL, BR, C; view 5 is the top left corner of the mirrored image.
    Source: Krizhevsky et al. 2012, section 4.1; torchvision, `ten_crop`.
    """

    @property
    def num_views(self) -> int:
        """Return 10."""
        return 10


class MultiScale(BaseOp, tag="multi_scale", frozen=True, kw_only=True):
    """Resize the short side to each of `short`, and cut ten views of `crop` from each.

    Views stand scale by scale, each in the order of `ten_crop`; five per scale with `flip=False`.
    Source: He et al. 2015, section 3.4.
    """

    is_sizing: ClassVar[bool] = True

    short: tuple[int, ...] = (224, 256, 384, 480, 640)
    crop: Size = 224
    flip: bool = True
    p: float = 1.0

    def __post_init__(self) -> None:
        store_size(self, "crop", self.crop)
        check_always(self, self.p)
        if not self.short:
            raise ValueError("short: expected at least one side, got []. Give for example [256].")
        for side_px in self.short:
            check_side("short", side_px)
            check_fits("crop", self.crop_px, Extent(side_px, side_px))

    @property
    def crop_px(self) -> tuple[int, int]:
        """Return (height, width)."""
        return pair(self.crop)

    @property
    def num_views(self) -> int:
        """Return the views of all scales together."""
        return len(self.short) * (10 if self.flip else 5)

    def extent(self, before: Extent) -> Extent:
        check_first_resample(self, before)
        for side_px in self.short:
            shorten(side_px, before)
        return Extent(*self.crop_px, exact=True, resampled=True)
