"""Turns the labels of a manifest's rows into classes and numbers. All rows have one kind of label.

Called by `manifest`. The first row decides the kind: none, one label, several names, or a vector of
numbers. Each further row is added, and `finish` writes labels or targets.

Invariants: a row of another kind is rejected by its line. Classes depend on the set of labels, not
on the order of rows. A class that is a number has this number. Imports no NumPy.
"""

from __future__ import annotations

from array import array
from typing import Final, Protocol

from augd.dataset.scan.manifest_csv_jsonl import BadManifestRow, Row
from augd.dataset.scan.table_numbers import is_fraction, is_missing, whole
from augd.dataset.scan_result import ScanResult, spelled_alike
from augd.errors import DatasetError, counted, verb

_TARGETS_BYTES_MAX: Final = 8 << 30
_TRUTHS: Final = frozenset((0.0, 1.0))
_NAMED: Final = 4


class LabelEncoding(Protocol):
    """What `manifest` needs of a kind of labels."""

    def add(self, row: Row) -> None:
        """Add the labels of the next row. Raises BadManifestRow if they are of another kind."""

    def finish(self, result: ScanResult, source: str) -> None:
        """Write classes, and labels or targets. Raises DatasetError; `source` names the file."""

    def notes(self) -> list[str]:
        """Return notes for the user about what was written."""


def label_encoding_of(first: Row) -> LabelEncoding:
    """Choose the kind of labels by the labels of the first row."""
    if first.label is not None:
        return _OneLabel(first)
    if first.labels is None:
        return _NoLabel()
    if first.columns or any(isinstance(label, float) for label in first.labels):
        return _Vector(first)
    return _Names()


class _NoLabel:
    """No labels: every sample's is -1, and there are no classes."""

    def add(self, row: Row) -> None:
        if row.label is not None or row.labels is not None:
            raise _mixed(row, "no label")

    def finish(self, result: ScanResult, source: str) -> None:
        pass

    def notes(self) -> list[str]:
        return []


class _OneLabel:
    """One class per sample, by name or by number. Spellings of a whole number are one number."""

    def __init__(self, first: Row) -> None:
        self._first = first
        self._kind: type | None = None
        self._known: dict[object, int] = {}  # labels as spelled
        self._numbers: dict[str | int, int] = {}
        self._found = array("q")

    def add(self, row: Row) -> None:
        spelled = row.label if row.says == "class" else (row.says, row.label)
        number = self._known.get(spelled)
        if number is None:
            label = self._meant(row)
            number = self._known[spelled] = self._numbers.setdefault(label, len(self._numbers))
        self._found.append(number)

    def _meant(self, row: Row) -> str | int:
        """Add a label that is new."""
        if row.label is None:
            raise _mixed(row, "a class")
        _refuse_surrogates(row)
        # A folder's name is a name, even if it looks like a number.
        label = row.label if isinstance(row.label, int) else spelled_alike(row.label)
        if row.says == "class":
            label = _class_of(row.line, label)
        if self._kind is None:
            self._kind = type(label)
        if type(label) is not self._kind:
            kinds = ("a name", "a whole number")
            expected, got = kinds if self._kind is str else reversed(kinds)
            raise BadManifestRow(
                row.line,
                f"label: expected {expected} like {self._first.label!r} ({self._first.path}), got "
                f"{got}: {row.label!r}. Give all samples names, or all of them numbers.",
            )
        return label

    def finish(self, result: ScanResult, source: str) -> None:
        names = list(self._numbers)
        values = [_plain_number(name) if isinstance(name, str) else name for name in names]
        is_named = self._first.says == "name" or None in values
        if self._kind is int or (self._first.says == "folder" and not is_named):
            final = [value for value in values if value is not None]
            result.classes = _numbered(final, source)
        else:
            result.classes = sorted(str(name) for name in names)
            places = {name: number for number, name in enumerate(result.classes)}
            final = [places[str(name)] for name in names]
        result.labels = array("q", [final[found] for found in self._found])

    def notes(self) -> list[str]:
        return []


class _Names:
    """Any number of classes per sample: 1 where a class is named, else 0."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._found = array("q")
        self._ends = array("q", (0,))

    def add(self, row: Row) -> None:
        if row.labels is None:
            raise _mixed(row, "a list of names")
        for name in row.labels:
            if not isinstance(name, str):
                raise _mixed(row, "a list of names")
            name = spelled_alike(name)
            number = self._numbers.get(name)
            if number is None:
                number = self._learn(row, name)
            self._found.append(number)
        self._ends.append(len(self._found))

    def _learn(self, row: Row, name: str) -> int:
        """Add a name that is new. Numbers are not mixed with other names."""
        _refuse_surrogates(row)
        first = next(iter(self._numbers), name)
        if isinstance(_class_of(row.line, name), int) is not isinstance(
            _class_of(row.line, first), int
        ):
            raise BadManifestRow(
                row.line,
                f"labels: expected all names or all numbers, got {first!r} and {name!r}. Give all "
                f"classes names.",
            )
        self._numbers[name] = len(self._numbers)
        return self._numbers[name]

    def finish(self, result: ScanResult, source: str) -> None:
        if not self._numbers:
            raise DatasetError(
                f'{source}: all "labels" are empty lists. Name a class in one of them.'
            )
        values = [whole(name) for name in self._numbers]
        if None not in values:
            final = [value for value in values if value is not None]
            result.classes = _numbered(final, source)
        else:
            result.classes = sorted(self._numbers)
            places = {name: number for number, name in enumerate(result.classes)}
            final = [places[name] for name in self._numbers]
        width = len(result.classes)
        _refuse_size(result.num_samples, width, source)
        result.targets = array("f", bytes(4 * width * result.num_samples))
        for sample in range(result.num_samples):
            for found in self._found[self._ends[sample] : self._ends[sample + 1]]:
                result.targets[sample * width + final[found]] = 1.0

    def notes(self) -> list[str]:
        return []


class _Vector:
    """The same number of floats for each sample."""

    def __init__(self, first: Row) -> None:
        assert first.labels is not None
        self._width = len(first.labels)
        self._columns = first.columns
        self._found = array("f")

    def add(self, row: Row) -> None:
        labels = row.labels
        if labels is None or len(labels) != self._width:
            raise _mixed(row, f"a list of {self._width} numbers")
        try:
            self._found.extend(labels)  # type: ignore[arg-type] # names raise
        except TypeError:
            raise _mixed(row, f"a list of {self._width} numbers") from None

    def finish(self, result: ScanResult, source: str) -> None:
        result.classes = list(self._columns) or [str(number) for number in range(self._width)]
        result.targets = self._found

    def notes(self) -> list[str]:
        """Name a column of other numbers among columns of 0 and 1: often an id, and no target."""
        others = [
            name
            for column, name in enumerate(self._columns)
            if not all(map(_TRUTHS.__contains__, self._found[column :: self._width]))
        ]
        if not others or len(others) == len(self._columns):
            return []
        more = ", ..." if len(others) > _NAMED else ""
        truths = len(self._columns) - len(others)
        return [
            f"{counted(truths, 'column')} {verb(truths, 'holds', 'hold')} 0 and 1, and "
            f"{', '.join(map(repr, others[:_NAMED]))}{more} other numbers: all are targets; take "
            f"out what is none"
        ]


def _mixed(row: Row, expected: str) -> BadManifestRow:
    found: object = row.label if row.labels is None else list(row.labels)
    text = "none" if found is None else repr(found)[:80]
    return BadManifestRow(
        row.line,
        f"label: expected {expected} as in the rows before, got {text}. "
        f"All rows have the same kind of label.",
    )


def _refuse_surrogates(row: Row) -> None:
    """Reject names that UTF-8 cannot encode: class names are sent over the wire."""
    for name in (row.label, *(row.labels or ())):
        if isinstance(name, str) and not name.isascii():
            try:
                name.encode()
            except UnicodeEncodeError:
                raise BadManifestRow(
                    row.line,
                    f"label: expected a name in UTF-8, got {ascii(name)[:80]}. Rename the class.",
                ) from None


def _class_of(line: int, label: str | int) -> str | int:
    """Read a class: a whole number in any spelling, or else a name. Raises BadManifestRow."""
    if isinstance(label, int):
        return label
    if is_missing(label):
        found = repr(label) if label else "nothing"
        raise BadManifestRow(
            line, f"label: expected a class, got {found}. Fill it in, or take the sample out."
        )
    number = whole(label)
    if number is None and is_fraction(label):
        raise BadManifestRow(
            line,
            f"label: expected a name or a whole number, got {label!r}. A target that is no class "
            f'stands in a column of another name (CSV), or in a list under "labels" (JSONL).',
        )
    return spelled_alike(label) if number is None else number


def _plain_number(folder: str) -> int | None:
    """Read a folder's name as a number if it is spelled as one."""
    number = whole(folder)
    return number if str(number) == folder else None


def _numbered(numbers: list[int], source: str) -> list[str]:
    """Name the classes that have these numbers. Numbers stay as they are."""
    last = len(set(numbers)) - 1
    missing = sorted(set(range(last + 1)) - set(numbers))
    if missing:
        odd = min(number for number in numbers if not 0 <= number <= last)
        raise DatasetError(
            f"{source}: label: {last + 1} different numbers, so expected 0..{last}, got "
            f"{str(odd)[:40]} and no {missing[0]}. Number the classes from 0 without gaps, or give "
            f"names."
        )
    return [str(number) for number in range(last + 1)]


def _refuse_size(num_samples: int, num_classes: int, source: str) -> None:
    size_bytes = 4 * num_samples * num_classes
    if size_bytes > _TARGETS_BYTES_MAX:
        raise DatasetError(
            f"{source}: labels of {num_samples:,} samples and {num_classes:,} classes take "
            f"{size_bytes / 1e9:.0f} GB, more than {_TARGETS_BYTES_MAX / 1e9:.0f}. Give fewer "
            f"classes, or several manifests."
        )
