"""Presets of published training recipes, and the evaluations that belong to them.

Plain data, as in `presets`. A preset is the part that is done to one image. What a recipe does to
whole batches (mixup, CutMix) or to the order (repeats) is named in `NOTES`, which `augd recipes`
prints with a preset.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from augd.plan.recipe.evaluation import evaluation_recipe

_MIRROR = {"op": "mirror", "p": 0.5}
_BLACK = {"fill": "constant", "fill_value": 0.0}
# timm fills with the mean of its constants, and erases by noise.
_NOISE = {
    "op": "erase",
    "p": 0.25,
    "area": [0.02, 1 / 3],
    "ratio": [0.3, 10 / 3],
    "fill": "pixel",
}
_TIMM = {"filter": "bicubic", "fill": "constant", "fill_value": [124.0, 116.0, 104.0]}


def _crop(size: int, low: float = 0.08, high: float = 1.0) -> dict[str, Any]:
    return {"op": "random_resized_crop", "size": size, "scale": [low, high]}


def timm_recipe(size: int, spec: str, *more: dict[str, Any]) -> dict[str, Any]:
    """Return what timm's training script does with a string of RandAugment, without an erasure."""
    policy = {"op": "rand_augment", "spec": spec}
    return {**_TIMM, "ops": [_crop(size), _MIRROR, policy, *more]}


def _jitter(
    brightness: float, contrast: float, saturation: float, hue: float, p: float
) -> dict[str, Any]:
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    return {"op": "color_jitter", **strengths, "hue": hue, "p": p}


def _blur(p: float) -> dict[str, Any]:
    return {"op": "gaussian_blur", "sigma": [0.1, 2.0], "p": p}


def _view(name: str, count: int, crop: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    """Return a group of views with the colours of BYOL, MoCo v3 and DINO."""
    ops = [crop, _MIRROR, _jitter(0.4, 0.4, 0.2, 0.1, 0.8), {"op": "grayscale", "p": 0.2}, *more]
    return {"name": name, "count": count, "ops": ops}


_SOLARIZE = {"op": "solarize", "threshold": 128, "p": 0.2}


def _dino(border: float) -> list[dict[str, Any]]:
    """Return DINO's views: large ones show this share of the photo or more, small ones less."""
    large, small = _crop(224, border), _crop(96, 0.05, border)
    return [
        _view("global", 1, large, _blur(1.0)),
        _view("global", 1, large, _blur(0.1), _SOLARIZE),
        _view("local", 8, small, _blur(0.5)),
    ]


TRAINING: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "torchvision-v1": {"ops": [_crop(224), _MIRROR]},
        "torchvision-v2": {
            **_BLACK,
            "ops": [_crop(176), _MIRROR, {"op": "trivial_augment"}, {"op": "erase", "p": 0.1}],
        },
        "ultralytics-classify": {
            **_BLACK,
            "ops": [
                _crop(224, 0.5),
                _MIRROR,
                {"op": "rand_augment", "style": "torchvision"},
                {"op": "erase", "p": 0.4},
            ],
        },
        "timm-a1": timm_recipe(224, "rand-m7-mstd0.5-inc1"),
        "timm-a2": timm_recipe(224, "rand-m7-mstd0.5-inc1"),
        "timm-a3": timm_recipe(160, "rand-m6-mstd0.5-inc1"),
        "deit": timm_recipe(224, "rand-m9-mstd0.5-inc1", _NOISE),
        "swin": timm_recipe(224, "rand-m9-mstd0.5-inc1", _NOISE),
        "convnext": timm_recipe(224, "rand-m9-mstd0.5-inc1", _NOISE),
        "mae-finetune": timm_recipe(224, "rand-m9-mstd0.5-inc1", _NOISE),
        "mae": {"filter": "bicubic", "ops": [_crop(224, 0.2), _MIRROR]},
        "openclip": {"filter": "bicubic", "ops": [_crop(224, 0.9)]},
        "deit3": {
            "filter": "bicubic",
            "ops": [_crop(224), _MIRROR, {"op": "three_augment"}, _jitter(0.3, 0.3, 0.3, 0.0, 1.0)],
        },
        "simclr": {
            "filter": "bicubic",
            "views": 2,
            "ops": [
                _crop(224),
                _MIRROR,
                _jitter(0.8, 0.8, 0.8, 0.2, 0.8),
                {"op": "grayscale", "p": 0.2},
                _blur(0.5),
            ],
        },
        "byol": {
            "views": [
                _view("view", 1, _crop(224), _blur(1.0)),
                _view("view", 1, _crop(224), _blur(0.1), _SOLARIZE),
            ]
        },
        "dino": {"filter": "bicubic", "views": _dino(0.4)},
        "dinov2": {"filter": "bicubic", "views": _dino(0.32)},
        "big-vision": {
            "filter": "linear",
            "fill": "constant",
            "fill_value": 128.0,
            "ops": [
                _crop(224, 0.05),
                _MIRROR,
                {"op": "rand_augment", "style": "tf", "layers": 2, "level": 10},
            ],
        },
        "cifar-aa": {
            **_BLACK,
            "ops": [
                {"op": "random_crop", "size": 32, "pad": 4},
                _MIRROR,
                {"op": "auto_augment", "policy": "cifar10"},
                {"op": "cutout", "size": 16},
            ],
        },
    }
)

EVALUATION: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "eval-100": evaluation_recipe(224, 1.0),
        "eval-232": {"ops": [{"op": "resize", "short": 232}, {"op": "center_crop", "size": 224}]},
        "eval-bicubic": evaluation_recipe(224, 0.875, "bicubic"),
        "eval-bicubic-95": evaluation_recipe(224, 0.95, "bicubic"),
        "eval-bicubic-100": evaluation_recipe(224, 1.0, "bicubic"),
    }
)

# Which evaluation belongs to a training recipe.
EVALUATION_OF: Mapping[str, str] = MappingProxyType(
    {
        "torchvision-v1": "eval",
        "torchvision-v2": "eval-232",
        "ultralytics-classify": "eval-100",
        "timm-a1": "eval-bicubic-95",
        "timm-a2": "eval-bicubic-95",
        "timm-a3": "eval-bicubic-95",
        "deit": "eval-bicubic",
        "swin": "eval-bicubic",
        "convnext": "eval-bicubic",
        "mae-finetune": "eval-bicubic",
        "deit3": "eval-bicubic-100",
        "simclr": "eval-bicubic",
        "byol": "eval-bicubic",
        "dino": "eval-bicubic",
        "dinov2": "eval-bicubic",
        "mae": "eval-bicubic",
        "big-vision": "eval",
        "cifar-aa": "none",
        "openclip": "eval-bicubic-100",
    }
)

_MIXED = "Besides: mixup 0.8 or CutMix 1.0 for each batch, label smoothing 0.1."

NOTES: Mapping[str, str] = MappingProxyType(
    {
        "torchvision-v1": (
            "torchvision, references/classification/presets.py without a policy: the recipe of its "
            "V1 weights of ResNet, ResNeXt, AlexNet and VGG."
        ),
        "torchvision-v2": (
            "torchvision, references/classification with --auto-augment ta_wide --random-erase 0.1 "
            "--train-crop-size 176: the recipe of its V2 weights. Besides: mixup 0.2 or CutMix 1.0 "
            "for each batch, each photo four times an epoch, label smoothing 0.1."
        ),
        "ultralytics-classify": (
            "Ultralytics, data/augment.py, classify_augmentations with the defaults of cfg: scale "
            "0.5, auto_augment randaugment, erasing 0.4. Constants: none, images in 0..1."
        ),
        "timm-a1": (
            "Wightman et al. 2021, ResNet strikes back, A1. Besides: mixup 0.2, CutMix 1.0, each "
            "photo three times an epoch, binary cross-entropy."
        ),
        "timm-a2": (
            "Wightman et al. 2021, ResNet strikes back, A2: images as in A1. Besides: mixup 0.1, "
            "CutMix 1.0, each photo three times an epoch, binary cross-entropy."
        ),
        "timm-a3": (
            "Wightman et al. 2021, ResNet strikes back, A3: 160 px, evaluated at 224. Besides: "
            "mixup 0.1, CutMix 1.0, binary cross-entropy."
        ),
        "deit": (
            f"Touvron et al. 2021; main.py of its code. {_MIXED} Each photo three times an epoch."
        ),
        "deit3": (
            "Touvron et al. 2022, DeiT III; augment.py of its code. Besides: mixup 0.8 or CutMix "
            "1.0 for each batch, each photo three times an epoch, binary cross-entropy. For its "
            "simple crop replace the first op by resize short=224 and random_crop size=224 pad=4."
        ),
        "swin": f"Liu et al. 2021; config.py and data/build.py of its code. {_MIXED}",
        "convnext": f"Liu et al. 2022; datasets.py of its code. {_MIXED}",
        "mae-finetune": f"He et al. 2022; FINETUNE.md of its code. {_MIXED}",
        "big-vision": (
            "big_vision, configs/vit_s16_i1k.py: inception crop, flip, randaugment(2, 10). Larger "
            "models have levels of 15 and 20. Besides: mixup 0.2. Constants: inception."
        ),
        "cifar-aa": (
            "Cubuk et al. 2019, AutoAugment for CIFAR-10, with the cutout of 16 px of DeVries and "
            "Taylor 2017. Besides, often: mixup 1.0."
        ),
        "mae": (
            "He et al. 2022; main_pretrain.py of its code. The patches are masked in the network."
        ),
        "openclip": (
            "OpenCLIP, open_clip/transform.py. Constants: clip. No mirror: images have text."
        ),
        "simclr": (
            "Chen et al. 2020; data_util.py of its code: two views of one recipe, batch.images (B, "
            "2, ...). Its blur darkens edges, for want of a border; this one mirrors them."
        ),
        "byol": (
            "Grill et al. 2020, appendix B; main_moco.py of MoCo v3 for ViT (its ResNet-50 crops "
            'from 0.2 on). Two views with recipes of their own: batch.views["view"] (B, 2, ...).'
        ),
        "dino": (
            "Caron et al. 2021; main_dino.py of its code. Two large views and eight small ones: "
            'batch.views["global"] (B, 2, 224, 224, 3), batch.views["local"] (B, 8, 96, 96, 3).'
        ),
        "dinov2": (
            "Oquab et al. 2023; data/augmentations.py of its code, as it is meant: views as in "
            "DINO. Its code takes the probability of a blur for that of none, so that its weights "
            "were trained with 0 and 0.9 of the large views blurred, not 1 and 0.1."
        ),
        "eval-100": "The whole short side: Ultralytics' classifiers.",
        "eval-232": "torchvision's V2 weights, such as ResNet50_Weights.IMAGENET1K_V2.",
        "eval-bicubic": "timm at crop_pct 0.875: DeiT, Swin, ConvNeXt, MAE, DINO, DINOv2.",
        "eval-bicubic-95": "timm at crop_pct 0.95: RSB A1, A2, A3.",
        "eval-bicubic-100": "timm at crop_pct 1.0: DeiT III; OpenCLIP.",
    }
)


class PresetRecipes(NamedTuple):
    """What a published recipe trains with, and what its networks are evaluated with."""

    training: dict[str, Any]
    evaluation: dict[str, Any]


def published_recipes(name: str, size: int | None = None) -> PresetRecipes | None:
    """Return both recipes of a published preset; None if it is none of them.

    `size` is the side of the training rows instead of the preset's own; resizes and crops of both
    keep their proportion to it. A preset of evaluation trains as it evaluates.
    """
    training = TRAINING.get(name) or EVALUATION.get(name)
    if training is None:
        return None
    evaluation = EVALUATION.get(EVALUATION_OF.get(name, name))
    if evaluation is None:
        evaluation = _PLAIN_EVALUATIONS[EVALUATION_OF[name]]
    if size is None or "ops" not in training:
        return PresetRecipes(training, evaluation)
    usual = next(op["size"] for op in reversed(training["ops"]) if op["op"] in _CROPS)
    return PresetRecipes(*(_scaled(plain, size, usual) for plain in (training, evaluation)))


_CROPS = ("random_resized_crop", "random_crop", "center_crop")
_PLAIN_EVALUATIONS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {"eval": evaluation_recipe(224), "none": {"ops": []}}
)


def _scaled(plain: dict[str, Any], size: int, usual: int) -> dict[str, Any]:
    def scaled(op: dict[str, Any]) -> dict[str, Any]:
        if op["op"] not in (*_CROPS, "resize"):
            return op
        keys = [key for key in ("short", "size") if key in op]
        return op | {key: round(op[key] * size / usual) for key in keys}

    return {**plain, "ops": [scaled(op) for op in plain["ops"]]}
