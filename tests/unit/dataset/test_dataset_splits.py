"""Folders named for splits: one class list, one split each, and the ways they go wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from augd.cli.check import run_check
from augd.dataset.scan.folder import scan
from augd.dataset.scan_result import ScanResult
from augd.errors import DatasetError
from tests.support.datasets import fill


def rows(found: ScanResult) -> list[tuple[str, int, int]]:
    return [
        (found.path(i).decode(), found.labels[i], found.splits[i]) for i in range(found.num_samples)
    ]


def refusal(root: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        scan(root)
    return str(caught.value)


def test_all_splits_share_one_class_list(tmp_path: Path) -> None:
    fill(tmp_path, "validation/cat/1.jpg", "validation/emu/2.jpg", "train/dog/deep/3.jpg",
         "train/cat/4.jpg", "test/dog/5.jpg")  # fmt: skip
    found = scan(tmp_path)
    assert found.classes == ["cat", "dog", "emu"]
    assert rows(found) == [
        ("test/dog/5.jpg", 1, 3),
        ("train/cat/4.jpg", 0, 1),
        ("train/dog/deep/3.jpg", 1, 1),
        ("validation/cat/1.jpg", 0, 2),
        ("validation/emu/2.jpg", 2, 2),
    ]


def test_flat_splits_have_no_classes(tmp_path: Path) -> None:
    found = scan(fill(tmp_path, "training/1.jpg", "valid/2.jpg"))
    assert (found.classes, rows(found)) == ([], [("training/1.jpg", -1, 1), ("valid/2.jpg", -1, 2)])


def test_a_flat_test_split_beside_class_folders(tmp_path: Path) -> None:
    found = scan(fill(tmp_path, "train/cat/1.jpg", "val/cat/2.jpg", "test/3.jpg"))
    assert found.classes == ["cat"]
    assert rows(found)[0] == ("test/3.jpg", -1, 3)


def test_paths_stay_sorted_by_their_bytes(tmp_path: Path) -> None:
    fill(tmp_path, "train/a/x.jpg", "train/a.b/x.jpg", "val/a/x.jpg", "test/a/x.jpg")
    found = [row[0] for row in rows(scan(tmp_path))]
    assert found == sorted(found)


@pytest.mark.parametrize("other", ["bus", "unlabeled", "train2"])
def test_one_other_folder_with_images_is_refused(tmp_path: Path, other: str) -> None:
    fill(tmp_path, "train/x/1.jpg", "test/2.jpg", f"{other}/3.jpg")
    says = refusal(tmp_path)
    assert "test/" in says and "train/" in says
    assert f", which are splits, and beside them {other}/ with 1 image, which is none. " in says
    assert "Name it train, val or test, move it out, or hide it by a leading dot;" in says


def test_a_folder_without_images_beside_splits_is_passed_over(tmp_path: Path) -> None:
    found = scan(fill(tmp_path, "train/x/1.jpg", "val/x/2.jpg", "annotations/all.xml"))
    assert (found.classes, bytes(found.splits)) == (["x"], bytes((1, 2)))
    assert found.notes == ["annotations/ beside the splits holds no images: skipped"]


SPELLED = [
    *(("Train", "Val", "TEST"), ("training", "validation", "testing"), ("train", "dev", "eval")),
    *(("train_set", "valid-set", "testset"), ("train2017", "val2017", "test2017")),
    *(("train images", "VALID", "Evaluation"), ("seg_train", "seg_val", "seg_test")),
]


@pytest.mark.parametrize("names", SPELLED)
def test_usual_spellings_in_any_case_are_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    fill(tmp_path, *(f"{name}/{c}/{c}.jpg" for name in names for c in "ab"))
    found = scan(tmp_path)
    assert found.classes == ["a", "b"]
    by_folder = {path.partition("/")[0]: split for path, _, split in rows(found)}
    assert by_folder == {name: number for number, name in enumerate(names, 1)}
    said = " ".join(found.notes)
    for name, split in zip(names, ("train", "val", "test"), strict=True):
        assert (f"{name}/ is read as split '{split}'" in said) == (name != split)


def test_a_class_may_have_a_splits_name(tmp_path: Path) -> None:
    """As in CIFAR-100, whose classes are flat folders."""
    found = scan(fill(tmp_path, "bus/1.jpg", "train/2.jpg", "tram/3.jpg"))
    assert (found.classes, bytes(found.splits)) == (["bus", "train", "tram"], bytes(3))
    fill(tmp_path, "unlabeled/4.jpg")
    assert "holds train/, which are splits" in refusal(tmp_path)


@pytest.mark.parametrize(
    "name", ["crash-test", "bullet train", "test1", "valley", "training-wheel"]
)
def test_names_that_hold_a_word_are_classes(tmp_path: Path, name: str) -> None:
    found = scan(fill(tmp_path, f"{name}/x/1.jpg", "cat/x/2.jpg"))
    assert (found.classes, bytes(found.splits)) == (sorted(["cat", name]), bytes(2))


def test_a_folder_that_alone_holds_all_is_no_class(tmp_path: Path) -> None:
    found = scan(fill(tmp_path, "dataset/a/1.jpg", "dataset/b/deep/2.jpg", "README.md"))
    assert (found.classes, found.labels.tolist()) == (["a", "b"], [0, 1])
    assert rows(found)[0][0] == "dataset/a/1.jpg"
    assert found.notes == ["dataset/ alone holds all folders: skipped, it is no class itself"]


def test_such_a_folder_may_hold_splits_and_splits_such_folders(tmp_path: Path) -> None:
    fill(tmp_path / "1", "data/set/train/a/1.jpg", "data/set/val/a/2.jpg")
    assert rows(scan(tmp_path / "1")) == [
        ("data/set/train/a/1.jpg", 0, 1),
        ("data/set/val/a/2.jpg", 0, 2),
    ]
    fill(tmp_path / "2", "train/train/a/1.jpg", "train/train/b/2.jpg", "test/test/b/3.jpg")
    found = scan(tmp_path / "2")
    assert (found.classes, found.labels.tolist()) == (["a", "b"], [1, 0, 1])
    assert bytes(found.splits) == bytes((3, 1, 1))


def test_one_class_of_flat_images_stays_one(tmp_path: Path) -> None:
    found = scan(fill(tmp_path, "cat/1.jpg", "cat/2.jpg"))
    assert (found.classes, found.notes) == (["cat"], [])
    found = scan(fill(tmp_path / "splits", "train/cat/1.jpg", "val/cat/deep/2.jpg"))
    assert (found.classes, found.notes) == (["cat"], [])


def test_splits_within_class_folders(tmp_path: Path) -> None:
    fill(tmp_path, "cat/train/1.jpg", "cat/val/2.jpg", "dog/train/deep/3.jpg", "dog/Test/4.jpg")
    assert rows(scan(tmp_path)) == [
        *(("cat/train/1.jpg", 0, 1), ("cat/val/2.jpg", 0, 2)),
        *(("dog/Test/4.jpg", 1, 3), ("dog/train/deep/3.jpg", 1, 1)),
    ]
    fill(tmp_path, "emu/5.jpg")
    said = refusal(tmp_path)
    assert "class folder cat/" in said and "and emu/ beside it doesn't. Sort the images of" in said


def test_class_folders_that_are_numbers_are_said_to_be_sorted_as_names(tmp_path: Path) -> None:
    found = scan(fill(tmp_path / "many", *(f"{number}/x.jpg" for number in range(11))))
    assert found.classes[:4] == ["0", "1", "10", "2"]
    assert found.notes == [
        "class folders are sorted as names, as torchvision's ImageFolder does: "
        "folder '10' is class 2"
    ]
    assert scan(fill(tmp_path / "few", "0/x.jpg", "1/x.jpg")).notes == []


def test_two_folders_of_one_split(tmp_path: Path) -> None:
    fill(tmp_path, "val/a/1.jpg", "valid/a/1.jpg")
    assert refusal(tmp_path) == (
        f"{tmp_path} holds both val/ and valid/, which are one split. Keep one of them."
    )


def test_mistakes_name_the_split(tmp_path: Path) -> None:
    fill(tmp_path, "train/a/1.jpg", "val/note.txt")
    assert refusal(tmp_path).startswith(f"no images in {tmp_path}/val: looked for jpg")
    fill(tmp_path, "val/a/1.jpg", "val/2.jpg")
    assert f"{tmp_path}/val holds 1 image beside 1 folder" in refusal(tmp_path)
    (tmp_path / "val/2.jpg").unlink()
    (tmp_path / "val/b").mkdir()
    assert f"class folder val/b in {tmp_path} holds no images (1 such)" in refusal(tmp_path)


def test_check_prints_splits_and_classes_with_their_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number, name in enumerate(("Train/dog/1", "Train/cat/2", "Train/cat/3", "val/cat/4")):
        path = tmp_path / "set" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    assert run_check(str(tmp_path / "set"), as_json=False) == 0
    said = capsys.readouterr().out
    assert "  splits   train 3, val 1\n" in said
    assert "  classes  2, of 1 (dog) to 3 (cat) images, median 2\n" in said
    assert "           0 cat (3), 1 dog (1)\n" in said
    assert "  note     Train/ is read as split 'train'\n" in said
    assert run_check(str(tmp_path / "set"), as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["splits"] == {"train": 3, "val": 1}
    assert report["classes"] == {"cat": 3, "dog": 1}
