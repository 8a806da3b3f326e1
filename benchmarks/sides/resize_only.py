"""Competitor: the resize kernel and nothing else, on the crops that a stream would make.

All photos are decoded before, the crops of some epochs are planned before, and rows are written
into as many slots as a stream has. What is left is what a row from a cache costs at the least: it
walks through all images in another order in each epoch, and through as much memory, as a stream
does, so that neither lies nearer to the processor than there.
"""

from __future__ import annotations

import json
import mmap
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from augd.dataset.index_arrays import IndexArrays
from augd.dataset.readers.open_source import open_source
from augd.dataset.scan.build_index import load_or_build
from augd.pixels import native
from augd.pixels.decode import Pixels, configure, decode, silence_library_noise
from augd.pixels.headers.read_header import read_header
from augd.plan.order.sample_sequence import Draw
from augd.plan.planner.planner import Planner
from augd.plan.recipe.recipe import output_size, parse_recipe
from benchmarks._rounds import answer_rounds, run_chunks

_CHUNK = 32
_ROWS = 4096  # crops that are planned at least, and made again and again: whole epochs of them
_SLOTS = 5  # as many as a stream has by default: four batches ahead, and the one in hand


def _decoded(index: IndexArrays) -> list[Pixels]:
    with open_source(index.root, index) as source:
        found = []
        for sample in range(index.num_samples):
            content = source.read(sample)
            header = read_header(content)
            found.append(decode(content, header, (0, 0, header.width, header.height)))
    return found


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, recipe, batch_size, workers, process."""
    if native.kernels is None:
        raise SystemExit("benchmarks.sides.resize_only: no native kernels; augd doctor says why")
    configure()
    silence_library_noise()
    found = load_or_build(arguments["photos"])
    index = IndexArrays(found.fd, found.dims_fd)
    recipe = parse_recipe(arguments["recipe"])
    height, width = output_size(recipe, index.first_size_px)
    images = _decoded(index)
    draw = Draw(index.num_samples, arguments["process"], shuffle=True)
    drawn = [
        draw.rows(epoch, np.arange(index.num_samples))
        for epoch in range(-(-_ROWS // index.num_samples))
    ]
    ids, epochs = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    sizes = np.array([images[sample].shape[1::-1] for sample in ids.tolist()], np.int32)
    plan = Planner(recipe, 0, (height, width)).plan(ids, epochs, sizes[:, 0], sizes[:, 1])
    rows = list(
        zip(ids.tolist(), plan.crop.tolist(), plan.scaled.tolist(), plan.window.tolist(),
            plan.mirror.tolist(), strict=True)
    )  # fmt: skip
    num_out = arguments["batch_size"] * _SLOTS
    slots = np.frombuffer(mmap.mmap(-1, num_out * height * width * 3), np.uint8)
    out = slots.reshape(num_out, height, width, 3)
    resize, is_linear = native.kernels.resize, recipe.filter == "linear"

    def resized() -> Iterator[int]:
        while True:
            for number, (sample, (x, y, w, h), scaled, window, mirror) in enumerate(rows):
                region = images[sample][y : y + h, x : x + w]
                resize(region, out[number % num_out], *scaled, *window, mirror, is_linear)
                yield number

    endless = resized()

    def make() -> int:
        for _ in range(_CHUNK):
            next(endless)
        return _CHUNK

    answer_rounds(partial(run_chunks, make))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
