"""Nobody trains on validation data unasked: what a stream takes where no split was chosen."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import augd
from augd import ServedDaemon
from augd.client import connect
from tests.support.commands import run_augd

RECIPE = {"ops": [{"op": "center_crop", "size": 8}]}


def photo(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (grey, grey, grey)).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Split folders, one of them flat, a flat folder, and classes that are numbered otherwise."""
    root = tmp_path_factory.mktemp("splits")
    for number, name in enumerate(
        ("train/cat/0", "train/cat/1", "train/dog/2", "val/cat/3", "val/dog/4", "test/5", "test/6")
    ):
        photo(root / "parted" / f"{name}.png", number)
    for number in range(2):
        photo(root / "flat" / f"{number}.png", number)
        photo(root / "held" / "val" / "a" / f"{number}.png", number)
    photo(root / "other" / "dog" / "0.png", 0)
    photo(root / "other" / "emu" / "1.png", 1)
    return root


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_logged", deque())


@pytest.fixture(scope="module")
def daemon(root: Path) -> Iterator[ServedDaemon]:
    sources = {name: root / name for name in ("parted", "flat", "other", "held")}
    with augd.serve(sources, producers=1) as daemon:
        yield daemon


def ids(daemon: ServedDaemon, dataset: str, **asked: object) -> tuple[list[int], list[int]]:
    options = {"recipe": RECIPE, "batch_size": 4, "shuffle": False, **asked}
    with augd.connect(daemon.address, dataset=dataset, **options) as stream:  # type: ignore[arg-type]
        batches = [(batch.ids.copy(), batch.labels.copy()) for batch in stream.epoch(0)]
    return np.concatenate([b[0] for b in batches]).tolist(), np.concatenate(
        [b[1] for b in batches]
    ).tolist()


@pytest.mark.clause("P-160")
def test_train_is_taken_where_splits_are_recorded_and_it_is_said_once(
    daemon: ServedDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert ids(daemon, "parted") == ([2, 3, 4], [0, 0, 1])
    (said,) = [r for r in caplog.records if "records splits" in r.getMessage()]
    assert said.levelno == logging.WARNING
    assert said.getMessage() == (
        "dataset 'parted' records splits (train 3, val 2, test 2): without split, its training "
        'samples are read; pass split="train" or split="all" to choose'
    )
    caplog.clear()
    assert ids(daemon, "held", split="val")[0] == [0, 1]
    assert ids(daemon, "parted", split="val")[0] == [5, 6]
    (said,) = [record.getMessage() for record in caplog.records]
    assert (
        said == "dataset 'held': all images are of one class, 'a': there is nothing to tell apart"
    )


def test_all_is_legal_for_every_dataset(daemon: ServedDaemon) -> None:
    assert ids(daemon, "parted", split="all")[0] == list(range(7))
    assert ids(daemon, "flat", split="all")[0] == ids(daemon, "flat")[0] == [0, 1]
    with pytest.raises(augd.OptionError, match=r'split: expected "train", "val", "test", "all" or'):
        ids(daemon, "flat", split="dev")


def test_a_dataset_without_training_samples_says_what_there_is(daemon: ServedDaemon) -> None:
    with pytest.raises(augd.OptionError) as caught:
        ids(daemon, "held")
    assert str(caught.value) == (
        "split: the dataset records 'val' (2 samples) and no 'train', which is the default. "
        'Pass split="val", or split="all" for everything.'
    )
    assert ids(daemon, "held", split="all")[0] == [0, 1]


@pytest.mark.clause("P-161")
def test_images_without_a_class_are_told(
    daemon: ServedDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    ids(daemon, "flat")
    with augd.connect(
        daemon.address, dataset="parted", recipe=RECIPE, batch_size=2, split="test"
    ) as stream:
        assert stream.num_unlabelled == 2
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if "no class" in text] == [
        "2 of the 2 samples of dataset 'flat' have no class, and label -1: nothing can be learnt "
        "from these labels",
        "2 of the 2 samples of dataset 'parted' have no class, and label -1: nothing can be "
        "learnt from these labels",
    ]


@pytest.mark.clause("P-161")
def test_classes_that_are_numbered_otherwise_are_told(
    daemon: ServedDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    with augd.connect(daemon.address, dataset="other", recipe=RECIPE, batch_size=2) as stream:
        (notice,) = stream.notices
        stream_again = list(stream.epoch(1))
        assert stream_again and stream.notices == [notice]
    assert notice.startswith(
        "classes: of the same names 1 has another number: 'dog' is 0 in 'other' and 1 in 'parted'."
    )
    assert notice in [record.getMessage() for record in caplog.records]


def test_a_state_of_all_splits_resumes_with_all(
    daemon: ServedDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    def open_stream(**asked: object) -> augd.Stream:
        options = {"recipe": RECIPE, "batch_size": 2, "seed": 3, **asked}
        return augd.connect(daemon.address, dataset="parted", **options)  # type: ignore[arg-type]

    with open_stream(split="all") as stream:
        seen = [batch.ids.tolist() for batch in stream.epoch(1)]
        passing = stream.epoch(2)
        seen += [next(passing).ids.tolist()]
        state = json.loads(json.dumps(stream.state_dict()))
        seen += [batch.ids.tolist() for batch in passing]
    assert not any(name.startswith("policy.selection") for name in state["content"])
    with open_stream() as stream:
        assert stream.num_samples == 3
        stream.load_state_dict(state)
        assert [batch.ids.tolist() for batch in stream.epoch(2)] == seen[-3:]
        assert stream.num_samples == 7 and stream.receipt(2)["is_complete"]
        assert any("covers all its splits" in r.getMessage() for r in caplog.records)
    with (
        open_stream(split="train") as stream,
        pytest.raises(augd.SpecMismatch, match=r"policy\.selection\.split"),
    ):
        stream.load_state_dict(state)
    with open_stream() as stream, pytest.raises(augd.SpecMismatch, match="seed"):
        stream.load_state_dict({**state, "content": {**state["content"], "seed": "4"}})


def test_status_counts_splits(daemon: ServedDaemon) -> None:
    facts = json.loads(run_augd("status", daemon.address, "--json").stdout)["datasets"]
    assert facts["parted"]["splits"] == {"train": 3, "val": 2, "test": 2}
    assert (facts["parted"]["num_unlabelled"], facts["flat"]["num_unlabelled"]) == (2, 2)
    assert facts["flat"]["splits"] == {}
    text = run_augd("status", daemon.address).stdout
    assert "parted (7 images; train 3, val 2, test 2)" in " ".join(text.split())


@pytest.mark.parametrize(
    ("command", "default", "whole"),
    [
        (["preview", "--rows", "7", "--columns", "1"], "3 photos", "7 photos"),
        (["pca"], "3 of 3 photos", "7 of 7 photos"),
        (["explain", "--id", "0"], "position  none: the split has not this sample", " of epoch 0"),
    ],
)
def test_views_take_the_training_samples(
    root: Path, tmp_path: Path, command: list[str], default: str, whole: str
) -> None:
    name, *options = command
    out = ["--out", str(tmp_path / ("x.toml" if name == "pca" else "x.png"))]
    line = [name, str(root / "parted"), *options, *out]
    found = run_augd(*line)
    assert default in found.stdout, found.stderr
    assert "records splits (train 3, val 2, test 2): training samples are taken" in found.stderr
    found = run_augd(*line, "--split", "all")
    assert whole in found.stdout and "records splits" not in found.stderr


def test_what_a_daemon_serves_is_introduced_with_its_splits(root: Path, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/d"
    command = [sys.executable, "-m", "augd", "serve", str(root / "parted"), "--producers", "0"]
    with subprocess.Popen([*command, "--listen", address], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = process.stdout.readline().decode()
        process.terminate()
    assert "serving parted (7 images, 2 classes; train 3, val 2, test 2) at" in said
