"""SPDL: its pipeline of threads with its ffmpeg decoder, crop and resize in ffmpeg's filters.

The whole photo is decoded, then cropped. The size stands in the header that demuxing reads.
swscale's bilinear filter widens when it shrinks, so it antialiases.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import spdl.io
from spdl.pipeline import PipelineBuilder

from benchmarks._law import MIRROR_P, SIDE_PX, draw_crop
from benchmarks.sides.peers._loop import forever, photo_paths, serve_batches

_BUFFERED = 2


def decode_row(path: str) -> Any:
    """Decode one photo to frames of 224 by 224."""
    packets = spdl.io.demux_image(Path(path).read_bytes())
    x, y, width, height = draw_crop(packets.width, packets.height)
    mirror = "hflip," if random.random() < MIRROR_P else ""
    return spdl.io.decode_packets(
        packets,
        filter_desc=f"crop={width}:{height}:{x}:{y}:exact=1,"
        f"scale={SIDE_PX}:{SIDE_PX}:flags=bilinear,{mirror}format=pix_fmts=rgb24",
    )


def stack(frames: list[Any]) -> Any:
    """Copy the rows of a batch into one array."""
    return spdl.io.to_numpy(spdl.io.convert_frames(frames))


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, batch_size, workers."""
    workers = arguments["workers"]
    pipeline = (
        PipelineBuilder()
        .add_source(forever(photo_paths(arguments["photos"])))
        .pipe(decode_row, concurrency=workers)
        .aggregate(arguments["batch_size"])
        .pipe(stack)
        .add_sink(_BUFFERED)
        .build(num_threads=workers)
    )
    with pipeline.auto_stop():
        serve_batches(
            iter(pipeline),
            lambda batch: batch,
            ahead=_BUFFERED + 4,  # and in the queues between its stages
            versions=lambda: {"spdl": version("spdl")},
        )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
