"""What of a dataset is likely not meant, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from augd.cli.check import check, lines
from augd.dataset.scan.build_index import load_or_build
from augd.dataset.scan.likely_mistakes import doubts_of
from augd.protocol.messages import Selection
from augd.server.daemon.broker.dataset_facts import DatasetFacts, split_note


def doubts(root: Path, cache: Path) -> list[str]:
    index = load_or_build(root, cache_dir=cache)
    try:
        return doubts_of(index)
    finally:
        index.close()


def make(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8, 3), number, np.uint8)
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return root


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("labels.csv", "path,label\nimgs/1.png,cat\n"),
        ("train.CSV", "id,breed\n1,cat\n"),
        ("list.jsonl", '{"file_name": "imgs/1.png"}\n'),
    ],
)
def test_a_table_beside_one_folder_of_images_is_named(
    tmp_path: Path, table: str, text: str
) -> None:
    root = make(tmp_path / "set", "imgs/1.png", "imgs/2.png")
    (root / table).write_text(text)
    assert doubts(root, tmp_path / "cache") == [
        f"{table} lies beside the images and is not read: did you mean augd serve set/{table}?",
        "all images are of one class, 'imgs': there is nothing to tell apart",
    ]


def test_a_table_beside_classes_is_named_where_it_lists_files(tmp_path: Path) -> None:
    root = make(tmp_path / "set", "cat/1.png", "dog/2.png")
    (root / "results.csv").write_text("epoch,loss\n0,1\n")
    (root / "cat" / "labels.csv").write_text("path,label\n")
    assert doubts(root, tmp_path / "cache") == []
    (root / "labels.csv").write_text("image_path;label\n")
    (said,) = doubts(root, tmp_path / "cache")
    assert said.startswith("labels.csv lies beside the images")


def test_images_without_classes_beside_a_table_are_doubted(tmp_path: Path) -> None:
    root = make(tmp_path / "set", "1.png", "2.png")
    assert doubts(root, tmp_path / "cache") == []
    (root / "labels.csv").write_bytes(b"\xff\xfe\0")
    assert "labels.csv" in doubts(root, tmp_path / "cache")[0]


def test_one_target_is_no_class(tmp_path: Path) -> None:
    root = make(tmp_path / "set", "1.png", "2.png")
    (root / "list.csv").write_text("path,age\n1.png,3\n2.png,4.5\n")
    assert doubts(root / "list.csv", tmp_path / "cache") == []


def test_check_says_doubts_and_what_each_column_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = make(tmp_path / "set", "imgs/1.png", "imgs/2.png")
    (root / "list.csv").write_text("path,sky,age\nimgs/1.png,1,3.5\nimgs/2.png,0,-4\n")
    assert "did you mean augd serve set/list.csv?" in "\n".join(lines(check(str(root))))
    report = check(str(root / "list.csv"))
    assert report["targets"] == {
        "sky": {"kind": "0/1", "min": 0.0, "max": 1.0},
        "age": {"kind": "float", "min": -4.0, "max": 3.5},
    }
    said = "\n".join(lines(report))
    assert "  targets  sky 0/1 (1), age float (-4 to 3.5)\n" in said
    assert "1 column holds 0 and 1, and 'age' other numbers" in said
    assert "without an image" not in said and "no label" not in said


def facts(*, has_splits: bool = False) -> DatasetFacts:
    return DatasetFacts("", "/", 300, None, has_splits=has_splits)


def test_what_a_hash_puts_aside_is_told() -> None:
    assert split_note(facts(), Selection("train"), 275) == (
        "split='train': 275 of 300 samples; the other 25 are 'val' (val_fraction=0.1), as no "
        "splits are recorded. split='all' takes all."
    )
    assert "the other 1 is 'val'" in str(split_note(facts(), Selection("train", 0.003), 299))


@pytest.mark.parametrize(
    ("selection", "num_samples"),
    [
        (Selection("val"), 25),
        (Selection(), 300),
        (Selection("train", 0.0), 300),
        (Selection("train", limit=20), 20),
        (Selection("train", classes=("a",)), 20),
    ],
)
def test_nothing_is_told_of_what_was_asked_for(selection: Selection, num_samples: int) -> None:
    assert split_note(facts(), selection, num_samples) is None


def test_nothing_is_told_of_recorded_splits() -> None:
    assert split_note(facts(has_splits=True), Selection("train"), 200) is None
