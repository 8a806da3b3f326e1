"""The recipes that have a name, as the plain data that a trainer could also write.

Where it stands: `parse_recipe("imagenet")` looks here, and nothing else does. Every preset is
plain data; none has a code path of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

PRESETS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        # Training: Szegedy et al. 2015 (crop), Krizhevsky et al. 2012 (mirror, PCA noise).
        "imagenet": {
            "ops": [
                {"op": "random_resized_crop", "size": 224, "scale": [0.08, 1.0]},
                {"op": "mirror", "p": 0.5},
                {"op": "pca", "alpha_std": 0.1, "mode": "eigval"},
            ]
        },
        # Validation: what the published ImageNet accuracies of torchvision's models use.
        "eval": {"ops": [{"op": "resize", "short": 256}, {"op": "center_crop", "size": 224}]},
        # Pixels as decoded; every image must have the size of the first.
        "none": {"ops": []},
    }
)
