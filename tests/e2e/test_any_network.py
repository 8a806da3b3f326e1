"""Networks that torchvision does not have, through every command that takes a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import augd
from tests.support.learning import load, run_trainer
from tests.support.scenes import make_coloured

pytestmark = pytest.mark.usefixtures("one_torch_thread")

NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, width=8):
        super().__init__()
        self.body = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, width, 3), nn.ReLU(),
                                  nn.MaxPool2d(2), nn.Conv2d(width, width, 3), nn.ReLU())
        self.top = nn.Linear(width, num_classes)
    def forward(self, images):
        return self.top(self.body(images).mean((2, 3)))
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[augd.ServedDaemon]:
    root = tmp_path_factory.mktemp("photos")
    make_coloured(root / "train", 8)
    make_coloured(root / "val", 4)
    with augd.serve({"photos": root}, producers=1) as served:
        yield served


def common(daemon: augd.ServedDaemon, out: Path) -> list[object]:
    return ["--connect", daemon.address, "--device", "cpu", "--out", out]


def fit(daemon: augd.ServedDaemon, out: Path, arch: str, *more: object) -> int:
    options = ("--arch", arch, "--size", 32, "--batch-size", 8, "--epochs", 1, *more)
    return run_trainer("fit", *common(daemon, out), *options)


def test_own_code(
    daemon: augd.ServedDaemon,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "own_any_network.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    arch, run = "own_any_network:Net?width=4", tmp_path / "run"
    assert fit(daemon, run, arch, "--head", "top") == 0
    assert load(run / "best.pt")["settings"]["head"] == "top"
    for command, checkpoint in (("evaluate", run), ("inspect", run)):
        given = ("--checkpoint", checkpoint, *common(daemon, tmp_path / command))
        capsys.readouterr()
        assert run_trainer(command, *given) == 1
        assert (
            "of own code, own_any_network:Net?width=4, which a file may" in capsys.readouterr().err
        )
        assert run_trainer(command, *given, "--arch", arch) == 0
    assert json.loads((tmp_path / "evaluate/results.json").read_text())["samples"] == 8
    stored = ("--weights", run / "best.pt", "--arch", arch, "--size", 32, "--epochs", 2)
    assert run_trainer("features", *common(daemon, tmp_path / "features"), *stored) == 0
    other = "own_any_network:Net?width=5"
    given = ("--checkpoint", run, *common(daemon, tmp_path / "other"), "--arch", other)
    assert run_trainer("evaluate", *given) == 1
    told = capsys.readouterr().err
    assert "does not fit own_any_network:Net?width=5" in told
    assert "body.1.weight: 4 x 3 x 3 x 3 there, 5 x 3 x 3 x 3 here" in told


@pytest.mark.filterwarnings("ignore")
def test_timm(daemon: augd.ServedDaemon, tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    run = tmp_path / "run"
    assert fit(daemon, run, "timm:test_convnext") == 0
    for command in ("evaluate", "inspect"):
        given = ("--checkpoint", run, *common(daemon, tmp_path / command))
        assert run_trainer(command, *given) == 0
    stored = ("--weights", run / "best.pt", "--arch", "timm:test_convnext", "--size", 32)
    assert run_trainer("features", *common(daemon, tmp_path / "f"), *stored, "--epochs", 1) == 0
