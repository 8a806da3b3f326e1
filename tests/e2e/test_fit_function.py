"""`augd.torch.splits` and `augd.torch.fit`: the command's result, from Python."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import augd
import augd.torch
from tests.support.learning import assert_same, load, run_trainer
from tests.support.scenes import make_coloured
from trainer.data.host_feed import Batch
from trainer.models.build_network import build_model
from trainer.training.loop import Training

ARCH = "shufflenet_v2_x0_5"
pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[augd.ServedDaemon]:
    """24 photos to train on: three batches; 10 to validate with."""
    root = tmp_path_factory.mktemp("photos")
    make_coloured(root / "train", 12)
    make_coloured(root / "val", 5)
    with augd.serve({"photos": root}, producers=1) as served:
        yield served


@pytest.fixture
def splits(daemon: augd.ServedDaemon) -> Iterator[augd.torch.Splits]:
    with augd.torch.splits(
        daemon.address, size=32, batch_size=8, seed=3, device="cpu", balance="class", mixup=0.4
    ) as opened:
        yield opened


OPTIONS: dict[str, Any] = {
    "epochs": 2, "optimizer": "adamw", "lr": 3e-4, "ema": 0.9, "dropout": 0.2,
}  # fmt: skip


def command(daemon: augd.ServedDaemon, out: Path, *more: object) -> dict[str, Any]:
    given = [
        *("--connect", daemon.address, "--size", 32, "--batch-size", 8, "--seed", 3),
        *("--balance", "class", "--mixup", 0.4, "--device", "cpu", "--out", out, "--arch", ARCH),
    ]
    for name, value in OPTIONS.items():
        given += [f"--{name}", value]
    assert run_trainer("fit", *given, *more) == 0
    return load(out / "last.pt")


def test_a_name_comes_to_the_command_s_result(
    daemon: augd.ServedDaemon, splits: augd.torch.Splits, tmp_path: Path
) -> None:
    expected = command(daemon, tmp_path / "command")
    found = augd.torch.fit(ARCH, splits, out=tmp_path / "run", quiet=True, **OPTIONS)
    assert_same(load(tmp_path / "run/last.pt"), expected)
    assert found.out == tmp_path / "run" and found.classes == ["green", "red"]
    assert len(found.history) == 2
    assert found.best_val_accuracy == max(one["val_accuracy"] for one in found.history)


def test_a_module_comes_to_it_too_and_is_trained_itself(
    daemon: augd.ServedDaemon, splits: augd.torch.Splits, tmp_path: Path, capsys: Any
) -> None:
    expected = command(daemon, tmp_path / "command")
    torch.manual_seed(3)
    network = build_model(ARCH, 2)
    found = augd.torch.fit(network, splits, arch=ARCH, out=tmp_path / "run", **OPTIONS)
    assert_same(load(tmp_path / "run/last.pt"), expected)
    assert found.network is network
    for name, one in network.state_dict().items():
        assert torch.equal(one, expected["model"][name])
    assert f"{ARCH}, 0.3 million weights, 2 classes, on cpu: 24 images" in capsys.readouterr().out
    given = ("--checkpoint", tmp_path / "run", "--connect", daemon.address, "--device", "cpu")
    assert run_trainer("evaluate", *given, "--out", tmp_path / "evaluation") == 0


def test_a_module_with_weights_of_its_own(splits: augd.torch.Splits, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = build_model(ARCH, 1000)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    augd.torch.fit(
        network, splits, pretrained=True, strategy="head", epochs=1, out=tmp_path, quiet=True
    )
    now = network.state_dict()
    assert {n for n in now if n not in before or now[n].shape != before[n].shape} == {
        "fc.weight", "fc.bias"
    }  # fmt: skip
    assert all(torch.equal(now[name], before[name]) for name in now if "fc" not in name)
    settings = load(tmp_path / "last.pt")["settings"]
    assert settings["arch"] == "torchvision.models.shufflenetv2:ShuffleNetV2"


def test_ctrl_c_saves_and_resume_goes_on(
    daemon: augd.ServedDaemon,
    splits: augd.torch.Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = command(daemon, tmp_path / "command")
    given = {"out": tmp_path / "run", "quiet": True, **OPTIONS}
    real = Training.step

    def stopping(self: Training, batch: Batch) -> None:
        if self.num_steps == 4:
            os.kill(os.getpid(), signal.SIGINT)
        real(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            augd.torch.fit(ARCH, splits, resume="auto", **given)
    with pytest.raises(augd.OptionError, match=r"last\.pt exists already"):
        augd.torch.fit(ARCH, splits, **given)
    augd.torch.fit(ARCH, splits, resume="auto", **given)
    assert_same(load(tmp_path / "run/last.pt"), expected)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"epochs": 0}, augd.OptionError, "epochs: expected a whole number, 1 or more, got 0"),
        ({"epochs": "3"}, augd.OptionError, "epochs: expected a whole number, 1 or more, got '3'"),
        ({"batch_size": 8}, augd.OptionError, "batch_size: is of the streams; give it to augd.tor"),
        ({"epoch": 3}, TypeError, "fit() got an unexpected keyword argument 'epoch'"),
        ({"producers": 3}, TypeError, "fit() got an unexpected keyword argument 'producers'"),
        ({"optimizer": "lion"}, augd.OptionError, "--optimizer: expected sgd, adamw or rmsprop, g"),
        ({"pretrained": True}, augd.OptionError, "pretrained and arch are for a module"),
        ({"class_weight": ["blue=2"]}, augd.OptionError, "--class-weight: expected NAME=W, with a"),
    ],
)
def test_refused(
    splits: augd.torch.Splits,
    tmp_path: Path,
    options: dict[str, Any],
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error) as caught:
        augd.torch.fit(ARCH, splits, out=tmp_path, **options)
    assert says in str(caught.value) and not list(tmp_path.iterdir())


def test_refused_modules(splits: augd.torch.Splits, tmp_path: Path) -> None:
    with pytest.raises(augd.OptionError, match="weights are for a name; load them into the modu"):
        augd.torch.fit(build_model(ARCH, 2), splits, weights="DEFAULT", out=tmp_path)
    with pytest.raises(augd.OptionError, match="the last layer with weights of Sequential is 0"):
        augd.torch.fit(nn.Sequential(nn.Conv2d(3, 4, 3)), splits, out=tmp_path)


def test_splits_take_a_recipe(daemon: augd.ServedDaemon) -> None:
    recipe = {"ops": [{"op": "random_crop", "size": 24}], "filter": "antialias"}
    with augd.torch.splits(daemon.address, recipe=recipe, batch_size=4, device="cpu") as opened:
        assert opened.recipes.size_px == (24, 24)
        assert next(iter(opened.training.epoch(0))).images.shape == (4, 3, 24, 24)
        assert next(iter(opened.validation.epoch(0))).images.shape == (4, 3, 24, 24)
    with pytest.raises(augd.OptionError, match="a recipe says the size itself"):
        augd.torch.splits(daemon.address, recipe=recipe, size=32)
