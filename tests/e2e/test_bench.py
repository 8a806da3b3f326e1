"""`augd bench` and the benchmarks, run for real on a few small photos; speed is not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

import augd
from augd.client.status import status
from augd.diagnostics.measure import daemon_pid
from augd.process.resource_limits import num_cores
from benchmarks._rounds import Competitor
from tests.support.scenes import SMALL, make_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=40)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=110, cwd=ROOT
    )


def left(name: str) -> object:
    """Leave what runs the same code on another competitor to `make soak`."""
    return pytest.param(name, marks=pytest.mark.soak(f"the benchmark or competitor {name}"))


def check(report: dict[str, Any]) -> None:
    """Assert what holds on any machine."""
    assert report["images_per_s"] == pytest.approx(report["images"] / report["seconds"])
    assert report["images"] > 0 and report["batches"] > 0 and report["bad"] == 0
    for name in ("daemon_cpu_s", "producers_cpu_s", "client_cpu_s", "plan_us"):
        assert report[name] > 0, name
    for name in ("daemon_cpu_share", "client_wait_share", "producers_idle_share", "on_core"):
        assert 0 <= report[name] <= 1, name
    assert report["daemon_cpu_s"] < report["producers_cpu_s"]
    assert report["limit"] in ("producers", "trainer", "both", "none")
    assert "%" in report["who_waits"]
    assert 1e6 < report["daemon_anonymous_bytes"] < 60e6
    assert len(report["producers_anonymous_bytes"]) == report["producers"]
    assert all(1e6 < size < 200e6 for size in report["producers_anonymous_bytes"])
    assert {"cores", "cpu", "opencv", "python", "augd"} <= set(report["machine"])
    assert (report["restarts"], report["other_streams"]) == (0, 0)


def test_a_daemon_of_its_own(folder, tmp_path):
    recipe = tmp_path / "small.toml"
    recipe.write_text('filter = "linear"\n[[ops]]\nop = "random_resized_crop"\nsize = 32\n')
    options = ["--seconds", "0.5", "--batch-size", "16", "--producers", "2", "--recipe"]
    done = run("augd", "bench", str(folder), *options, str(recipe), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    check(report)
    expected = {"num_samples": 80, "batch_size": 16, "producers": 2, "filter": "linear"}
    assert {name: report[name] for name in expected} == expected
    assert report["dataset"] == folder.name


def test_a_running_daemon_and_a_table(folder):
    with augd.serve({"small": folder}, producers=1) as daemon:
        before = status(daemon.address)
        done = run("augd", "bench", "--connect", daemon.address, "--seconds", "0.5")
        after = status(daemon.address)
        assert daemon_pid(after) == daemon.pid
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    for said in (
        "images/s delivered:",
        "of 'small' in",
        "recipe imagenet (antialias), batches of 256, 1 producer",
        "CPU-s per 1,000 images",
        "planning and order:",
        f"machine: {num_cores()} cores",
        f", OpenCV {cv2.__version__}",
    ):
        assert said in words, done.stdout
    assert after["instance"] == before["instance"]
    assert after["streams"] == [], "its stream is closed"


def test_other_streams_are_named(folder):
    with (
        augd.serve(folder, producers=1) as daemon,
        augd.connect(daemon.address, recipe=SMALL, batch_size=8),
    ):
        options = ["--seconds", "0.3", "--batch-size", "8", "--json"]
        done = run("augd", "bench", "--connect", daemon.address, *options)
    assert json.loads(done.stdout)["other_streams"] == 1, done


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "PATH: expected a folder or --connect ADDR, got neither"),
        (["photos", "--recipe", "nope"], "recipe: expected one of"),
        (["photos", "--seconds", "0"], "--seconds: expected 0.1..86400, got 0"),
        (["--connect", "ipc:///nowhere/at/all"], "no daemon at ipc:///nowhere/at/all: start one"),
    ],
)
def test_refusals_are_one_line(arguments, says):
    done = run("augd", "bench", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"augd: error: {says}")


@pytest.mark.slow
@pytest.mark.parametrize("name", [left("delivery"), "first_batch", left("waiting")])
def test_benchmarks_run_and_say_what_they_found(folder, name):
    options = ["--photos", str(folder), "--rounds", "1", "--seconds", "0.3"]
    done = run(f"benchmarks.{name}", *options)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout.splitlines()[-1])
    figures = document["figures"][name]
    assert all(figure["spread"]["median"] > 0 for figure in figures)
    assert any(figure["is_met"] is not None for figure in figures)
    assert document["machine"]["opencv"]


def test_a_data_loader_can_be_compared(folder):
    pytest.importorskip("torch")
    arguments = {"photos": str(folder), "filter": "antialias", "batch_size": 8, "workers": 1}
    with Competitor("DataLoader", "torch_loader", arguments=arguments) as loader:
        score = loader.run(0.2)
    assert score.images_per_s > 0 and score.cpu_s_per_1000 > 0


@pytest.mark.parametrize("library", ["OpenCV", left("torchvision"), left("Albumentations")])
def test_eight_ops_one_by_one_can_be_compared(folder, library):
    pytest.importorskip("torch")
    if library != "OpenCV":
        pytest.importorskip(library.lower())
    arguments = {"photos": str(folder), "filter": "linear", "batch_size": 4, "workers": 1}
    arguments["library"] = library
    with Competitor(library, "eight_ops_loader", arguments=arguments) as loader:
        score = loader.run(0.2)
    assert score.images_per_s > 0 and score.cpu_s_per_1000 > 0
