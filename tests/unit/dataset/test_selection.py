"""Choosing samples: stable when files are added, exact in numbers, and named when nothing fits."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from augd.dataset import selection as module
from augd.dataset.index_arrays import ChoiceArrays, IndexArrays
from augd.dataset.index_file import IndexFile
from augd.dataset.scan.build_index import load_or_build
from augd.dataset.scan_result import path_hashes
from augd.dataset.selection import Choices, SampleSelection, seal, select
from augd.errors import DatasetError, OptionError, OverLimit
from augd.protocol import messages as msg
from augd.server.supervision import sample_selection
from tests.support.datasets import fill

Open = Callable[[Path], IndexFile]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    files: list[IndexFile] = []

    def open_index(source: Path) -> IndexFile:
        files.append(load_or_build(source, cache_dir=tmp_path / "cache", rebuild=True))
        return files[-1]

    yield open_index
    for file in files:
        file.close()


def pets(root: Path, per_class: int = 200) -> Path:
    return fill(root, *[f"{c}/{i}.jpg" for c in ("cat", "dog", "emu") for i in range(per_class)])


def names(index: IndexFile, choice: SampleSelection) -> set[bytes]:
    arrays = IndexArrays(index.fd, index.dims_fd)
    return {arrays.path_bytes(sample) for sample in choice.ids}


def refusal(index: IndexFile, **asked: Any) -> str:
    with pytest.raises(OptionError) as caught:
        select(index, **asked)
    return str(caught.value)


def test_known_hashes() -> None:
    """Written down once: others would move samples from one split to another."""
    assert path_hashes(b"cat/0.jpg") == (511366354365045536, 13250708294484567107)


def test_hashed_splits_are_disjoint_complete_and_of_the_share(tmp_path: Path, opened: Open) -> None:
    index = opened(pets(tmp_path / "set"))
    for fraction in (0.0, 0.1, 0.5, 1.0):
        parts = []
        for split in ("train", "val"):
            if (fraction, split) in ((0.0, "val"), (1.0, "train")):
                continue
            parts.append(select(index, split=split, val_fraction=fraction).ids.tolist())
        assert sorted(chain(*parts)) == list(range(600))
        assert all(part == sorted(part) for part in parts)
        if fraction == 0.1:
            assert 35 < len(parts[1]) < 90  # 60 expected, 7.3 is a standard deviation


def test_a_split_stays_when_files_are_added(tmp_path: Path, opened: Open) -> None:
    root = pets(tmp_path / "set")
    before = opened(root)
    was = {s: names(before, select(before, split=s)) for s in ("train", "val")}
    fill(root, *[f"ant/{i}.jpg" for i in range(300)] + [f"dog/new{i}.jpg" for i in range(50)])
    after = opened(root)
    now = {s: names(after, select(after, split=s)) for s in ("train", "val")}
    assert was["train"] <= now["train"] and was["val"] <= now["val"]
    assert len(now["val"]) > len(was["val"])


def test_recorded_splits_win_over_the_hash(tmp_path: Path, opened: Open) -> None:
    root = fill(tmp_path / "set", "train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg")
    index = opened(root)
    assert index.has_splits
    assert select(index, split="train", val_fraction=1.0).ids.tolist() == [0, 1]
    assert select(index, split="val", val_fraction=0.0).ids.tolist() == [2]
    assert select(index).ids.tolist() == [0, 1, 2]
    assert refusal(index, split="test") == (
        "split: expected 'train' (2 samples) or 'val' (1 sample), got 'test'."
    )


def test_a_limit_is_stable_and_takes_the_smallest_hashes(tmp_path: Path, opened: Open) -> None:
    root = pets(tmp_path / "set")
    index = opened(root)
    small, large = select(index, limit=20), select(index, limit=200)
    assert len(small.ids) == 20 and len(large.ids) == 200
    assert set(small.ids) < set(large.ids) and small.ids.tolist() == sorted(small.ids)
    assert select(index, limit=10**9).ids.tolist() == list(range(600))
    was = names(index, small)
    expected = sorted((path_hashes(f"{c}/{i}.jpg".encode())[1], f"{c}/{i}.jpg".encode())
                      for c in ("cat", "dog", "emu") for i in range(200))[:20]  # fmt: skip
    assert was == {name for _, name in expected}
    fill(root, *[f"dog/new{i}.jpg" for i in range(100)])
    after = opened(root)
    now = names(after, select(after, limit=20))
    assert all(b"/new" in name for name in now - was) and len(now & was) >= 10


@pytest.mark.parametrize("shift", [48, 60, 63])
def test_a_limit_takes_the_smallest_however_many_share_their_first_bits(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    monkeypatch.setattr(module, "_TOP_SHIFT", shift)
    index = opened(pets(tmp_path / "set", 30))
    hashes = [path_hashes(f"{c}/{i}.jpg".encode())[1] for c, i in sorted(
        ((c, i) for c in ("cat", "dog", "emu") for i in range(30)), key=lambda x: f"{x[0]}/{x[1]}.j"
    )]  # fmt: skip
    order = sorted(range(90), key=hashes.__getitem__)
    for limit in (1, 2, 17, 45, 89):
        assert select(index, limit=limit).ids.tolist() == sorted(order[:limit])


def test_the_limit_is_taken_from_what_was_selected(tmp_path: Path, opened: Open) -> None:
    index = opened(pets(tmp_path / "set"))
    val = set(select(index, split="val", classes=["dog"]).ids)
    chosen = select(index, split="val", classes=["dog"], limit=5)
    assert len(chosen.ids) == 5 and set(chosen.ids) < val
    assert all(200 <= sample < 400 for sample in val)


def test_classes_are_numbered_as_they_are_named(tmp_path: Path, opened: Open) -> None:
    index = opened(pets(tmp_path / "set", 3))
    choice = select(index, classes=["emu", "cat"])
    assert choice.ids.tolist() == [0, 1, 2, 6, 7, 8]
    assert choice.picked.tolist() == [2, 0] and choice.num_groups == 0


def test_classes_of_a_multi_label_dataset(tmp_path: Path, opened: Open) -> None:
    root = fill(tmp_path / "set", *[f"{i}.jpg" for i in range(4)])
    table = "path,sun,rain,snow\n0.jpg,1,0,0\n1.jpg,0,0.5,0\n2.jpg,-1,0,0\n3.jpg,1,1,1\n"
    (root / "t.csv").write_text(table)
    index = opened(root / "t.csv")
    choice = select(index, classes=["rain", "sun"])
    assert (choice.ids.tolist(), choice.picked.tolist()) == ([0, 1, 3], [1, 0])
    assert select(index, classes=["snow"]).ids.tolist() == [3]
    assert "needs one class per sample, and this dataset has several labels per sample" in refusal(
        index, balance="class"
    )


def test_samples_without_a_class_are_in_none(tmp_path: Path, opened: Open) -> None:
    root = fill(tmp_path / "set", "train/a/1.jpg", "train/b/2.jpg", "test/3.jpg")
    index = opened(root)
    assert select(index, classes=["b", "a"]).ids.tolist() == [1, 2]
    assert select(index, balance="class").ids.tolist() == [1, 2]
    assert refusal(index, split="test", balance="class") == (
        "no sample is selected: the dataset has 3 samples, 1 in split 'test', 0 with a class. "
        "Ask for others."
    )


def test_balance_groups_by_class_and_leaves_empty_ones_out(tmp_path: Path, opened: Open) -> None:
    root = fill(tmp_path / "set", "a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg", "c/1.jpg")
    index = opened(root)
    choice = select(index, balance="class")
    assert (choice.ids.tolist(), choice.offsets.tolist()) == ([0, 1, 2, 3, 4], [0, 3, 4, 5])
    choice = select(index, balance="class", classes=["c", "a"])
    assert (choice.ids.tolist(), choice.offsets.tolist()) == ([4, 0, 1, 2], [0, 1, 4])
    assert choice.picked.tolist() == [2, 0]
    first = select(index, limit=1).ids[0]
    choice = select(index, limit=1, balance="class")
    assert (choice.ids.tolist(), choice.offsets.tolist()) == ([first], [0, 1])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"split": "test"}, "split: expected 'train' or 'val', got 'test': this dataset records no"
         " splits, so that val_fraction divides it in two. Serve folders train/, val/ and test/"),
        ({"split": "val", "val_fraction": 0.0}, "no sample is selected: the dataset has 9 "
         "samples, 0 in split 'val' by val_fraction=0. Ask for others."),
        ({"split": "val", "val_fraction": 1e-9}, "0 in split 'val' by val_fraction=1e-09"),
        ({"classes": ["dgo"]}, "classes: 'dgo' is no class of this dataset, did you mean 'dog'? "
         "It has 3: cat, dog, emu"),
        ({"classes": ["Cat"]}, "did you mean 'cat'?"),
        ({"classes": ["zebra"]}, "'zebra' is no class of this dataset. It has 3: cat, dog, emu"),
        ({"classes": ["cat", "cat"]}, "classes: 'cat' is there twice. Name each class once."),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_named(
    tmp_path: Path, opened: Open, asked: dict[str, Any], says: str
) -> None:
    assert says in refusal(opened(pets(tmp_path / "set", 3)), **asked)


def test_a_dataset_without_classes(tmp_path: Path, opened: Open) -> None:
    index = opened(fill(tmp_path / "set", "1.jpg", "2.jpg"))
    assert refusal(index, classes=["cat"]) == (
        "classes: this dataset has no classes, got 'cat'. Leave classes out."
    )
    assert "this dataset has no classes. Leave balance out." in refusal(index, balance="class")


def test_a_sealed_choice_is_mapped_as_it_was(tmp_path: Path, opened: Open) -> None:
    index = opened(pets(tmp_path / "set", 3))
    choice = select(index, classes=["emu", "cat"], balance="class")
    fd = seal(choice)
    arrays = ChoiceArrays(fd, 6, 2, 2)
    assert arrays.ids.tolist() == [6, 7, 8, 0, 1, 2] and not arrays.ids.flags.writeable
    assert arrays.offsets is not None and arrays.offsets.tolist() == [0, 3, 6]
    assert arrays.picked is not None and arrays.picked.tolist() == [2, 0]
    with pytest.raises(DatasetError, match="list of chosen samples: expected 80 bytes, got 88"):
        ChoiceArrays(fd, 5, 2, 2)
    with pytest.raises(OSError, match="not permitted"):
        os.pwrite(fd, b"x", 0)
    os.close(fd)


def test_streams_that_ask_alike_share_and_few_idle_ones_are_kept() -> None:
    made: list[str] = []

    def make(name: str) -> Callable[[], SampleSelection]:
        def choose() -> SampleSelection:
            made.append(name)
            return SampleSelection(array("q", [1]), array("q"), array("q"))

        return choose

    before = len(list(Path("/proc/self/fd").iterdir()))
    choices = Choices()
    one, two = (choices.take(stream, "a", make("a")) for stream in (1, 2))
    assert one is two and made == ["a"] and choices.fd(1) == choices.fd(2)
    choices.drop(1)
    assert choices.fd(2) == one.fd
    choices.drop(2)
    choices.drop(99)
    assert choices.take(3, "a", make("a")).fd == one.fd and made == ["a"], "kept for the next"
    for stream in range(10, 20):
        choices.take(stream, stream, make("b"))
        choices.drop(stream)
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 5
    assert choices.fd(3) == one.fd, "never dropped while it is used"
    choices.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_choosing_needs_memory_that_is_there(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(pets(tmp_path / "set", 3))
    assert len(sample_selection.select_samples(index, msg.Selection(limit=4)).ids) == 4
    monkeypatch.setattr(
        sample_selection, "available_bytes", lambda: 9 * 128 + sample_selection.SPARE_BYTES - 1
    )
    with pytest.raises(OverLimit, match="choosing among 9 samples takes 0 MB, which this machine"):
        sample_selection.select_samples(index, msg.Selection(limit=4))
