"""Manifests: what each kind of table means, and a line that names each mistake."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from augd.dataset.scan import manifest
from augd.dataset.scan.build_index import load_or_build
from augd.dataset.scan.manifest import read_manifest
from augd.dataset.scan_result import ScanResult
from augd.errors import DatasetError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg", "4.JPG"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "set"


def csv(root: Path, text: str, *, name: str = "list.csv") -> ScanResult:
    (root / name).write_text(text, encoding="utf-8")
    return read_manifest(root / name)


def jsonl(root: Path, *rows: object) -> ScanResult:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (root / "list.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_manifest(root / "list.jsonl")


def paths(found: ScanResult) -> list[bytes]:
    return [found.path(sample) for sample in range(found.num_samples)]


def refused(read: object, *arguments: object) -> str:
    with pytest.raises(DatasetError) as caught:
        read(*arguments)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_csv_names_are_sorted_classes_and_ids_are_rows(root: Path) -> None:
    found = csv(root, "path,label\nb/3.jpg,dog\na/1.jpg,cat\n\na/2.jpg,dog\n")
    assert paths(found) == [b"b/3.jpg", b"a/1.jpg", b"a/2.jpg"]
    assert (found.classes, found.labels.tolist()) == (["cat", "dog"], [1, 0, 1])
    assert (found.root, found.source) == (os.fsencode(root), os.fsencode(root / "list.csv"))
    assert found.sizes_bytes[0] == 7
    assert found.mtimes_ns[0] == (root / "b/3.jpg").stat().st_mtime_ns
    assert list(found.watched) == [b"list.csv"] and bytes(found.splits) == bytes(3)
    assert found.num_targets == 0


def test_csv_as_spreadsheets_write_it(root: Path) -> None:
    text = '\ufeff"label", "path", "seen"\r\n"a, b", ./a//1.jpg, 7\r\nc, "4.JPG", 8\r\n'
    found = csv(root, text)
    assert paths(found) == [b"a/1.jpg", b"4.JPG"]
    assert (found.classes, found.labels.tolist()) == (["a, b", "c"], [0, 1])


@pytest.mark.parametrize("labels", [["1", "0", "2"], ["0", "1", "2"]])
def test_csv_whole_numbers_are_labels_as_they_are(root: Path, labels: list[str]) -> None:
    names = ("a/1.jpg", "a/2.jpg", "b/3.jpg")
    rows = "".join(f"{path},{label}\n" for path, label in zip(names, labels, strict=True))
    found = csv(root, f"path,label\n{rows}")
    assert found.classes == ["0", "1", "2"]
    assert found.labels.tolist() == [int(label) for label in labels]


def test_csv_columns_of_numbers_are_targets(root: Path) -> None:
    found = csv(root, "path,sun,rain,split\na/1.jpg,1,0.25,train\na/2.jpg,-1e3,0,valid\n")
    assert found.classes == ["sun", "rain"] and found.num_targets == 2
    assert found.targets.tolist() == [1.0, 0.25, -1000.0, 0.0]
    assert found.labels.tolist() == [-1, -1]
    assert list(found.splits) == [1, 2]


def test_splits_may_be_spelled_as_usual(root: Path) -> None:
    found = csv(root, "path,label,split\na/1.jpg,x,Train\na/2.jpg,y,dev\nb/3.jpg,x,EVAL\n")
    assert list(found.splits) == [1, 2, 3]


def test_paths_alone_have_no_label(root: Path) -> None:
    for found in (csv(root, "path\na/1.jpg\n"), jsonl(root, {"path": "a/1.jpg"})):
        assert (found.classes, found.labels.tolist(), found.num_targets) == ([], [-1], 0)


def test_jsonl_names_numbers_and_splits(root: Path) -> None:
    found = jsonl(
        root,
        {"path": "a/1.jpg", "label": "dog", "split": "training", "width": 3},
        {"path": "a/2.jpg", "label": "cat", "split": "test"},
    )
    assert (found.classes, found.labels.tolist()) == (["cat", "dog"], [1, 0])
    assert list(found.splits) == [1, 3]
    found = jsonl(root, {"path": "a/1.jpg", "label": 1}, "", {"path": "a/2.jpg", "label": 0})
    assert (found.classes, found.labels.tolist()) == (["0", "1"], [1, 0])


def test_jsonl_lists_of_names_are_multi_hot_over_the_sorted_union(root: Path) -> None:
    found = jsonl(
        root,
        {"path": "a/1.jpg", "labels": ["sky", "sea"]},
        {"path": "a/2.jpg", "labels": []},
        {"path": "b/3.jpg", "labels": ["dune", "sky", "sky"]},
    )
    assert found.classes == ["dune", "sea", "sky"]
    assert found.targets.tolist() == [0, 1, 1, 0, 0, 0, 1, 0, 1]


def test_jsonl_vectors_have_numbered_classes(root: Path) -> None:
    found = jsonl(
        root, {"path": "a/1.jpg", "labels": [1, 0.5]}, {"path": "a/2.jpg", "labels": [0, 1]}
    )
    assert (found.classes, found.targets.tolist()) == (["0", "1"], [1.0, 0.5, 0.0, 1.0])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: expected a header row with a column 'path', got []. Name the column"),
        ("where,label\nx,y\n", "line 1: expected a header row with a column 'path', got ['where',"),
        ("path,label\n", "lists no samples. Give it a row for each image."),
        ("path,label,label\na/1.jpg,x,y\n", "line 1: column 'label' is there twice."),
        ("path,class\na/1.jpg,cat\n", "got only 'class' beside 'path'. Rename it to 'label'"),
        ("path,label\na/1.jpg,x\na/2.jpg\n", "line 3: expected 2 fields as in the header, got 1."),
        ("path,label\na/1.jpg,\n", "line 2: label: expected a class, got nothing. Fill it in, or"),
        ('path,label\n"a/1.jpg,x\n', "not CSV: "),
        ("path,x,y\na/1.jpg,1,nan\n", "line 2: column 'y': expected a finite number, got 'nan'."),
        ("path,x,y\na/1.jpg,1,cat\n", "line 2: column 'y': expected a finite number, got 'cat'."),
        ("path,x,y\na/1.jpg,1,1e39\n", "expected a finite number, got '1e39'."),
        ("path,label\na/1.jpg,1\na/2.jpg,2\n", "2 different numbers, so expected 0..1, got 2 and "
         "no 0. Number the classes from 0 without gaps, or give names."),
        ("path,label\na/1.jpg,-1\na/2.jpg,0\n", "expected 0..1, got -1 and no 1."),
        ("path,label\n,x\n", "line 2: path: expected the path of a file, got nothing."),
        ("path,label,split\na/1.jpg,x,extra\n", "line 2: split: expected one of train, val, test, "
         "got 'extra'. Correct it."),
        ("path,label\na/1.jpg,x\nb/3.jpg,y\na/./1.jpg,x\n", "a/1.jpg is listed twice, the second "
         "time as sample 2 (counted from 0). Keep one of the rows."),
        ("path,label\na,x\n", "line 2: path: expected a file, got a, which is none."),
    ],
)  # fmt: skip
def test_csv_mistakes_are_named(root: Path, text: str, says: str) -> None:
    line = refused(csv, root, text)
    assert says in line
    assert str(root / "list.csv") in line


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["{"], "line 1: not JSON: "),
        (["3"], 'line 1: expected an object with "path", a text, got 3. Give it a path.'),
        ([{"where": "a/1.jpg"}], "line 1: expected an object with \"path\", a text, got keys ['w"),
        ([{"path": "a/1.jpg", "class": "x"}], 'line 1: expected either "label" or "labels", got'),
        ([{"path": "a/1.jpg", "label": "x", "labels": ["x"]}], 'either "label" or "labels"'),
        ([{"path": "a/1.jpg", "label": 1.5}], "label: expected a name or a whole number, got 1.5"),
        ([{"path": "a/1.jpg", "label": True}], "expected a name or a whole number, got True."),
        ([{"path": "a/1.jpg", "labels": "x"}], "labels: expected a list of names, or of finite"),
        ([{"path": "a/1.jpg", "labels": ["x", 1]}], "line 1: labels: expected a list of names"),
        (['{"path": "a/1.jpg", "labels": [1, 1e300]}'], "expected a list of names, or of finite "
         "numbers, got [1, 1e+300]."),
        ([{"path": "a/1.jpg", "label": "x", "split": 1}], "split: expected a text, got 1."),
        ([{"path": "a/1.jpg", "label": "x"}, {"path": "a/2.jpg", "label": 1}],
         "line 2: label: expected a name like "),
        ([{"path": "a/1.jpg", "label": 0}, {"path": "a/2.jpg", "labels": [1]}],
         "line 2: label: expected a class as in the rows before, got [1.0]."),
        ([{"path": "a/1.jpg"}, {"path": "a/2.jpg", "label": 1}],
         "line 2: label: expected no label as in the rows before, got 1."),
        ([{"path": "a/1.jpg", "labels": [1, 2]}, {"path": "a/2.jpg", "labels": [1]}],
         "line 2: label: expected a list of 2 numbers as in the rows before, got [1.0]."),
        ([{"path": "a/1.jpg", "labels": [1, 2]}, {"path": "a/2.jpg", "labels": ["x", "y"]}],
         "line 2: label: expected a list of 2 numbers as in the rows before, got ['x', 'y']."),
        ([{"path": "a/1.jpg", "labels": ["x"]}, {"path": "a/2.jpg", "labels": [1]}],
         "line 2: label: expected a list of names as in the rows before, got [1.0]."),
        ([{"path": "a/1.jpg", "labels": []}], 'all "labels" are empty lists. Name a class'),
        ([{"path": "a/1.jpg", "label": "x", "split": "val"}, {"path": "a/2.jpg", "label": "x"}],
         "line 2: split: expected a split as in the rows before, got none. Give all rows one."),
    ],
)  # fmt: skip
def test_jsonl_mistakes_are_named(root: Path, rows: list[object], says: str) -> None:
    line = refused(jsonl, root, *rows)
    assert says in line
    assert str(root / "list.jsonl") in line


@pytest.mark.parametrize("path", ["../x.jpg", "/etc/passwd", "a/../../x.jpg", "..", "out/x.jpg",
                                  "link.jpg"])  # fmt: skip
def test_paths_that_leave_the_root_are_refused(root: Path, path: str) -> None:
    (root.parent / "elsewhere").mkdir()
    (root.parent / "elsewhere" / "x.jpg").write_bytes(b"x")
    (root / "out").symlink_to("../elsewhere")
    (root / "link.jpg").symlink_to("../elsewhere/x.jpg")
    line = refused(csv, root, f"path,label\n4.JPG,y\n{path},x\n")
    assert f"line 3: path: expected one relative to {root} and below it, got " in line
    assert "Make it relative, or name the folder that all images lie below: --root DIR" in line


def test_links_and_dots_inside_the_root_are_fine(root: Path) -> None:
    (root / "in").symlink_to("a")
    (root / "five.jpg").symlink_to("4.JPG")
    found = csv(root, "path,label\nin/1.jpg,x\na/../b/3.jpg,x\nfive.jpg,y\n")
    assert paths(found) == [b"in/1.jpg", b"b/3.jpg", b"five.jpg"]
    assert found.sizes_bytes.tolist() == [7, 7, 5]


def test_missing_files_are_counted_and_three_are_named(root: Path) -> None:
    text = "path,label\n4.JPG,x\n" + "".join(f"gone/{i}.jpg,x\n" for i in range(5))
    assert refused(csv, root, text) == (
        f"{root}/list.csv: 5 of 6 files are missing: gone/0.jpg (line 3), gone/1.jpg (line 4), "
        f"gone/2.jpg (line 5), .... Paths are relative to {root}; correct them, take the rows "
        f"out, or name another folder: --root DIR."
    )


def test_a_manifest_that_cannot_be_read(root: Path) -> None:
    assert refused(read_manifest, root / "none.csv") == (
        f"manifest {root}/none.csv cannot be read: No such file or directory. Check the path."
    )
    (root / "latin.csv").write_bytes(b"path,label\na/1.jpg,\xe9t\xe9\n")
    assert "latin.csv cannot be read: it is not UTF-8. Save it as UTF-8" in refused(
        read_manifest, root / "latin.csv"
    )


def test_progress_is_reported_now_and_then(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "REPORT_EVERY", 2)
    csv(root, "path,label\na/1.jpg,x\na/2.jpg,x\nb/3.jpg,y\n")
    seen: list[int] = []
    read_manifest(root / "list.csv", progress=seen.append)
    assert seen == [2, 3]


def test_a_manifest_is_cached_until_it_changes(root: Path, tmp_path: Path) -> None:
    table, other = root / "list.csv", root / "other.csv"
    csv(root, "path,label\na/1.jpg,x\nb/3.jpg,y\n")
    csv(root, "path,label\nb/3.jpg,z\n", name="other.csv")
    for path in (table, other):
        os.utime(path, ns=(1_000_000_000, 1_000_000_000))
    for path, classes in ((table, ["x", "y"]), (other, ["z"])):
        for was_cached in (False, True):
            file = load_or_build(path, cache_dir=tmp_path)
            assert (file.was_cached, file.classes, file.root) == (was_cached, classes, str(root))
            file.close()
    csv(root, "path,label\na/1.jpg,x\nb/3.jpg,x\n")
    os.utime(table, ns=(1_000_000_000, 1_000_000_000))
    file = load_or_build(table, cache_dir=tmp_path)
    assert not file.was_cached
    file.close()


def test_a_manifest_of_a_folder_has_the_digest_of_the_folder(root: Path, tmp_path: Path) -> None:
    (root / "4.JPG").unlink()
    folder = load_or_build(root, cache_dir=tmp_path)
    csv(root, "path,label\na/1.jpg,a\na/2.jpg,a\nb/3.jpg,b\n")
    table = load_or_build(root / "list.csv", cache_dir=tmp_path)
    csv(root, "path,label,split\na/1.jpg,a,val\na/2.jpg,a,val\nb/3.jpg,b,train\n", name="s.csv")
    split = load_or_build(root / "s.csv", cache_dir=tmp_path)
    csv(root, "path,a,b\na/1.jpg,1,0\na/2.jpg,1,0\nb/3.jpg,0,1\n", name="m.csv")
    many = load_or_build(root / "m.csv", cache_dir=tmp_path)
    assert table.digest == folder.digest
    assert len({folder.digest, split.digest, many.digest}) == 3
    for file in (folder, table, split, many):
        file.close()
