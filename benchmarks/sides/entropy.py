"""Competitor: nothing but the entropy decoding that a producer's rows need, by libjpeg-turbo alone.

The same samples in the same order: of each photo, libjpeg-turbo's own decoder reads the MCU rows
and drops them, all of them, or those down to the end of the producer's crop. Files lie in memory,
crops are planned beforehand. A yardstick: what no decoder could leave out, before the native
kernels did.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from augd.dataset.index_arrays import IndexArrays
from augd.dataset.readers.open_source import open_source
from augd.dataset.scan.build_index import load_or_build
from augd.pixels.decode import is_native
from augd.pixels.headers.read_header import read_header
from augd.plan.order.sample_sequence import Draw
from augd.plan.planner.planner import Planner
from augd.plan.recipe.recipe import output_size, parse_recipe
from benchmarks._libjpeg_rows import load_skip_rows
from benchmarks._rounds import answer_rounds, run_chunks

_NUM_PHOTOS = 1000  # held in memory; a larger set is measured by its first ones
_CHUNK = 32


def _work(arguments: Mapping[str, Any]) -> Iterator[tuple[bytearray, int]]:
    """Yield the content and the number of rows that are needed, of each sample of epoch 0."""
    index = load_or_build(arguments["photos"])
    arrays = IndexArrays(index.fd, index.dims_fd)
    recipe = parse_recipe(arguments["recipe"])
    planner = Planner(recipe, 0, output_size(recipe, arrays.first_size_px))
    source = open_source(arrays.root, arrays)
    draw = Draw(index.num_samples, 0, True)
    ids, epochs = draw.rows(0, np.arange(min(index.num_samples, _NUM_PHOTOS)))
    for sample, epoch in zip(ids.tolist(), epochs.tolist(), strict=True):
        content = source.read(sample)
        header = read_header(content)
        if not is_native(header):
            continue
        size = (np.full(1, side, np.int32) for side in (header.width, header.height))
        plan = planner.plan(np.array([sample]), np.array([epoch]), *size)
        _, y, _, height = plan.crop[0].tolist()
        rows = header.height if arguments["whole"] else y + height
        yield content, rows
    source.close()
    index.close()


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, recipe, whole."""
    work = list(_work(arguments))
    skip_rows = load_skip_rows()

    endless = itertools.cycle(work)

    def make() -> int:
        for one in itertools.islice(endless, _CHUNK):
            skip_rows(*one)
        return _CHUNK

    answer_rounds(partial(run_chunks, make))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
