"""Tables as other programs write them: read as they are meant, or refused with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from augd.dataset.scan.manifest import read_manifest
from augd.dataset.scan_result import ScanResult
from tests.support.datasets import refusal_of


def read(folder: Path, content: str | bytes, ending: str = "csv") -> ScanResult:
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"x")
    manifest = folder / f"list.{ending}"
    manifest.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_manifest(manifest)


@pytest.mark.parametrize(
    ("content", "ending"),
    [
        ("Path,Label,SPLIT\n0.jpg,a,train\n1.jpg,b,val\n", "csv"),
        (
            '{"Path": "0.jpg", "Label": "a", "Split": "train"}\n'
            '{"PATH": "1.jpg", "LABEL": "b", "SPLIT": "val"}\n',
            "jsonl",
        ),
    ],
)
def test_columns_do_in_any_case_so_that_no_split_is_passed_over(
    tmp_path: Path, content: str, ending: str
) -> None:
    found = read(tmp_path, content, ending)
    assert (found.classes, list(found.labels), list(found.splits)) == (["a", "b"], [0, 1], [1, 2])
    assert found.notes == []


def test_columns_that_mean_nothing_are_named(tmp_path: Path) -> None:
    found = read(tmp_path, "path,label,subset,fold\n0.jpg,a,val,3\n")
    assert found.notes == ["columns that mean nothing here: 'fold', 'subset'"]
    found = read(tmp_path, '{"path": "0.jpg", "label": "a", "subset": "val"}\n', "jsonl")
    assert found.notes == ["columns that mean nothing here: 'subset'"]


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_a_column_without_a_name_is_no_target(tmp_path: Path, name: str) -> None:
    said = refusal_of(read, tmp_path, f"{name},path,sky,sea\n0,0.jpg,1,0\n1,1.jpg,0,1\n")
    assert "line 1: column 1 has no name, and would be a target." in said
    assert "index=False" in said
    found = read(tmp_path, f"{name},path,label\n0,0.jpg,b\n1,1.jpg,a\n")
    assert list(found.labels) == [1, 0]


def test_true_and_false_are_targets(tmp_path: Path) -> None:
    found = read(tmp_path, "path,sky,sea\n0.jpg,True,False\n1.jpg,FALSE,true\n")
    assert list(found.targets) == [1, 0, 0, 1]
    rows = '{"path": "0.jpg", "labels": [true, false]}\n{"path": "1.jpg", "labels": [0, 1]}\n'
    assert list(read(tmp_path, rows, "jsonl").targets) == [1, 0, 0, 1]


def test_rows_of_nothing_are_none(tmp_path: Path) -> None:
    found = read(tmp_path, "path,label,,\n0.jpg,a,,\n  \n,,,\n1.jpg,b,,\n,,,\n")
    assert list(found.labels) == [0, 1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("path;label\n0.jpg;a\n", "Its fields are separated by ';': separate them by commas."),
        ('"Path"\tlabel\n0.jpg\ta\n', "separated by '\\t': separate them by commas."),
        ("path|label\n0.jpg|a\n", "separated by '|'"),
        ("path,label\n".encode("utf-16"), "it is not UTF-8, but UTF-16. Save it as UTF-8"),
        ("path,label\n0.jpg,é\n".encode("latin-1"), "it is not UTF-8. Save it as UTF-8 (of Latin"),
        (b"\x1f\x8b\x08\0\xff\xff", "it is not UTF-8, but a gzip archive. Give a .csv"),
        (b"PK\x03\x04\0\0\xff\xff", "it is not UTF-8, but a zip archive."),
    ],
)
def test_files_that_are_no_csv_are_refused_with_what_to_do(
    tmp_path: Path, content: str | bytes, says: str
) -> None:
    assert says in refusal_of(read, tmp_path, content)


@pytest.mark.parametrize(
    "more",
    [
        '"similarity": NaN',
        '"score": -Infinity',
        '"caption": "\\ud800"',
        f'"id": {"9" * 6000}',
        '"size": 1e999',
    ],
)
def test_what_pythons_json_writes_beside_the_label_hinders_nothing(
    tmp_path: Path, more: str
) -> None:
    rows = f'{{"path": "0.jpg", "label": "b", {more}}}\n{{"path": "1.jpg", "label": "a"}}\n'
    assert list(read(tmp_path, rows, "jsonl").labels) == [1, 0]


def test_bytes_of_a_path_may_stand_as_python_writes_them(tmp_path: Path) -> None:
    (tmp_path / "\udce9t\udce9.jpg").write_bytes(b"x")
    found = read(tmp_path, '{"path": "\\udce9t\\udce9.jpg", "label": "a"}\n', "jsonl")
    assert found.path(0) == b"\xe9t\xe9.jpg"


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (f'{{"path": "0.jpg", "label": "a", "x": {DEEP}}}', "line 1: its lists or objects are too"),
        (f'{{"path": "0.jpg", "label": {DEEP}}}', "line 1: its lists or objects are too deep."),
        ('{"path": "\\ud800.jpg", "label": "a"}', "line 1: path: expected bytes, got '\\ud800"),
        ('{"path": "0.jpg", "label": "\\ud800"}', "line 1: label: expected a name in UTF-8, got"),
        ('{"path": "0.jpg", "labels": ["\\udcff"]}', "line 1: label: expected a name in UTF-8"),
        ('{"path": "0.jpg", "label": 1e300}', "expected a name or a whole number, got 1e+300."),
        ('[{"path": "0.jpg", "label": "a"}]', "Write one object a line."),
    ],
)
def test_rows_that_cannot_be_meant_are_refused_by_their_line(
    tmp_path: Path, row: str, says: str
) -> None:
    assert says in refusal_of(read, tmp_path, row + "\n", "jsonl")


@pytest.mark.parametrize("zero", ["\uff10", "\u0660", "\u0966"])
def test_digits_of_other_scripts_are_numbers(tmp_path: Path, zero: str) -> None:
    spelled = [
        "".join(chr(ord(zero) + int(digit)) for digit in str(number)) for number in range(12)
    ]
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    rows = "".join(f"{number}.jpg,{text}\n" for number, text in enumerate(spelled))
    found = read(tmp_path, "path,label\n" + rows)
    assert list(found.labels) == list(range(12))


def test_spaces_around_names_of_a_list_are_no_part_of_them(tmp_path: Path) -> None:
    rows = '{"path": "0.jpg", "labels": [" sky"]}\n{"path": "1.jpg", "labels": ["sky "]}\n'
    assert read(tmp_path, rows, "jsonl").classes == ["sky"]
