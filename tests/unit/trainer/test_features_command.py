"""The parts of `trainer features` that need no daemon: what it writes over, and what it draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import augd
from trainer.cli.features import _told, check_out
from trainer.training.features import FeaturePass, StoredSource


def put(out: Path, *names: str) -> None:
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("features/key.json", "head/last.pt", "head/best.pt", "best.pt"),
        ("features/key.json", "head/tensorboard/events"),
        ("head/best.pt", "best.pt"),
    ],
)
def test_its_own_folder_is_used_again(tmp_path, names):
    put(tmp_path, *names)
    check_out(tmp_path)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("last.pt", "best.pt"), r"last.pt is of a run of trainer fit, .*; choose another --out"),
        (("head/thesis.tex",), r"head would be written over, and is not .*; move it away, or"),
        (("head",), r"head would be written over, and is not .*; move it away, or"),
        (("best.pt",), r"best.pt would be written over, and is not .*; move it away, or"),
    ],
)
def test_nothing_else_is_written_over(tmp_path, names, says):
    put(tmp_path, *names)
    with pytest.raises(augd.OptionError, match=rf"^--out: .*{says}"):
        check_out(tmp_path)


@pytest.mark.parametrize("seed", [2**62, 2**63 - 1])
def test_every_seed_of_a_stream_shuffles(seed):
    rows = FeaturePass(np.zeros((50, 2), np.float32), np.zeros(50, np.int64), np.arange(50))
    source = StoredSource([rows], ["a"], 50, torch.device("cpu"), dataset="set", shuffle_seed=seed)
    orders = [next(source.epoch(epoch)).ids.tolist() for epoch in range(2)]
    assert orders[0] != orders[1]
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_what_was_done_is_told_by_counts_and_no_line_grows_with_the_epochs() -> None:
    epochs = [{"epoch": number, "val_accuracy": 0.5} for number in range(1, 101)]
    report = {
        **{"images": 34, "passes": 1, "features_s": 3.4, "is_new": True, "head_s": 4.1},
        **{"online_s": 13.6, "saved_s": 10.2, "best_val_accuracy": 0.5, "best_epoch": 1},
    }
    lines = _told(report | {"epochs": epochs}, Path("features"))
    assert lines[0] == "Features of 34 images, 1 pass: 3.4 s, made. Head: 100 epochs in 4.1 s."
    assert [line[:8] for line in lines[1:]] == ["Passing ", "Best: 50"]
