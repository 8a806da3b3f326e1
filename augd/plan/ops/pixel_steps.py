"""Ops of colour that are no matrix: value tables, statistics of the row, its neighbourhoods, noise.

Gathered by `registry`, sampled by `plan/samplers/pixel_steps.py`. Each is a step of the row's
program (`plan/program.py`), in the recipe's order among the other colour ops. Each step rounds to
whole grey levels, but neighbouring tables act as one and neighbouring matrices, too.

A parameter that is one number is fixed; `[low, high]` is drawn per image, uniformly.
"""

from __future__ import annotations

from typing import ClassVar

from augd.plan.ops.base import BaseOp, Number, WholeNumber, check_probability, store_range


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
