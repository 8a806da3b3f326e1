"""Competitor: order and plan alone, for a dataset of any number of samples, none of which exists.

What a producer does before it opens a file, several leases at once, at places all over the epoch.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from augd.diagnostics.procfs import anonymous_bytes
from augd.plan.order.order import Order
from augd.plan.planner.planner import Planner
from augd.plan.recipe.recipe import output_size, parse_recipe
from augd.server.daemon.broker.chunk_size import CHUNK_ROWS
from augd.server.daemon.broker.producers import DEPTH
from benchmarks._rounds import answer_rounds, run_chunks

_PHOTO_PX = (375, 500)  # height, width: ImageNet's median
_ROWS = DEPTH * CHUNK_ROWS


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: num_samples, recipe."""
    num_samples = arguments["num_samples"]
    recipe = parse_recipe(arguments["recipe"])
    order = Order(num_samples, seed=0, shuffle=True)
    planner = Planner(recipe, 0, output_size(recipe, _PHOTO_PX[::-1]))
    rows = np.arange(_ROWS, dtype=np.int64)
    epochs = np.zeros(_ROWS, np.int64)
    heights, widths = (np.full(_ROWS, side, np.int32) for side in _PHOTO_PX)

    def plan() -> int:
        first = random.randrange(max(1, num_samples - _ROWS))
        planner.plan(order.ids(0, first + rows), epochs, widths, heights)
        return _ROWS

    def run_round(seconds: float) -> dict[str, float]:
        return run_chunks(plan, seconds) | {"anonymous_bytes": anonymous_bytes(os.getpid())}

    answer_rounds(run_round)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
