"""Ops of colour that are no matrix: value tables, statistics of the row, its neighbourhoods, noise.

Gathered by `all_ops`, sampled by `plan/samplers/pixel_steps.py`. Each is a step of the row's
program (`plan/program.py`), in the recipe's order among the other colour ops. Each step rounds to
whole grey levels, but neighbouring tables act as one and neighbouring matrices, too.

A parameter that is one number is fixed; `[low, high]` is drawn per image, uniformly.
"""

from __future__ import annotations

from typing import ClassVar

from augd.plan.ops.base import (
    BaseOp,
    Number,
    WholeNumber,
    check_number,
    check_probability,
    store_range,
)


class _PixelStep(BaseOp, frozen=True, kw_only=True):
    is_pixel_step: ClassVar[bool] = True

    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)


class Posterize(_PixelStep, tag="posterize", frozen=True, kw_only=True):
    """Keep the highest `bits` of each value: y = x & ~(2^(8-bits) - 1). 8 changes nothing.

    A range draws whole numbers, both ends included. Source: Pillow, `ImageOps.posterize`.
    """

    bits: WholeNumber

    def __post_init__(self) -> None:
        check_probability(self.p)
        store_range(self, "bits", 1, 8, "Pillow refuses 0, which would be black.")


class Solarize(_PixelStep, tag="solarize", frozen=True, kw_only=True):
    """Invert what is not below `threshold`: y = x if x < t, else 255 - x. 256 changes nothing.

    Source: Pillow, `ImageOps.solarize`.
    """

    threshold: Number = 128.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        store_range(self, "threshold", 0, 256, "Give grey levels; 128 is Pillow's default.")


class SolarizeAdd(_PixelStep, tag="solarize_add", frozen=True, kw_only=True):
    """Add to what is below `threshold`: y = x + add, clipped to 0..255, if x < t, else x.

    A range of `add` draws whole numbers, both ends included.
    Source: timm and the original AutoAugment code, `SolarizeAdd`.
    """

    add: WholeNumber
    threshold: Number = 128.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        store_range(self, "add", -255, 255, "Give grey levels; timm goes up to 110.")
        store_range(self, "threshold", 0, 256, "Give grey levels; 128 is the usual one.")


class Invert(_PixelStep, tag="invert", frozen=True, kw_only=True):
    """Replace each value by y = 255 - x. Source: Pillow, `ImageOps.invert`."""


class Gamma(_PixelStep, tag="gamma", frozen=True, kw_only=True):
    """Raise each value to a power: y = floor(255.999 (x / 255)^gamma).

    Above 1 darkens, below 1 brightens; black and white stay.
    Source: torchvision, `adjust_gamma` of PIL images.
    """

    gamma: Number

    def __post_init__(self) -> None:
        check_probability(self.p)
        store_range(self, "gamma", 0.01, 100, "1 changes nothing; 0.8 to 1.25 is usual.")


class Equalize(_PixelStep, tag="equalize", frozen=True, kw_only=True):
    """Make the grey levels of each channel evenly frequent over the row, by its histogram.

    With n = W H, s = floor((n - count of the highest level) / 255) and c(x) the number of values
    below x: y = min(255, floor((floor(s / 2) + c(x)) / s)); no change where s is 0.
    Source: Pillow, `ImageOps.equalize`; every bit is the same.
    """


class Autocontrast(_PixelStep, tag="autocontrast", frozen=True, kw_only=True):
    """Stretch each channel of the row to 0..255: y = trunc((x - low) 255 / (high - low)).

    low and high are the channel's least and largest value; a channel of one value stays.
    Source: Pillow, `ImageOps.autocontrast` without cut-off; every bit is the same.
    """


class Sharpness(_PixelStep, tag="sharpness", frozen=True, kw_only=True):
    """Blend with a smoothed row: y = d + factor (x - d). 1 changes nothing, 0 blurs, 2 sharpens.

    d is x under the 3x3 kernel of ones with 5 in the middle, over 13; the outermost pixels stay.
    Source: Pillow, `ImageEnhance.Sharpness`; the result is within one grey level.
    """

    factor: Number

    def __post_init__(self) -> None:
        check_probability(self.p)
        store_range(self, "factor", 0, 64, "1 changes nothing; RandAugment takes 0.1 to 1.9.")


class GaussianBlur(_PixelStep, tag="gaussian_blur", frozen=True, kw_only=True):
    """Convolve with a Gaussian of `sigma` pixels of the row, edges reflected (dcb|abcd|cba).

    The kernel ends `radius` pixels from its middle, by default max(1, ceil(3 sigma)), and sums to
    1. Rounded once. Source: torchvision, `GaussianBlur`, whose kernel size is 2 `radius` + 1; Chen
    et al. 2020 (SimCLR) draw sigma from 0.1 to 2.
    """

    sigma: Number = (0.1, 2.0)
    radius: int | None = None

    def __post_init__(self) -> None:
        check_probability(self.p)
        store_range(self, "sigma", 0.01, 80, "Give pixels of the row; 0.1 to 2.0 is usual.")
        if self.radius is not None:
            check_number("radius", self.radius, 1, 256, "Leave it out for 3 sigma.")


class GaussianNoise(_PixelStep, tag="gaussian_noise", frozen=True, kw_only=True):
    """Add N(0, std) grey levels to every value of the row, drawn apart.

    None is farther than 4.33 std from 0. Source: torchvision, `GaussianNoise`, whose sigma is
    std / 255.
    """

    std: Number

    def __post_init__(self) -> None:
        check_probability(self.p)
        store_range(self, "std", 0, 255, "Give grey levels of 0..255: 25.5 is a sigma of 0.1.")


class Jpeg(_PixelStep, tag="jpeg", frozen=True, kw_only=True):
    """Encode the row as a JPEG of `quality` 1..100 (4:2:0), and decode it.

    A range draws whole numbers, both ends included. Source: torchvision, `JPEG`; libjpeg.
    """

    quality: WholeNumber

    def __post_init__(self) -> None:
        check_probability(self.p)
        store_range(self, "quality", 1, 100, "50 to 95 is usual; 100 still rounds.")
