"""`trainer fit` under torchrun: two ranks go the steps of one process with both their rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import augd
from tests.learning import run_trainer
from tests.scenes import make_coloured
from trainer.ranks import Ranks, join_ranks

ROOT = Path(__file__).resolve().parents[2]

LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos to train on: with 5 rows a rank, the last step has 4 rows for one and 0."""
    root = tmp_path_factory.mktemp("photos")
    make_coloured(root / "train", 12)
    make_coloured(root / "val", 3)
    return root


def run_by_two(*command: object) -> str:
    environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *LAUNCH, "-m", "trainer", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        printed, complaints = process.communicate(timeout=100)
    except BaseException:
        process.terminate()  # torchrun ends the ranks, which would wait for each other for ever
        process.communicate()
        raise
    assert process.returncode == 0, complaints
    return printed


@pytest.mark.slow
def test_two_ranks_are_one(photos, tmp_path, capsys):
    common = [
        *(photos, "--producers", 1, "--arch", "small-convnet", "--recipe", "keras-small"),
        *("--size", 78, "--dropout", 0, "--lr", 0.003, "--epochs", 1, "--device", "cpu"),
    ]
    assert run_trainer("fit", *common, "--batch-size", 10, "--out", tmp_path / "one") == 0
    alone = capsys.readouterr().out
    both = run_by_two("fit", *common, "--batch-size", 5, "--out", tmp_path / "two")
    told = "24 images to train on, 6 to validate with (split 'val')"
    assert f"on cpu: {told}" in alone
    assert both.count(f"on cpu, 2 ranks: {told}") == 1, "one of them speaks"
    one, two = (
        torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("one", "two")
    )
    for name, weights in one["model"].items():
        assert torch.allclose(weights, two["model"][name], rtol=1e-4, atol=1e-6), name
    for a, b in zip(one["history"], two["history"], strict=True):
        for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy"):
            assert a[name] == pytest.approx(b[name], rel=1e-4)
    assert len(two["rng"]) == 2 and not torch.equal(*two["rng"]), "dropout of their own"
    assert two["settings"]["world"] == 2


class TestEnvironment:
    def test_alone(self, monkeypatch):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        with join_ranks() as ranks:
            assert (ranks.rank, ranks.world, ranks.is_first) == (0, 1, True)
            assert ranks.sums(1, 2.5) == [1, 2.5] and ranks.told("x") == "x"
        monkeypatch.setenv("WORLD_SIZE", "1")
        with join_ranks() as ranks:
            assert ranks.world == 1
        network = torch.nn.Linear(1, 1)
        assert Ranks().parallel(network) is network

    def test_half_of_it(self, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        with (
            pytest.raises(
                augd.OptionError, match="got RANK=1, WORLD_SIZE=2, LOCAL_RANK=None: start the rank"
            ),
            join_ranks(),
        ):
            pass
