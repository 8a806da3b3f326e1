"""`trainer features`: what is stored is what the network computes, and a head on it is the head."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import augd
import trainer
from tests.support.learning import run_trainer
from tests.support.scenes import make_coloured
from trainer.cli.app import main
from trainer.data.recipes import choose_recipes
from trainer.models.build_network import build_staged_network
from trainer.models.pretrained_weights import find_weights, put_weights
from trainer.training.features import FeaturePass, FeatureStore, StoredSource, digest_of_base

ARCH = "shufflenet_v2_x0_5"
NUM_TRAIN = 20
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):
    """A daemon with one bad photo, and weights that know something of its colours."""
    root = tmp_path_factory.mktemp("served")
    make_coloured(root / "photos" / "train", NUM_TRAIN // 2)
    make_coloured(root / "photos" / "val", 4)
    bad = root / "photos" / "train" / "red" / "003.jpg"
    bad.write_bytes(bad.read_bytes()[:150])
    torch.manual_seed(2)
    subject = build_staged_network(ARCH, 7)
    # Statistics as a trained network has them: as they are, random features are nearly nothing.
    subject.network.train()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        for _ in range(50):
            subject.network(torch.randn(8, 3, 32, 32))
    torch.set_num_threads(before)
    torch.save(subject.network.state_dict(), root / "weights.pt")
    with augd.serve({"photos": root / "photos"}, producers=1) as daemon:
        yield daemon, root


def run(command: str, served, out: Path, *more: object) -> int:
    daemon, root = served
    arguments = [
        *(command, "--connect", daemon.address, "--arch", ARCH, "--weights", root / "weights.pt"),
        *("--recipe", "eval", "--size", 32, "--batch-size", 64, "--device", "cpu", "--epochs", 8),
        *("--optimizer", "adamw", "--lr", 0.01, "--out", out, *more),
    ]
    return run_trainer(*arguments)


@pytest.fixture(scope="module")
def stored(served, tmp_path_factory):
    out = tmp_path_factory.mktemp("stored") / "features"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert run("features", served, out) == 0
    torch.set_num_threads(before)
    return out


def online(served, epoch: int = 0, recipe: str = "eval") -> dict[int, torch.Tensor]:
    """What the head gets for each sample, by id, in a network that is whole."""
    daemon, root = served
    subject = build_staged_network(ARCH, 2, (32, 32))
    put_weights(subject, find_weights(ARCH, str(root / "weights.pt")), ["green", "red"])
    network = subject.network.eval().to(memory_format=torch.channels_last)
    seen = []
    subject.network.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found = {}
    options = {"recipe": choose_recipes(recipe, 32).training, "batch_size": 64, "device": "cpu"}
    with trainer.connect(daemon.address, split="train", **options) as stream, torch.no_grad():
        for batch in stream.epoch(epoch):
            network(batch.images[batch.valid])
            found |= dict(zip(batch.ids[batch.valid].tolist(), seen[-1], strict=True))
    return found


def test_features_equal_the_online_forward(served, stored):
    store = FeatureStore(stored / "features")
    found, expected = store.training(0), online(served)
    assert sorted(found.ids.tolist()) == sorted(expected) and len(expected) == NUM_TRAIN - 1
    for row, label, number in zip(*found, strict=True):
        # Batches are the same, so that sums are taken in the same order: bit for bit.
        assert np.array_equal(row, expected[int(number)].numpy())
        assert label == int(number >= NUM_TRAIN // 2)
    assert found.features.dtype == np.float32 and isinstance(found.features, np.memmap)
    assert len(store.validation().labels) == 8
    assert np.bincount(found.labels).tolist() == [10, 9]


def test_a_head_on_features_equals_a_head_on_the_frozen_network(served, stored, tmp_path):
    """With one batch an epoch, so that the order of the rows doesn't matter."""
    assert run("fit", served, tmp_path / "run", "--strategy", "head") == 0
    whole = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    by_features = torch.load(stored / "head" / "last.pt", weights_only=True)
    for one, other in zip(whole["history"], by_features["history"], strict=True):
        for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "lr"):
            assert one[name] == pytest.approx(other[name], rel=1e-4), (one["epoch"], name)
    assert whole["history"][-1]["train_loss"] < 0.7 * whole["history"][0]["train_loss"]
    for name in ("weight", "bias"):
        a, b = whole["model"][f"fc.{name}"], by_features["model"][f"head.{name}"]
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_the_whole_network_is_saved_as_fit_would_have(served, stored, tmp_path, capsys):
    daemon, root = served
    with pytest.raises(SystemExit) as ended:
        main([
            *("evaluate", "--connect", daemon.address, "--checkpoint", str(stored), "--device"),
            *("cpu", "--split", "val", "--out", str(tmp_path), "--json"),
        ])  # fmt: skip
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    head = torch.load(stored / "head" / "best.pt", weights_only=True)
    best = max(record["val_accuracy"] for record in head["history"])
    assert found["accuracy"] == best
    state = torch.load(stored / "best.pt", weights_only=True)["model"]
    given = torch.load(root / "weights.pt", weights_only=True)
    assert all(torch.equal(state[n], one) for n, one in given.items() if not n.startswith("fc."))


def test_a_second_time_nothing_is_computed(served, stored, tmp_path, monkeypatch, capsys):
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("trainer.cli.features.store_features", never)
    again = shutil.copytree(stored, tmp_path / "again")  # its head is trained anew
    assert run("features", served, again, "--epochs", 100, "--dropout", 0.2, "--json") == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report["is_new"] is False and report["saved_s"] == report["online_s"] > 0
    seconds = FeatureStore(again / "features").seconds
    one_epoch_s = seconds["training-0"] + seconds["validation"]
    assert report["online_s"] == pytest.approx(100 * one_epoch_s)
    assert "found stored" in printed.err and "s saved" in printed.err


def test_augmented_passes(served, tmp_path, capsys):
    assert run("features", served, tmp_path, "--recipe", "imagenet", "--passes", 3) == 0
    store = FeatureStore(tmp_path / "features")
    for number in range(3):
        found, expected = store.training(number), online(served, number, "imagenet")
        for row, sample in zip(found.features, found.ids, strict=True):
            assert np.array_equal(row, expected[int(sample)].numpy())
    assert not np.array_equal(
        np.sort(store.training(0).features, 0), np.sort(store.training(1).features, 0)
    )
    assert "Features of 19 images, 3 passes: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (["--passes", 2], "passes: 1 stored, 2 here."),
        (["--size", 40], r"recipe: .*\[32, 32\].* stored, .*\[40, 40\].* here; validation: "),
        (["--mean", "clip"], r"mean: \[0.485, .* stored, \[0.4814.* here; std: \[0.229, "),
        (["--seed", 9], "seed: 0 stored, 9 here; training samples: "),
    ],
)
def test_features_of_something_else_are_refused(served, stored, capsys, changed, says):
    before = (stored / "features" / "training-0.npy").read_bytes()
    assert run("features", served, stored, *changed) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(
        f"features are of something else: .*{says}".replace("features are", "are"), line
    )
    assert line.endswith("Ask for what was stored, choose another --out, or remove the folder.")
    assert (stored / "features" / "training-0.npy").read_bytes() == before


def test_features_of_other_weights_or_photos_are_refused(served, stored, tmp_path, capsys):
    _, root = served
    state = torch.load(root / "weights.pt", weights_only=True)
    state["conv1.0.weight"][0, 0, 0, 0] += 1e-3
    torch.save(state, tmp_path / "nearly.pt")
    assert run("features", served, stored, "--weights", tmp_path / "nearly.pt") == 1
    assert re.search(r"weights: \"\w{32}\" stored, \"\w{32}\" here\. Ask", capsys.readouterr().err)
    make_coloured(tmp_path / "photos" / "train", NUM_TRAIN // 2 + 1)
    make_coloured(tmp_path / "photos" / "val", 4)
    with augd.serve({"photos": tmp_path / "photos"}, producers=1) as other:
        assert run("features", (other, root), stored) == 1
    line = capsys.readouterr().err
    assert "training samples: " in line and "weights" not in line.partition("of something")[2]


def test_the_head_of_the_weights_does_not_matter():
    one, other = build_staged_network(ARCH, 2), build_staged_network(ARCH, 5)
    assert digest_of_base(one) != digest_of_base(other), "which were drawn anew"
    state = one.network.state_dict()
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    other.network.load_state_dict(kept, strict=False)
    assert digest_of_base(one) == digest_of_base(other)


def test_a_failed_pass_leaves_nothing(served, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(np, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert run("features", served, tmp_path / "out") == 1
    assert "features cannot be written ([Errno 28] No space left). Make sp" in (
        capsys.readouterr().err
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_networks_that_go_on_after_their_head(served, tmp_path, capsys):
    torch.save(build_staged_network("squeezenet1_1", 3).network.state_dict(), tmp_path / "w.pt")
    more = ["--arch", "squeezenet1_1", "--weights", tmp_path / "w.pt"]
    assert run("features", served, tmp_path, *more) == 1
    assert "in squeezenet1_1 other layers follow the classifier" in capsys.readouterr().err


class TestStoredSource:
    def source(self, **changed):
        passes = [
            FeaturePass(np.full((10, 2), k, np.float32) + np.arange(10)[:, None], np.arange(10) % 2,
                 np.arange(10))
            for k in (0, 100)
        ]  # fmt: skip
        options = {"dataset": "set", "shuffle_seed": 3} | changed
        return StoredSource(passes, ["a", "b"], 4, CPU, **options)

    def test_every_row_once_in_an_order_of_its_own_each_epoch(self):
        source = self.source()
        orders = []
        for epoch in range(4):
            batches = list(source.epoch(epoch))
            assert [len(batch) for batch in batches] == [4, 4, 2] and len(source) == 3
            ids = torch.cat([batch.ids for batch in batches])
            images = torch.cat([batch.images for batch in batches])
            assert torch.equal(images[:, 0], ids + 100.0 * (epoch % 2)), "pass after pass"
            assert torch.equal(torch.cat([batch.labels for batch in batches]), ids % 2)
            assert sorted(ids.tolist()) == list(range(10))
            orders.append(tuple(ids.tolist()))
        assert len(set(orders)) == 4
        assert orders[0] == tuple(torch.cat([b.ids for b in self.source().epoch(0)]).tolist())

    def test_goes_on_where_a_state_was_taken(self):
        source = self.source()
        passing = source.epoch(1)
        next(passing)
        state, rest = source.state_dict(), [batch.ids.tolist() for batch in passing]
        other = self.source()
        other.load_state_dict(state)
        assert [batch.ids.tolist() for batch in other.epoch(1)] == rest
        assert len(list(other.epoch(1))) == 3

    def test_keeps_the_order_for_validation(self):
        ids = [batch.ids.tolist() for batch in self.source(shuffle_seed=None).epoch(0)]
        assert ids == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
