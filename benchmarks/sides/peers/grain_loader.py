"""Grain: its MapDataset with worker processes. It has no images of its own, so OpenCV makes rows.

Grain hands each sample a generator that is keyed by its index; the crop is drawn from that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import cv2
import grain
import numpy as np

from benchmarks._law import MIRROR_P, SIDE_PX, draw_crop
from benchmarks.sides.peers._loop import photo_paths, serve_batches

_BUFFERED = 2  # batches per worker, as the DataLoader's
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def make_row(path: str, rng: Any) -> Any:
    """Make uint8 (224, 224, 3); 2 taps."""
    photo: Any = cv2.imdecode(np.fromfile(path, np.uint8), _FLAGS)
    x, y, width, height = draw_crop(photo.shape[1], photo.shape[0], rng.uniform)
    crop = photo[y : y + height, x : x + width]
    row = cv2.resize(crop, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR)
    return cv2.flip(row, 1) if rng.random() < MIRROR_P else row


def start_worker(number: int, count: int) -> None:
    """Leave the parallelism to the workers."""
    cv2.setNumThreads(0)


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, batch_size, workers."""
    cv2.setNumThreads(0)
    rows = (
        grain.MapDataset.source(photo_paths(arguments["photos"]))
        .seed(0)
        .shuffle()
        .repeat()
        .random_map(make_row)
        # One thread a worker reads and decodes: more would only fight for the worker's core.
        .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=16))
        .batch(arguments["batch_size"], drop_remainder=True)
        .mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=arguments["workers"], per_worker_buffer_size=_BUFFERED
            ),
            worker_init_fn=start_worker,
        )
    )
    serve_batches(
        iter(rows),
        lambda batch: batch,
        ahead=2 * _BUFFERED * arguments["workers"],  # in workers, and on their way
        versions=lambda: {"grain": version("grain"), "opencv": cv2.__version__},
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
