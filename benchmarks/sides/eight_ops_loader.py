"""Competitor: eight ops one by one, by OpenCV, Albumentations or torchvision v2, in a DataLoader.

The recipe of `_competitors.eight_ops`: random resized crop, mirror, rotation, shear, brightness,
contrast, saturation, PCA noise, as users of each library compose it: every op is a call on the
result of the one before, so that a row is resampled three times and rounded by each colour op. All
decode by OpenCV and are driven by the DataLoader of `torch_loader`.

Albumentations and torchvision have no PCA noise of a dataset's components (Albumentations'
FancyPCA decomposes each image, which is other work, and slow): OpenCV's addition of `torch_loader`
stands in for it, as a user's own function.
"""

from __future__ import annotations

import importlib
import json
import math
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from benchmarks._law import draw_crop
from benchmarks.sides.peers._loop import photo_paths
from benchmarks.sides.torch_loader import (
    EPOCH_SAMPLES,
    FLAGS,
    Pixels,
    add_pca,
    serve,
)

_SIDE_PX = 224
_ROTATION_DEG = 10.0
_SHEAR = 0.1
_SHEAR_DEG = math.degrees(math.atan(_SHEAR))
_STRENGTH = 0.4
_FACTORS = (1 - _STRENGTH, 1 + _STRENGTH)
_SCALE, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)

Ops = Callable[[Pixels], Any]


class Rows(Dataset[tuple[Any, int]]):
    """Photos of a folder through one library's ops, over and over."""

    def __init__(self, paths: list[str], library: str, filter: str) -> None:
        """Take the files, and name the library; its ops are made in the worker that needs them."""
        self._paths = paths
        self._chosen = library, filter
        self._ops: Ops | None = None

    def __len__(self) -> int:
        """Return the samples of the long epoch."""
        return EPOCH_SAMPLES

    def __getitem__(self, number: int) -> tuple[Any, int]:
        """Make one row."""
        if self._ops is None:
            library, filter = self._chosen
            self._ops = LIBRARIES[library](filter)
        content = np.fromfile(self._paths[number % len(self._paths)], np.uint8)
        photo: Any = cv2.imdecode(content, FLAGS)
        return self._ops(photo), -1


def by_opencv(filter: str) -> Ops:
    """Compose the ops of calls to OpenCV; Pillow resizes with "antialias"."""
    size = (_SIDE_PX, _SIDE_PX)

    def make(photo: Pixels) -> Any:
        x, y, width, height = draw_crop(photo.shape[1], photo.shape[0])
        crop = photo[y : y + height, x : x + width]
        if filter == "antialias":
            row: Any = np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.BILINEAR))
        else:
            row = cv2.resize(crop, size, interpolation=cv2.INTER_LINEAR)
        if random.random() < 0.5:
            row = cv2.flip(row, 1)
        middle = (_SIDE_PX - 1) / 2
        angle = random.uniform(-_ROTATION_DEG, _ROTATION_DEG)
        row = _warped(row, cv2.getRotationMatrix2D((middle, middle), angle, 1.0))
        shear = random.uniform(-_SHEAR, _SHEAR)
        row = _warped(row, np.array([[1.0, shear, -shear * middle], [0.0, 1.0, 0.0]]))
        row = cv2.convertScaleAbs(row, alpha=random.uniform(*_FACTORS))
        factor = random.uniform(*_FACTORS)
        mean = float(cv2.mean(cv2.cvtColor(row, cv2.COLOR_RGB2GRAY))[0])
        row = cv2.addWeighted(row, factor, row, 0.0, (1 - factor) * mean)
        factor = random.uniform(*_FACTORS)
        grey = cv2.cvtColor(cv2.cvtColor(row, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        row = cv2.addWeighted(row, factor, grey, 1 - factor, 0.0)
        return add_pca(row)

    return make


def _warped(row: Any, matrix: Any) -> Any:
    size = (_SIDE_PX, _SIDE_PX)
    return cv2.warpAffine(row, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def by_albumentations(filter: str) -> Ops:
    """Compose the ops by Albumentations, which has no antialiased bilinear resize."""
    if filter != "linear":
        raise ValueError(f"filter: expected 'linear', got {filter!r}")
    library = importlib.import_module("albumentations")
    border = cv2.BORDER_REFLECT
    ops = library.Compose(
        [
            library.RandomResizedCrop(size=(_SIDE_PX, _SIDE_PX), scale=_SCALE, ratio=_RATIO),
            library.HorizontalFlip(p=0.5),
            library.Rotate(limit=_ROTATION_DEG, border_mode=border, p=1.0),
            library.Affine(
                shear={"x": (-_SHEAR_DEG, _SHEAR_DEG), "y": (0.0, 0.0)}, border_mode=border, p=1.0
            ),
            library.ColorJitter(
                brightness=_FACTORS, contrast=_FACTORS, saturation=_FACTORS, hue=(0.0, 0.0), p=1.0
            ),
        ]
    )
    return lambda photo: add_pca(ops(image=photo)["image"])


def by_torchvision(filter: str) -> Ops:
    """Compose the ops by torchvision v2, on uint8 tensors as its guide advises."""
    import torch

    library = importlib.import_module("torchvision.transforms.v2")
    bilinear = library.InterpolationMode.BILINEAR
    size = (_SIDE_PX, _SIDE_PX)
    ops = library.Compose(
        [
            library.RandomResizedCrop(size, _SCALE, _RATIO, antialias=filter == "antialias"),
            library.RandomHorizontalFlip(0.5),
            library.RandomRotation(_ROTATION_DEG, bilinear),
            library.RandomAffine(0, shear=_SHEAR_DEG, interpolation=bilinear),
            library.ColorJitter(_STRENGTH, _STRENGTH, _STRENGTH),
        ]
    )

    def make(photo: Pixels) -> Any:
        row = ops(torch.from_numpy(photo).permute(2, 0, 1))
        return torch.from_numpy(add_pca(row.permute(1, 2, 0).contiguous().numpy()))

    return make


LIBRARIES: Mapping[str, Callable[[str], Ops]] = {
    "OpenCV": by_opencv,
    "Albumentations": by_albumentations,
    "torchvision": by_torchvision,
}


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, filter, batch_size, workers, library."""
    rows = Rows(photo_paths(arguments["photos"]), arguments["library"], arguments["filter"])
    serve(rows, arguments)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
