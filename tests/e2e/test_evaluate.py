"""`trainer evaluate` with a real daemon: what it measures is what a loop by hand measures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import augd
import trainer
from tests.support.learning import run_trainer
from tests.support.scenes import make_coloured
from trainer.data.constants import NAMED
from trainer.data.recipes import views_recipe
from trainer.training.load_trained import read_trained

ARCH = "shufflenet_v2_x0_5"


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):
    """A daemon, and the folders of two short runs."""
    root = tmp_path_factory.mktemp("served")
    for split, count in (("train", 8), ("val", 4), ("test", 6)):
        make_coloured(root / "photos" / split, count)
    bad = next((root / "photos" / "test" / "red").iterdir())
    bad.write_bytes(bad.read_bytes()[:150])
    make_coloured(root / "others", 8, ("blue", "green"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    sets = {"photos": root / "photos", "others": root / "others"}
    with augd.serve(sets, producers=1) as daemon:
        for seed in (0, 1):
            status = run_trainer(
                "fit", "--connect", daemon.address, "--dataset", "photos", "--arch", ARCH,
                "--size", 32, "--batch-size", 8, "--optimizer", "adamw", "--lr", 3e-3, "--epochs",
                2, "--seed", seed, "--device", "cpu", "--ema", 0.5, "--out", root / f"run{seed}",
            )  # fmt: skip
            assert status == 0
        yield daemon, root
    torch.set_num_threads(before)


def evaluate(served, out: Path, *more: object) -> tuple[int, dict]:
    daemon, root = served
    status = run_trainer(
        "evaluate", "--connect", daemon.address, "--dataset", "photos", "--batch-size", 5,
        "--device", "cpu", "--out", out, "--checkpoint", root / "run0", *more,
    )  # fmt: skip
    return status, json.loads((out / "results.json").read_text())


def test_is_what_a_loop_by_hand_finds(served, tmp_path, capsys):
    daemon, root = served
    status, found = evaluate(served, tmp_path, "--json")
    assert status == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == found
    assert "11 images of split 'test', views: none: accuracy" in printed.err
    assert "1 image could not be read, and does not count." in printed.err
    assert (found["split"], found["samples"], found["masked"]) == ("test", 11, 1)

    trained = read_trained(root / "run0" / "best.pt")
    options = {"dataset": "photos", "split": "test", "shuffle": False, "device": "cpu"}
    options |= {"recipe": trained.validation, "batch_size": 12, "max_bad_fraction": 0.5}
    with trainer.connect(daemon.address, **options) as stream:
        (batch,) = stream.epoch(0)
    with torch.no_grad():
        shares = trained.staged.network(batch.images[batch.valid]).softmax(1)
    labels = batch.labels[batch.valid]
    hits = shares.argmax(1) == labels
    assert found["accuracy"] == pytest.approx(hits.float().mean().item())
    loss = torch.nn.functional.nll_loss(shares.log(), labels).item()
    assert found["loss"] == pytest.approx(loss, rel=1e-4)
    assert [one["samples"] for one in found["classes"]] == [6, 5]
    assert np.array(found["confusion"]).sum() == 11

    image = np.asarray(Image.open(tmp_path / "confusion.png"))
    assert image.shape[2] == 3 and image.std() > 10
    events = list((tmp_path / "tensorboard").iterdir())
    assert len(events) == 1 and events[0].stat().st_size > 1000


def test_the_constants_of_a_run_are_those_of_its_evaluation(served, tmp_path, capsys):
    daemon, root = served
    options = [
        *("--connect", daemon.address, "--dataset", "photos", "--device", "cpu"),
        *("--batch-size", 8, "--out", tmp_path / "run"),
    ]
    fit = ["fit", *options, "--arch", ARCH, "--size", 32, "--epochs", 1, "--lr", 3e-3]
    assert run_trainer(*fit, "--mean", "0.1,0.2,0.3", "--std", "clip") == 0
    trained = read_trained(tmp_path / "run")
    assert trained.constants == ((0.1, 0.2, 0.3), NAMED["clip"].std)

    chosen = ["--checkpoint", tmp_path / "run", "--split", "val", "--out", tmp_path / "its"]
    assert run_trainer("evaluate", *options[:6], *chosen) == 0
    its = json.loads((tmp_path / "its" / "results.json").read_text())
    streams = {"dataset": "photos", "split": "val", "shuffle": False, "device": "cpu"}
    streams |= {"recipe": trained.validation, "batch_size": 8, **trained.constants._asdict()}
    with trainer.connect(daemon.address, **streams) as stream:
        (batch,) = stream.epoch(0)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(trained.staged.network(batch.images), batch.labels)
    assert its["loss"] == pytest.approx(loss.item(), rel=1e-4)

    capsys.readouterr()
    both = ["--checkpoint", root / "run0", *chosen]
    assert run_trainer("evaluate", *options[:6], *both) == 1
    assert "is for images normalised with ((0.1, 0.2, 0.3), (" in capsys.readouterr().err
    assert run_trainer(*fit, "--mean", "clip", "--resume") == 1
    assert "mean: (0.1, 0.2, 0.3) when saved, (0.48145466, 0" in capsys.readouterr().err

    state = torch.load(root / "run0" / "best.pt", weights_only=True)
    del state["settings"]["mean"], state["settings"]["std"]  # as they were before this
    torch.save(state, tmp_path / "old.pt")
    assert read_trained(tmp_path / "old.pt").constants == NAMED["imagenet"]


def test_ten_crop_is_the_mean_over_views_by_hand(served, tmp_path):
    daemon, root = served
    _, found = evaluate(served, tmp_path, "--views", "ten-crop", "--split", "val")
    trained = read_trained(root / "run0")
    recipe = views_recipe("ten-crop", (32, 32))
    options = {"dataset": "photos", "split": "val", "shuffle": False, "device": "cpu"}
    with trainer.connect(daemon.address, recipe=recipe, batch_size=8, **options) as stream:
        (batch,) = stream.epoch(0)
    assert batch.images.shape == (8, 10, 3, 32, 32)
    with torch.no_grad():
        views = [trained.staged.network(batch.images[:, view]).softmax(1) for view in range(10)]
    shares = sum(views) / 10
    loss = torch.nn.functional.nll_loss(shares.log(), batch.labels).item()
    assert found["loss"] == pytest.approx(loss, rel=1e-4)
    assert found["accuracy"] == (shares.argmax(1) == batch.labels).float().mean().item()


def test_an_ensemble(served, tmp_path, capsys):
    daemon, root = served
    more = ["--checkpoint", root / "run1", "--split", "val"]
    status, both = evaluate(served, tmp_path / "both", *more)
    assert status == 0 and len(both["alone"]) == 2
    assert "Each network alone: " in capsys.readouterr().out
    _, one = evaluate(served, tmp_path / "one", *more[2:])
    assert one["accuracy"] == both["alone"][0] and "alone" not in one
    assert both["loss"] != one["loss"]

    trained = [read_trained(root / name) for name in ("run0", "run1")]
    options = {"dataset": "photos", "split": "val", "shuffle": False, "device": "cpu"}
    options |= {"recipe": trained[0].validation, "batch_size": 8}
    with trainer.connect(daemon.address, **options) as stream:
        (batch,) = stream.epoch(0)
    with torch.no_grad():
        first, second = (each.staged.network(batch.images).softmax(1) for each in trained)
    shares = (first + second) / 2
    loss = torch.nn.functional.nll_loss(shares.log(), batch.labels).item()
    assert both["loss"] == pytest.approx(loss, rel=1e-4)
    assert both["accuracy"] == (shares.argmax(1) == batch.labels).float().mean().item()


def test_many_scales_are_those_of_the_preset(served):
    daemon, _ = served
    options = {"dataset": "photos", "split": "val", "limit": 1, "batch_size": 1, "device": "cpu"}
    with (
        trainer.connect(daemon.address, recipe="multi-scale", **options) as preset,
        trainer.connect(
            daemon.address, recipe=views_recipe("multi-scale", (224, 224)), **options
        ) as ours,
    ):
        assert ours.content == preset.content
    recipe = views_recipe("multi-scale", (32, 32))
    with trainer.connect(daemon.address, recipe=recipe, **options) as stream:
        assert next(stream.epoch(0)).images.shape == (1, 50, 3, 32, 32)


def test_averaged_weights_are_the_ones_that_were_validated(served):
    _, root = served
    state = torch.load(root / "run0" / "best.pt", weights_only=True)
    network = read_trained(root / "run0").staged.network
    assert torch.equal(network.fc.weight, state["ema"]["fc.weight"])
    assert not torch.equal(network.fc.weight, state["model"]["fc.weight"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--views", "crops"], "--views: expected none, ten-crop, multi-scale, got 'crops'"),
        (["--checkpoint", "/nowhere"], "--checkpoint: /nowhere does not exist. Check the path."),
        (["--dataset", "others"], "'blue', 'green', and "),
        (["--split", "test", "--dataset", "others"], "got 'test'"),
    ],
)
def test_refused(served, tmp_path, capsys, options, says):
    daemon, root = served
    chosen = ["--dataset", "photos", "--checkpoint", root / "run0", *options]
    assert run_trainer("evaluate", "--connect", daemon.address, "--out", tmp_path, *chosen) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trainer: error: ") and says in line, line
    assert not list(tmp_path.iterdir())


def test_an_ensemble_of_other_sizes(served, tmp_path, capsys):
    daemon, root = served
    state = torch.load(root / "run1" / "best.pt", weights_only=True)
    state["recipes"]["size_px"] = (40, 40)
    torch.save(state, tmp_path / "other.pt")
    status = run_trainer(
        "evaluate", "--connect", daemon.address, "--dataset", "photos", "--checkpoint",
        root / "run0", "--checkpoint", tmp_path / "other.pt", "--out", tmp_path / "out",
    )  # fmt: skip
    assert status == 1
    assert "is for images of (height, width) (40, 40), " in capsys.readouterr().err
