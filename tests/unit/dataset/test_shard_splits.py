"""Splits of shards: what is read off their names, off members' folders, and off sidecars."""

from __future__ import annotations

import io
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from augd.dataset.scan.build_index import load_or_build
from augd.dataset.scan.shards import walk_shards
from augd.dataset.scan_result import ScanResult
from augd.dataset.selection import select
from augd.errors import DatasetError, OptionError


def walked(folder: Path, **shards: dict[str, bytes]) -> ScanResult:
    """Write shards, `-` for `_` in their names, and walk them."""
    folder.mkdir(exist_ok=True)
    for name, members in shards.items():
        with tarfile.open(folder / f"{name.replace('_', '-')}.tar", "w") as file:
            for path, content in members.items():
                about = tarfile.TarInfo(path)
                about.size = len(content)
                file.addfile(about, io.BytesIO(content))
    return walk_shards(bytes(folder))


def one(name: str, said: bytes = b"{}") -> dict[str, bytes]:
    return {f"{name}.jpg": b"x", f"{name}.json": said}


def test_the_word_that_a_name_begins_with_is_its_split(tmp_path: Path) -> None:
    found = walked(tmp_path, train_0=one("1"), Train_1=one("2"), dev_0=one("3"), test=one("4"))
    assert sorted(found.splits) == [1, 1, 2, 3]
    assert found.notes == [
        "splits are read off the shards' names: Train-1.tar and 1 more is 'train', dev-0.tar is "
        "'val', test.tar is 'test'"
    ]


@pytest.mark.parametrize(
    "name", ["crash_test_000000", "latest", "testament_0", "x_val_1", "my_train"]
)
def test_a_word_elsewhere_says_nothing(tmp_path: Path, name: str) -> None:
    found = walked(tmp_path, **{name: one("1")})
    assert (bytes(found.splits), found.notes) == (bytes(1), [])


def test_names_that_differ_in_nothing_else_say_it(tmp_path: Path) -> None:
    found = walked(tmp_path, imagenet1k_train_0001=one("1"), imagenet1k_validation_02=one("2"))
    assert bytes(found.splits) == bytes((1, 2))
    assert "imagenet1k-train-0001.tar is 'train'" in found.notes[0]


def test_a_shard_of_no_split_beside_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        walked(tmp_path, train_0=one("1"), extra_0=one("2"))
    assert "extra-0.tar, 2.jpg: its shard's name names no split, and train-0.tar beside it" in (
        str(caught.value)
    )
    (tmp_path / "extra-0.tar").unlink()
    found = walked(tmp_path, extra_1=one("3", b'{"split": "Valid"}'))
    assert bytes(found.splits) == bytes((2, 1))


def test_members_folders_say_it_too(tmp_path: Path) -> None:
    found = walked(
        tmp_path, a={"train/cat/1.jpg": b"x", "val/cat/2.jpg": b"x", "val/dog/3.jpg": b""}
    )
    assert (found.classes, found.labels.tolist()) == (["cat", "dog"], [0, 0, 1])
    assert bytes(found.splits) == bytes((1, 2, 2))


def test_a_split_that_is_none_is_named_where_others_have_one(tmp_path: Path) -> None:
    odd = one("1", b'{"split": "extra"}')
    assert bytes(walked(tmp_path / "alone", a=odd).splits) == bytes(1)
    with pytest.raises(DatasetError, match=r"1\.jpg: split: expected one of train, val, test as"):
        walked(tmp_path / "beside", a={**odd, **one("2", b'{"split": "train"}')})


def test_a_split_that_is_missing_tells_where_the_others_were_read(tmp_path: Path) -> None:
    walked(tmp_path / "set", test_tube_0=one("1"))
    with (
        closing(load_or_build(tmp_path / "set", cache_dir=tmp_path)) as index,
        pytest.raises(OptionError) as caught,
    ):
        select(index, split="train")
    assert str(caught.value) == (
        "split: expected 'test' (1 sample), got 'train'. (splits are read off the shards' names: "
        "test-tube-0.tar is 'test')"
    )
