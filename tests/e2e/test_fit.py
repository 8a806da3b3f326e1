"""`trainer fit` with real daemons: it learns, it resumes exactly, and it says what is wrong."""

from __future__ import annotations

import json
import os
import re
import select
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
from trainer.cli.app import main
from trainer.data.host_feed import Batch
from trainer.data.recipes import choose_recipes
from trainer.data.source import usable_rows
from trainer.data.splits import open_splits
from trainer.training.loop import Training

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


def fit(*arguments: object) -> int:
    return run_trainer("fit", *arguments)


def common(daemon: augd.ServedDaemon, out: Path, arch: str = "squeezenet1_1") -> list[object]:
    # squeezenet drops out and shufflenet normalises: random state and buffers count, too.
    return [
        *("--connect", daemon.address, "--arch", arch, "--size", 32, "--batch-size", BATCH),
        *("--optimizer", "adamw", "--lr", 3e-4, "--epochs", 3, "--device", "cpu", "--out", out),
    ]


def test_learns(photos, tmp_path, capsys):
    status = fit(
        photos, "--arch", "squeezenet1_1", "--size", 32, "--batch-size", 6, "--epochs", 6,
        "--optimizer", "adamw", "--lr", 3e-4, "--device", "cpu", "--producers", 1,
        "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert status == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    epochs = result["epochs"]
    assert [record["epoch"] for record in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1]["train_loss"] < 0.9 * epochs[0]["train_loss"]
    assert epochs[-1]["train_accuracy"] > 0.7
    assert result["best_val_accuracy"] == max(record["val_accuracy"] for record in epochs) > 0.85
    assert all(0 <= record["waiting"] <= 1 < record["images_per_s"] for record in epochs)
    assert "24 images to train on, 10 to validate with (split 'val')" in printed.err
    assert re.search(r"epoch   6/6   train loss .* images/s, waiting", printed.err)
    last, best = load(tmp_path / "run/last.pt"), load(tmp_path / "run/best.pt")
    assert last["schedule"] == {"epoch": 6, "batch": 0, "next_lr": pytest.approx(0)}
    assert len(best["history"]) == result["best_epoch"]
    assert last["settings"]["classes"] == ["green", "red"]
    assert last["recipes"]["size_px"] == (32, 32)


@pytest.fixture(scope="module")
def uninterrupted(daemon, tmp_path_factory):
    """What the runs below must come to, by network."""
    finished = {}
    for arch in ("squeezenet1_1", "shufflenet_v2_x0_5"):
        out = tmp_path_factory.mktemp("whole")
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        assert fit(*common(daemon, out, arch)) == 0
        torch.set_num_threads(before)
        finished[arch] = load(out / "last.pt")
    return finished


class Crash(Exception):
    """The machine stops: nothing is saved any more."""


def stop_at(monkeypatch, step: int, how) -> None:
    """Do something in the middle of a step, counted from 0."""
    real = Training.step

    def stopping(self: Training, batch: Batch) -> None:
        if self.epoch * self.batches_per_epoch + self.batch == step:
            how()
        real(self, batch)

    monkeypatch.setattr(Training, "step", stopping)


def crash() -> None:
    raise Crash


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("step", "arch"),
    [(3, "squeezenet1_1"), (5, "squeezenet1_1"), (5, "shufflenet_v2_x0_5")],
    ids=["at an epoch's boundary", "in mid-epoch", "in mid-epoch, buffers"],
)
def test_a_crashed_run_goes_on_exactly(daemon, uninterrupted, tmp_path, monkeypatch, step, arch):
    options = [*common(daemon, tmp_path, arch), "--checkpoint-every", 4]
    with monkeypatch.context() as patched, pytest.raises(Crash):
        stop_at(patched, step, crash)
        main(["fit", *map(str, options)])
    schedule = load(tmp_path / "last.pt")["schedule"]
    assert (schedule["epoch"], schedule["batch"]) == ((1, 0) if step == 3 else (1, 1))
    torch.rand(17)  # whatever the next process did before
    assert fit(*options, "--resume") == 0
    assert_same(load(tmp_path / "last.pt"), uninterrupted[arch])


@pytest.mark.parametrize("step", [0, 2, 4], ids=["first", "last of an epoch", "in mid-epoch"])
def test_ctrl_c_in_a_step_saves_after_it(
    daemon, uninterrupted, tmp_path, monkeypatch, capsys, step
):
    options = common(daemon, tmp_path)
    with monkeypatch.context() as patched:
        stop_at(patched, step, ctrl_c)
        assert fit(*options) == 130
    assert (
        f"Stopped in epoch {step // 3 + 1}, after batch {step % 3 + 1} of 3; saved "
        f"{tmp_path}/last.pt. To go on: the same command with --resume."
    ) in capsys.readouterr().out
    assert fit(*options, "--resume") == 0
    assert_same(load(tmp_path / "last.pt"), uninterrupted["squeezenet1_1"])


def test_sigterm_saves_as_ctrl_c_and_resume_auto_starts_or_goes_on(
    daemon, uninterrupted, tmp_path, monkeypatch, capsys
):
    options = [*common(daemon, tmp_path), "--resume", "auto"]
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        stop_at(patched, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert fit(*options) == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert f"after batch 2 of 3; saved {tmp_path}/last.pt" in capsys.readouterr().out
    assert fit(*options) == 0
    assert_same(load(tmp_path / "last.pt"), uninterrupted["squeezenet1_1"])


def test_ctrl_c_while_validating(daemon, uninterrupted, tmp_path, monkeypatch, capsys):
    options = common(daemon, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Training, "validate", lambda self: ctrl_c())
        assert fit(*options) == 130
    assert fit(*options, "--resume") == 0
    printed = capsys.readouterr().out
    assert "Resumed in epoch 1, after batch 3 of 3." in printed
    assert "resumed after training" in printed
    assert_same(load(tmp_path / "last.pt"), uninterrupted["squeezenet1_1"])
    assert fit(*options, "--resume") == 0, "a finished run has nothing left to do"


def test_shortened_epochs_resume_too(daemon, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert fit(*common(daemon, whole), "--limit-train-batches", 2) == 0
    options = [*common(daemon, cut), "--limit-train-batches", 2]
    with monkeypatch.context() as patched:
        stop_at(patched, 2, ctrl_c)
        assert fit(*options) == 130
    assert fit(*options, "--resume") == 0
    assert_same(load(cut / "last.pt"), load(whole / "last.pt"))
    assert load(cut / "last.pt")["schedule"]["epoch"] == 3


def test_ctrl_c_on_a_terminal_s_command(photos, tmp_path):
    """A process of its own, interrupted at any moment after the first epoch."""
    command = [
        *(sys.executable, "-m", "trainer", "fit", str(photos), "--arch", "shufflenet_v2_x0_5"),
        *("--size", "32", "--batch-size", str(BATCH), "--epochs", "1000", "--device", "cpu"),
        *("--producers", "1", "--out", str(tmp_path / "run")),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    with process:
        assert process.stdout is not None and process.stderr is not None
        seen = b""
        while b"epoch   1/1000" not in seen:
            assert select.select([process.stdout], [], [], 60)[0], seen
            piece = os.read(process.stdout.fileno(), 4096)
            assert piece, process.stderr.read()
            seen += piece
        process.send_signal(signal.SIGINT)
        rest, complaints = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130
    assert re.search(b"Stopped (in|after) epoch", rest)
    assert complaints == b""
    assert load(tmp_path / "run/last.pt")["schedule"]["epoch"] >= 1


def ids_of(stream) -> list[int]:
    with stream:
        return [int(number) for batch in stream.epoch(0) for number in batch.ids]


@pytest.mark.parametrize("layout", ["no folders", "train and val", "train and test"])
def test_training_and_validation_share_no_sample(tmp_path, layout):
    recipes = choose_recipes("imagenet", 32)
    if layout == "no folders":
        make_coloured(tmp_path, 20)
    else:
        make_coloured(tmp_path / "train", 14)
        make_coloured(tmp_path / layout.split()[-1], 6)
    with augd.serve({"photos": tmp_path}, producers=1) as daemon:
        splits = open_splits(
            daemon.address, recipes, batch_size=BATCH, val_fraction=0.3, device="cpu"
        )
        assert splits.validation_name == ("test" if "test" in layout else "val")
        training, validation = ids_of(splits.training), ids_of(splits.validation)
    assert len(set(training) | set(validation)) == len(training) + len(validation) == 40
    assert validation == sorted(validation)
    if layout == "no folders":
        assert 3 <= len(validation) <= 21
    else:
        assert len(validation) == 12


class TestErrors:
    """One line each, and exit status 1."""

    def refused(self, capsys, *arguments: object) -> str:
        assert fit(*arguments) == 1
        printed = capsys.readouterr()
        (line,) = printed.err.splitlines()
        assert line.startswith("trainer: error: ")
        return line

    @pytest.mark.parametrize(
        ("folders", "options", "says"),
        [
            ((".",), (), "has no classes, so there is nothing to learn: put the images into a fol"),
            (("green",), (), "has one class only .'green'., so there is nothing to tell apart"),
            (("val/green", "val/red"), (), "nothing to train on: split: expected 'val' .8 sam"),
            (
                ("train/green", "train/red"),
                (),
                r"nothing to validate with: split: expected 'train' \(8 samples\), got 'val'. Give",
            ),
            (
                ("green", "red"),
                ("--val-fraction", 0),
                "nothing to validate with: no sample is selected: .* larger --val-fraction",
            ),
            (("green", "red"), ("--val-fraction", 1), "nothing to train on: .* smaller --val-frac"),
        ],
        ids=["flat", "one class", "no train", "no val", "val fraction 0", "val fraction 1"],
    )
    def test_datasets(self, tmp_path, capsys, folders, options, says):
        for folder in folders:
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            for number in range(4):
                image = np.full((40, 40, 3), 60 * number, np.uint8)
                cv2.imwrite(str(tmp_path / "set" / folder / f"{number}.png"), image)
        line = self.refused(
            capsys, tmp_path / "set", "--producers", 1, "--out", tmp_path / "run", *options
        )
        assert re.search(says, line), line
        assert not (tmp_path / "run").exists()

    def test_a_sample_without_a_class(self, tmp_path, capsys):
        make_coloured(tmp_path / "train", 6)
        make_coloured(tmp_path, 4, ["green"])
        (tmp_path / "green").rename(tmp_path / "test")
        line = self.refused(
            capsys, tmp_path, "--arch", "squeezenet1_1", "--size", 32, "--device", "cpu",
            "--producers", 1, "--out", tmp_path / "run",
        )  # fmt: skip
        assert re.search(
            r"4 of the images of split 'test' of dataset .* have no class, so there", line
        )

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (["--arch", "resnet19"], r"--arch: torchvision has no classifier 'resnet19'; did you"),
            (["--resume"], r"--resume: .*last.pt does not exist. Name the run's folder with --out"),
            (["--size", 8], "squeezenet1_1 cannot take images of 8 x 8 px"),
            (["--amp"], "--amp: is for CUDA devices, and this run is on the CPU"),
            (
                ["--recipe", "vgg"],
                "recipe: expected imagenet, eval, keras-small, none, .* or a TOML file, got 'vgg'",
            ),
            (["--dataset", "cats"], "'cats' is not served here, expected one of: .*photos"),
            (["--lr", 1e30], "the loss is not finite in epoch 1, batch [23] of 3: the training di"),
        ],
        ids=["arch", "no checkpoint", "size", "amp", "recipe", "dataset", "diverged"],
    )
    def test_options(self, daemon, tmp_path, capsys, options, says):
        line = self.refused(capsys, *common(daemon, tmp_path / "run"), *options)
        assert re.search(says, line), line
        assert not (tmp_path / "run" / "last.pt").exists()

    def test_a_later_phase_of_a_size_that_the_network_does_not_take(self, daemon, tmp_path, capsys):
        """It is refused at the first batch, not when its epoch comes."""
        recipe = tmp_path / "phases.toml"
        recipe.write_text(
            "".join(
                f"[[phases]]\nfrom_epoch = {epoch}\n"
                f'ops = [{{op = "random_resized_crop", size = {size}}}]\n'
                for epoch, size in enumerate((96, 80, 96))
            )
        )
        line = self.refused(
            capsys, "--connect", daemon.address, "--arch", "small-convnet", "--recipe", recipe,
            "--epochs", 3, "--batch-size", BATCH, "--device", "cpu", "--out", tmp_path / "run",
        )  # fmt: skip
        assert "small-convnet cannot take images of 80 x 80 px" in line
        assert "The recipe's phases have several sizes: choose a network" in line

    def test_checkpoints_of_other_runs(self, daemon, photos, tmp_path, capsys):
        out = tmp_path / "run"
        assert fit(*common(daemon, out), "--limit-train-batches", 1) == 0
        capsys.readouterr()
        line = self.refused(capsys, *common(daemon, out))
        assert "last.pt exists already. Go on with that run by --resume, or choose another" in line
        for changed, says in (
            (["--arch", "resnet18"], "arch: squeezenet1_1 when saved, resnet18 here."),
            (["--lr", 0.5, "--seed", 3], "lr: 0.0003 when saved, 0.5 here; seed: 0 when saved, 3"),
            (["--size", 40], "the saved state is of another stream: .*recipe.*32.*40"),
        ):
            options = [*common(daemon, out), "--limit-train-batches", 1, *changed, "--resume"]
            line = self.refused(capsys, *options)
            assert re.search(says, line), line
        make_coloured(tmp_path / "other" / "train", 12)
        make_coloured(tmp_path / "other" / "val", 5)
        (tmp_path / "other" / "train" / "red").rename(tmp_path / "other" / "train" / "scarlet")
        with augd.serve({"photos": tmp_path / "other"}, producers=1) as other:
            line = self.refused(capsys, *common(other, out), "--limit-train-batches", 1, "--resume")
        assert "classes: green, red when saved, green, red, scarlet here" in line


def test_rows_that_are_not_valid_never_reach_the_network(daemon):
    splits = open_splits(
        daemon.address, choose_recipes("imagenet", 32), batch_size=BATCH, device="cpu"
    )
    stream = splits.training
    images, ids = torch.arange(4.0).view(4, 1, 1, 1), torch.arange(4)
    valid = torch.tensor([True, False, True, True])
    try:
        batch = Batch((images, torch.tensor([1, -100, 0, 1]), ids, valid), (0, 0, 0))
        rows, labels = usable_rows(batch, stream)
        assert (rows.flatten().tolist(), labels.tolist()) == ([0, 2, 3], [1, 0, 1])
        # Labels on a device are not read where the CPU has seen them.
        unreadable = torch.empty(4, dtype=torch.int64, device="meta")
        batch = Batch((images, unreadable, ids, valid), (0, 0, 0), label_range=(0, 1))
        assert usable_rows(batch, stream) == (images, unreadable)
        batch = Batch((images, torch.tensor([1, -100, -1, 1]), ids, valid), (0, 0, 0))
        with pytest.raises(augd.DatasetError, match="sample 2 of dataset 'photos' has no class"):
            usable_rows(batch, stream)
        batch = Batch((images, torch.zeros(4, 2), ids, valid), (0, 0, 0))
        with pytest.raises(augd.DatasetError, match="'photos' has targets, and no class per"):
            usable_rows(batch, stream)
    finally:
        splits.close()
