"""Metrics by Prometheus' conventions, and alert rules that name only what there is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="the extra http is not installed")
from prometheus_client.parser import text_string_to_metric_families

from augd.protocol.dashboard_messages import Snapshot
from augd.server.dashboard.metrics import render
from tests.support.table import Table

RULES = Path(__file__).resolve().parents[3] / "docs" / "operations" / "alerts.yml"
PROMTOOL = shutil.which("promtool")


def rendered(**changes: Any) -> bytes:
    table = Table()
    table.open(0, batch_size=32, prefetch=2)
    table.make_all()
    snapshot = {**table.broker.snapshot(), **changes}
    return render(Snapshot(snapshot, 12.5, 0.25))


def values(text: bytes) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(text.decode())
    return {(s.name, *s.labels.values()): s.value for one in families for s in one.samples}


def test_what_the_broker_counted_is_what_is_told() -> None:
    found = values(rendered())
    assert found["augd_sent_batches_total", "d"] == 3
    assert found["augd_sent_images_total", "d"] == found["augd_producer_images_total",] == 96
    assert found["augd_slots", "sent"] == 3
    assert found["augd_producers", "ready"] == 1
    assert found["augd_uptime_seconds",] == 12.5
    assert found["augd_daemon_cpu_seconds_total",] == 0.25
    assert found["augd_healthy",] == 1


def test_how_many_producers_are_needed_is_told_once_it_is_known() -> None:
    assert ("augd_needed_producers",) not in values(rendered(needed_producers=None))
    assert values(rendered(needed_producers=7))["augd_needed_producers",] == 7


@pytest.mark.parametrize("change", [{"unhealthy": "SIGSEGV"}, {"is_draining": True}])
def test_not_healthy(change: dict[str, Any]) -> None:
    assert values(rendered(**change))["augd_healthy",] == 0


def test_names_are_in_base_units_and_counters_end_in_total() -> None:
    for family in text_string_to_metric_families(rendered().decode()):
        assert family.name.startswith("augd"), family.name
        assert family.documentation.endswith("."), family.name
        assert not re.search(r"_(ms|us|ns|milliseconds|kb|mb|percent)(_|$)", family.name)
        assert family.type in ("counter", "gauge"), family.name
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name


def test_rules_name_only_metrics_that_there_are() -> None:
    named = set(re.findall(r"\baugd_\w+", RULES.read_text()))
    known = {key[0] for key in values(rendered())}
    assert len(named) >= 6 and named <= known, named - known


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool on the PATH: apt-get install prometheus")
def test_promtool_finds_no_fault() -> None:
    assert PROMTOOL is not None
    for command, given in (
        (["check", "rules", str(RULES)], b""),
        (["check", "metrics", "--extended"], rendered()),
    ):
        done = subprocess.run([PROMTOOL, *command], input=given, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
