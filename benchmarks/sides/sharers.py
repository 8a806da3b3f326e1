"""Competitor: one production read by several trainers, in turns, batch by batch.

What is counted is the CPU time of the producers for each image that *one* of the trainers gets.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import augd
from augd.client.status import status
from augd.diagnostics.measure import all_batches
from augd.diagnostics.procfs import cpu_s
from benchmarks._rounds import answer_rounds, settle


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, recipe, batch_size, workers, clients."""
    with augd.serve(arguments["photos"], producers=arguments["workers"]) as daemon:
        streams = [
            augd.connect(
                daemon.address,
                recipe=arguments["recipe"],
                batch_size=arguments["batch_size"],
                shared=arguments["clients"],
            )
            for _ in range(arguments["clients"])
        ]
        passes = [all_batches(stream) for stream in streams]

        def read_one() -> int:
            rows = 0
            for batches in passes:
                batch = next(batches)
                rows = len(batch)
                batch.release()
            return rows

        for _ in range(len(streams[0])):
            read_one()  # image sizes are learnt in the first epoch
        pids = [producer["pid"] for producer in status(daemon.address)["producers"]]

        def run_round(seconds: float) -> dict[str, float]:
            settle(pids)
            started, before_s = time.monotonic(), sum(map(cpu_s, pids))
            images = 0
            while (passed_s := time.monotonic() - started) < seconds:
                images += read_one()
            settle(pids)  # as many slots are full as there were at the start
            used_s = sum(map(cpu_s, pids)) - before_s
            return {"images": images, "seconds": passed_s, "cpu_s": used_s}

        answer_rounds(run_round)
        for stream in streams:
            stream.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
