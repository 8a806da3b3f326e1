"""Folders named for splits: one class list, one split each, and the ways they go wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from augd.dataset.folder import scan
from augd.dataset.found import Found
from augd.errors import DatasetError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def rows(found: Found) -> list[tuple[str, int, int]]:
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


@pytest.mark.parametrize("other", ["bus", "Train", "train2"])
def test_one_other_folder_makes_them_classes(tmp_path: Path, other: str) -> None:
    found = scan(fill(tmp_path, "train/x/1.jpg", "test/2.jpg", f"{other}/3.jpg"))
    assert found.classes == sorted(["train", "test", other])
    assert bytes(found.splits) == bytes(3)


def test_two_folders_of_one_split(tmp_path: Path) -> None:
    fill(tmp_path, "val/a/1.jpg", "valid/a/1.jpg")
    assert refusal(tmp_path) == (
        f"{tmp_path} holds both val/ and valid/, which are one split. Keep one of them."
    )


def test_mistakes_name_the_split(tmp_path: Path) -> None:
    fill(tmp_path, "train/a/1.jpg", "val/note.txt")
    assert refusal(tmp_path).startswith(f"no images in {tmp_path}/val: looked for jpg")
    fill(tmp_path, "val/a/1.jpg", "val/2.jpg")
    assert f"{tmp_path}/val holds 1 images beside 1 folders" in refusal(tmp_path)
    (tmp_path / "val/2.jpg").unlink()
    (tmp_path / "val/b").mkdir()
    assert f"class folder val/b in {tmp_path} holds no images (1 such)" in refusal(tmp_path)
