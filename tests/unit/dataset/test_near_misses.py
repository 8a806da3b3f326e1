"""Folders and shards that are almost what they seem: nothing is guessed in silence."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from augd.dataset.scan.folder import scan
from augd.dataset.scan.shards import walk_shards
from augd.dataset.scan_result import ScanResult
from augd.errors import DatasetError

JPEG = b"\xff\xd8\xff\xe0"
TIFF = b"II*\0\x08\0\0\0"


def fill(root: Path, *paths: str, content: bytes = JPEG) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def shard(folder: Path, *members: tuple[str, bytes], classes: bytes | None = None) -> ScanResult:
    with tarfile.open(folder / "a.tar", "w") as file:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            file.addfile(about, io.BytesIO(content))
    if classes is not None:
        (folder / "classes.json").write_bytes(classes)
    return walk_shards(bytes(folder))


def counted(found: ScanResult) -> dict[str, tuple[int, bool]]:
    return {one.kind: (one.count, one.is_image) for one in found.skipped}


# -- folders


def test_numbered_splits_are_splits(tmp_path: Path) -> None:
    found = scan(fill(tmp_path, "1_train/a/0.jpg", "2_val/a/1.jpg", "03_test/a/2.jpg"))
    assert (found.classes, sorted(found.splits)) == (["a"], [1, 2, 3])


@pytest.mark.parametrize(
    "names", [("testA", "trainA"), ("test1x", "train2y"), ("TEST_Y", "TRAIN_X"), ("Dev-b", "Test9")]
)
def test_folders_that_begin_as_splits_do_are_said_to_be_classes(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    found = scan(fill(tmp_path, *(f"{name}/x/0.jpg" for name in names)))
    assert (found.classes, any(found.splits)) == (list(names), False)
    assert f"{names[0]}/, {names[1]}/ look like splits, and are read as classes" in found.notes[0]


def test_words_that_begin_like_splits_are_just_classes(tmp_path: Path) -> None:
    assert scan(fill(tmp_path, "trainer/0.jpg", "tester/1.jpg", "valley/2.jpg")).notes == []


def test_splits_in_some_class_folders_alone_are_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "cat/train/0.jpg", "cat/val/1.jpg", "dog/2.jpg")
    with pytest.raises(DatasetError, match=r"class folder cat/ .* and dog/ beside it doesn't"):
        scan(tmp_path)


@pytest.mark.parametrize("ending", ["nef", "DNG", "cr2", "arw", "pef"])
def test_a_raw_image_is_not_served_as_its_thumbnail(tmp_path: Path, ending: str) -> None:
    fill(tmp_path, f"a/x.{ending}", content=TIFF)
    found = scan(fill(tmp_path, "a/0.jpg"))
    assert found.num_samples == 1
    assert counted(found) == {f".{ending.lower()}": (1, True)}
    assert scan(fill(tmp_path, f"a/{ending}.other", content=TIFF)).num_samples == 2


def test_a_folder_that_is_called_like_an_image_is_missed_aloud(tmp_path: Path) -> None:
    found = scan(fill(tmp_path, "cat.png/0.jpg", "dog/1.jpg"))
    assert counted(found) == {"folder with the ending of an image": (1, True)}


def test_a_link_that_may_have_been_a_class_folder_is_missed_aloud(tmp_path: Path) -> None:
    (fill(tmp_path, "a/0.jpg", "b/1.jpg") / "c").symlink_to("unmounted/c")
    (tmp_path / "notes.txt").symlink_to("unmounted/notes.txt")
    found = scan(tmp_path)
    assert counted(found) == {"links that lead nowhere": (1, True), ".txt": (1, False)}


@pytest.mark.parametrize("name", ["#recycle", "@Recycle", "$Recycle.Bin", "#snapshot"])
def test_what_storage_servers_leave_is_no_class(tmp_path: Path, name: str) -> None:
    assert scan(fill(tmp_path, "a/0.jpg", "b/1.jpg", f"{name}/2.jpg")).classes == ["a", "b"]


def test_an_empty_path_is_not_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fill(tmp_path, "a/0.jpg"))
    with pytest.raises(DatasetError, match=r"expected a folder, got an empty path\."):
        scan("")


def test_a_path_that_is_too_long_is_said_shortly(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"\.\.\. cannot be read: File name too long\. Check the"
    ):
        scan(tmp_path / ("x" * 5000))


# -- shards


@pytest.mark.parametrize("before", ["/", "../", "../../", "./", "//", "/../"])
def test_what_leads_out_of_a_shard_is_no_class(tmp_path: Path, before: str) -> None:
    found = shard(tmp_path, (f"{before}cat/0.jpg", JPEG), (f"{before}dog/1.jpg", JPEG))
    assert (found.classes, list(found.labels)) == (["cat", "dog"], [0, 1])


def test_a_class_that_is_listed_twice_has_no_number(tmp_path: Path) -> None:
    members = (("0.jpg", JPEG), ("0.cls", b"0"), ("1.jpg", JPEG), ("1.cls", b"1"))
    with pytest.raises(DatasetError, match=r"classes.json: class 'a' is there twice"):
        shard(tmp_path, *members, classes=b'["a", "a"]')
    found = shard(tmp_path, *members, classes=b'\xef\xbb\xbf["b", "a"]')
    assert (found.classes, list(found.labels)) == (["b", "a"], [0, 1])


@pytest.mark.parametrize("split", [3, 1.5, ["fold 1"], True, {"a": 1}])
def test_a_split_that_is_no_text_refuses_no_set(tmp_path: Path, split: object) -> None:
    said = json.dumps({"label": 0, "split": split}).encode()
    found = shard(tmp_path, ("0.jpg", JPEG), ("0.json", said))
    assert (list(found.labels), list(found.splits)) == ([0], [0])
    beside = json.dumps({"label": 1, "split": "val"}).encode()
    with pytest.raises(DatasetError, match=r"0.jpg: split: expected one of train, val, test"):
        shard(tmp_path, ("0.jpg", JPEG), ("0.json", said), ("1.jpg", JPEG), ("1.json", beside))


@pytest.mark.parametrize(
    "members",
    [
        [("0.jpg", JPEG), ("0.jpg", JPEG), ("0.cls", b"0")],
        [("0.jpg", JPEG), ("1.jpg", JPEG), ("0.jpg", JPEG), ("0.cls", b"0"), ("1.cls", b"0")],
    ],
)
def test_a_name_that_comes_again_in_its_sample_is_said(
    tmp_path: Path, members: list[tuple[str, bytes]]
) -> None:
    found = shard(tmp_path, *members)
    assert counted(found) == {"whose name comes again in its sample": (1, True)}


@pytest.mark.parametrize("said", [b'{"label": "\\ud800"}', b'{"labels": ["a\\udcff"]}'])
def test_a_label_that_utf8_cannot_write_names_its_member(tmp_path: Path, said: bytes) -> None:
    with pytest.raises(DatasetError, match=r"a.tar, 0.jpg: label: expected a name in UTF-8"):
        shard(tmp_path, ("0.jpg", JPEG), ("0.json", said))


def test_a_folder_in_a_shard_that_is_no_utf8_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"label: expected a name in UTF-8, got '\\udce9t"):
        shard(tmp_path, ("\udce9t/0.jpg", JPEG))


def test_a_number_of_thousands_of_digits_costs_no_label(tmp_path: Path) -> None:
    said = b'{"label": 0, "id": ' + b"9" * 6000 + b"}"
    assert list(shard(tmp_path, ("0.jpg", JPEG), ("0.json", said)).labels) == [0]
