"""Competitor: the first epoch of a new daemon, with a cache that is empty or full, or none.

A round is one epoch, however long it is told to be. The daemon's start is not counted: its
producers are ready and idle before. With `is_cold` what is read was asked out of the page cache.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import augd
from augd.client.status import status
from benchmarks._rounds import answer_rounds, settle
from benchmarks._tree import cpu_between, cpu_by_pid, tree
from benchmarks.sides.epoch_reader import evict, resident_share
from benchmarks.sides.peers._loop import photo_paths

_READY_S = 60.0


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, recipe, batch_size, workers, is_cold, cache, folder.

    `cache` is for `augd.serve`, None for none. A `folder` that it names is full in every round;
    without one it is empty.
    """
    folder = arguments.get("folder")
    paths = photo_paths(arguments["photos"])

    def run_round(seconds: float) -> dict[str, float]:
        read = [*paths, *map(str, Path(folder).glob("augd*"))] if folder else paths
        if arguments["is_cold"]:
            evict(read)
        resident = resident_share(read)
        with augd.serve(
            arguments["photos"], producers=arguments["workers"], cache=arguments["cache"]
        ) as daemon:
            _await_producers(daemon.address)
            before, started, images = cpu_by_pid(os.getpid()), time.monotonic(), 0
            with augd.connect(
                daemon.address, recipe=arguments["recipe"], batch_size=arguments["batch_size"]
            ) as stream:
                for batch in stream.epoch(0):
                    images += len(batch)
                    batch.release()
                passed_s = time.monotonic() - started
                used_s = cpu_between(before, cpu_by_pid(os.getpid()))
        return {"images": images, "seconds": passed_s, "cpu_s": used_s, "resident": resident}

    if folder:
        shutil.rmtree(folder, ignore_errors=True)
        run_round(0.0)
    answer_rounds(run_round)


def _await_producers(address: str) -> None:
    deadline = time.monotonic() + _READY_S
    while any(one["state"] != "ready" for one in status(address, 10)["producers"]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the producers were not ready within {_READY_S:g} s")
        time.sleep(0.05)
    settle(tree(os.getpid()))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
