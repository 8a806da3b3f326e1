"""The ops of a recipe: one struct each, with its parameters and their checks.

A trainer's plain data becomes these structs (`recipe.py`). The planner pairs each with a sampler
that draws its parameters (`planner.py`). A new op is one struct in the file of its kind, added to
`Op`, and one sampler beside it.

Invariants: those of `base.py`; nothing imports NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args, get_origin

from augd.plan.ops.affine import Lens, LocalWarp, Rotate, Shear, Stretch, Translate, Zoom
from augd.plan.ops.base import BaseOp, name_of
from augd.plan.ops.colour import (
    IMAGENET_EIGVAL,
    IMAGENET_EIGVEC,
    Brightness,
    ColorJitter,
    Contrast,
    Grayscale,
    Hue,
    Pca,
    RgbShift,
    Saturation,
)
from augd.plan.ops.crop import (
    CenterCrop,
    Mirror,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    ScaleJitter,
    VerticalFlip,
)
from augd.plan.ops.erase import CoarseDropout, Cutout, Erase
from augd.plan.ops.groups import AllOf, OneOf
from augd.plan.ops.pixel_steps import (
    Autocontrast,
    Equalize,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    Invert,
    Jpeg,
    Posterize,
    Sharpness,
    Solarize,
    SolarizeAdd,
)
from augd.plan.ops.policies import AugMix, AutoAugment, RandAugment, ThreeAugment, TrivialAugment
from augd.plan.ops.views import FiveCrop, MultiScale, TenCrop

__all__ = [
    "IMAGENET_EIGVAL",
    "IMAGENET_EIGVEC",
    "OPS_BY_NAME",
    "OP_CLASSES",
    "AllOf",
    "AugMix",
    "AutoAugment",
    "Autocontrast",
    "Brightness",
    "CenterCrop",
    "CoarseDropout",
    "ColorJitter",
    "Contrast",
    "Cutout",
    "Equalize",
    "Erase",
    "FiveCrop",
    "Gamma",
    "GaussianBlur",
    "GaussianNoise",
    "Grayscale",
    "Hue",
    "Invert",
    "Jpeg",
    "Lens",
    "LocalWarp",
    "Mirror",
    "MultiScale",
    "OneOf",
    "Op",
    "Pca",
    "Posterize",
    "RandAugment",
    "RandomCrop",
    "RandomResizedCrop",
    "Resize",
    "RgbShift",
    "Rotate",
    "Saturation",
    "ScaleJitter",
    "Sharpness",
    "Shear",
    "SingleOp",
    "Solarize",
    "SolarizeAdd",
    "Stretch",
    "TenCrop",
    "ThreeAugment",
    "Translate",
    "TrivialAugment",
    "VerticalFlip",
    "Zoom",
    "list_parameters",
]

SingleOp = (
    RandomResizedCrop
    | RandomCrop
    | ScaleJitter
    | Resize
    | CenterCrop
    | Mirror
    | VerticalFlip
    | Rotate
    | Zoom
    | Shear
    | Stretch
    | Translate
    | Lens
    | LocalWarp
    | Pca
    | RgbShift
    | Brightness
    | Contrast
    | Saturation
    | Hue
    | ColorJitter
    | Grayscale
    | Posterize
    | Solarize
    | SolarizeAdd
    | Invert
    | Gamma
    | Equalize
    | Autocontrast
    | Sharpness
    | GaussianBlur
    | GaussianNoise
    | Jpeg
    | Erase
    | CoarseDropout
    | Cutout
    | RandAugment
    | TrivialAugment
    | AutoAugment
    | ThreeAugment
    | AugMix
    | FiveCrop
    | TenCrop
    | MultiScale
)

Op = SingleOp | OneOf[SingleOp] | AllOf[SingleOp]

# A group's class without what its ops may be.
OP_CLASSES: tuple[type[BaseOp], ...] = tuple(get_origin(one) or one for one in get_args(Op))

OPS_BY_NAME: dict[str, type[BaseOp]] = {name_of(cls): cls for cls in OP_CLASSES}


def list_parameters(op_class: type[BaseOp]) -> Sequence[str]:
    """Name the parameters of an op, in the order of its definition."""
    return op_class.__struct_fields__
