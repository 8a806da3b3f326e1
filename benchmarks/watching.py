"""What does it cost that somebody watches?

One daemon with its page, one reader that lets go at once, and a watcher who reads every report and
asks for the metrics as Prometheus does: there and not there in turns. Then nobody reads and nobody
watches. CPU is steadier than speed on a busy machine: it is that of the daemon and its page.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import augd
from augd.client.batch import Batch
from augd.diagnostics.measure import all_batches
from augd.diagnostics.procfs import cpu_s
from benchmarks._report import Figure, Options, Target, run_alone
from benchmarks._rounds import settle, spread
from benchmarks._tree import tree

QUESTION = "What does it cost that somebody watches?"

_WATCHER = """
import sys, threading, time, urllib.request
def scrape():
    while True:
        urllib.request.urlopen(sys.argv[1] + "/metrics").read()
        time.sleep(5)
threading.Thread(target=scrape, daemon=True).start()
for line in urllib.request.urlopen(sys.argv[1] + "/events"):
    if line.startswith(b"data"):
        print(flush=True)
"""
_IDLE_S = 10.0


def run(options: Options) -> list[Figure]:
    """Measure with and without a watcher, then an idle daemon."""
    speeds: dict[bool, list[float]] = {True: [], False: []}
    shares: dict[bool, list[float]] = {True: [], False: []}
    with augd.serve(options.photos, producers=options.workers, http="127.0.0.1:0") as daemon:
        with augd.connect(daemon.address) as stream:
            batches = all_batches(stream)
            _read(batches, 2.0)
            pids = [daemon.pid, *_page(daemon.pid)]
            for number in range(2 * options.rounds):
                is_watched = number % 4 in (1, 2)  # in the order ABBA
                with _watcher(daemon.http, is_watched):
                    before = _cpu_s(pids)
                    speeds[is_watched].append(_read(batches, options.seconds))
                    shares[is_watched].append((_cpu_s(pids) - before) / options.seconds)
        settle(tree(daemon.pid))
        idle = []
        for _ in range(options.rounds):
            before = _cpu_s(pids)
            time.sleep(_IDLE_S)
            idle.append((_cpu_s(pids) - before) / _IDLE_S)
    ratios = (a / b for a, b in zip(speeds[True], speeds[False], strict=True))
    more = (a - b for a, b in zip(shares[True], shares[False], strict=True))
    of_cores = spread(share / options.workers for share in more)
    return [
        Figure("speed, watched / not", "x", spread(ratios), Target(">=", 0.99)),
        Figure("watching, of the cores", "CPU-s/s", of_cores, Target("<=", 0.01)),
        Figure("daemon and page, watched", "CPU-s/s", spread(shares[True])),
        Figure("daemon and page, idle", "CPU-s/s", spread(idle), Target("<=", 0.005)),
    ]


def _read(batches: Iterator[Batch], seconds: float) -> float:
    """Read for some seconds; returns images/s."""
    images, started = 0, time.perf_counter()
    while (passed_s := time.perf_counter() - started) < seconds:
        batch = next(batches)
        images += len(batch)
        batch.release()
    return images / passed_s


def _page(daemon_pid: int) -> list[int]:
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in tree(daemon_pid)}
    return [pid for pid, command in commands.items() if b"augd.server.dashboard" in command]


def _cpu_s(pids: list[int]) -> float:
    return sum(map(cpu_s, pids))


@contextmanager
def _watcher(url: str, is_wanted: bool) -> Iterator[None]:
    """Have somebody watch meanwhile; returns when he has seen the first report."""
    if not is_wanted:
        yield
        return
    command = [sys.executable, "-c", _WATCHER, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    run_alone("watching", QUESTION, run)
