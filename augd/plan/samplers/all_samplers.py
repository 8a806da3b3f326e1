"""Samplers: one per op, drawing its parameters for all rows of a chunk at once.

The planner pairs each op of the recipe with its sampler, gives it its own blocks of random words,
and lets it act on the frame.

A sampler tells how many blocks of 4 words it takes per row (`num_blocks`) and reads them in the
layout of `distributions`. The samplers fix what each word is used for, as part of the plan's
scheme. A change there changes what every seed gives, and `content.PLAN_SCHEME` must change with it.

Invariants: a sampler draws the same number of words whatever the image, keeps nothing between
calls, and uses no operation whose bits depend on the processor (`numerics.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from augd.plan.ops import affine as ops_affine
from augd.plan.ops import colour as ops_colour
from augd.plan.ops import crop as ops_crop
from augd.plan.ops import erase as ops_erase
from augd.plan.ops import pixel_steps as ops_pixel_steps
from augd.plan.ops import policies as ops_policies
from augd.plan.ops import views as ops_views
from augd.plan.ops.base import BaseOp
from augd.plan.samplers import affine, aug_mix, colour, crop, erase, pixel_steps, policies, views
from augd.plan.samplers.distributions import Sampler

__all__ = ["Sampler", "sampler_of"]

SAMPLERS: dict[type[BaseOp], Callable[[Any], Sampler]] = {
    ops_crop.RandomResizedCrop: crop.RandomResizedCropSampler,
    ops_crop.RandomCrop: crop.RandomCropSampler,
    ops_crop.ScaleJitter: crop.ScaleJitterSampler,
    ops_crop.Resize: crop.ResizeSampler,
    ops_crop.CenterCrop: crop.CenterCropSampler,
    ops_crop.Mirror: crop.MirrorSampler,
    ops_crop.VerticalFlip: crop.VerticalFlipSampler,
    ops_affine.Rotate: affine.RotateSampler,
    ops_affine.Zoom: affine.ZoomSampler,
    ops_affine.Shear: affine.ShearSampler,
    ops_affine.Stretch: affine.StretchSampler,
    ops_affine.Translate: affine.TranslateSampler,
    ops_affine.Lens: affine.LensSampler,
    ops_affine.LocalWarp: affine.LocalWarpSampler,
    ops_colour.Pca: colour.PcaSampler,
    ops_colour.RgbShift: colour.RgbShiftSampler,
    ops_colour.Brightness: colour.BrightnessSampler,
    ops_colour.Contrast: colour.ContrastSampler,
    ops_colour.Saturation: colour.SaturationSampler,
    ops_colour.Hue: colour.HueSampler,
    ops_colour.ColorJitter: colour.ColorJitterSampler,
    ops_colour.Grayscale: colour.GrayscaleSampler,
    ops_pixel_steps.Posterize: pixel_steps.PosterizeSampler,
    ops_pixel_steps.Solarize: pixel_steps.SolarizeSampler,
    ops_pixel_steps.SolarizeAdd: pixel_steps.SolarizeAddSampler,
    ops_pixel_steps.Invert: pixel_steps.InvertSampler,
    ops_pixel_steps.Gamma: pixel_steps.GammaSampler,
    ops_pixel_steps.Equalize: pixel_steps.EqualizeSampler,
    ops_pixel_steps.Autocontrast: pixel_steps.AutocontrastSampler,
    ops_pixel_steps.Sharpness: pixel_steps.SharpnessSampler,
    ops_pixel_steps.GaussianBlur: pixel_steps.GaussianBlurSampler,
    ops_pixel_steps.GaussianNoise: pixel_steps.GaussianNoiseSampler,
    ops_pixel_steps.Jpeg: pixel_steps.JpegSampler,
    ops_erase.Erase: erase.EraseSampler,
    ops_erase.CoarseDropout: erase.CoarseDropoutSampler,
    ops_erase.Cutout: erase.CutoutSampler,
    ops_policies.RandAugment: policies.RandAugmentSampler,
    ops_policies.TrivialAugment: policies.TrivialAugmentSampler,
    ops_policies.AutoAugment: policies.AutoAugmentSampler,
    ops_policies.ThreeAugment: policies.ThreeAugmentSampler,
    ops_policies.AugMix: aug_mix.AugMixSampler,
    ops_views.FiveCrop: views.CornerCropSampler,
    ops_views.TenCrop: views.CornerCropSampler,
    ops_views.MultiScale: views.MultiScaleSampler,
}


def sampler_of(op: BaseOp) -> Sampler:
    """Make the sampler of an op."""
    return SAMPLERS[type(op)](op)
