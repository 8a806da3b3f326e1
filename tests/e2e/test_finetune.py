"""`trainer fit` from weights: strategies, every regulariser, exact resumes, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import augd
from tests.support.learning import assert_same, load, run_trainer
from tests.support.scenes import make_coloured
from trainer.data.host_feed import Batch
from trainer.models.build_network import build_model
from trainer.training.learner import Learner
from trainer.training.loop import Training

ARCH = "shufflenet_v2_x0_5"
BATCH = 8


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos to train on: three batches; 10 to validate with."""
    root = tmp_path_factory.mktemp("photos")
    make_coloured(root / "train", 12)
    make_coloured(root / "val", 5)
    return root


@pytest.fixture(scope="module")
def daemon(photos):
    with augd.serve({"photos": photos}, producers=1) as served:
        yield served


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of another task: of four classes."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "four.pt"
    torch.save(build_model(ARCH, 4).state_dict(), path)
    return path


def fit(*arguments: object) -> int:
    return run_trainer("fit", *arguments)


def refused(capsys, *arguments: object) -> str:
    assert fit(*arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trainer: error: ")
    return line


def common(daemon: augd.ServedDaemon, out: Path, *more: object) -> list[object]:
    return [
        *("--connect", daemon.address, "--arch", ARCH, "--size", 32, "--batch-size", BATCH),
        *("--lr", 0.01, "--epochs", 4, "--device", "cpu", "--out", out, *more),
    ]


def stop_at(monkeypatch, step: int) -> None:
    """Press Ctrl-C in the middle of a step, counted from 0."""
    real = Training.step

    def stopping(self: Training, batch: Batch) -> None:
        if self.num_steps == step:
            os.kill(os.getpid(), signal.SIGINT)
        real(self, batch)

    monkeypatch.setattr(Training, "step", stopping)


def everything(weights: Path) -> list[object]:
    """All that keeps a state of its own, or draws by chance."""
    return [
        *("--weights", weights, "--strategy", "two-phase", "--unfreeze", 2, "--low-share", 0.1),
        *("--mixup", 0.4, "--label-smoothing", 0.1, "--dropout", 0.3, "--drop-connect", 0.2),
        *("--balance", "class", "--class-weight", "red=2", "--cutmix", 1),
        *("--ema", 0.9, "--optimizer", "rmsprop", "--schedule", "constant", "--warmup-epochs", 1),
    ]


@pytest.fixture(scope="module")
def whole_run(daemon, weights, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert fit(*common(daemon, out, *everything(weights))) == 0
    torch.set_num_threads(before)
    return out


@pytest.fixture(scope="module")
def uninterrupted(whole_run) -> dict:
    return load(whole_run / "last.pt")


@pytest.mark.parametrize("step", [2, 5, 7], ids=["phase 1", "its last step", "phase 2"])
def test_resumes_exactly_with_everything_on(
    daemon, weights, uninterrupted, tmp_path, monkeypatch, step
):
    options = common(daemon, tmp_path, *everything(weights))
    with monkeypatch.context() as patched:
        stop_at(patched, step)
        assert fit(*options) == 130
    torch.rand(17)  # whatever the next process did before
    assert fit(*options, "--resume") == 0
    assert_same(load(tmp_path / "last.pt"), uninterrupted)


def test_tensorboard_has_the_history_and_every_stages_rate(whole_run, uninterrupted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole_run / "tensorboard")).Reload()
    history = uninterrupted["history"]
    for tag, name in (
        ("loss/training", "train_loss"),
        ("accuracy/validation", "val_accuracy"),
        ("speed/share_of_time_waiting", "waiting"),
        ("rate/fc", "lr"),
    ):
        shares = [1, 1, 0.1, 0.1] if tag == "rate/fc" else [1] * 4
        found = [(one.step, one.value) for one in events.Scalars(tag)]
        expected = [record[name] * share for record, share in zip(history, shares, strict=True)]
        assert [step for step, _ in found] == [3, 6, 9, 12]
        assert [value for _, value in found] == pytest.approx(expected, rel=1e-5), tag
    assert [one.step for one in events.Scalars("rate/stage3")] == [9, 12], "frozen before"
    assert events.Tags()["images"] == ["batch"]


def test_the_average_is_what_is_validated(uninterrupted):
    assert uninterrupted["ema_updates"] == 12
    assert not torch.equal(uninterrupted["ema"]["fc.weight"], uninterrupted["model"]["fc.weight"])
    assert [record["phase"] for record in uninterrupted["history"]] == [
        *("head", "head", "tuning", "tuning")
    ]


def test_frozen_weights_are_those_of_the_file(uninterrupted, weights):
    given = load(weights)
    moved = {
        name
        for name, one in uninterrupted["model"].items()
        if one.shape != given[name].shape or not torch.equal(one, given[name])
    }
    assert {name.partition(".")[0] for name in moved} == {"fc", "conv5", "stage4", "stage3"}
    assert not any("running" in name or "num_batches" in name for name in moved)


def test_a_head_of_other_classes_is_replaced_and_said(daemon, weights, tmp_path, capsys):
    options = ["--weights", weights, "--limit-train-batches", 1, "--epochs", 1, "--json"]
    assert fit(*common(daemon, tmp_path / "a"), *options) == 0
    printed = capsys.readouterr()
    assert "Strategy head: 24 images are few (5,000 are many), and similar" in printed.err
    assert "the head fc is new: 4 x 1024 there, 2 x 1024 for 2 classes here" in printed.err
    assert re.search(
        r"Phase head, 1 epoch: shares of the learning rate: fc 1; frozen: conv1.0, stage2, stage3,"
        r" stage4.0",
        printed.err,
    )
    assert json.loads(printed.out)["settings"]["strategy"] == "head"
    # A checkpoint of our own tells its classes: here they are the same.
    best = tmp_path / "a" / "best.pt"
    options[1] = best
    assert fit(*common(daemon, tmp_path / "b"), *options, "--strategy", "full") == 0
    assert "the head fc is kept: it is of the same classes" in capsys.readouterr().err


def test_patience_ends_a_phase_and_not_the_run(daemon, weights, tmp_path, monkeypatch, capsys):
    from trainer.training.running_metrics import RunningMetrics

    accuracies = iter([0.5, 0.7, 0.6, 0.7, 0.9, 0.8, 0.8])
    monkeypatch.setattr(
        Training, "validate", lambda self: RunningMetrics(1.0, round(100 * next(accuracies)), 100)
    )
    options = ["--weights", weights, "--strategy", "two-phase", "--epochs", 20, "--patience", 2]
    assert fit(*common(daemon, tmp_path), *options, "--limit-train-batches", 1) == 0
    history = load(tmp_path / "last.pt")["history"]
    assert [(record["epoch"], record["phase"]) for record in history] == [
        *((epoch, "head") for epoch in (1, 2, 3, 4)),
        *((epoch, "tuning") for epoch in (11, 12, 13)),
    ]
    printed = capsys.readouterr().out
    assert "No better validation accuracy in 2 epochs: the phase 'head' ends here." in printed
    assert "Best: 90.0% after epoch 11" in printed


class TestTrouble:
    def test_out_of_memory_elsewhere(self, daemon, tmp_path, monkeypatch, capsys):
        def full(*_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand so on")

        monkeypatch.setattr(Training, "validate", full)
        line = refused(capsys, *common(daemon, tmp_path), "--limit-train-batches", 1)
        assert "the device has no memory left (CUDA out of memory. Tried to allocate 2 GiB)" in line

    def test_a_batch_without_a_loss_can_be_made_again(self, photos, tmp_path, capsys):
        line = refused(
            capsys, photos, "--producers", 1, "--arch", ARCH, "--size", 32, "--batch-size", BATCH,
            "--device", "cpu", "--lr", 1e30, "--seed", 3, "--out", tmp_path / "run",
        )  # fmt: skip
        found = re.search(
            r"epoch 1, batch ([23]) of 3: .* See that batch: (augd replay .*)\.", line
        )
        assert found, line
        command = shlex.split(found[2])
        assert command[command.index("--batch") + 1] == str(int(found[1]) - 1)
        command[command.index("batch.npz")] = str(tmp_path / "batch.npz")
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "batch.npz") as file:
            again = {name: file[name] for name in ("ids", "images")}
        with augd.serve({"photos": photos}, producers=1) as served:
            from trainer.data.recipes import choose_recipes

            recipe = choose_recipes("imagenet", 32).training
            options = {"recipe": recipe, "batch_size": BATCH, "seed": 3, "split": "train"}
            with augd.connect(served.address, **options) as stream:
                batches = [(batch.ids.copy(), batch.images.copy()) for batch in stream.epoch(0)]
        ids, images = batches[int(found[1]) - 1]
        assert np.array_equal(again["ids"], ids) and np.array_equal(again["images"], images)

    def test_a_batch_of_an_own_split_by_python(self, daemon, tmp_path, capsys):
        line = refused(capsys, *common(daemon, tmp_path), "--lr", 1e30, "--val-fraction", 0.3)
        assert re.search(
            r"See that batch: batch [12] of augd.connect\(..., recipe=\{.*\}, batch_size=8, seed=0,"
            r" split='train', rank=0, world=1, val_fraction=0.3\).epoch\(0\)",
            line,
        ), line

    @pytest.mark.parametrize(("room", "advice"), [(3, "2 do: try --batch-size 2"), (0, "not even")])
    def test_out_of_memory_says_what_fits(
        self, daemon, tmp_path, monkeypatch, capsys, room, advice
    ):
        real = torch.nn.functional.cross_entropy

        def limited(logits: torch.Tensor, *arguments: object, **options: object) -> torch.Tensor:
            if len(logits) > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return real(logits, *arguments, **options)

        monkeypatch.setattr(torch.nn.functional, "cross_entropy", limited)
        line = refused(capsys, *common(daemon, tmp_path))
        assert f"8 images of 32 x 32 px do not fit into the memory of cpu, {advice}" in line

    def test_a_class_without_an_image_to_train_on(self, tmp_path, capsys):
        make_coloured(tmp_path / "set" / "train", 4)
        make_coloured(tmp_path / "set" / "val", 4, (*"ab", "green", "red"))
        status = fit(
            tmp_path / "set", "--producers", 1, "--arch", ARCH, "--size", 32, "--epochs", 2,
            "--batch-size", 4, "--device", "cpu", "--out", tmp_path / "run",
        )  # fmt: skip
        assert status == 0
        printed = capsys.readouterr().out
        assert printed.count("No image to train on has the class 'a', 'b': the network cannot") == 1

    def test_labels_beyond_the_classes(self):
        from trainer.data.source import usable_rows

        class Two:
            classes = ("a", "b")
            dataset = "photos"

        ids = torch.tensor([4, 7, 9])
        labels = torch.tensor([0, 2, -100])
        batch = Batch((torch.zeros(3, 1), labels, ids, labels >= 0), (0, 0, 0))
        with pytest.raises(augd.DatasetError) as caught:
            usable_rows(batch, Two())
        assert str(caught.value) == (
            "sample 7 of dataset 'photos' has label 2, expected 0..1 for its 2 classes: correct "
            "the labels in its manifest"
        )

    def test_a_stream_that_ends_is_no_loss(self, photos, tmp_path, monkeypatch, capsys):
        with augd.serve({"photos": photos}, producers=1) as served:
            options = common(served, tmp_path / "run")
            real = Learner.step
            steps = []

            def failing(self: Learner, *arguments: object) -> object:
                steps.append(1)
                return real(self, *arguments)

            monkeypatch.setattr(Learner, "step", failing)
            from trainer.data.stream import Stream

            whole = Stream.epoch

            def ending(self: Stream, epoch: int):
                for batch in whole(self, epoch):
                    if len(steps) == 4:
                        raise augd.ConnectError("the daemon went away.")
                    yield batch

            with monkeypatch.context() as patched:
                patched.setattr(Stream, "epoch", ending)
                line = refused(capsys, *options)
            assert line == (
                f"trainer: error: the daemon went away. Saved {tmp_path}/run/last.pt in epoch 2, "
                "after batch 1 of 3; to go on: the same command with --resume."
            )
            assert fit(*options, "--resume") == 0


def test_the_small_convnet_learns_and_its_features_are_worth_something(photos, tmp_path, capsys):
    common = [
        *(photos, "--producers", 1, "--arch", "small-convnet", "--recipe", "keras-small"),
        *("--size", 80, "--batch-size", 12, "--optimizer", "rmsprop", "--schedule", "constant"),
        *("--epochs", 4, "--device", "cpu", "--json"),
    ]
    assert fit(*common, "--out", tmp_path / "first") == 0
    assert json.loads(capsys.readouterr().out)["best_val_accuracy"] > 0.85
    last = load(tmp_path / "first" / "last.pt")
    assert last["recipes"]["validation"]["ops"] == [{"op": "resize", "size": [80, 80]}]
    training = [op["op"] for op in last["recipes"]["training"]["ops"]]
    assert training == ["resize", "mirror", "rotate", "zoom"]

    base = {name: one for name, one in last["model"].items() if name.startswith("features.")}
    torch.save(base, tmp_path / "base.pt")
    by_head = ["--weights", tmp_path / "base.pt", "--strategy", "head", "--seed", 1]
    assert fit(*common, *by_head, "--out", tmp_path / "second") == 0
    printed = capsys.readouterr()
    assert "the head classifier is new, the file has none" in printed.err
    result = json.loads(printed.out)
    assert result["epochs"][-1]["train_loss"] < 0.7 * result["epochs"][0]["train_loss"]
    assert result["best_val_accuracy"] > 0.85
    now = load(tmp_path / "second" / "last.pt")["model"]
    assert all(torch.equal(now[name], one) for name, one in base.items())


def test_make_coloured_writes_what_it_says(photos):
    greens = cv2.imread(str(next((photos / "train" / "green").iterdir()))).mean((0, 1))
    assert greens.argmax() == 1
