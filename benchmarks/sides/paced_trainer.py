"""Competitor: a training process without a GPU, whose step is a sleep, fed by augd.

Each round takes batches as fast as they come, to learn the producers' rate there and then, and
after that at a share of this rate, as a GPU would that is so much slower than its producers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import augd
import trainer
from augd.client.status import status
from augd.diagnostics.measure import all_batches, daemon_pid
from augd.diagnostics.procfs import cpu_s
from benchmarks._rounds import answer_rounds, settle

_FREE_SHARE = 0.4  # of a round


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, recipe, batch_size, workers, share."""
    with (
        augd.serve(arguments["photos"], producers=arguments["workers"]) as daemon,
        trainer.connect(
            daemon.address,
            recipe=arguments["recipe"],
            batch_size=arguments["batch_size"],
            drop_last=True,
            device="cpu",
            normalize=False,  # two cores: what the CPU would do for the GPU is the producers' time
        ) as stream,
    ):
        snapshot = status(daemon.address)
        pids = [daemon_pid(snapshot), *(one["pid"] for one in snapshot["producers"])]
        batches = all_batches(stream)
        for _ in range(len(stream) * 2):
            next(batches).release()  # the first epochs read the disk and learn sizes

        def take(seconds: float, step_s: float) -> tuple[int, float, float]:
            """Return images, seconds and seconds waited."""
            waited_s = stream.stats()["wait_s"]
            images, started_s = 0, time.monotonic()
            while (taken_s := time.monotonic() - started_s) < seconds:
                batch = next(batches)
                images += len(batch)
                batch.release()
                if step_s:
                    time.sleep(step_s)
            return images, taken_s, stream.stats()["wait_s"] - waited_s

        def run_round(seconds: float) -> dict[str, float]:
            take(0.1, 0)  # what was prefetched while others had their turn
            images, taken_s, _ = take(_FREE_SHARE * seconds, 0)
            rate = images / taken_s
            settle(pids)  # a training begins with its slots full
            before_s = sum(map(cpu_s, pids))
            step_s = arguments["batch_size"] / (arguments["share"] * rate)
            images, taken_s, waited_s = take((1 - _FREE_SHARE) * seconds, step_s)
            used_s = sum(map(cpu_s, pids)) - before_s
            settle(pids)
            return {
                "images": images,
                "seconds": taken_s,
                "cpu_s": used_s,
                "waiting": waited_s / taken_s,
                "producers_rate": rate,
            }

        answer_rounds(run_round)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
