"""Every layout of a dataset and every selection, from a real daemon with real producers."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import augd
from tests.support.processes import num_fds, producers_of
from tests.support.scenes import SMALL, make_folder, read_epoch

NUM_CLASSES, PER_CLASS = 3, 40


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One folder for all layouts: class folders, split folders, and manifests of both."""
    root = tmp_path_factory.mktemp("sets")
    classes = make_folder(root / "classes", num_classes=NUM_CLASSES, per_class=PER_CLASS)
    for split, first, end in (("train", 0, 30), ("val", 30, 40)):
        for number in range(NUM_CLASSES):
            folder = root / "splits" / split / f"class{number}"
            folder.mkdir(parents=True)
            for index in range(first, end):
                os.link(classes / f"class{number}" / f"{index:04}.jpg", folder / f"{index:04}.jpg")
    (classes / "bad.jpg").write_bytes(b"no image")
    write_csv(classes / "weather.csv", ["path", "sun", "rain"], [
        *[[f"class0/{i:04}.jpg", i / 8, -i] for i in range(20)], ["bad.jpg", 1, 1],
        *[[f"class1/{i:04}.jpg", 0, i % 2] for i in range(20)],
    ])  # fmt: skip
    write_csv(classes / "named.csv", ["path", "label", "split"], [
        [f"class{i % 3}/{i:04}.jpg", "wolf" if i % 5 else "ape", "train" if i % 4 else "test"]
        for i in range(40)
    ])  # fmt: skip
    # Now that a loose image is there, the folder is served by this manifest of all its classes.
    write_csv(classes / "all.csv", ["path", "label"], [
        [f"class{k}/{i:04}.jpg", f"class{k}"] for k in range(NUM_CLASSES) for i in range(PER_CLASS)
    ])  # fmt: skip
    return root


def write_csv(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def sources(root: Path) -> dict[str, Path]:
    return {
        "all": root / "classes" / "all.csv",
        "splits": root / "splits",
        "weather": root / "classes" / "weather.csv",
        "named": root / "classes" / "named.csv",
    }


@pytest.fixture(scope="module")
def daemon(root):
    with augd.serve(sources(root), producers=2) as served:
        yield served


def connect(daemon, dataset, **options):
    options = {"recipe": SMALL, "batch_size": 16} | options
    return augd.connect(daemon.address, dataset=dataset, **options)


def read(daemon, dataset, epoch=0, **options):
    """Read an epoch; returns the stream, closed, and the arrays of all its rows."""
    with connect(daemon, dataset, **options) as stream:
        batches = read_epoch(stream, epoch)
    return stream, {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}


def test_hashed_train_and_val_are_disjoint_and_complete(daemon):
    parts = {}
    for split in ("train", "val"):
        for epoch in (0, 1):
            stream, rows = read(daemon, "all", epoch, split=split, val_fraction=0.3)
            assert len(set(rows["ids"].tolist())) == len(rows["ids"]) == stream.num_samples
            assert parts.setdefault(split, set(rows["ids"].tolist())) == set(rows["ids"].tolist())
            assert np.array_equal(rows["labels"], rows["ids"] // PER_CLASS)
            assert rows["valid"].all()
    assert not parts["train"] & parts["val"]
    assert parts["train"] | parts["val"] == set(range(120))
    assert 18 <= len(parts["val"]) <= 56  # 36 expected, 5 is a standard deviation


def test_a_selected_sample_has_the_pixels_that_it_has_without(daemon):
    _, whole = read(daemon, "all")
    _, part = read(daemon, "all", split="val", classes=["class2", "class0"])
    place = {sample: row for row, sample in enumerate(whole["ids"].tolist())}
    rows = [place[sample] for sample in part["ids"].tolist()]
    assert np.array_equal(part["images"], whole["images"][rows])


def test_split_folders_share_their_classes(daemon):
    for split, num_samples in (("train", 90), ("val", 30), ("all", 120)):
        stream, rows = read(daemon, "splits", split=split, val_fraction=0.9)
        assert stream.classes == ["class0", "class1", "class2"]
        assert stream.num_samples == len(rows["ids"]) == num_samples
        assert Counter(rows["labels"].tolist()) == dict.fromkeys(range(3), num_samples // 3)
        is_val = rows["ids"] >= 90  # "train" sorts before "val"
        assert is_val.sum() == {"train": 0, "val": 30, "all": 30}[split]


def test_a_manifest_with_names_and_splits(daemon):
    stream, rows = read(daemon, "named", split="test")
    assert stream.classes == ["ape", "wolf"]
    assert sorted(rows["ids"].tolist()) == list(range(0, 40, 4)), "ids are rows of the manifest"
    assert np.array_equal(rows["labels"], np.where(rows["ids"] % 5 == 0, 0, 1))


@pytest.mark.clause("P-39")
def test_multi_label_targets_come_as_float32(daemon):
    stream, rows = read(daemon, "weather")
    assert stream.classes == ["sun", "rain"]
    assert rows["labels"].dtype == np.float32 and rows["labels"].shape == (41, 2)
    assert rows["valid"].sum() == 40
    for sample, label, valid in zip(rows["ids"], rows["labels"], rows["valid"], strict=True):
        if sample == 20:
            assert not valid and label.tolist() == [-100.0, -100.0]
        else:
            first = sample < 20
            second = sample - 21
            assert label.tolist() == ([sample / 8, -sample] if first else [0, second % 2])


@pytest.mark.clause("P-39")
def test_multi_label_padding_and_chosen_columns(daemon):
    asked = {"classes": ["rain"], "world": 2, "batch_size": 8}
    ids, labels = [], []
    for rank in range(2):
        stream, rows = read(daemon, "weather", rank=rank, **asked)
        assert stream.classes == ["rain"] and rows["labels"].shape == (8, 1)
        assert (rows["labels"][~rows["valid"]] == -100.0).all()
        ids += rows["ids"].tolist()
        labels += rows["labels"][rows["valid"]].tolist()
    assert sorted(ids) == [-1] * 5 + [20, *range(22, 41, 2)]
    assert labels == [[1.0]] * 10


def test_classes_are_numbered_as_they_are_named(daemon):
    stream, rows = read(daemon, "all", classes=["class2", "class0"])
    assert stream.classes == ["class2", "class0"] and stream.num_samples == 80
    assert np.array_equal(rows["labels"], np.where(rows["ids"] >= 80, 0, 1))


def test_a_limit_is_the_same_samples_each_epoch(daemon):
    epochs = [set(read(daemon, "all", e, limit=25)[1]["ids"].tolist()) for e in (0, 1)]
    assert len(epochs[0]) == 25 and epochs[0] == epochs[1]


def test_balance_draws_classes_alike_and_augments_repeats_anew(daemon):
    stream, rows = read(daemon, "named", split="all", balance="class", batch_size=7)
    assert stream.num_samples == len(rows["ids"]) == 40
    assert Counter(rows["labels"].tolist()) == {0: 20, 1: 20}
    assert np.array_equal(rows["labels"], np.where(rows["ids"] % 5 == 0, 0, 1))
    assert len(set(rows["ids"].tolist())) < 35, "8 apes were drawn 20 times"
    looks = {(s, i.tobytes()) for s, i in zip(rows["ids"].tolist(), rows["images"], strict=True)}
    assert len(looks) == 40
    _, again = read(daemon, "named", split="all", balance="class", batch_size=11)
    assert np.array_equal(again["images"], rows["images"])


def test_the_training_side_passes_a_selection_on(daemon):
    trainer = pytest.importorskip("trainer")
    import torch

    with trainer.connect(
        daemon.address, dataset="weather", recipe=SMALL, batch_size=16, device="cpu",
        classes=["rain"], limit=6,
    ) as stream:  # fmt: skip
        assert (stream.classes, stream.num_samples) == (["rain"], 6)
        for batch in stream.epoch(0):
            assert (batch.labels.dtype, batch.labels.shape) == (torch.float32, (6, 1))
            assert ((batch.labels == 1) == batch.valid[:, None]).all()
    with trainer.connect(
        daemon.address, dataset="splits", recipe=SMALL, batch_size=30, device="cpu",
        split="val", val_fraction=0.5, balance="class",
    ) as stream:  # fmt: skip
        labels = torch.cat([batch.labels for batch in stream.epoch(0)])
        assert torch.bincount(labels).tolist() == [10, 10, 10]


SELECTIONS = (
    ("all", {"split": "train", "limit": 60}),
    ("splits", {"split": "train", "classes": ["class2", "class1"], "balance": "class"}),
    ("weather", {"classes": ["rain", "sun"]}),
)


def digest(address, dataset, options, transport="auto"):
    state = hashlib.blake2b()
    options = {"recipe": SMALL, "batch_size": 16, "transport": transport} | options
    with augd.connect(address, dataset=dataset, **options) as stream:
        for epoch in range(2):
            for batch in stream.epoch(epoch):
                for array in (batch.images, batch.labels, batch.ids, batch.valid):
                    state.update(array.tobytes())
    return stream.content, state.hexdigest()


def test_the_same_bytes_for_any_number_of_producers(root, daemon):
    expected = [digest(daemon.address, *selection) for selection in SELECTIONS]
    for producers in (1, 5):
        with augd.serve(sources(root), producers=producers) as other:
            assert [digest(other.address, *selection) for selection in SELECTIONS] == expected


def test_the_same_bytes_by_frames(daemon):
    for selection in SELECTIONS:
        mapped = digest(daemon.address, *selection)
        assert digest(daemon.address, *selection, transport="frames") == mapped


def test_producers_that_are_started_again_know_the_selection(root, daemon):
    name, options = SELECTIONS[1]
    expected = digest(daemon.address, name, options)
    with (
        augd.serve(sources(root), producers=2) as other,
        augd.connect(
            other.address, dataset=name, recipe=SMALL, batch_size=16, prefetch=1, **options
        ) as stream,
    ):
        state = hashlib.blake2b()
        for epoch in range(2):
            for batch in stream.epoch(epoch):
                for pid in producers_of(other.pid) if batch.number == 1 else ():
                    os.kill(pid, signal.SIGKILL)
                for array in (batch.images, batch.labels, batch.ids, batch.valid):
                    state.update(array.tobytes())
                del batch, array
    assert (stream.content, state.hexdigest()) == expected


def test_the_selection_is_part_of_the_content(daemon):
    asked = [
        {},
        {"split": "train"},
        {"split": "val"},
        {"split": "train", "val_fraction": 0.2},
        {"classes": ["class0", "class1", "class2"]},
        {"classes": ["class1", "class0", "class2"]},
        {"limit": 119},
        {"balance": "class"},
    ]
    contents = []
    for options in asked:
        with connect(daemon, "all", **options) as stream:
            contents.append(stream.content)
    assert len(set(contents)) == len(asked)
    with connect(daemon, "all", val_fraction=0.7) as stream:
        assert stream.content == contents[0], "without a split it decides nothing"
    same = []
    for fraction in (0.2, 0.3):
        with connect(daemon, "splits", split="val", val_fraction=fraction) as stream:
            same.append(stream.content)
    assert same[0] == same[1], "recorded splits know no fraction"


def test_streams_with_selections_leave_no_fds(daemon):
    def open_and_close(number: int) -> None:
        with connect(daemon, "all", limit=1 + number % 7, prefetch=1) as stream:
            next(iter(stream.epoch(0)))

    def count_fds() -> list[int]:
        time.sleep(0.2)
        pids = (daemon.pid, *producers_of(daemon.pid))
        return [num_fds(pid) for pid in pids]

    for number in range(14):
        open_and_close(number)
    before = count_fds()
    for number in range(14):
        open_and_close(number)
    assert count_fds() == before


@pytest.mark.parametrize(
    ("dataset", "options", "says"),
    [
        ("all", {"classes": ["class9"]}, r"classes: 'class9' is no class of this dataset, did"),
        ("all", {"classes": ["class0"] * 2}, "classes: 'class0' is there twice"),
        ("all", {"split": "test"}, "split: expected 'train' or 'val', got 'test'"),
        ("splits", {"split": "test"}, r"split: expected 'train' \(90 samples\) or 'val' \(30 sam"),
        ("all", {"split": "val", "val_fraction": 0}, "no sample is selected: the dataset has 120"),
        ("weather", {"balance": "class"}, 'balance: "class" needs one class per sample, and'),
        ("all", {"limit": 3, "batch_size": 4, "drop_last": True}, "leaves no batch: 3 samples, 4"),
        ("all", {"limit": 0}, "limit: expected a whole number from 1 on or None, got 0"),
        ("all", {"limit": 2.0}, "limit: expected a whole number from 1 on or None, got 2.0"),
        (
            "all",
            {"split": "valid"},
            'split: expected "train", "val", "test", "all" or None, got .valid.',
        ),
        ("all", {"val_fraction": 1.5}, r"val_fraction: expected 0\.\.1, got 1.5"),
        ("all", {"val_fraction": "x"}, r"val_fraction: expected 0\.\.1, got 'x'"),
        ("all", {"balance": "sample"}, 'balance: expected "class" or None, got .sample.'),
        ("all", {"classes": "class0"}, "classes: expected a list of class names or None, got 'cl"),
        ("all", {"classes": []}, r"classes: expected a list of class names or None, got \[\]"),
        ("all", {"classes": ["x" * 100] * 600}, "600 names take 61800 bytes, more than the 48000"),
    ],
)
def test_what_cannot_be_had_is_named(daemon, dataset, options, says):
    with pytest.raises(augd.OptionError, match=says):
        connect(daemon, dataset, **options)


def test_a_refused_selection_leaves_the_daemon_as_it_was(daemon):
    with pytest.raises(augd.OptionError, match="is no class"):
        connect(daemon, "all", classes=["nothing"])
    assert read(daemon, "all", classes=["class1"])[0].num_samples == PER_CLASS


def test_serving_a_manifest_from_the_command_line(root, tmp_path):
    address = f"ipc://{tmp_path}/d"
    command = [sys.executable, "-m", "augd", "serve", str(root / "classes" / "named.csv")]
    process = subprocess.Popen(
        [*command, "--listen", address, "--producers", "1"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert (
            "serving named (40 images, 2 classes; train 30, test 10) at"
            in process.stdout.readline()
        )
        with augd.connect(address, recipe=SMALL, batch_size=8) as stream:
            assert (stream.dataset, stream.num_samples) == ("named", 30)
    finally:
        process.terminate()
        assert process.wait(20) == 0
        process.stdout.close()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.csv", "path,label\ngone.jpg,a\n", "1 of 1 file is missing: gone.jpg (line 2)."),
        ("x.jsonl", '{"path": 1}\n', 'line 1: expected an object with "path", a text, got keys'),
        ("x.txt", "path,label\n", "is not a folder, nor a .csv or .jsonl manifest; give the"),
    ],
)
def test_bad_manifests_are_one_line(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "augd", "serve", str(tmp_path / name), "--listen",
         f"ipc://{tmp_path}/d"], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("augd: error: ") and says in line and str(tmp_path / name) in line
