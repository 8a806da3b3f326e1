"""Labels of manifests and shards: a number is a number however it is spelled."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from augd.dataset.scan.manifest import read_manifest
from augd.dataset.scan.shards import walk_shards
from augd.dataset.scan.table_numbers import is_fraction, is_missing, whole
from augd.dataset.scan_result import ScanResult
from augd.errors import DatasetError


def table(folder: Path, *labels: str) -> ScanResult:
    rows = [f'{n}.jpg,"{label}"\n' for n, label in enumerate(labels)]
    return manifest(folder, "list.csv", "path,label\n" + "".join(rows), len(labels))


def lines(folder: Path, *rows: str) -> ScanResult:
    numbered = (f'{{"path": "{n}.jpg", {row}}}\n' for n, row in enumerate(rows))
    return manifest(folder, "list.jsonl", "".join(numbered), len(rows))


def manifest(folder: Path, name: str, text: str, num_files: int) -> ScanResult:
    for number in range(num_files):
        (folder / f"{number}.jpg").write_bytes(b"x")
    (folder / name).write_text(text)
    return read_manifest(folder / name)


def shard(folder: Path, members: dict[str, bytes], classes: list[str] | None = None) -> ScanResult:
    with tarfile.open(folder / "a.tar", "w") as file:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            file.addfile(about, io.BytesIO(content))
    if classes is not None:
        (folder / "classes.json").write_text(json.dumps(classes))
    return walk_shards(bytes(folder))


def with_cls(*labels: str, classes: list[str] | None = None) -> dict[str, bytes]:
    pairs = ((f"{n}.jpg", b"x", f"{n}.cls", label.encode()) for n, label in enumerate(labels))
    return {name: content for a, b, c, d in pairs for name, content in ((a, b), (c, d))}


TWELVE = list(range(12))


@pytest.mark.parametrize(
    "spelled",
    ["{}", "{}.0", "{}.", "{}.000", "0{}", "{:03}", "+{}", "{:.18e}", "{}e0", " {} ", "{}.0e+00"],
)
def test_whole_numbers_in_any_spelling_are_numbers(tmp_path: Path, spelled: str) -> None:
    found = table(tmp_path, *(spelled.format(number) for number in TWELVE))
    assert (found.classes, found.labels.tolist()) == ([str(n) for n in TWELVE], TWELVE)
    (tmp_path / "tars").mkdir()
    walked = shard(tmp_path / "tars", with_cls(*(spelled.format(number) for number in TWELVE)))
    assert (walked.classes, walked.labels.tolist()) == (found.classes, TWELVE)


def test_spellings_of_one_number_are_one_class(tmp_path: Path) -> None:
    found = table(tmp_path, "1", "0.0", "01", "1.0", "-0")
    assert (found.classes, found.labels.tolist()) == (["0", "1"], [1, 0, 1, 1, 0])
    found = lines(tmp_path, '"label": 1.0', '"label": 0', '"label": "1"', '"label": "0.0"')
    assert (found.classes, found.labels.tolist()) == (["0", "1"], [1, 0, 1, 0])


def test_lists_of_names_that_are_numbers_keep_them(tmp_path: Path) -> None:
    found = lines(tmp_path, *(f'"labels": ["{number}.0", "0"]' for number in TWELVE))
    assert found.classes == [str(n) for n in TWELVE]
    assert [found.targets[12 * n + n] for n in TWELVE] == [1.0] * 12
    assert sum(found.targets) == 23


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (
            ("cat", "7"),
            "line 3: label: expected a name like 'cat' (0.jpg), got a whole number: '7'.",
        ),
        (
            ("7.0", "x"),
            "line 3: label: expected a whole number like '7.0' (0.jpg), got a name: 'x'.",
        ),
        (("0", "nan"), "line 3: label: expected a class, got 'nan'. Fill it in, or take the"),
        (("a", "NaN"), "line 3: label: expected a class, got 'NaN'."),
        (("a", "<NA>"), "line 3: label: expected a class, got '<NA>'."),
        (("a", "NA"), "line 3: label: expected a class, got 'NA'."),
        (("a", "None"), "line 3: label: expected a class, got 'None'."),
        (("a", "null"), "line 3: label: expected a class, got 'null'."),
        (("a", " "), "line 3: label: expected a class, got nothing."),
        (("0.5", "1.5"), "line 2: label: expected a name or a whole number, got '0.5'."),
        (("0", "1,5"), "line 3: label: expected a name or a whole number, got '1,5'."),
        (("1.0", "2.0"), "2 different numbers, so expected 0..1, got 2 and no 0."),
        (("001", "003"), "2 different numbers, so expected 0..1, got 3 and no 0."),
        (("-1", "0"), "2 different numbers, so expected 0..1, got -1 and no 1."),
    ],
)
def test_what_is_no_class_is_refused_by_its_line(
    tmp_path: Path, labels: tuple[str, ...], says: str
) -> None:
    with pytest.raises(DatasetError) as caught:
        table(tmp_path, *labels)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (('"label": null',), "line 1: label: expected a class, got null. Fill it in"),
        (('"label": 0.5',), "line 1: label: expected a name or a whole number, got 0.5."),
        (('"label": 1', '"label": "cat"'), "line 2: label: expected a whole number like 1 (0.jpg)"),
        (('"label": NaN',), "line 1: label: expected a name or a whole number, got nan."),
        (('"labels": ["a", "3"]',), "line 1: labels: expected all names or all numbers, got 'a'"),
        (('"labels": ["a", "nan"]',), "line 1: label: expected a class, got 'nan'."),
        (('"labels": ["2", "3"]',), "2 different numbers, so expected 0..1, got 2 and no 0."),
    ],
)
def test_lines_of_json_are_read_alike(tmp_path: Path, rows: tuple[str, ...], says: str) -> None:
    with pytest.raises(DatasetError) as caught:
        lines(tmp_path, *rows)
    assert says in str(caught.value)


def test_names_stay_names(tmp_path: Path) -> None:
    found = table(tmp_path, "none", "n01440764", "7up", "12345678901234567890", "v1.5")
    assert found.classes == sorted(["none", "n01440764", "7up", "12345678901234567890", "v1.5"])


def test_a_shards_folders_are_names(tmp_path: Path) -> None:
    found = shard(tmp_path, {"7/0.jpg": b"x", "cat/1.jpg": b"x", "3.5/2.jpg": b"x"})
    assert (found.classes, found.labels.tolist()) == (["3.5", "7", "cat"], [1, 2, 0])


def test_a_member_of_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        shard(tmp_path, with_cls("0.0", "cat"))
    assert (
        "a.tar, 1.jpg: label: expected a whole number like '0.0' (0.jpg), got a name: 'cat'."
        in (str(caught.value))
    )
    with pytest.raises(DatasetError, match=r"a\.tar, 1\.jpg: label: expected a class, got 'nan'"):
        shard(tmp_path, with_cls("0.0", "nan"))


def test_numbers_are_places_in_classes_json(tmp_path: Path) -> None:
    classes = ["9", "cat", "dog"]
    found = shard(tmp_path, with_cls("2.0", "0", "dog"), classes)
    assert (found.classes, found.labels.tolist()) == (classes, [2, 0, 2])
    members = {"0.jpg": b"x", "0.json": b'{"label": 2}', "1.jpg": b"x", "1.json": b'{"label": "9"}'}
    found = shard(tmp_path, members, classes)
    assert (found.classes, found.labels.tolist()) == (classes, [2, 0])


@pytest.mark.parametrize("label", ["3", "bird", "-1", "1e300"])
def test_what_classes_json_lacks_is_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(DatasetError) as caught:
        shard(tmp_path, with_cls("cat", label), ["9", "cat", "dog"])
    expected = "a.tar, 1.jpg: label: expected a number below 3 or a name, as classes.json lists so"
    assert expected in str(caught.value) and label in str(caught.value)


def test_numerals() -> None:
    assert [whole(text) for text in ("1e1", "1e-1", ".0", "", ".", "1_0", "0x1", "inf")] == [
        *(10, None, 0, None, None, None, None, None)
    ]
    assert whole("9" * 18) == int("9" * 18) and whole("9" * 19) is None
    assert is_fraction("1,0") and is_fraction("-.5") and not is_fraction("1.0")
    assert not is_fraction("1.2.3") and is_missing("-NaN") and not is_missing("none")
