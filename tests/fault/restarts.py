"""How long clients wait when a daemon aborts, and its supervisor starts the next.

    python -m tests.fault.restarts --aborts 10

Four clients stream in processes of their own, two by mapped memory and two by a port; SIGABRT ends
the daemon ten times. Printed are each abort's longest wait for a batch, of any client, and the
longest wait where nothing was done. Rows are not compared: the checker does that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import augd
from tests.support.processes import await_true
from tests.support.scenes import SMALL, make_folder

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = 4
CALM_S = 3.0  # before the first abort
EVERY_S = 3.0  # from an abort to the next
STEP_S = 0.02  # of a client, with a batch
LEAST_S = 0.05  # shorter waits are not told


def read(address: str) -> None:
    """Stream until killed; a line for the first batch, and for each wait that is worth one."""
    with augd.connect(address, recipe=SMALL, batch_size=16) as stream:
        print(json.dumps({"at": time.monotonic(), "waited_s": 0.0}), flush=True)
        for epoch in range(10**6):
            passing = stream.epoch(epoch)
            while True:
                began = time.monotonic()
                batch = next(passing, None)
                ended = time.monotonic()
                if ended - began > LEAST_S:
                    print(json.dumps({"at": ended, "waited_s": ended - began}), flush=True)
                if batch is None:
                    break
                batch.release()
                time.sleep(STEP_S)


@contextmanager
def clients(addresses: list[str], folder: Path) -> Iterator[list[Path]]:
    """Run a client for each address; yields the files that they write, once all have a batch."""
    with ExitStack() as stack:
        paths = []
        for number, address in enumerate(addresses):
            path = folder / f"client{number}"
            said = stack.enter_context(path.open("w"))
            command = [sys.executable, "-m", "tests.fault.restarts", "--read", address]
            process = subprocess.Popen(command, stdout=said, cwd=ROOT)
            stack.callback(process.wait)
            stack.callback(process.kill)
            paths.append(path)
        await_true(lambda: all(path.stat().st_size for path in paths), 60.0, "all have a batch")
        yield paths


def waits(paths: list[Path]) -> list[tuple[float, float]]:
    """All waits that were told: when each ended, and how long it was."""
    found = []
    for path in paths:
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                told = json.loads(line)
                found.append((told["at"], told["waited_s"]))
    return found


def longest(found: list[tuple[float, float]], begin: float, end: float) -> float:
    """The longest wait that ended between two moments."""
    return max((waited_s for at, waited_s in found if begin <= at < end), default=0.0)


def measure(aborts: int, seed: int) -> tuple[float, list[float]]:
    """Abort a daemon so many times; returns the longest wait before the first, and of each."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="augd-restarts-") as place:
        folder = make_folder(Path(place, "set"), num_classes=2, per_class=200)
        listen = [f"ipc://{place}/d", "tcp://127.0.0.1:0"]
        with (
            augd.serve({"small": folder}, producers=2, listen=listen) as daemon,
            clients((daemon.addresses * CLIENTS)[:CLIENTS], Path(place)) as paths,
        ):
            began = time.monotonic()
            time.sleep(CALM_S)
            moments = []
            for _ in range(aborts):
                moments.append(time.monotonic())
                os.kill(daemon.pid, signal.SIGABRT)
                time.sleep(EVERY_S + chance.uniform(0.0, 0.5))
            found = waits(paths)
            moments.append(time.monotonic())
    each = [longest(found, *pair) for pair in itertools.pairwise(moments)]
    return longest(found, began, moments[0]), each


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fault.restarts")
    parser.add_argument("--aborts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(options.read)
        return 0
    calm_s, each = measure(options.aborts, options.seed)
    print(f"longest wait for a batch, {CLIENTS} clients, none aborted: {calm_s:.2f} s")
    print("longest wait around each abort: " + ", ".join(f"{one:.2f}" for one in each))
    print(f"longest of {options.aborts} aborts: {max(each):.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
