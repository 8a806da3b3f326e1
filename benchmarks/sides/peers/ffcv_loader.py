"""FFCV: its compiled pipeline over a file of its own, which `ffcv_write` wrote before.

The whole photo is decoded; crop and resize are OpenCV's area filter, FFCV has no other. The
samples are named so many times over that the epoch never ends.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.reader import Reader
from ffcv.transforms import RandomHorizontalFlip, ToTensor

from benchmarks._law import MIRROR_P, RATIO, SCALE, SIDE_PX
from benchmarks.sides.peers._loop import serve_batches

_AHEAD = 3
_EPOCH_SAMPLES = 1 << 20


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: file, batch_size, workers."""
    num_samples = Reader(arguments["file"]).num_samples
    crop = RandomResizedCropRGBImageDecoder((SIDE_PX, SIDE_PX), scale=SCALE, ratio=RATIO)
    loader = Loader(
        arguments["file"],
        batch_size=arguments["batch_size"],
        num_workers=arguments["workers"],
        order=OrderOption.RANDOM,
        indices=np.tile(np.arange(num_samples, dtype=np.uint64), _EPOCH_SAMPLES // num_samples),
        batches_ahead=_AHEAD,
        os_cache=True,
        pipelines={
            "image": [crop, RandomHorizontalFlip(MIRROR_P), ToTensor()],
            "label": [IntDecoder(), ToTensor()],
        },
    )
    serve_batches(
        iter(loader),
        lambda batch: batch[0].numpy(),
        ahead=_AHEAD + 1,
        versions=lambda: {"ffcv": version("ffcv")},
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
