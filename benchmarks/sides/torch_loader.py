"""Competitor: torch's DataLoader with OpenCV, by its own best settings.

The ops of `imagenet`, drawn by the same laws with Python's `random`: random resized crop of
224, mirror, PCA noise. Decoding by OpenCV; the resize by OpenCV (`linear`) or Pillow
(`antialias`), the crop cut first. Persistent workers, four batches of each prefetched, OpenCV's
threads off, whole numbers in uint8 (B, H, W, 3). The epoch is made so long that it never ends:
the pause that a DataLoader makes between epochs is not counted against it.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from augd.diagnostics.procfs import cpu_s
from benchmarks._law import draw_crop
from benchmarks._rounds import answer_rounds, settle
from benchmarks.sides.peers._loop import photo_paths

_PREFETCH_FACTOR = 4
EPOCH_SAMPLES = 1 << 20
_SIDE_PX = 224
FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# Source: fb.resnet.torch; eigenvalues of RGB in [0, 1], eigenvectors as columns.
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)

Pixels = NDArray[np.uint8]


class Photos(Dataset[tuple[Pixels, int]]):
    """The photos of a folder, over and over."""

    def __init__(self, paths: list[str], filter: str) -> None:
        """Take the files and the filter's name."""
        self._paths = paths
        self._is_antialias = filter == "antialias"

    def __len__(self) -> int:
        """Return the samples of the long epoch."""
        return EPOCH_SAMPLES

    def __getitem__(self, number: int) -> tuple[Pixels, int]:
        """Make one row."""
        content = np.fromfile(self._paths[number % len(self._paths)], np.uint8)
        photo: Any = cv2.imdecode(content, FLAGS)
        x, y, width, height = draw_crop(photo.shape[1], photo.shape[0])
        row = self._resize(photo[y : y + height, x : x + width])
        if random.random() < 0.5:
            row = cv2.flip(row, 1)
        row = add_pca(row)
        return row if row.flags.writeable else row.copy(), -1  # Pillow's is not; torch warns

    def _resize(self, crop: Pixels) -> Any:
        size = (_SIDE_PX, _SIDE_PX)
        if not self._is_antialias:
            return cv2.resize(crop, size, interpolation=cv2.INTER_LINEAR)
        image = Image.fromarray(crop)
        # reducing_gap is left out: it would be another filter.
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def add_pca(row: Any) -> Any:
    """Add PCA noise as whole grey levels, raising and lowering: OpenCV's fastest way."""
    drawn = [random.gauss(0.0, 0.1) * value * 255 for value in _EIGENVALUES]
    shift = [
        round(sum(v * d for v, d in zip(vector, drawn, strict=True))) for vector in _EIGENVECTORS
    ]
    raised: Any = (*(max(c, 0) for c in shift), 0)
    lowered: Any = (*(max(-c, 0) for c in shift), 0)
    if any(raised):
        row = cv2.add(row, raised)
    if any(lowered):
        row = cv2.subtract(row, lowered)
    return row


def start_worker(_: int) -> None:
    """Leave the parallelism to the workers."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def load(
    rows: Dataset[tuple[Any, int]], arguments: Mapping[str, Any], prefetch_factor: int
) -> DataLoader[tuple[Any, int]]:
    """Make a DataLoader of rows, workers persistent. Arguments: batch_size, workers."""
    start_worker(0)
    return DataLoader(
        rows,
        batch_size=arguments["batch_size"],
        shuffle=True,
        num_workers=arguments["workers"],
        prefetch_factor=prefetch_factor,
        persistent_workers=True,
        worker_init_fn=start_worker,
        drop_last=True,
    )


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, filter, batch_size, workers."""
    serve(Photos(photo_paths(arguments["photos"]), arguments["filter"]), arguments)


def serve(rows: Dataset[tuple[Any, int]], arguments: Mapping[str, Any]) -> None:
    """Serve rounds of a DataLoader of these rows. Arguments: batch_size, workers."""
    batches: Any = iter(load(rows, arguments, _PREFETCH_FACTOR))
    workers = [process.pid for process in batches._workers]

    def run_round(seconds: float) -> dict[str, float]:
        for _ in range(_PREFETCH_FACTOR * len(workers) + 1):
            next(batches)  # they were made while others had their turn
        started, before_s = time.monotonic(), time.process_time() + sum(map(cpu_s, workers))
        images, passed_s = 0, 0.0
        while passed_s < seconds:
            images += len(next(batches)[0])
            passed_s = time.monotonic() - started
        used_s = time.process_time() + sum(map(cpu_s, workers)) - before_s
        settle(workers)
        return {"images": images, "seconds": passed_s, "cpu_s": used_s}

    answer_rounds(run_round)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
