"""The checker for a few seconds, and that its trainers notice what they are there for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import augd
from tests.fault.checked_trainer import EPOCHS, SEEDS, Reader, Task
from tests.fault.checker import RECIPE, check
from tests.fault.row_comparison import Mismatch, Reference
from tests.support.scenes import make_folder

pytestmark = pytest.mark.slow

NUM = 20


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=NUM // 2)
    with augd.serve({"small": folder}, producers=1) as served:
        yield served


@pytest.fixture(scope="module")
def table(daemon, tmp_path_factory) -> Path:
    reference = Reference()
    for seed in SEEDS:
        with augd.connect(daemon.address, recipe=RECIPE, batch_size=8, seed=seed) as stream:
            for epoch in range(EPOCHS):
                reference.add(seed, epoch, stream.epoch(epoch))
    path = tmp_path_factory.mktemp("table") / "reference"
    reference.save(path)
    return path


def reader_of(daemon: augd.ServedDaemon, table: Path, folder: Path) -> Reader:
    return Reader(
        Task(
            "one",
            "plain",
            daemon.address,
            {"small": str(table)},
            RECIPE,
            5,
            str(folder / "stop"),
            str(folder / "state"),
        )
    )


KINDS = ["_read_plain", "_read_together", "_read_elastic"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_undisturbed_daemon_passes(daemon, table, tmp_path, capsys, kind):
    reader = reader_of(daemon, table, tmp_path)
    for _ in range(3):
        getattr(reader, kind)({})
    reader._tell(is_last=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert not any(one["failures"] for one in told)
    assert sum(one["counts"].get("rows", 0) for one in told) >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_differs_is_told(daemon, table, tmp_path, capsys, kind):
    """Every row of the reference is altered, so that whichever is read first will do."""
    altered = json.loads(table.read_text())
    for rows in altered.values():
        for row in rows:
            row[1] = row[1][::-1]
    beside = tmp_path / "altered"
    beside.write_text(json.dumps(altered))
    reader = reader_of(daemon, beside, tmp_path)
    if kind != "_read_together":
        with pytest.raises(Mismatch, match="differs from its reference"):
            getattr(reader, kind)({})
        return
    reader._read_together({})  # its streams are read by threads
    lines = capsys.readouterr().out.splitlines()
    told = [one for line in lines for one in json.loads(line)["failures"]]
    assert len(told) == 3
    assert all("differs from its reference" in one["text"] for one in told)


@pytest.mark.fault(
    "daemon dies unasked: SIGABRT, SIGKILL, any other end",
    "supervisor SIGKILL",
    "remote producer, its relay, its host or its link ends",
)
@pytest.mark.longer("everything killed by chance for ten minutes instead of five seconds")
def test_everything_is_killed_by_chance_and_no_row_differs():
    report = check(5.0, seed=2, is_short=True)
    assert report.is_good(), "\n".join(report.lines())
    assert len(report.done) > 2
