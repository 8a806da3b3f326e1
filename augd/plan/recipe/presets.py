"""The recipes that have a name, as the plain data that a trainer could also write.

Only `parse_recipe("imagenet")` uses them. Every preset is plain data; none has a code path of its
own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from augd.plan.recipe.published_presets import EVALUATION, TRAINING

_SHORT_256 = {"op": "resize", "short": 256}
_PCA = {"op": "pca", "alpha_std": 0.1, "mode": "eigval"}
_MIRROR = {"op": "mirror", "p": 0.5}

PRESETS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        # Training: Szegedy et al. 2015 (crop), Krizhevsky et al. 2012 (mirror, PCA noise).
        "imagenet": {
            "ops": [
                {"op": "random_resized_crop", "size": 224, "scale": [0.08, 1.0]},
                _MIRROR,
                _PCA,
            ]
        },
        # Krizhevsky et al. 2012, sections 2 and 4.1.
        "alexnet": {
            "ops": [
                _SHORT_256,
                {"op": "center_crop", "size": 256},
                {"op": "random_crop", "size": 224},
                _MIRROR,
                _PCA,
            ]
        },
        # Simonyan and Zisserman 2015, section 3.1, with the shift of each channel.
        "vgg": {
            "ops": [
                {"op": "scale_jitter", "short": [256, 512], "crop": 224},
                _MIRROR,
                {"op": "rgb_shift", "max": 20},
            ]
        },
        # He et al. 2015, section 3.4.
        "resnet": {
            "ops": [{"op": "scale_jitter", "short": [256, 480], "crop": 224}, _MIRROR, _PCA]
        },
        # Szegedy et al. 2015, section 6, with the photometric distortions of Howard 2013.
        "inception": {
            "shuffle_colour": True,
            "ops": [
                {"op": "random_resized_crop", "size": 224},
                _MIRROR,
                {"op": "brightness", "v": 0.4},
                {"op": "saturation", "v": 0.4},
                {"op": "contrast", "v": 0.4},
            ],
        },
        # He et al. 2015, section 4.2: padded with black, as everywhere for CIFAR.
        "cifar": {
            "fill": "constant",
            "ops": [{"op": "random_crop", "size": 32, "pad": 4}, _MIRROR],
        },
        # Keras, "Image classification from scratch".
        "keras-small": {
            "ops": [
                {"op": "resize", "size": [180, 180]},
                _MIRROR,
                {"op": "rotate", "factor": 0.1},
                {"op": "zoom", "height": 0.2},
            ]
        },
        # Validation: what the published ImageNet accuracies of torchvision's models use.
        "eval": {"ops": [_SHORT_256, {"op": "center_crop", "size": 224}]},
        # Krizhevsky et al. 2012, section 4.1: ten views, whose softmax is averaged.
        "ten-crop": {"ops": [_SHORT_256, {"op": "ten_crop", "size": 224}]},
        # He et al. 2015, section 3.4: ten views at each of five scales.
        "multi-scale": {
            "ops": [{"op": "multi_scale", "short": [224, 256, 384, 480, 640], "crop": 224}]
        },
        # Pixels as decoded; every image must have the size of the first.
        "none": {"ops": []},
        **TRAINING,
        **EVALUATION,
    }
)
