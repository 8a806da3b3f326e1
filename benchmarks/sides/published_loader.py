"""Competitor: a published recipe by the library that it is published for, in a DataLoader.

`timm` is `timm.data.create_transform` with rand-m9-mstd0.5-inc1, bicubic and an erasure by noise,
as DeiT, Swin and ConvNeXt train. `torchvision` is its reference script's transform of its V2
weights: TrivialAugment and an erasure, on PIL images. `dino` is DINO's multi-crop of two global and
eight local views, written from its definition with torchvision's classes. Pillow decodes. With
`is_normalised` rows are float tensors, as these transforms give them; else uint8 tensors, which the
erasures of timm and torchvision, after the normalisation, are then left out of.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader, Dataset

from benchmarks.sides.peers._loop import photo_paths, serve_batches

_PREFETCH_FACTOR = 2  # batches per worker; the DataLoader's default
_EPOCH_SAMPLES = 1 << 20
_TRIES = 20

Rows = Callable[[Image.Image], Any]


class Photos(Dataset[Any]):
    """The photos of a folder through a recipe, over and over."""

    def __init__(self, paths: list[str], make_rows: Rows) -> None:
        """Take the files, and what makes the rows of a photo."""
        self._paths = paths
        self._make_rows = make_rows

    def __len__(self) -> int:
        """Return the samples of the long epoch."""
        return _EPOCH_SAMPLES

    def __getitem__(self, number: int) -> Any:
        """Make the rows of one photo.

        timm asks Pillow to keep no bit of about one image in 650, which current versions refuse:
        such an image is drawn again.
        """
        with Image.open(self._paths[number % len(self._paths)]) as photo:
            image = photo.convert("RGB")
        for _ in range(_TRIES):
            try:
                return self._make_rows(image)
            except ValueError as error:
                if "bits must be" not in str(error):
                    raise
        raise RuntimeError("no draw of the recipe could be made")


def timm_rows(*, is_normalised: bool) -> Rows:
    """Compose what timm's training script composes without its prefetcher."""
    rows: Rows = importlib.import_module("timm.data").create_transform(
        224,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        normalize=is_normalised,
    )
    return rows


def torchvision_rows(*, is_normalised: bool) -> Rows:
    """Compose torchvision's references/classification/presets.py, backend PIL, transforms v2."""
    v2 = importlib.import_module("torchvision.transforms.v2")
    ops = [
        v2.RandomResizedCrop(176, interpolation=v2.InterpolationMode.BILINEAR, antialias=True),
        v2.RandomHorizontalFlip(0.5),
        v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR),
        v2.PILToTensor(),
    ]
    if is_normalised:
        ops += [*_normalising(v2), v2.RandomErasing(p=0.1)]
    rows: Rows = v2.Compose(ops)
    return rows


def _normalising(v2: Any) -> list[Any]:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]


class DinoRows:
    """DINO's views: Caron et al. 2021, its appendix and main_dino.py, by torchvision's classes."""

    def __init__(self, *, is_normalised: bool) -> None:
        """Compose the three recipes."""
        v2 = importlib.import_module("torchvision.transforms.v2")
        end = [v2.PILToTensor(), *(_normalising(v2) if is_normalised else ())]

        def views(side_px: int, scale: tuple[float, float], blur_p: float, *more: Any) -> Rows:
            bicubic = v2.InterpolationMode.BICUBIC
            rows: Rows = v2.Compose(
                [
                    v2.RandomResizedCrop(side_px, scale=scale, interpolation=bicubic),
                    v2.RandomHorizontalFlip(0.5),
                    v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                    v2.RandomGrayscale(0.2),
                    v2.RandomApply([_Blur()], p=blur_p),
                    *more,
                    *end,
                ]
            )
            return rows

        self._recipes = (
            views(224, (0.4, 1.0), 1.0),
            views(224, (0.4, 1.0), 0.1, v2.RandomSolarize(128, p=0.2)),
            *(views(96, (0.05, 0.4), 0.5),) * 8,
        )

    def __call__(self, image: Image.Image) -> Any:
        """Make two views of 224 px and eight of 96."""
        rows = [recipe(image) for recipe in self._recipes]
        return torch.stack(rows[:2]), torch.stack(rows[2:])


class _Blur(torch.nn.Module):
    """Pillow's blur with the radius that DINO draws."""

    def forward(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


_RECIPES: Mapping[str, Callable[..., Rows]] = {
    "timm": timm_rows,
    "torchvision": torchvision_rows,
    "dino": DinoRows,
}


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, recipe, batch_size, workers, is_normalised."""
    name = arguments["recipe"]
    make_rows = _RECIPES[name](is_normalised=arguments["is_normalised"])
    loader: DataLoader[Any] = DataLoader(
        Photos(photo_paths(arguments["photos"]), make_rows),
        batch_size=arguments["batch_size"],
        shuffle=True,
        num_workers=arguments["workers"],
        prefetch_factor=_PREFETCH_FACTOR,
        persistent_workers=True,
        worker_init_fn=_start_worker,
        drop_last=True,
    )
    _start_worker(0)
    serve_batches(
        iter(loader),
        _first_view if name == "dino" else lambda batch: batch.numpy(),
        ahead=_PREFETCH_FACTOR * arguments["workers"],
        versions=lambda: {"torch": torch.__version__},
    )


def _first_view(batch: Any) -> Any:
    return batch[0][:, 0].numpy()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
