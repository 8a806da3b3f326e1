"""augd as it is used: a daemon with its producers, and a NumPy client."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import augd
from augd.client.status import status
from augd.diagnostics.measure import all_batches
from benchmarks.sides.peers._loop import serve_batches

_AHEAD = 5  # the slots of a stream with the default `prefetch`


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, recipe, batch_size, workers."""
    with (
        augd.serve(arguments["photos"], producers=arguments["workers"]) as daemon,
        augd.connect(
            daemon.address, recipe=arguments["recipe"], batch_size=arguments["batch_size"]
        ) as stream,
    ):
        serve_batches(
            all_batches(stream),
            lambda batch: batch.images,
            ahead=_AHEAD,
            versions=lambda: {"augd": augd.__version__, **status(daemon.address)["environment"]},
            release=lambda batch: batch.release(),
        )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
