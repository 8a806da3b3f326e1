"""From the labels of a manifest's rows to classes and numbers: one kind of label each.

Where it stands: a manifest's first row decides the kind (none, one label, several names, a
vector of numbers); every further row is added to it, and `finish` writes labels or targets.

Invariants: rows of another kind are refused by their line; classes depend on the set of labels
and never on the order of the rows. Imports no NumPy.
"""

from __future__ import annotations

from array import array
from typing import Final, Protocol

from augd.dataset.found import Found
from augd.dataset.rows import BadRow, Row
from augd.errors import DatasetError

_TARGETS_BYTES_MAX: Final = 8 << 30
_DIGITS_MAX: Final = 18  # of a label that is a number; longer ones are names


class Marking(Protocol):
    """What a reader of manifests needs of a kind of labels."""

    def add(self, row: Row) -> None:
        """Take the next row's labels. Raises BadRow when they are of another kind."""

    def finish(self, result: Found, source: str) -> None:
        """Write classes, and labels or targets. Raises DatasetError; `source` names the file."""


def marking_of(first: Row) -> Marking:
    """Choose the kind of labels by the first row's."""
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

    def finish(self, result: Found, source: str) -> None:
        pass


class _OneLabel:
    """A class for each sample, by name or by number."""

    def __init__(self, first: Row) -> None:
        self._kind = type(first.label)
        self._numbers: dict[str | int, int] = {}
        self._found = array("q")

    def add(self, row: Row) -> None:
        label = row.label
        if type(label) is not self._kind or label is None:
            raise _mixed(row, "one name" if self._kind is str else "one whole number")
        if label == "":
            raise BadRow(row.line, "label: expected a class, got nothing. Fill it in.")
        self._found.append(self._numbers.setdefault(label, len(self._numbers)))

    def finish(self, result: Found, source: str) -> None:
        # In CSV all is text: a set of nothing but whole numbers is meant as numbers.
        names = list(self._numbers)
        values = [_whole(name) for name in names]
        if all(value is not None for value in values):
            numbers = [value for value in values if value is not None]
            _refuse_gaps(numbers, source)
            result.classes = [str(number) for number in range(len(numbers))]
            final = numbers
        else:
            result.classes = sorted(str(name) for name in names)
            places = {name: number for number, name in enumerate(result.classes)}
            final = [places[str(name)] for name in names]
        result.labels = array("q", [final[found] for found in self._found])


class _Names:
    """Any number of classes for each sample: a one where a class is named, else a zero."""

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
            self._found.append(self._numbers.setdefault(name, len(self._numbers)))
        self._ends.append(len(self._found))

    def finish(self, result: Found, source: str) -> None:
        if not self._numbers:
            raise DatasetError(
                f'{source}: all "labels" are empty lists. Name a class in one of them.'
            )
        _refuse_size(result.num_samples, len(self._numbers), source)
        result.classes = sorted(self._numbers)
        places = {name: number for number, name in enumerate(result.classes)}
        final = [places[name] for name in self._numbers]
        width = len(final)
        result.targets = array("f", bytes(4 * width * result.num_samples))
        for sample in range(result.num_samples):
            for found in self._found[self._ends[sample] : self._ends[sample + 1]]:
                result.targets[sample * width + final[found]] = 1.0


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

    def finish(self, result: Found, source: str) -> None:
        result.classes = list(self._columns) or [str(number) for number in range(self._width)]
        result.targets = self._found


def _mixed(row: Row, expected: str) -> BadRow:
    found: object = row.label if row.labels is None else list(row.labels)
    text = "none" if found is None else repr(found)[:80]
    return BadRow(
        row.line,
        f"label: expected {expected} as in the rows before, got {text}. "
        f"All rows have the same kind of label.",
    )


def _whole(label: str | int) -> int | None:
    """Read a label as a number, when it is one as numbers are written."""
    if isinstance(label, int):
        return label
    digits = label.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX):
        return None
    return int(label) if str(int(label)) == label else None


def _refuse_gaps(numbers: list[int], source: str) -> None:
    last = len(numbers) - 1
    missing = sorted(set(range(last + 1)) - set(numbers))
    if missing:
        odd = min(number for number in numbers if not 0 <= number <= last)
        raise DatasetError(
            f"{source}: label: {len(numbers)} different numbers, so expected 0..{last}, got "
            f"{odd} and no {missing[0]}. Number the classes from 0 without gaps, or give names."
        )


def _refuse_size(num_samples: int, num_classes: int, source: str) -> None:
    size_bytes = 4 * num_samples * num_classes
    if size_bytes > _TARGETS_BYTES_MAX:
        raise DatasetError(
            f"{source}: labels of {num_samples} samples and {num_classes} classes take "
            f"{size_bytes / 1e9:.0f} GB, more than {_TARGETS_BYTES_MAX / 1e9:.0f}. Give fewer "
            f"classes, or several manifests."
        )
