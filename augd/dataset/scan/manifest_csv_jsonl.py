"""Reads the rows of a manifest file, CSV or JSONL, in one shape.

Called by `manifest`, which interprets the rows.

Invariants: one row is held at a time, never the whole file; a row of another shape is rejected with
its line. Imports no NumPy.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, TextIO

import msgspec

from augd.dataset.scan.shard_sidecars import load_json
from augd.dataset.scan.table_numbers import is_fraction, is_missing, whole
from augd.errors import counted
from augd.pixels.headers.formats import IMAGE_ENDINGS

Labels = tuple[str, ...] | tuple[float, ...]

_FLOAT32_MAX: Final = 3.4028234e38
_EXACT: Final = 2.0**53  # a float holds every whole number up to here
_APART: Final = str.maketrans("", "", " _-")
_MEANT: Final = frozenset(("path", "label", "labels", "split"))
_TRUTHS: Final = {"true": 1.0, "false": 0.0}  # as pandas writes columns of get_dummies
_UNNAMED: Final = re.compile(r"|Unnamed: [0-9]+")  # pandas' index, and pandas' name for it
_UNREAD_MAX: Final = 32


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Other names for the column of files: Hugging Face's file_name, Keras' filename, fastai's.
_PATHS: Final = _words(
    "image images imagefile imagename imagepath img imgname imgpath file filename filepath"
)
# Other names for the column of classes. Its numbers are no targets.
_LABELS: Final = _words(
    "labels labelid labelname class classes classid classname category categoryid target y species "
    "breed"
)


class Row(msgspec.Struct):
    """One row: a path, and at most one of `label` and `labels`.

    `columns` names the numbers in `labels`, if a header does. `says` gives the kind of `label`: a
    class by name or number, the name of a folder, or always a name.
    """

    line: int
    path: str
    label: str | int | None = None
    labels: Labels | None = None
    split: str | None = None
    columns: tuple[str, ...] = ()
    says: Literal["class", "folder", "name"] = "class"


class BadManifestRow(Exception):
    """A row that does not fit. The text gives what was expected, what was found, and what to do."""

    def __init__(self, line: int, text: str) -> None:
        """Name the line, counted from 1."""
        super().__init__(text)
        self.line = line


class Columns(msgspec.Struct):
    """How a manifest's columns were read: the first that have no meaning, and notes."""

    unread: set[str] = msgspec.field(default_factory=set)
    notes: list[str] = msgspec.field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)


def open_rows(path: bytes, columns: Columns | None = None) -> Iterator[Row]:
    """Read a manifest row by row. The file is closed when the iterator ends.

    Fills in `columns`.

    Raises:
        BadManifestRow: a row that is not of the format.
        OSError, UnicodeDecodeError: the file cannot be read as text.
    """
    # utf-8-sig: spreadsheets write a byte order mark, which would be part of the first name
    with open(path, encoding="utf-8-sig", newline="") as file:
        is_csv = os.fsdecode(path).lower().endswith(".csv")
        made = Columns() if columns is None else columns
        yield from _csv_rows(file, made) if is_csv else _json_rows(file, made)


def _csv_rows(file: TextIO, columns: Columns) -> Iterator[Row]:
    reader = csv.reader(file, skipinitialspace=True, strict=True)
    try:
        header = next(reader, [])
        make = _Header(header, columns)
        for fields in reader:
            if any(map(str.strip, fields)):  # spreadsheets end tables with empty rows
                yield make.row(reader.line_num, fields)
    except csv.Error as error:
        todo = "Correct the quoting."
        if reader.line_num == 1:
            file.seek(0)
            todo = _other_mark(file.readline()) or todo
        raise BadManifestRow(reader.line_num, f"not CSV: {error}. {todo}") from None


class _Header:
    """The header row of a CSV manifest: the meaning of each column."""

    def __init__(self, names: list[str], columns: Columns) -> None:
        names = [_meant(name.strip()) for name in names]
        if "path" not in names:
            self._find_path(names, columns)
        named = [name for name in names if name]
        if len(set(named)) < len(named):
            twice = next(name for name in named if named.count(name) > 1)
            raise BadManifestRow(1, f"column {twice!r} is there twice. Rename one of them.")
        self._names = names
        self._path = names.index("path")
        self._label = names.index("label") if "label" in names else None
        self._split = names.index("split") if "split" in names else None
        others = [i for i, name in enumerate(names) if name not in ("path", "split")]
        self._numbers = others if self._label is None else []
        self._columns = tuple(names[i] for i in self._numbers)
        self._check_targets(columns)
        read = {self._path, self._label, self._split, *self._numbers}
        unread = [name for i, name in enumerate(names) if name and i not in read]
        columns.unread.update(unread[:_UNREAD_MAX])

    @staticmethod
    def _find_path(names: list[str], columns: Columns) -> None:
        """Read the one column whose name means files as `path`."""
        if found := path_name(names):
            columns.note(f"column {found!r} is read as 'path'")
            names[names.index(found)] = "path"
            return
        likely = [name for name in names if _plain(name) in _PATHS]
        if likely:
            todo = f"Name one of {', '.join(map(repr, likely))} 'path'."
        elif any(_is_image_name(name) for name in names):
            todo = "Write the names of the columns above it: path,label"
        else:
            todo = "Name the column of the files 'path'."
        mark = _other_mark(names[0]) if len(names) == 1 else ""
        raise BadManifestRow(
            1,
            f"expected a header row with a column 'path', got {_brief(names)}. {mark or todo}",
        )

    def _check_targets(self, columns: Columns) -> None:
        """Reject columns of numbers that are hardly targets. Add a note about a single one."""
        unnamed = [i for i in self._numbers if _UNNAMED.fullmatch(self._names[i])]
        if unnamed:
            raise BadManifestRow(
                1,
                f"column {unnamed[0] + 1} has no name, and would be a target. Name it, or take it "
                f"out; pandas writes its index so: to_csv(..., index=False) leaves it out.",
            )
        if len(self._numbers) != 1:
            return
        (name,) = self._columns
        if _plain(name) in _LABELS:
            raise BadManifestRow(
                1,
                f"expected a column 'label', or columns of numbers that are targets, got only "
                f"{name!r} beside 'path'. Rename it to 'label' if it holds classes; if it is a "
                f"target, name it for what it tells.",
            )
        columns.note(
            f"column {name!r} is a target, float32 (B, 1); rename it to 'label' if its numbers are "
            f"classes"
        )

    def row(self, line: int, fields: list[str]) -> Row:
        if len(fields) != len(self._names):
            raise BadManifestRow(
                line,
                f"expected {counted(len(self._names), 'field')} as in the header, got "
                f"{len(fields)}. "
                f"Quote fields that hold a comma.",
            )
        row = Row(line, fields[self._path], columns=self._columns)
        if self._split is not None:
            row.split = fields[self._split].strip()
        if self._label is not None:
            row.label = fields[self._label].strip()
        elif self._numbers:
            row.labels = tuple([self._number(line, fields, i) for i in self._numbers])
        return row

    def _number(self, line: int, fields: list[str], at: int) -> float:
        try:
            truth = _TRUTHS.get(fields[at].strip().lower())
            return _finite(float(fields[at])) if truth is None else truth
        except ValueError:
            raise BadManifestRow(
                line,
                f"column {self._names[at]!r}: expected a finite number, got {fields[at]!r}. "
                f"Without a column 'label', all columns but 'path' and 'split' are targets. "
                f"{self._advise(self._names[at], fields[at])}",
            ) from None

    def _advise(self, column: str, found: str) -> str:
        """Return what to do with a column that holds something other than numbers."""
        if whole(found) is None and not is_fraction(found) and not is_missing(found.strip()):
            classes = [name for name in (column, *self._columns) if _plain(name) in _LABELS]
            if classes or len(self._columns) == 1:
                return f"Rename {(*classes, column)[0]!r} to 'label' if it holds the classes."
        return "Give it numbers, or take it out."


def _meant(name: str) -> str:
    """Normalise a column's name: known names are matched in any case."""
    return name.lower() if name.lower() in _MEANT else name


def path_name(names: Iterable[str]) -> str | None:
    """Return the one name that means files, if there is no `path`."""
    found = [name for name in names if _plain(name) in _PATHS]
    return found[0] if len(found) == 1 else None


def names_files(line: str) -> bool:
    """Return whether a table's first line, CSV or JSONL, names a column of files."""
    if line.startswith("{"):
        try:
            names = list(load_json(line))
        except (ValueError, RecursionError):
            return False
    else:
        names = re.split(r"[,;\t|]", line)
    names = [_meant(name.strip(' "\r')) for name in names]
    return "path" in names or path_name(names) is not None


def _plain(name: str) -> str:
    """Normalise a name as people write it: `image_path`, `Image Path` and `imagePath` are one."""
    return name.lower().translate(_APART)


def _is_image_name(name: str) -> bool:
    return name.rpartition(".")[2].lower().encode() in IMAGE_ENDINGS


def _other_mark(header: str) -> str:
    """Return an error if a header's fields are separated by something other than commas."""
    for mark in ";\t|":
        names = [_meant(name.strip(' "\r\n')) for name in header.split(mark)]
        if len(names) > 1 and ("path" in names or path_name(names)):
            return f"Its fields are separated by {mark!r}: separate them by commas."
    return ""


def _json_rows(file: TextIO, columns: Columns) -> Iterator[Row]:
    unread = columns.unread
    decode = msgspec.json.Decoder().decode
    for line, text in enumerate(file, 1):
        if text.isspace():
            continue
        try:
            found = decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            found = _json_of_python(line, text, error)
        if isinstance(found, dict):
            found = {**{_meant(key): value for key, value in found.items()}, **found}
            if "path" not in found and (key := path_name(found)):
                columns.note(f"{key!r} is read as 'path'")
                found["path"] = found.pop(key)
            if len(unread) < _UNREAD_MAX:
                unread.update(key for key in found if _meant(key) not in _MEANT)
        if not isinstance(found, dict) or not isinstance(found.get("path"), str):
            shape = f"keys {_brief(list(found))}" if isinstance(found, dict) else _brief(found)
            todo = "Write one object a line." if isinstance(found, list) else "Give it a path."
            raise BadManifestRow(
                line, f'expected an object with "path", a text, got {shape}. {todo}'
            )
        yield json_row(line, found)


def _json_of_python(line: int, text: str, error: Exception) -> Any:
    """Read what is no JSON but what Python's `json` writes for it. Slower; few lines need it."""
    try:
        return load_json(text)
    except RecursionError:
        raise BadManifestRow(line, "its lists or objects are too deep. Take them out.") from None
    except ValueError:
        raise BadManifestRow(line, f"not JSON: {error}. Write one object a line.") from None


def json_row(line: int, found: dict[str, Any]) -> Row:
    """Make a row of an object with "path" and known keys. Raises BadManifestRow."""
    label, labels, split = found.get("label"), found.get("labels"), found.get("split")
    is_unlabelled = not any(_meant(key) not in ("path", "split") for key in found)
    if label is None and labels is None and found.keys() & {"label", "labels"}:
        raise BadManifestRow(
            line, "label: expected a class, got null. Fill it in, or take the sample out."
        )
    if (label is None) == (labels is None) and not is_unlabelled:
        raise BadManifestRow(
            line,
            f'expected either "label" or "labels", got keys {_brief(list(found))}. '
            f"Give one of the two.",
        )
    row = Row(line, found["path"], split=split)
    if split is not None and not isinstance(split, str):
        raise BadManifestRow(line, f"split: expected a text, got {_brief(split)}. Correct it.")
    if label is not None:
        if isinstance(label, float) and label.is_integer() and abs(label) < _EXACT:
            label = int(label)
        if isinstance(label, bool) or not isinstance(label, str | int):
            raise BadManifestRow(
                line, f"label: expected a name or a whole number, got {_brief(label)}. Correct it."
            )
        row.label = label.strip() if isinstance(label, str) else label
    if labels is not None:
        row.labels = _json_labels(line, labels)
    return row


def _json_labels(line: int, labels: Any) -> Labels:
    if isinstance(labels, list):
        if all(isinstance(item, str) for item in labels):
            return tuple([item.strip() for item in labels])
        if all(isinstance(item, int | float) for item in labels):
            try:
                return tuple([_finite(float(item)) for item in labels])
            except (ValueError, OverflowError):
                pass
    raise BadManifestRow(
        line,
        f"labels: expected a list of names, or of finite numbers, got {_brief(labels)}. "
        f"Correct it.",
    )


def _finite(number: float) -> float:
    if not math.isfinite(number) or abs(number) > _FLOAT32_MAX:
        raise ValueError(number)
    return number


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]} ... {text[-15:]}"
