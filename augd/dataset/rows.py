"""The rows of a manifest file, CSV or JSONL, in one shape.

Where it stands: under the reading of a manifest (`manifest`), which knows what rows mean.

Invariants: a row is read and forgotten, the file is never held whole; what is not of the shape
is refused with its line. Imports no NumPy.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from typing import Any, Final, Literal, TextIO

import msgspec

Labels = tuple[str, ...] | tuple[float, ...]

_FLOAT32_MAX: Final = 3.4028234e38


class Row(msgspec.Struct):
    """One row: a path, and at most one of `label` and `labels`.

    `columns` names the numbers in `labels`, when a header does. `says` tells what `label` is: a
    class by name or number, the name of a folder, or a name that is no number whatever it is.
    """

    line: int
    path: str
    label: str | int | None = None
    labels: Labels | None = None
    split: str | None = None
    columns: tuple[str, ...] = ()
    says: Literal["class", "folder", "name"] = "class"


class BadRow(Exception):
    """A row that does not fit; the text says what was expected, found, and what to do."""

    def __init__(self, line: int, text: str) -> None:
        """Name the line, counted from 1."""
        super().__init__(text)
        self.line = line


def open_rows(path: bytes) -> Iterator[Row]:
    """Read a manifest row by row. The file is closed when the iterator ends.

    Raises:
        BadRow: a row that is not of the format.
        OSError, UnicodeDecodeError: the file cannot be read as text.
    """
    # utf-8-sig: spreadsheets write a mark in front, which would be a part of the first name.
    with open(path, encoding="utf-8-sig", newline="") as file:
        is_csv = os.fsdecode(path).lower().endswith(".csv")
        yield from _csv_rows(file) if is_csv else _json_rows(file)


def _csv_rows(file: TextIO) -> Iterator[Row]:
    reader = csv.reader(file, skipinitialspace=True, strict=True)
    try:
        header = next(reader, [])
        make = _Header(header)
        for fields in reader:
            if fields:
                yield make.row(reader.line_num, fields)
    except csv.Error as error:
        raise BadRow(reader.line_num, f"not CSV: {error}. Correct the quoting.") from None


class _Header:
    """The header row of a CSV manifest: which column means what."""

    def __init__(self, names: list[str]) -> None:
        names = [name.strip() for name in names]
        if "path" not in names:
            raise BadRow(
                1,
                f"expected a header row with a column 'path', got {_brief(names)}. "
                f"Write the names of the columns into the first line.",
            )
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise BadRow(1, f"column {twice!r} is there twice. Rename one of them.")
        self._names = names
        self._path = names.index("path")
        self._label = names.index("label") if "label" in names else None
        self._split = names.index("split") if "split" in names else None
        others = [i for i, name in enumerate(names) if name not in ("path", "split")]
        self._numbers = others if self._label is None else []
        self._columns = tuple(names[i] for i in self._numbers)
        if len(self._numbers) == 1:
            raise BadRow(
                1,
                f"expected a column 'label', or several columns of numbers, got only "
                f"{self._columns[0]!r} beside 'path'. Rename it to 'label' if it holds classes.",
            )

    def row(self, line: int, fields: list[str]) -> Row:
        if len(fields) != len(self._names):
            raise BadRow(
                line,
                f"expected {len(self._names)} fields as in the header, got {len(fields)}. "
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
            return _finite(float(fields[at]))
        except ValueError:
            raise BadRow(
                line,
                f"column {self._names[at]!r}: expected a finite number, got {fields[at]!r}. "
                f"Without a column 'label', all columns but 'path' and 'split' hold numbers.",
            ) from None


def _json_rows(file: TextIO) -> Iterator[Row]:
    decode = msgspec.json.Decoder().decode
    for line, text in enumerate(file, 1):
        if text.isspace():
            continue
        try:
            found = decode(text)
        except msgspec.DecodeError as error:
            raise BadRow(line, f"not JSON: {error}. Write one object a line.") from None
        if not isinstance(found, dict) or not isinstance(found.get("path"), str):
            shape = f"keys {_brief(list(found))}" if isinstance(found, dict) else _brief(found)
            raise BadRow(
                line, f'expected an object with "path", a text, got {shape}. Give it a path.'
            )
        yield json_row(line, found)


def json_row(line: int, found: dict[str, Any]) -> Row:
    """Make a row of an object with "path" and what else is known of it. Raises BadRow."""
    label, labels, split = found.get("label"), found.get("labels"), found.get("split")
    is_unlabelled = not found.keys() - {"path", "split"}
    if label is None and labels is None and found.keys() & {"label", "labels"}:
        raise BadRow(line, "label: expected a class, got null. Fill it in, or take the sample out.")
    if (label is None) == (labels is None) and not is_unlabelled:
        raise BadRow(
            line,
            f'expected either "label" or "labels", got keys {_brief(list(found))}. '
            f"Give one of the two.",
        )
    row = Row(line, found["path"], split=split)
    if split is not None and not isinstance(split, str):
        raise BadRow(line, f"split: expected a text, got {_brief(split)}. Correct it.")
    if label is not None:
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if isinstance(label, bool) or not isinstance(label, str | int):
            raise BadRow(
                line, f"label: expected a name or a whole number, got {_brief(label)}. Correct it."
            )
        row.label = label.strip() if isinstance(label, str) else label
    if labels is not None:
        row.labels = _json_labels(line, labels)
    return row


def _json_labels(line: int, labels: Any) -> Labels:
    if isinstance(labels, list):
        if all(isinstance(item, str) for item in labels):
            return tuple(labels)
        if all(isinstance(item, int | float) and not isinstance(item, bool) for item in labels):
            try:
                return tuple([_finite(float(item)) for item in labels])
            except (ValueError, OverflowError):
                pass
    raise BadRow(
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
