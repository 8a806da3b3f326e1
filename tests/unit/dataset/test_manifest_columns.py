"""Columns of a manifest: which one holds the files, which are targets, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from augd.dataset.scan.manifest import read_manifest
from augd.dataset.scan_result import ScanResult
from tests.support.datasets import refusal_of


def read(folder: Path, content: str, ending: str = "csv") -> ScanResult:
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"x")
    (folder / f"list.{ending}").write_text(content)
    return read_manifest(folder / f"list.{ending}")


@pytest.mark.parametrize(
    "name", ["image", "file", "filename", "file_name", "Image Path", "img-path", "filepath"]
)
def test_a_usual_name_of_the_column_of_files_does_and_is_said(tmp_path: Path, name: str) -> None:
    found = read(tmp_path, f"{name},label\n0.jpg,b\n1.jpg,a\n")
    assert (found.path(1), list(found.labels)) == (b"1.jpg", [1, 0])
    assert found.notes == [f"column {name!r} is read as 'path'"]
    found = read(tmp_path, f'{{"{name}": "0.jpg", "label": "b"}}\n', "jsonl")
    assert (found.path(0), found.notes) == (b"0.jpg", [f"{name!r} is read as 'path'"])


def test_beside_path_such_a_column_means_nothing(tmp_path: Path) -> None:
    found = read(tmp_path, "path,filename,label\n0.jpg,x.jpg,b\n1.jpg,y.jpg,a\n")
    assert found.path(0) == b"0.jpg"
    assert found.notes == ["columns that mean nothing here: 'filename'"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("image,file,label\n0.jpg,1.jpg,a\n", "Name one of 'image', 'file' 'path'."),
        ("0.jpg,cat\n1.jpg,dog\n", "Write the names of the columns above it: path,label"),
        ("id,label\n0,cat\n", "Name the column of the files 'path'."),
        ("image;label\n0.jpg;a\n", "Its fields are separated by ';': separate them by commas."),
        ("path;sky\n0.jpg;1\n", "Its fields are separated by ';': separate them by commas."),
        ("file_name\tage\n0.jpg\t1\n", "separated by '\\t'"),
    ],
)
def test_without_a_column_of_files_it_is_said_what_to_do(
    tmp_path: Path, content: str, says: str
) -> None:
    assert says in refusal_of(read, tmp_path, content)


@pytest.mark.parametrize(
    ("name", "values"), [("age", [31.5, 42.0]), ("sky", [1.0, 0.0]), ("Height", [1.0, 2.0])]
)
def test_one_column_of_numbers_is_a_target(tmp_path: Path, name: str, values: list[float]) -> None:
    rows = "".join(f"{number}.jpg,{value:g}\n" for number, value in enumerate(values))
    found = read(tmp_path, f"path,{name}\n{rows}")
    assert (found.classes, found.num_targets, list(found.targets)) == ([name], 1, values)
    assert list(found.labels) == [-1, -1]
    assert found.notes == [
        f"column {name!r} is a target, float32 (B, 1); rename it to 'label' if its numbers are "
        f"classes"
    ]


@pytest.mark.parametrize("name", ["class", "Category", "class_id", "target", "labels"])
@pytest.mark.parametrize("value", ["cat", "3"])
def test_a_column_that_is_named_as_one_of_classes_is_no_target(
    tmp_path: Path, name: str, value: str
) -> None:
    said = refusal_of(read, tmp_path, f"path,{name}\n0.jpg,{value}\n")
    assert f"got only {name!r} beside 'path'. Rename it to 'label' if it holds classes;" in said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("path,animal\n0.jpg,cat\n", "Rename 'animal' to 'label' if it holds the classes."),
        ("path,width,class\n0.jpg,8,cat\n", "Rename 'class' to 'label' if it holds the classes."),
        ("path,x,y\n0.jpg,1,\n", "Give it numbers, or take it out."),
        ("path,x,age\n0.jpg,1,nan\n", "Give it numbers, or take it out."),
        (
            "path,label\n0.jpg,1.76\n",
            "stands in a column of another name (CSV), or in a list under",
        ),
        ('{"path": "0.jpg", "label": "1.76"}', 'or in a list under "labels" (JSONL).'),
    ],
)
def test_what_is_neither_a_class_nor_a_target_is_refused_with_what_works(
    tmp_path: Path, content: str, says: str
) -> None:
    assert says in refusal_of(
        read, tmp_path, content, "jsonl" if content.startswith("{") else "csv"
    )


def test_other_numbers_among_columns_of_0_and_1_are_said(tmp_path: Path) -> None:
    found = read(tmp_path, "path,sky,sea,num\n0.jpg,1,0,17\n1.jpg,0,0,18\n")
    assert found.notes == [
        "2 columns hold 0 and 1, and 'num' other numbers: all are targets; take out what is none"
    ]
    assert read(tmp_path, "path,sky,sea\n0.jpg,1,0\n1.jpg,0,0\n").notes == []
    assert read(tmp_path, "path,age,size\n0.jpg,31,1.7\n1.jpg,2,0.8\n").notes == []


def test_paths_that_lack_their_endings_are_told_so(tmp_path: Path) -> None:
    said = refusal_of(read, tmp_path, "path,label\n0,a\n1,b\n")
    assert "2 of 2 files are missing" in said
    assert said.endswith("0.jpg is there: write paths with their endings.")
    (tmp_path / "x.PNG").write_bytes(b"x")
    assert "x.PNG is there" in refusal_of(read, tmp_path, "path,label\nx,a\n")
    assert "--root DIR" in refusal_of(read, tmp_path, "path,label\ny,a\n")
