"""How long until the first batch: from typing `augd serve DIR`, with everything cold.

Server and client are fresh interpreters started at the same moment. With and without the
index of the folder in the user's cache, in turns; the files themselves are in the page cache.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._report import Figure, Options, Target, run_alone
from benchmarks._rounds import spread

QUESTION = "How long until the first batch?"
_PHASES = ("client imported", "daemon listens", "stream opened", "first batch")
_TIMEOUT_S = 60.0


def run(options: Options) -> list[Figure]:
    """Start cold, twice per round."""
    for path in sorted(options.photos.rglob("*")):
        if path.is_file():
            path.read_bytes()
    moments: dict[str, list[dict[str, float]]] = {"no index yet": [], "index cached": []}
    with tempfile.TemporaryDirectory(prefix="augd-bench-") as folder:
        for number in range(options.rounds):
            cache = Path(folder, str(number))
            for found in moments.values():  # the first start of a round leaves its index
                found.append(_start(options, Path(folder), cache))
    figures = []
    for name, found in moments.items():
        for phase in _PHASES:
            target = Target("<=", 0.8) if phase == "first batch" else None
            seconds = spread(one[phase] for one in found)
            figures.append(Figure(f"{phase}, {name}", "s", seconds, target))
    return figures


def _start(options: Options, folder: Path, cache: Path) -> dict[str, float]:
    """Start server and client together; returns seconds from that moment, by phase."""
    address = f"ipc://{folder}/serve"
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "AUGD_RUNTIME_DIR": str(folder)}
    serve = [sys.executable, "-m", "augd", "serve", str(options.photos), "--listen", address]
    serve += ["--producers", str(options.workers), "--quiet"]
    look = [sys.executable, "-m", "benchmarks.sides.first_look", address]
    started = time.monotonic()
    server = subprocess.Popen(serve, env=environment, stdin=subprocess.DEVNULL)
    try:
        client = subprocess.run(
            look, env=environment, stdout=subprocess.PIPE, check=True, timeout=_TIMEOUT_S
        )
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    said: dict[str, float] = json.loads(client.stdout)
    return {phase: said[phase] - started for phase in _PHASES}


if __name__ == "__main__":
    run_alone("first_batch", QUESTION, run)
