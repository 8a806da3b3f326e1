"""Writes a snapshot in Prometheus' text format: base units, counters that end in `_total`.

Counters start at 0 when the daemon starts, as Prometheus expects. `docs/operations/alerts.yml` has
alert rules for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from augd.protocol.dashboard_messages import Snapshot
from augd.version import __version__

CONTENT_TYPE = CONTENT_TYPE_LATEST

_STATES = ("starting", "ready", "killed")
_SLOTS = ("free", "filling", "ready", "sent", "draining")


def render(asked: Snapshot) -> bytes:
    """Return a snapshot in the text format."""
    registry = CollectorRegistry()
    registry.register(_Collector(asked))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, asked: Snapshot) -> None:
        self._asked = asked

    def collect(self) -> Iterator[Metric]:
        asked, snapshot = self._asked, self._asked.snapshot
        yield InfoMetricFamily("augd", "The daemon.", {"version": __version__})
        yield GaugeMetricFamily("augd_uptime_seconds", "Since the daemon started.", asked.uptime_s)
        yield CounterMetricFamily(
            "augd_daemon_cpu_seconds", "CPU time of the daemon's own process.", asked.cpu_s
        )
        yield CounterMetricFamily(
            "augd_daemon_restarts",
            "Daemons that crashed before this one; the supervisor restarted each.",
            snapshot["daemon_deaths"],
        )
        yield GaugeMetricFamily(
            "augd_healthy",
            "1, or 0 while its producers keep dying or it drains.",
            int(not snapshot["unhealthy"] and not snapshot["is_draining"]),
        )
        yield from _of_producers(snapshot)
        yield from _of_datasets(snapshot["datasets"])
        yield from _of_streams(snapshot["streams"])


def _of_producers(snapshot: dict[str, Any]) -> Iterator[Metric]:
    states = Counter(one["state"] for one in snapshot["producers"])
    yield _by("augd_producers", "Producer processes.", "state", {s: states[s] for s in _STATES})
    if snapshot["needed_producers"] is not None:
        yield GaugeMetricFamily(
            "augd_needed_producers",
            "How many producers the trainers' demand needs.",
            snapshot["needed_producers"],
        )
    made = snapshot["made"]
    for name, text, value in (
        ("restarts", "Producers that died and were replaced.", snapshot["restarts"]),
        ("busy_seconds", "Time that producers spent on making rows.", made["busy_s"]),
        ("idle_seconds", "Time that producers waited for work.", made["idle_s"]),
        ("images", "Images that producers made, repeated ones too.", made["images"]),
    ):
        yield CounterMetricFamily(f"augd_producer_{name}", text, value)


def _of_datasets(datasets: dict[str, Any]) -> Iterator[Metric]:
    for name, key, text in (
        ("sent_images", "images", "Images sent to trainers, padding not counted."),
        ("sent_batches", "batches", "Batches sent to trainers."),
        ("bad_images", "bad", "Images that were masked because they cannot be used."),
        ("trainer_wait_seconds", "waited_s", "Time that trainers waited for batches."),
        ("trainer_fetch_seconds", "fetch_s", "Part of the wait: for a batch on its way."),
        ("trainer_transfer_seconds", "transfer_s", "Time that handing batches to devices took."),
    ):
        family = CounterMetricFamily(f"augd_{name}", text, labels=["dataset"])
        for dataset, one in datasets.items():
            family.add_metric([dataset], one["sent"][key])
        yield family
    quarantined = {name: one["num_quarantined"] for name, one in datasets.items()}
    text = "Samples that are masked because they killed their decoder."
    yield _by("augd_quarantined_samples", text, "dataset", quarantined)
    samples = {name: one["num_samples"] for name, one in datasets.items()}
    yield _by("augd_dataset_samples", "Samples of the dataset.", "dataset", samples)


def _of_streams(streams: list[dict[str, Any]]) -> Iterator[Metric]:
    yield GaugeMetricFamily("augd_streams", "Open streams.", len(streams))
    slots: Counter[str] = Counter()
    for one in streams:
        slots.update(one["slots"])
    text = "Slots of all streams, by state: free, being filled, ready, or with a trainer."
    yield _by("augd_slots", text, "state", {state: slots[state] for state in _SLOTS})
    arenas = sum(one["arena_bytes"] for one in streams)
    yield GaugeMetricFamily("augd_arena_bytes", "Memory of all slots.", arenas)


def _by(name: str, text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
