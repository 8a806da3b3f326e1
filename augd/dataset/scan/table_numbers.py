"""Reads numbers as tables spell them: `3`, `3.0`, `03`, `+3`, `3e0`; and empty cells.

Used for the labels of manifests and shards (`label_encoding`, `manifest_csv_jsonl`). pandas writes
a column of whole numbers as `0.0, 1.0, ...` once a cell is missing. Sorted as names, `10.0` comes
before `2.0`, and each class behind it gets another number.

Invariants: pure; digits of every script count, as Python reads them; any other text stays a name.
Imports no NumPy.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_DECIMAL_COMMA: Final = re.compile(r"[+-]?[0-9]+,[0-9]+")
_DIGITS: Final = re.compile(r"[+-]?[0-9]{1,18}")  # longer ones are identifiers, hence names
_EXACT: Final = 2**53  # a float holds every whole number up to here

# As pandas, NumPy, R, Excel and Python write an empty cell.
_MISSING: Final = frozenset(
    ("", "nan", "+nan", "-nan", "<na>", "nat", "null", "#n/a", "n/a", "1.#qnan")
)
_MISSING_AS_WRITTEN: Final = frozenset(("NA", "None"))


def whole(text: str) -> int | None:
    """Read a whole number in any spelling; None for anything else."""
    text = _in_ascii(text)
    if _DIGITS.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number.is_integer() and abs(number) < _EXACT:
            return int(number)
    return None


def is_fraction(text: str) -> bool:
    """Return whether a text is a number, but no whole one. A decimal comma counts."""
    text = _in_ascii(text)
    if _DECIMAL_COMMA.fullmatch(text):
        return True
    return _NUMBER.fullmatch(text) is not None and not float(text).is_integer()


def is_missing(text: str) -> bool:
    """Return whether a text means that there is no value, as programs write it."""
    return text.lower() in _MISSING or text in _MISSING_AS_WRITTEN


def _in_ascii(text: str) -> str:
    """Write the digits of other scripts in ASCII: sorted as names, a full-width 10 is below 2."""
    if text.isascii():
        return text
    return "".join([str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text])
