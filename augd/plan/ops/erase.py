"""Ops that fill boxes of the finished row, after colour: erase, coarse dropout, cutout.

Gathered by `all_ops`, sampled by `plan/samplers/erase.py`.

`fill` is "mean" (ImageNet's mean, 124, 116, 104, which is 0 after normalising), "pixel" (noise of
N(0, 1) for each pixel and channel, in ImageNet's standard deviations about its mean), "random" (one
such number for each channel and box) or [r, g, b] in whole grey levels.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from augd.plan.ops.base import (
    MAX_SIDE_PX,
    BaseOp,
    Number,
    Range,
    WholeNumber,
    check_area,
    check_number,
    check_probability,
    check_ratio,
    store_range,
)

Fill = Literal["mean", "pixel", "random"] | tuple[int, int, int]

_SHARES = "Give shares of the row's side, the smaller one first."


class _FillingOp(BaseOp, frozen=True, kw_only=True):
    @property
    def is_after_colour(self) -> bool:
        """It fills what the colour pass has made."""
        return True


class Erase(_FillingOp, tag="erase", frozen=True, kw_only=True):
    """Fill a random rectangle of the output, after colour; by default with the mean (124, 116,
    104).

    The area is s W H with s ~ U(area), width over height exp(U(log ratio)), both sides rounded
    half to even; the first of ten draws that fits is taken, at a uniform place, ends included.
    If none fits, nothing is erased. `count` boxes share the area: each has that of a draw of its
    own over the number of boxes. Source: Zhong et al. 2017; the ranges are torchvision's, several
    boxes and the fills are timm's.
    """

    area: Range = (0.02, 0.33)
    ratio: Range = (0.3, 3.3)
    count: WholeNumber | None = None
    fill: Fill | None = None
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        check_area("area", self.area, "Give shares of the crop's area, the smaller one first.")
        check_ratio(self.ratio)
        if self.count is not None:
            store_range(self, "count", 1, 8, "Give the number of boxes.")
        if self.fill is not None:
            check_fill(self.fill)
        # None is not written: contents that were computed before a field existed stay equal.
        for field, default in (("count", 1), ("fill", "mean")):
            if getattr(self, field) == default:
                msgspec.structs.force_setattr(self, field, None)

    @property
    def num_boxes(self) -> tuple[int, int]:
        """Return the least and the largest number of boxes."""
        count = self.count or 1
        return count if isinstance(count, tuple) else (count, count)

    def check_rows(self, height: int, width: int) -> None:
        """Reject a rectangle that no draw can fit into the row."""
        # The smallest area fits with an aspect from low * W/H to W/H / low, and with no other.
        low, (slimmest, widest) = self.area[0] / self.num_boxes[1], self.ratio
        if low * width / height > widest or width / height / low < slimmest:
            raise ValueError(
                f"area: expected a rectangle that fits the crop of {width}x{height}, got a least "
                f"area of {low} with width over height in [{slimmest}, {widest}], which is larger "
                "than the crop in one side. Make the area smaller or the ratio nearer to 1."
            )


class CoarseDropout(_FillingOp, tag="coarse_dropout", frozen=True, kw_only=True):
    """Fill `count` boxes of U(height) H by U(width) W pixels, each at a uniform place.

    Sides are cut to whole pixels, 1 at least; boxes lie within the row and may overlap.
    Source: Albumentations, `CoarseDropout`, whose defaults these are.
    """

    count: WholeNumber = (1, 2)
    height: Number = (0.1, 0.2)
    width: Number = (0.1, 0.2)
    fill: Fill = (0, 0, 0)
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        store_range(self, "count", 1, 24, "Give the number of boxes.")
        store_range(self, "height", 0.001, 1, _SHARES)
        store_range(self, "width", 0.001, 1, _SHARES)
        check_fill(self.fill)


class Cutout(_FillingOp, tag="cutout", frozen=True, kw_only=True):
    """Fill a square of `size` pixels whose middle is a uniform pixel, cut at the row's edge.

    It begins size // 2 pixels left of and above that pixel.
    Source: DeVries and Taylor 2017, whose side on CIFAR-10 is the default; grey 128 is that of the
    original AutoAugment code, whose pad is half of `size`.
    """

    size: int = 16
    fill: Fill = (128, 128, 128)
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        check_number("size", self.size, 1, MAX_SIDE_PX, "Give the square's side in pixels.")
        check_fill(self.fill)


def as_range(value: Number) -> tuple[float, float]:
    """Return the two ends of what a number is drawn from."""
    return value if isinstance(value, tuple) else (value, value)


def check_fill(fill: Fill) -> None:
    """Reject a colour that is none."""
    if isinstance(fill, tuple) and not all(0 <= level <= 255 for level in fill):
        raise ValueError(
            f"fill: expected whole grey levels from 0 to 255, got {list(fill)}. Give [r, g, b]."
        )
