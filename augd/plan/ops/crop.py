"""Ops of the exact path: crops and resizes, which decide the size of a row, and flips.

Gathered by `all_ops`, sampled by `plan/samplers/crop.py`. A recipe that holds none but these (and
colour) never takes the matrix path, except for windows that reach into padding.
"""

from __future__ import annotations

from typing import ClassVar

from augd.plan.ops.base import (
    BaseOp,
    Extent,
    Range,
    Size,
    check_always,
    check_area,
    check_first_resample,
    check_fits,
    check_number,
    check_probability,
    check_ratio,
    check_side,
    check_unpadded,
    pair,
    shorten,
    store_size,
)


class RandomResizedCrop(BaseOp, tag="random_resized_crop", frozen=True, kw_only=True):
    """Draw a box by area and aspect ratio, and resize it to `size`.

    The area is s W H with s ~ U(scale); the aspect r = width / height is exp(U(log ratio)); width
    and height are sqrt(area r) and sqrt(area / r), rounded half to even. The first of ten draws
    that fits is taken, at x ~ U{0..W-w}, y ~ U{0..H-h}, ends included; if none fits, the whole
    extent, clamped to the ratio and centred.
    Source: Szegedy et al. 2015; the law is torchvision's.
    """

    is_sizing: ClassVar[bool] = True

    size: Size = 224
    scale: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    p: float = 1.0

    def __post_init__(self) -> None:
        store_size(self, "size", self.size)
        check_always(self, self.p)
        check_area("scale", self.scale, "Give shares of the image's area, the smaller one first.")
        check_ratio(self.ratio)

    @property
    def size_px(self) -> tuple[int, int]:
        """Return (height, width)."""
        return pair(self.size)

    def extent(self, before: Extent) -> Extent:
        check_first_resample(self, before)
        return Extent(*self.size_px, exact=True, resampled=True)


class RandomCrop(BaseOp, tag="random_crop", frozen=True, kw_only=True):
    """Cut a window of `size`, its place drawn uniformly with both ends.

    Without `min_area` the window is cut at native scale, out of the frame with `pad` pixels on
    each side: x ~ U{-pad..W+pad-w}. What lies in the padding is outside the image, hence the
    recipe's `fill`; such a row takes the matrix path, with a translation by whole pixels that
    copies them. Where the frame was cut from a larger image, the image goes on in the padding.
    A frame smaller than the window even so is first resized up, keeping its aspect, until it
    fits (long side truncated); after a resize that is refused when the recipe is validated.
    Source: Krizhevsky et al. 2012; He et al. 2015 (32 out of 32 with pad 4).

    With `min_area` a window of the frame's own aspect and area s W H, s ~ U(min_area, 1), sides
    rounded half to even, is cut and resized to `size`.
    """

    is_sizing: ClassVar[bool] = True

    size: Size
    pad: int = 0
    min_area: float | None = None
    p: float = 1.0

    def __post_init__(self) -> None:
        store_size(self, "size", self.size)
        check_always(self, self.p)
        check_number("pad", self.pad, 0, 4096, "Give the pixels that are added on each side.")
        if self.min_area is None:
            return
        if not 0 < self.min_area <= 1:
            raise ValueError(
                f"min_area: expected 0 < min_area <= 1, got {self.min_area}. "
                "Give the least share of the image's area that a crop may keep."
            )
        if self.pad:
            raise ValueError(
                f"pad: expected 0 with min_area, got {self.pad}. "
                "Pad a crop of native scale, or draw its area: keep one of both."
            )

    @property
    def size_px(self) -> tuple[int, int]:
        """Return (height, width)."""
        return pair(self.size)

    def extent(self, before: Extent) -> Extent:
        height, width = self.size_px
        check_unpadded(self, before)
        if self.min_area is not None:
            check_first_resample(self, before)
            return Extent(height, width, exact=True, resampled=True)
        if before.resampled:
            check_fits("size", self.size_px, before, self.pad)
        fits = height <= before.height + 2 * self.pad and width <= before.width + 2 * self.pad
        return Extent(height, width, exact=True, resampled=before.resampled or not fits)


class ScaleJitter(BaseOp, tag="scale_jitter", frozen=True, kw_only=True):
    """Resize the short side to S ~ U{short}, both ends included, and cut a random `crop`.

    The long side is truncated as by `resize`, the window's place is uniform with both ends.
    Source: Simonyan and Zisserman 2015 (256..512); He et al. 2015 (256..480).
    """

    is_sizing: ClassVar[bool] = True

    short: tuple[int, int] = (256, 480)
    crop: Size = 224
    p: float = 1.0

    def __post_init__(self) -> None:
        store_size(self, "crop", self.crop)
        check_always(self, self.p)
        for side_px in self.short:
            check_side("short", side_px)
        low, high = self.short
        if low > high:
            raise ValueError(
                f"short: expected low <= high, got [{low}, {high}]. Give the smaller side first."
            )
        check_fits("crop", self.crop_px, Extent(low, low))

    @property
    def crop_px(self) -> tuple[int, int]:
        """Return (height, width)."""
        return pair(self.crop)

    def extent(self, before: Extent) -> Extent:
        check_first_resample(self, before)
        shorten(self.short[1], before)
        return Extent(*self.crop_px, exact=True, resampled=True)


class Resize(BaseOp, tag="resize", frozen=True, kw_only=True):
    """Resize the whole frame: its short side to `short`, both sides to `size` (squashes), or into
    `longest` (letterbox).

    With `short` the long side is `short * long // short_side`, as torchvision truncates it. With
    `longest` = [H, W], or one number for both, sides are round(r w) and round(r h), halves to even,
    r = min(W / w, H / h); the rest is padded with the fill's colour, half on each side, and an odd
    pixel more right and below. The padding keeps its colour. Source: torchvision; letterbox:
    Ultralytics, `LetterBox`.
    """

    is_sizing: ClassVar[bool] = True

    short: int | None = None
    size: Size | None = None
    longest: Size | None = None
    p: float = 1.0

    def __post_init__(self) -> None:
        check_always(self, self.p)
        given = [name for name in ("short", "size", "longest") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"short: expected one of short, size and longest, got "
                f"{' and '.join(given) or 'none'}. Give short=S to keep the aspect, "
                "size=[height, width] to squash, or longest=S to keep the aspect and pad."
            )
        for name in ("size", "longest"):
            if (size := getattr(self, name)) is not None:
                store_size(self, name, size)
        if self.short is not None:
            check_side("short", self.short)

    @property
    def size_px(self) -> tuple[int, int] | None:
        """Return (height, width), or None when `short` decides."""
        return None if self.size is None else pair(self.size)

    @property
    def longest_px(self) -> tuple[int, int] | None:
        """Return (height, width) of what the image is fitted into, or None."""
        return None if self.longest is None else pair(self.longest)

    def check_fill(self, fill: str) -> None:
        if self.longest is not None and fill != "constant":
            raise ValueError(
                f'longest: expected fill="constant" beside it, got fill="{fill}". The padding has '
                "one colour: set fill and fill_value, or give short or size."
            )

    def extent(self, before: Extent) -> Extent:
        check_first_resample(self, before)
        if self.longest is not None:
            return Extent(*pair(self.longest), exact=True, resampled=True, padded=True)
        if self.size is not None:
            return Extent(*pair(self.size), exact=True, resampled=True)
        assert self.short is not None
        return shorten(self.short, before)


class CropWindow(BaseOp, frozen=True, kw_only=True):
    """What cuts windows of `size` out of the frame as it is, always."""

    is_sizing: ClassVar[bool] = True

    size: Size
    p: float = 1.0

    def __post_init__(self) -> None:
        store_size(self, "size", self.size)
        check_always(self, self.p)

    @property
    def size_px(self) -> tuple[int, int]:
        """Return (height, width)."""
        return pair(self.size)

    def extent(self, before: Extent) -> Extent:
        check_unpadded(self, before)
        if before.exact or before.resampled:
            check_fits("size", self.size_px, before)
        return Extent(*self.size_px, exact=True, resampled=before.resampled)


class CenterCrop(CropWindow, tag="center_crop", frozen=True, kw_only=True):
    """Cut the window of `size` out of the frame's middle.

    The offset is half the difference, rounded half to even (torchvision). On an image that was
    not resized before and is smaller than the window, the row cannot be made and is masked.
    Source: torchvision.
    """


class Mirror(BaseOp, tag="mirror", frozen=True, kw_only=True):
    """Flip left and right: x' = W - x. Exact, twice is the identity.

    Only where the label survives it. Source: Krizhevsky et al. 2012, section 4.1.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self.p)


class VerticalFlip(BaseOp, tag="vertical_flip", frozen=True, kw_only=True):
    """Turn upside down: y' = H - y. Exact, twice is the identity.

    Only for images without an up: satellites, microscopes. Source: torchvision,
    `RandomVerticalFlip`.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self.p)
