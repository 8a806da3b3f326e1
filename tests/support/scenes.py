"""Small datasets and the ways to read a stream that the tests share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import augd
from augd.pixels import decode as decoding

# Every op of part 1 at a size that a hundred samples take milliseconds of.
SMALL = {
    "ops": [
        {"op": "random_resized_crop", "size": 32},
        {"op": "mirror", "p": 0.5},
        {"op": "pca", "alpha_std": 0.1},
    ],
    "filter": "linear",
}


@contextmanager
def opencv_decodes() -> Iterator[None]:
    """Leave the kernels out of all producers: deeds that are done in OpenCV's place need it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUGD_KERNELS", "off")
        yield


EITHER_KERNELS = [
    pytest.mark.usefixtures("kernels"),
    pytest.mark.parametrize("kernels", ["native", "none"], indirect=True, scope="module"),
]
"""For modules in which vector instructions play no part."""


def make_folder(
    folder: Path,
    *,
    num_classes: int,
    per_class: int,
    size_px: tuple[int, int] | None = None,
) -> Path:
    """Write small JPEGs of noise and gradients; `num_classes=0` gives a flat folder."""
    rng = np.random.default_rng(7)
    for number in range(max(1, num_classes)):
        below = folder / f"class{number}" if num_classes else folder
        below.mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            width, height = size_px or (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
            small = rng.integers(0, 256, (6, 6, 3), np.uint8)
            image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(below / f"{index:04}.jpg"), image)
    return folder


def make_coloured(
    folder: Path, per_class: int, classes: tuple[str, ...] = ("green", "red")
) -> Path:
    """Write small JPEGs of noise around a colour per class, which a network learns in no time."""
    rng = np.random.default_rng(3)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        colour = [(60, 40, 160), (40, 150, 60), (160, 60, 40)][sum(map(ord, name)) % 3]
        for index in range(per_class):
            noise = rng.normal(colour, 40, (48, 48, 3)) + number
            image = noise.clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{index:03}.jpg"), image)
    return folder


# Views with recipes and sizes of their own, in few pixels.
GROUPS: dict[str, Any] = {
    "filter": "linear",
    "views": [
        {"name": "global", "ops": [{"op": "random_resized_crop", "size": 24}, {"op": "mirror"}]},
        {"name": "global", "ops": [{"op": "random_resized_crop", "size": 24}, {"op": "pca"}]},
        {
            "name": "local",
            "count": 3,
            "fill": "constant",
            "ops": [
                {"op": "random_resized_crop", "size": 16, "scale": [0.05, 0.4]},
                {"op": "rotate", "degrees": 20, "p": 0.5},
            ],
        },
    ],
}


def _phase(from_epoch: int, side_px: int, *ops: dict[str, Any]) -> dict[str, Any]:
    crop = {"op": "random_resized_crop", "size": side_px}
    return {"from_epoch": from_epoch, "filter": "linear", "ops": [crop, {"op": "mirror"}, *ops]}


# Rows that grow, as in progressive resizing, and an op that ends.
PHASES: dict[str, Any] = {
    "phases": [_phase(0, 16, {"op": "pca"}), _phase(1, 32, {"op": "pca"}), _phase(2, 24)]
}
# Views of which one name changes its size and its number.
GROUPS_IN_PHASES: dict[str, Any] = {
    "phases": [
        {"from_epoch": 0, **GROUPS},
        {
            "from_epoch": 1,
            "views": [
                {**GROUPS["views"][0], "count": 3},
                {**GROUPS["views"][2], "ops": [{"op": "random_resized_crop", "size": 20}]},
            ],
        },
    ]
}


def arrays_of(batch: augd.Batch) -> dict[str, np.ndarray]:
    """Name every array of a batch; those of views by the name of their array in the slot."""
    views = {f"images.{name}": rows for name, rows in batch.views.items()}
    rest = {name: getattr(batch, name) for name in ("labels", "ids", "valid")}
    return (views or {"images": batch.images}) | rest


def read_epoch(stream: augd.Stream, epoch: int) -> list[dict[str, np.ndarray]]:
    """Read one epoch into private memory."""
    return [
        {name: array.copy() for name, array in arrays_of(batch).items()}
        for batch in stream.epoch(epoch)
    ]


def digest_epoch(
    address: str,
    *,
    epochs: int,
    batch_size: int = 16,
    on_batch: Callable[[augd.Batch], None] = lambda batch: None,
    recipe: Any = SMALL,
    **options: Any,
) -> list[str]:
    """Digest every byte that a client gets, an entry per epoch."""
    digests = []
    with augd.connect(address, recipe=recipe, batch_size=batch_size, **options) as stream:
        for epoch in range(epochs):
            digest = hashlib.blake2b()
            for batch in stream.epoch(epoch):
                on_batch(batch)
                for array in arrays_of(batch).values():
                    digest.update(array.tobytes())
            digests.append(digest.hexdigest())
    return digests


@contextmanager
def caught_noise() -> Iterator[None]:
    """Catch the libraries' warnings as a producer does, and give the stream back afterwards.

    Not a fixture: pytest's own capture takes descriptor 2 again between a fixture and its test.
    """
    old = os.dup(2)
    noise = decoding._noise_fd = decoding._divert_standard_error()
    try:
        yield
    finally:
        os.dup2(old, 2)
        os.close(old)
        os.close(noise)
        decoding._noise_fd = None
