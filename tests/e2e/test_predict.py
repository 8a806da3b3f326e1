"""`trainer predict` and `trainer export`: the same probabilities, whoever computes them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import augd
import augd.torch
from tests.support.learning import load, run_trainer
from tests.support.scenes import make_coloured
from trainer.models.build_network import build_staged_network

ARCH = "squeezenet1_1"
pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network in run/, photos/, and mixed/ without classes and with a damaged file."""
    root = tmp_path_factory.mktemp("ground")
    make_coloured(root / "photos" / "train", 8)
    make_coloured(root / "photos" / "val", 4)
    photos = sorted((root / "photos" / "val").rglob("*.jpg"))
    mixed = root / "mixed"
    mixed.mkdir()
    for number, path in enumerate(photos):
        (mixed / f"{number}.jpg").write_bytes(path.read_bytes())
    (mixed / "3.jpg").write_bytes(b"damaged")
    given = ("--arch", ARCH, "--size", 32, "--batch-size", 8, "--epochs", 2, "--device", "cpu")
    more = ("--optimizer", "adamw", "--lr", 3e-4, "--producers", 1, "--out", root / "run")
    assert run_trainer("fit", root / "photos", *given, *more) == 0
    return root


def predict(ground: Path, *arguments: object) -> int:
    given = ("--checkpoint", ground / "run", "--device", "cpu", "--batch-size", 3)
    return run_trainer("predict", *arguments, *given)


def expected(ground: Path) -> dict[str, Any]:
    """Probabilities of mixed/ by a loop of the test's own."""
    state = load(ground / "run/best.pt")
    network = build_staged_network(ARCH, 2, (32, 32)).network.eval()
    network.load_state_dict(state["model"])
    found = {}
    with (
        augd.serve({"m": ground / "mixed"}, producers=1) as daemon,
        augd.torch.connect(
            daemon.address, recipe=state["recipes"]["validation"], batch_size=2, shuffle=False,
            max_bad_fraction=1, device="cpu",
        ) as stream,
    ):  # fmt: skip
        for batch in stream.epoch(0):
            with torch.no_grad():
                shares = network(batch.images).softmax(1).numpy()
            for sample, share in zip(stream.paths(batch.ids), shares, strict=True):
                found[sample] = share
    return found


def test_a_folder_without_classes(ground: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(ground, ground / "mixed", "--producers", 1) == 0
    printed = capsys.readouterr()
    rows = list(csv.DictReader(printed.out.splitlines()))
    assert [Path(row["path"]).name for row in rows] == [f"{number}.jpg" for number in range(8)]
    assert all(row["path"].startswith(str(ground / "mixed")) for row in rows)
    by_hand = expected(ground)
    for row in rows:
        name = Path(row["path"]).name
        if name == "3.jpg":
            assert row["error"] == "cannot be read" and row["class"] == row["p_red"] == ""
            continue
        shares = np.array([float(row["p_green"]), float(row["p_red"])])
        assert np.abs(shares - by_hand[name]).max() < 1e-6
        assert row["class"] == ("green", "red")[shares.argmax()] and row["error"] == ""
        assert float(row["probability"]) == shares.max()
    assert "8 images, " in printed.err
    assert f"1 image cannot be read: '{ground / 'mixed' / '3.jpg'}'; `augd check`" in printed.err


def test_files_as_they_were_given(
    ground: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ground / "mixed")
    other = ground / "photos" / "val" / "green" / "000.jpg"
    out = tmp_path / "found.jsonl"
    given = ("5.jpg", other, "./1.jpg", "5.jpg", "--out", out, "--producers", 1)
    assert predict(ground, *given) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["path"] for line in lines} == {"5.jpg", str(other), "./1.jpg"} and len(lines) == 3
    assert all(sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5) for line in lines)


def test_views_ensembles_top_and_a_running_daemon(
    ground: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with augd.serve({"photos": ground / "photos"}, producers=1) as daemon:
        given = ("--connect", daemon.address, "--top", 1, "--views", "ten-crop")
        more = ("--checkpoint", ground / "run/last.pt", "--format", "csv")
        assert predict(ground, *given, *more) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(rows) == 24 and {len(row) for row in rows} == {6}
    assert all(row["class_1"] == row["class"] and row["p_1"] == row["probability"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "PATH: nowhere does not exist"),
        ([], "expected either PATHs or --connect ADDR, got neither"),
        (["{mixed}", "--connect", "ipc://x"], "expected either PATHs or --connect ADDR, got both"),
        (["{mixed}", "{mixed}/1.jpg"], "PATH: expected files alone, or folders and manifests, got"),
        (["{mixed}", "--format", "xml"], "--format: expected csv or jsonl, got 'xml'"),
        (["{mixed}", "--views", "two"], "--views: expected none, ten-crop, multi-scale, got 'two'"),
    ],
)
def test_refused(
    ground: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert predict(ground, *(one.format(mixed=ground / "mixed") for one in arguments)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_nothing_can_be_read(ground: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(ground, ground / "mixed/3.jpg", "--producers", 1) == 1
    assert "cannot be read" in capsys.readouterr().out


class TestExport:
    def export(self, ground: Path, out: Path, *more: object) -> int:
        given = (ground / "photos/val", "--checkpoint", ground / "run", "--producers", 1)
        return run_trainer("export", *given, "--device", "cpu", "--out", out, *more)

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("form", ["onnx", "torchscript"])
    def test_programs(
        self,
        ground: Path,
        tmp_path: Path,
        form: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        if form == "onnx":
            pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
            tqdm = pytest.importorskip("tqdm", reason="the exporter's, and it has a thread")
            monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)
        out = tmp_path / f"model.{form}"
        assert self.export(ground, out) == 0
        assert "Checked against predict on 8 images" in capsys.readouterr().out
        told = json.loads(Path(f"{out}.json").read_text())
        assert told["classes"] == ["green", "red"] and told["mean"] == [0.485, 0.456, 0.406]
        assert told["input"]["shape"] == ["batch", 3, 32, 32] and told["normalises_itself"]
        assert told["recipe"] == load(ground / "run/best.pt")["recipes"]["validation"]
        assert sorted(tmp_path.iterdir()) == [out, Path(f"{out}.json")]

    @pytest.mark.parametrize("form", ["safetensors", "pt"])
    def test_weights_in_both_directions(self, ground: Path, tmp_path: Path, form: str) -> None:
        if form == "safetensors":
            pytest.importorskip("safetensors", reason="safetensors is not installed")
        out = tmp_path / f"model.{form}"
        assert self.export(ground, out) == 0
        given = ("--arch", ARCH, "--size", 32, "--batch-size", 8, "--epochs", 1, "--device", "cpu")
        more = ("--weights", out, "--strategy", "head", "--lr", 1e-9, "--producers", 1)
        run = tmp_path / "run"
        assert run_trainer("fit", ground / "photos", *given, *more, "--out", run) == 0
        again, before = load(run / "last.pt")["model"], load(ground / "run/best.pt")["model"]
        assert all(torch.allclose(again[name], before[name], atol=1e-6) for name in before)

    def test_refused(self, ground: Path, tmp_path: Path, capsys: Any) -> None:
        assert self.export(ground, tmp_path / "model.h5") == 1
        said = capsys.readouterr().err
        assert "--out: expected a file that ends with .onnx, .torchscript, .safetensors" in said

    def test_what_says_something_else_is_not_written(
        self, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        import trainer.cli.export as command

        wrong = (command.write_torchscript, lambda path: lambda images: np.zeros((len(images), 2)))
        monkeypatch.setitem(command._PROGRAMS, ".torchscript", wrong)
        assert self.export(ground, tmp_path / "model.torchscript") == 1
        assert "was not written: its probabilities differ" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())
