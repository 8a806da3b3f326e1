"""Competitor: augd as it is used, a daemon with its producers and a NumPy client."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import augd
from augd.diagnostics.measure import Probe, all_batches, daemon_pid, fill_cache, measure, warm_up
from augd.diagnostics.procfs import cpu_s
from benchmarks._rounds import answer_rounds, settle

AUGD = (sys.executable, "-m", "augd")


@contextmanager
def _served(arguments: Mapping[str, Any]) -> Iterator[tuple[augd.ServedDaemon, list[int]]]:
    """Serve with own producers, or with those of a relay, whose pid is told, by loopback TCP."""
    photos, workers, remote = arguments["photos"], arguments["workers"], arguments.get("remote")
    if not remote:
        cache, shard_cache = arguments.get("cache"), arguments.get("shard_cache")
        with augd.serve(photos, producers=workers, cache=cache, shard_cache=shard_cache) as daemon:
            yield daemon, []
        return
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder, "keys")] if remote == "remote, CURVE" else []
        key = Path(folder, "maker.key")
        for keys in folders:
            make = [*AUGD, "keys", "new", "maker", "--produce"]
            options = ["--dir", str(keys), "--out", str(key)]
            subprocess.run([*make, *options], check=True, stdout=subprocess.DEVNULL)
        listen = [f"ipc://{folder}/d", "tcp://127.0.0.1:0"]
        with augd.serve(
            photos, producers=0, listen=listen, keys=next(iter(folders), None)
        ) as daemon:
            assign_lease = [*AUGD, "produce", f"{Path(photos).name}={photos}", "--quiet"]
            more = ["--connect", daemon.addresses[1], "--producers", str(workers)]
            keyed = [part for _ in folders for part in ("--keys", str(key))]
            relay = subprocess.Popen([*assign_lease, *more, *keyed])
            try:
                yield daemon, [relay.pid]
            finally:
                relay.terminate()
                relay.wait()


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, recipe, batch_size, workers, verify, caches, remote."""
    with (
        _served(arguments) as (daemon, relays),
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
        if arguments.get("cache") is not None:
            fill_cache(probe, batches)
        snapshot = probe.snapshot()
        pids = [daemon_pid(snapshot), *(one["pid"] for one in snapshot["producers"])]
        elsewhere = [*relays, *(pids[1:] if relays else ())]  # what `measure` does not count
        num_slots = sum(snapshot["streams"][0]["slots"].values())

        def run_round(seconds: float) -> dict[str, float]:
            for _ in range(num_slots):
                next(batches).release()  # they were made while others had their turn
            before_s = [cpu_s(pid) for pid in elsewhere]
            measured = measure(batches, probe, seconds)
            used_s = [cpu_s(pid) - before for pid, before in zip(elsewhere, before_s, strict=True)]
            settle(pids)
            costs = measured.daemon_cpu_s + measured.producers_cpu_s + measured.client_cpu_s
            whole_s = costs * measured.images / 1000 + sum(used_s)
            relay_s = sum(used_s[: len(relays)]) / measured.images * 1000
            return {**asdict(measured), "cpu_s": whole_s, "relay_cpu_s": relay_s}

        answer_rounds(run_round)
        probe.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
