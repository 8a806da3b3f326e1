"""Competitor: augd as it is used, a daemon with its producers and a NumPy client."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import augd
from augd.meter import Probe, all_batches, daemon_pid, measure, warm_up
from benchmarks._rounds import answer_rounds, settle

_FILLING_BATCHES = 16


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, recipe, batch_size, workers, verify, cache."""
    cache = arguments.get("cache")
    with (
        augd.serve(arguments["photos"], producers=arguments["workers"], cache=cache) as daemon,
        augd.connect(
            daemon.address,
            recipe=arguments["recipe"],
            batch_size=arguments["batch_size"],
            verify=arguments.get("verify", False),
        ) as stream,
    ):
        probe = Probe(stream, daemon.address)
        batches = all_batches(stream)
        warm_up(stream, batches)
        if cache is not None:
            _fill(probe, batches)
        snapshot = probe.snapshot()
        pids = [daemon_pid(snapshot), *(one["pid"] for one in snapshot["producers"])]
        num_slots = sum(snapshot["streams"][0]["slots"].values())

        def run_round(seconds: float) -> dict[str, float]:
            for _ in range(num_slots):
                next(batches).release()  # they were made while others had their turn
            measured = measure(batches, probe, seconds)
            settle(pids)
            costs = measured.daemon_cpu_s + measured.producers_cpu_s + measured.client_cpu_s
            return {**asdict(measured), "cpu_s": costs * measured.images / 1000}

        answer_rounds(run_round)
        probe.close()


def _fill(probe: Probe, batches: Iterator[augd.Batch]) -> None:
    """Read until nothing is added to the cache any more."""
    entries = -1
    while (found := probe.snapshot()["cache"]["entries"]) > entries:
        entries = found
        for _, batch in zip(range(_FILLING_BATCHES), batches, strict=False):
            batch.release()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
