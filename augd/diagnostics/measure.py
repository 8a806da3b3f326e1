"""Measures a running daemon through one of its streams: rates, costs, and shares of waiting.

Runs in a client's process, under `augd bench`. It releases every batch at once. It measures from
the arrival of one batch to the arrival of another, so that neither the start nor an unfinished
batch counts. CPU time comes from the kernel, counters from the daemon's status. It changes nothing
in the daemon and adds no work to a producer.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from augd.client.batch import Batch
from augd.client.connect import connect
from augd.client.status import StatusClient
from augd.client.stream import Stream
from augd.diagnostics.bottleneck import Bottleneck, diagnose
from augd.diagnostics.procfs import anonymous_bytes, cpu_s

_Batch = TypeVar("_Batch", covariant=True)

_WARM_UP_S = 1.0
_FILLING_BATCHES = 16
_WARM_UP_MAX_S = 5.0  # for the rest of a first epoch, in which image sizes become known


@dataclass(frozen=True, slots=True)
class CounterSnapshot:
    """All counters at one moment; seconds since they started.

    Counters of producers are by number. Those that only their own host knows are by pid, and of
    producers on this host.
    """

    client_cpu_s: float
    client_wait_s: float
    client_fetch_s: float
    daemon_cpu_s: float
    producers_cpu_s: dict[int, float]
    idle_s: dict[int, float]
    own_idle_s: dict[int, float]
    plan_s: dict[int, float]
    rows: dict[int, int]
    restarts: int
    num_streams: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """What happened between two batches.

    Shares are of the elapsed time, in 0..1; those of producers are their mean. CPU seconds are
    per 1,000 images delivered. `plan_us` is planning and order together, per sample made.
    `on_core` is the share of the producers' working time in which they had a core. In the rest
    they waited for storage, or for cores that other processes used.
    """

    images: int
    batches: int
    bad: int
    seconds: float
    images_per_s: float
    daemon_cpu_s: float
    producers_cpu_s: float
    client_cpu_s: float
    daemon_cpu_share: float
    client_wait_share: float
    client_fetch_share: float
    producers_idle_share: float
    on_core: float
    plan_us: float
    restarts: int
    other_streams: int


class Probe:
    """Reads the counters of a daemon, its producers and this client. `close()` it."""

    def __init__(self, stream: Stream, address: str | None, keys: str | None = None) -> None:
        self._stream = stream
        self._inquirer = StatusClient(address, keys=keys)

    def snapshot(self) -> dict[str, Any]:
        """Ask the daemon for its snapshot."""
        return self._inquirer.status()

    def read(self) -> CounterSnapshot:
        """Read every counter now."""
        snapshot = self.snapshot()
        pool = {one["pid"]: one for one in own_producers(snapshot)}
        stats = self._stream.stats()
        return CounterSnapshot(
            client_cpu_s=cpu_s(os.getpid()),
            client_wait_s=stats["wait_s"],
            client_fetch_s=stats["fetch_s"],
            daemon_cpu_s=cpu_s(daemon_pid(snapshot)),
            producers_cpu_s={pid: cpu_s(pid) for pid in pool},
            idle_s={one["number"]: one["idle_s"] for one in snapshot["producers"]},
            own_idle_s={pid: one["idle_s"] for pid, one in pool.items()},
            plan_s={pid: one["plan_s"] for pid, one in pool.items()},
            rows={pid: one["rows"] for pid, one in pool.items()},
            restarts=snapshot["restarts"],
            num_streams=len(snapshot["streams"]),
        )

    def close(self) -> None:
        """Close the status connection; the stream stays open."""
        self._inquirer.close()


def daemon_pid(snapshot: Mapping[str, Any]) -> int:
    """Return the pid of the daemon."""
    return int(snapshot["pid"])


def own_producers(snapshot: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List the producers on the daemon's host: pids of other hosts are meaningless here."""
    return [one for one in snapshot["producers"] if one["pid"] and not one["host"]]


class Epochs(Protocol[_Batch]):
    """A stream of batches of any kind."""

    def epoch(self, epoch: int) -> Iterator[_Batch]: ...


def all_batches(stream: Epochs[_Batch]) -> Iterator[_Batch]:
    """Yield the batches of epoch 0, 1, 2, ... without end."""
    return itertools.chain.from_iterable(stream.epoch(epoch) for epoch in itertools.count())


def warm_up(stream: Stream, batches: Iterator[Batch]) -> None:
    """Read until the pipeline is steady: a second, and the first epoch of a small dataset."""
    started = time.monotonic()
    for number, batch in enumerate(batches, 1):
        batch.release()
        passed_s = time.monotonic() - started
        was_epoch = batch.epoch > 0 or number >= len(stream)
        if passed_s >= _WARM_UP_MAX_S or (passed_s >= _WARM_UP_S and was_epoch):
            return


def fill_cache(probe: Probe, batches: Iterator[Batch]) -> None:
    """Read until the daemon's cache of decoded images stops growing."""
    entries = -1
    while (found := probe.snapshot()["cache"]["entries"]) > entries:
        entries = found
        for _, batch in zip(range(_FILLING_BATCHES), batches, strict=False):
            batch.release()


@contextmanager
def opened(
    address: str | None, recipe: Mapping[str, Any], batch_size: int, keys: str | None = None
) -> Iterator[tuple[Stream, Probe, Iterator[Batch]]]:
    """Open a stream to be measured, warm it up, and yield it with a probe and its batches."""
    with connect(address, recipe=recipe, batch_size=batch_size, keys=keys) as stream:
        probe = Probe(stream, address, keys)
        try:
            batches = all_batches(stream)
            warm_up(stream, batches)
            yield stream, probe, batches
        finally:
            probe.close()


def measure(
    batches: Iterator[Batch],
    probe: Probe,
    seconds: float,
    step: Callable[[Batch], object] | None = None,
) -> Measurement:
    """Read batches for `seconds`, at least one; call it when the production is steady.

    `step` is called with each batch before its release, as a training step would be.
    """
    next(batches).release()
    started, before = time.monotonic(), probe.read()
    images = bad = num_batches = 0
    passed_s = 0.0
    while passed_s < seconds:
        batch = next(batches)
        passed_s = time.monotonic() - started
        num_batches += 1
        images += len(batch)
        bad += len(batch) - int(batch.valid.sum())
        if step is not None and passed_s < seconds:
            step(batch)
        batch.release()
    return compare(before, probe.read(), images, num_batches, bad, passed_s)


def compare(
    before: CounterSnapshot,
    after: CounterSnapshot,
    images: int,
    batches: int,
    bad: int,
    seconds: float,
) -> Measurement:
    """Return rates and shares, from two snapshots and the batches received between them."""
    daemon = after.daemon_cpu_s - before.daemon_cpu_s
    client = after.client_cpu_s - before.client_cpu_s
    producers = _grown(before.producers_cpu_s, after.producers_cpu_s)
    idle = _grown(before.idle_s, after.idle_s)
    own_idle = _grown(before.own_idle_s, after.own_idle_s)
    worked = seconds * len(after.own_idle_s)
    worked -= min(own_idle, worked)
    thousands = images / 1000
    return Measurement(
        images=images,
        batches=batches,
        bad=bad,
        seconds=seconds,
        images_per_s=images / seconds,
        daemon_cpu_s=daemon / thousands,
        producers_cpu_s=producers / thousands,
        client_cpu_s=client / thousands,
        daemon_cpu_share=daemon / (daemon + client + producers),
        client_wait_share=_share(after.client_wait_s - before.client_wait_s, seconds),
        client_fetch_share=_share(after.client_fetch_s - before.client_fetch_s, seconds),
        producers_idle_share=_share(idle, seconds * max(1, len(after.idle_s))),
        on_core=_share(producers, worked) if worked else 1.0,
        plan_us=1e6 * _grown(before.plan_s, after.plan_s) / max(1, _grown(before.rows, after.rows)),
        restarts=after.restarts - before.restarts,
        other_streams=after.num_streams - 1,
    )


def _grown(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Sum the growth over the present producers; a new one began at 0."""
    return sum(value - before.get(pid, 0) for pid, value in after.items())


def _share(part: float, whole: float) -> float:
    """Divide, clipped to 0..1: counters sent at a chunk's end may overshoot a little."""
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0


def verdict_on(measured: Measurement, num_producers: int) -> Bottleneck:
    """Name the bottleneck of a measurement."""
    shares = measured.client_wait_share, measured.producers_idle_share
    fetch = measured.client_fetch_share
    return diagnose(*shares, num_producers, on_core=measured.on_core, fetch=fetch)


def memory_bytes(snapshot: Mapping[str, Any]) -> tuple[int, list[int]]:
    """Anonymous memory of the daemon, and of each producer."""
    pids = [one["pid"] for one in own_producers(snapshot)]
    return anonymous_bytes(daemon_pid(snapshot)), [anonymous_bytes(pid) for pid in pids]
