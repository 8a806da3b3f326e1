"""torch's DataLoader, with three ways to make a row: PIL, torchvision.io and OpenCV.

`pil` and `io` are torchvision's transforms v2 as its documentation has them, on a PIL image and on
a tensor. `opencv` draws the same crop itself and takes OpenCV's 2-tap resize. Persistent workers,
OpenCV's and torch's threads off in them, uint8 to the end. The epoch is so long that it never ends:
the pause that a DataLoader makes between epochs is not counted against it.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import torch
import torchvision  # type: ignore[import-untyped]
from PIL import Image
from torch.utils.data import Dataset
from torchvision import io
from torchvision.transforms import v2  # type: ignore[import-untyped]

from benchmarks._law import MIRROR_P, RATIO, SCALE, SIDE_PX, draw_crop
from benchmarks.sides.peers._loop import photo_paths, serve_batches
from benchmarks.sides.torch_loader import load

_PREFETCH_FACTOR = 2  # batches per worker; its default
_EPOCH_SAMPLES = 1 << 20
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


class Photos(Dataset[tuple[Any, int]]):
    """The photos of a folder, over and over."""

    def __init__(self, paths: list[str], make_row: Callable[[str], Any]) -> None:
        """Take the files, and what makes a row of one."""
        self._paths = paths
        self._make_row = make_row

    def __len__(self) -> int:
        """Return the samples of the long epoch."""
        return _EPOCH_SAMPLES

    def __getitem__(self, number: int) -> tuple[Any, int]:
        """Make one row, with a label that means nothing."""
        return self._make_row(self._paths[number % len(self._paths)]), -1


class PilRows:
    """PIL decodes; torchvision's transforms work on the PIL image, antialiased."""

    def __init__(self) -> None:
        """Compose the transforms."""
        self._transform = v2.Compose([_crop(), v2.RandomHorizontalFlip(MIRROR_P), v2.PILToTensor()])

    def __call__(self, path: str) -> Any:
        """Make uint8 (3, 224, 224)."""
        with Image.open(path) as photo:
            return self._transform(photo.convert("RGB"))


class IoRows:
    """torchvision.io decodes; the same transforms work on the tensor, antialiased."""

    def __init__(self) -> None:
        """Compose the transforms."""
        self._transform = v2.Compose([_crop(), v2.RandomHorizontalFlip(MIRROR_P)])

    def __call__(self, path: str) -> Any:
        """Make uint8 (3, 224, 224)."""
        return self._transform(io.decode_jpeg(io.read_file(path), io.ImageReadMode.RGB))


def opencv_row(path: str) -> Any:
    """Make uint8 (224, 224, 3) with OpenCV alone; 2 taps."""
    photo: Any = cv2.imdecode(np.fromfile(path, np.uint8), _FLAGS)
    x, y, width, height = draw_crop(photo.shape[1], photo.shape[0])
    crop = photo[y : y + height, x : x + width]
    row = cv2.resize(crop, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR)
    return cv2.flip(row, 1) if random.random() < MIRROR_P else row


def _crop() -> Any:
    return v2.RandomResizedCrop(SIDE_PX, scale=SCALE, ratio=RATIO, antialias=True)


_ROWS: dict[str, Callable[[], Callable[[str], Any]]] = {
    "pil": PilRows,
    "io": IoRows,
    "opencv": lambda: opencv_row,
}


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, rows, batch_size, workers."""
    rows = Photos(photo_paths(arguments["photos"]), _ROWS[arguments["rows"]]())
    loader = load(rows, arguments, _PREFETCH_FACTOR)
    maker = (
        {"opencv": cv2.__version__}
        if arguments["rows"] == "opencv"
        else {"torchvision": torchvision.__version__}
    )
    serve_batches(
        iter(loader),
        lambda batch: batch[0].numpy(),
        ahead=_PREFETCH_FACTOR * arguments["workers"],
        versions=lambda: {"torch": torch.__version__, **maker},
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
