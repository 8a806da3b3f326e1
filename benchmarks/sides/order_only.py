"""Competitor: the order alone, of a dataset that doesn't exist, as one of many producers asks.

Several leases at once, the next ones of the epoch after those that the other producers took.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from augd.plan.order.order import Order
from augd.plan.order.shuffle_option import read_shuffle
from augd.server.daemon.broker.chunk_size import CHUNK_ROWS
from augd.server.daemon.broker.producers import DEPTH
from benchmarks._rounds import answer_rounds, run_chunks

_ROWS = DEPTH * CHUNK_ROWS


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: num_samples, shuffle, producers."""
    order = Order(arguments["num_samples"], 0, read_shuffle(arguments["shuffle"]))
    rows = np.arange(_ROWS, dtype=np.int64)
    # Epochs as long as the dataset, one after the other.
    turns = count(0, _ROWS * arguments["producers"])

    def draw() -> int:
        epoch, first = divmod(next(turns), order.num_samples)
        order.ids(epoch, first + rows)
        return _ROWS

    answer_rounds(partial(run_chunks, draw))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
