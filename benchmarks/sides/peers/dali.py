"""DALI on the CPU: its own reader, region decoding, resize and mirror; no GPU is used."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import nvidia.dali
from nvidia.dali import fn, pipeline_def, types

from benchmarks._law import MIRROR_P, RATIO, SCALE, SIDE_PX
from benchmarks.sides.peers._loop import photo_paths, serve_batches

_PREFETCH = 2
_SHUFFLED_AMONG = 1024
_TRIES = 10


@pipeline_def  # type: ignore[untyped-decorator,unused-ignore]
def rows(paths: list[str], antialias: bool) -> Any:
    """Define uint8 (224, 224, 3) rows with labels that mean nothing."""
    contents, labels = fn.readers.file(
        files=paths,
        labels=[0] * len(paths),
        random_shuffle=True,
        initial_fill=min(len(paths), _SHUFFLED_AMONG),
    )
    crops = fn.decoders.image_random_crop(
        contents,
        device="cpu",
        random_area=list(SCALE),
        random_aspect_ratio=list(RATIO),
        num_attempts=_TRIES,
    )
    resized = fn.resize(
        crops, size=[SIDE_PX, SIDE_PX], interp_type=types.INTERP_LINEAR, antialias=antialias
    )
    return fn.flip(resized, horizontal=fn.random.coin_flip(probability=MIRROR_P)), labels


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, antialias, batch_size, workers."""
    pipeline = rows(
        photo_paths(arguments["photos"]),
        arguments["antialias"],
        batch_size=arguments["batch_size"],
        num_threads=arguments["workers"],
        device_id=None,
        prefetch_queue_depth=_PREFETCH,
    )
    pipeline.build()

    def batches() -> Iterator[Any]:
        while True:
            yield pipeline.run()

    serve_batches(
        batches(),
        lambda batch: np.asarray(batch[0].as_tensor()),
        ahead=_PREFETCH,
        versions=lambda: {"dali": nvidia.dali.__version__},
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
