"""Checks of the arguments of `serve` and `connect`: each error names the argument.

Runs in the caller's process, before anything is started. Without these checks, a number in quotes
or one path in place of several would fail somewhere inside.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from typing import Any, TypeVar

from augd.errors import OptionError
from augd.process.options import Field, Option, fields_of
from augd.process.paths import absolute

T = TypeVar("T")


def whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return a whole number within bounds; NumPy's integers pass, True and "2" do not."""
    bounds = f"of {low} or more" if high is None else f"in {low}..{high}"
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise OptionError(f"{name}: expected a whole number {bounds}, got {value!r}") from None
    if number < low or (high is not None and number > high):
        raise OptionError(f"{name}: expected a whole number {bounds}, got {number}")
    return number


def seconds(name: str, value: Any) -> float:
    """Return a positive number of seconds."""
    number = _number(value)
    if not number > 0:
        raise OptionError(f"{name}: expected a positive number of seconds, got {value!r}")
    return number


def share(name: str, value: Any) -> float:
    """Return a number between 0 and 1."""
    number = _number(value)
    if not 0 <= number <= 1:
        raise OptionError(f"{name}: expected 0..1, got {value!r}")
    return number


def _number(value: Any) -> float:
    """Return a number as a float, and NaN for anything else; True and "2" are none."""
    try:
        return math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError):
        return math.nan


def text(name: str, value: Any) -> str:
    """Return a str."""
    if not isinstance(value, str):
        raise OptionError(f"{name}: expected a text, got {value!r}")
    return value


def texts(name: str, value: Any, of: str) -> list[str]:
    """Return a list of str; a single str is an error, since it iterates over letters."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise OptionError(f"{name}: expected a list of {of}, got {value!r}")
    return [text(name, one) for one in value]


def path(name: str, value: Any) -> str:
    """Return an absolute path."""
    try:
        return absolute(os.fsdecode(value))
    except TypeError:
        raise OptionError(f"{name}: expected a path, got {value!r}") from None


def paths(name: str, value: Any) -> list[str]:
    """Return one path or several, each whole."""
    if isinstance(value, str | bytes | os.PathLike):
        value = [value]
    if not isinstance(value, Iterable):
        raise OptionError(f"{name}: expected a folder, or several, got {value!r}")
    return [path(name, one) for one in value]


def options(kind: type[T], **given: Any) -> T:
    """Make an options struct of what a caller passed, each value checked by its field's type.

    Raises:
        OptionError: names the argument, what was expected and found.
    """
    fields = {one.name: one for one in fields_of(kind)}
    return kind(**{name: _checked(fields[name], value) for name, value in given.items()})


def _checked(field: Field, value: Any) -> Any:
    name, declared = field.name, field.declared
    assert isinstance(declared, Option)
    if value is None and field.is_optional:
        return None
    if field.is_many:
        found = paths(name, value) if declared.is_path else texts(name, value, declared.several)
        return tuple(found)
    if field.kind is bool:
        return bool(value)
    if field.kind is int:
        return whole(name, value, 1)
    if field.kind is float:
        return seconds(name, value)
    return path(name, value) if declared.is_path else text(name, value)
