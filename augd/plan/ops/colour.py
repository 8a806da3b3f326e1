"""Ops of colour: each a 3x4 matrix on RGB in grey levels 0..255.

Gathered by `all_ops`, sampled by `plan/samplers/colour.py`. They compose to one matrix, in the
recipe's order or, with `shuffle_colour`, in one drawn per image. Rounding and clipping come once,
at the end, or where an op that is no matrix stands between them (`pixel_steps`).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from augd.plan.ops.base import (
    BaseOp,
    Number,
    Range,
    check_number,
    check_probability,
    check_range,
)

# Of RGB in [0, 1]: torchvision's and fb.resnet.torch's constants for ImageNet.
IMAGENET_EIGVAL = (0.2175, 0.0188, 0.0045)
IMAGENET_EIGVEC = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)

_FACTOR = "0.4 draws factors from 0.6 to 1.4."
_FACTOR_MAX = 10


class Pca(BaseOp, tag="pca", frozen=True, kw_only=True):
    """Add noise along the principal components of the dataset's RGB.

    Adds V (alpha * lambda) to every pixel, with one alpha ~ N(0, alpha_std) per component.
    `eigval` are eigenvalues of the covariance of RGB in [0, 1]; column i of `eigvec` (rows R,
    G, B) is the vector of eigval[i]. `mode="eigval"` uses the eigenvalues themselves
    (fb.resnet.torch), `"stdev"` their square roots (MatConvNet, cuda-convnet2).
    Source: Krizhevsky et al. 2012, section 4.1.
    """

    is_colour: ClassVar[bool] = True

    alpha_std: float = 0.1
    mode: Literal["eigval", "stdev"] = "eigval"
    eigval: tuple[float, float, float] = IMAGENET_EIGVAL
    eigvec: tuple[
        tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]
    ] = IMAGENET_EIGVEC
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        check_number("alpha_std", self.alpha_std, 0, 1000, "Krizhevsky et al. use 0.1.")
        self._check_eigval()
        self._check_eigvec()

    def _check_eigval(self) -> None:
        # Three channels in [0, 1] have a variance of at most 1/4 each, and the eigenvalues sum
        # to the same trace: anything above was measured on 0..255 or is no variance.
        total = sum(self.eigval)
        if not (all(value >= 0 for value in self.eigval) and total <= 0.75):
            raise ValueError(
                f"eigval: expected three numbers >= 0 with a sum <= 0.75, got {list(self.eigval)}. "
                "Give eigenvalues of the covariance of RGB in [0, 1]; "
                "divide those of RGB in 0..255 by 255**2."
            )

    def _check_eigvec(self) -> None:
        for component in range(3):
            length = math.sqrt(sum(row[component] ** 2 for row in self.eigvec))
            if not abs(length - 1) <= 0.01:
                raise ValueError(
                    "eigvec: expected rows R, G, B whose columns are vectors of length 1, "
                    f"got column {component} of length {length:.4g}. "
                    "Divide each column by its length."
                )


class RgbShift(BaseOp, tag="rgb_shift", frozen=True, kw_only=True):
    """Add U(-max, max) grey levels to each channel, drawn apart.

    R and B up with G down gives a purple cast. One number for all channels would be brightness
    (legacy Keras). Source: Wu et al. 2015 (Deep Image), colour casting.
    """

    is_colour: ClassVar[bool] = True

    max: float = 20.0
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        check_number("max", self.max, 0, 255, "Give grey levels of 0..255.")


class _Factor(BaseOp, frozen=True, kw_only=True):
    """What scales by f ~ U(1-v, 1+v)."""

    is_colour: ClassVar[bool] = True

    v: float = 0.4
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        check_number("v", self.v, 0, 1, _FACTOR)


class Brightness(_Factor, tag="brightness", frozen=True, kw_only=True):
    """Multiply: y = f x, f ~ U(1-v, 1+v). Source: torchvision, `ColorJitter`; Howard 2013."""


class Contrast(_Factor, tag="contrast", frozen=True, kw_only=True):
    """Spread about the mean grey: y = f x + (1-f) m, f ~ U(1-v, 1+v).

    m is the mean of 0.299 R + 0.587 G + 0.114 B over the row, after the colour ops before this
    one. Source: torchvision, `ColorJitter`; Howard 2013.
    """


class Saturation(_Factor, tag="saturation", frozen=True, kw_only=True):
    """Blend each pixel with its grey: y = f x + (1-f) g, f ~ U(1-v, 1+v).

    g = 0.299 R + 0.587 G + 0.114 B of the pixel. Source: torchvision, `ColorJitter`; Howard 2013.
    """


class Hue(BaseOp, tag="hue", frozen=True, kw_only=True):
    """Rotate the chroma plane of YIQ by U(-h, h) full turns; luma and greys stay.

    I' = I cos - Q sin, Q' = I sin + Q cos: linear, other than the hue of HSV, and so it composes
    with the other ops. `h` is at most 0.5, half a turn.
    Source: the NTSC transform (FCC 1953), as used for colour twisting.
    """

    is_colour: ClassVar[bool] = True

    h: float
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        check_number("h", self.h, 0, 0.5, "Give a share of a full turn.")


class ColorJitter(BaseOp, tag="color_jitter", frozen=True, kw_only=True):
    """Apply brightness, contrast, saturation and hue behind one coin, in an order of their own.

    A number v draws the factor from U(max(0, 1-v), 1+v), of `hue` h the turn from U(-h, h);
    `[low, high]` draws the factor or the turn from U(low, high). The formulas are those of the ops
    of these names. The order is drawn for each image.
    Source: torchvision, `ColorJitter`, behind `RandomApply`.
    """

    is_colour: ClassVar[bool] = True

    brightness: Number = 0.0
    contrast: Number = 0.0
    saturation: Number = 0.0
    hue: Number = 0.0
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        for field in ("brightness", "contrast", "saturation"):
            check_range(
                field, getattr(self, field), 0, _FACTOR_MAX, "0.4 draws factors from 0.6 to 1.4."
            )
        least = -0.5 if isinstance(self.hue, tuple) else 0
        check_range("hue", self.hue, least, 0.5, "Give a share of a full turn.")

    @property
    def factors(self) -> tuple[Range, Range, Range]:
        """Return the least and the largest factor of brightness, contrast and saturation."""
        return _factors(self.brightness), _factors(self.contrast), _factors(self.saturation)

    @property
    def turns(self) -> Range:
        """Return the least and the largest turn of the hue."""
        return self.hue if isinstance(self.hue, tuple) else (-self.hue, self.hue)


def _factors(value: Number) -> Range:
    return value if isinstance(value, tuple) else (max(0.0, 1.0 - value), 1.0 + value)


class Grayscale(BaseOp, tag="grayscale", frozen=True, kw_only=True):
    """Replace R, G and B by 0.299 R + 0.587 G + 0.114 B, with probability `p`.

    Source: torchvision, `RandomGrayscale`; the weights are those of ITU-R BT.601.
    """

    is_colour: ClassVar[bool] = True

    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
