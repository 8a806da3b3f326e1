"""Competitor: reads photos and decodes a crop of each at its own scale, and nothing else.

By the segments under it, by decoding a region of the whole file, or by decoding all of it with
OpenCV. Every side crops the same places of the same photos.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from augd.dataset.index_arrays import IndexArrays
from augd.dataset.readers.open_source import open_source
from augd.dataset.scan.build_index import load_or_build
from augd.pixels import native
from augd.pixels.decode import configure, decode, decode_cut
from augd.pixels.headers.read_header import read_header
from augd.pixels.jpeg_segments import Cut
from benchmarks._rounds import answer_rounds, run_chunks

_CHUNK = 4


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, side_px, way: "segments", "region" or "whole"."""
    side, way = arguments["side_px"], arguments["way"]
    configure()
    if way == "whole":
        native.kernels = None
    index = load_or_build(arguments["photos"])
    arrays = IndexArrays(index.fd, index.dims_fd)
    source = open_source(arrays.root, arrays)
    rng = np.random.default_rng(0)

    def crop() -> None:
        sample = int(rng.integers(index.num_samples))
        at_x, at_y = rng.random(2)
        if way == "segments":
            table = arrays.segments(sample)
            assert table is not None
            width, height = table.width, table.height
            x, y = int(at_x * (width - side)), int(at_y * (height - side))
            cut = source.read_region(sample, (x, y, side, side))
            assert isinstance(cut, Cut)
            decode_cut(cut, (x, y, side, side))
            return
        content = source.read(sample)
        header = read_header(content)
        x, y = int(at_x * (header.width - side)), int(at_y * (header.height - side))
        if way == "region":
            decode(content, header, (x, y, side, side))
        else:
            decode(content, header, (0, 0, header.width, header.height))

    def make() -> int:
        for _ in range(_CHUNK):
            crop()
        return _CHUNK

    answer_rounds(partial(run_chunks, make))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
