"""Options of a command, each declared once: as a field of a dataclass.

A field's name, type and default are the option's. What else there is to say of it stands in its
type, as in `keys: Annotated[str | None, Option("Key file.", metavar="FILE")] = None`. From the
fields follow the command line (`augd/cli/command_line.py`) and the check of what Python passes
(`augd/client/argument_checks.py`). So do the words that one process writes for another
(`to_words`), and the quick reading of such words (`read_words`).

Every process that starts from a command line loads this module: it imports nothing slow.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

Kind = type[bool] | type[int] | type[float] | type[str] | type[Path]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Option:
    """How the command line writes and explains a field.

    Attributes:
        help: one line for people.
        metavar: what stands for the value in the help.
        word: as it is written, where that does not follow from the field's name. A flag that is on
            by default has two: `--on/--off`.
        least: the smallest number; None is any.
        most: the largest number; None is any.
        is_hidden: one process writes it for another; no help shows it.
        is_path: a path that Python may pass as `os.PathLike`, and that is made absolute.
        is_last: the help shows it after the others.
        several: what an error calls the values of a field that takes several.
    """

    help: str = ""
    metavar: str | None = None
    word: str = ""
    least: float | None = None
    most: float | None = None
    is_hidden: bool = False
    is_path: bool = False
    is_last: bool = False
    several: str = "texts"


@dataclass(frozen=True, slots=True)
class Argument:
    """How the command line explains a field that is read by its position."""

    help: str = ""
    metavar: str | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """One option or argument of a command.

    Attributes:
        kind: the type of one value.
        is_many: it may be given several times; its value is a tuple.
        default: `dataclasses.MISSING` where a value must be given.
    """

    name: str
    kind: Kind
    is_many: bool
    is_optional: bool
    default: Any
    declared: Option | Argument

    @property
    def words(self) -> tuple[str, ...]:
        """How it is written; a flag that is on by default has the word for off, too."""
        if isinstance(self.declared, Argument):
            return ()
        word = self.declared.word or "--" + self.name.replace("_", "-")
        return tuple(word.split("/"))


def fields_of(options: type) -> tuple[Field, ...]:
    """List the fields of an options struct, in the order in which help shows them."""
    hints = get_type_hints(options, include_extras=True)
    found = [_field(one, hints[one.name]) for one in dataclasses.fields(options)]
    return tuple(sorted(found, key=lambda one: getattr(one.declared, "is_last", False)))


def _field(field: dataclasses.Field[Any], hint: Any) -> Field:
    if get_origin(hint) is not Annotated:
        raise TypeError(f"{field.name}: expected Annotated[TYPE, Option(...)], got {hint!r}")
    kind, declared = get_args(hint)[:2]
    is_optional = is_many = False
    if get_origin(kind) in (types.UnionType, Union):
        (kind,) = (one for one in get_args(kind) if one is not types.NoneType)
        is_optional = True
    if get_origin(kind) is tuple:
        kind, is_many = get_args(kind)[0], True
    return Field(field.name, kind, is_many, is_optional, field.default, declared)


def to_words(options: Any) -> list[str]:
    """Write options as words of a command line, without those that have their default."""
    words: list[str] = []
    paths: list[str] = []
    for field in fields_of(type(options)):
        value = getattr(options, field.name)
        if value == field.default:
            continue
        values = value if field.is_many else (value,)
        if not field.words:
            paths += map(str, values)
        elif field.kind is bool:
            words.append(field.words[0] if value else field.words[-1])
        else:
            words += [f"{field.words[0]}={one}" for one in values]
    return [*words, "--", *paths] if paths else words


def read_words(options: type[T], words: Sequence[str]) -> T | None:
    """Read plain words without a command-line library.

    Returns None for any word that needs to be explained: a typo, a number out of range, `--help`,
    or what follows `--`. The command-line library then reads the same words.
    """
    values: dict[str, Any] = {}
    try:
        for field, value in _read(fields_of(options), iter(words)):
            if field.is_many:
                value = (*values.get(field.name, ()), value)
            elif not field.words and field.name in values:
                return None
            values[field.name] = value
        return options(**values)
    except (ValueError, TypeError):  # TypeError: an argument that must be given is missing
        return None


def _read(fields: Sequence[Field], rest: Iterator[str]) -> Iterator[tuple[Field, Any]]:
    by_word = {word: field for field in fields for word in field.words}
    positions = iter([field for field in fields if not field.words])
    position = next(positions, None)
    for word in rest:
        if not word.startswith("-"):
            if position is None:
                raise ValueError(word)
            yield position, word
            position = position if position.is_many else next(positions, None)
            continue
        name, separator, text = word.partition("=")
        if name not in by_word:
            raise ValueError(word)
        field = by_word[name]
        if field.kind is bool:
            if separator:
                raise ValueError(word)
            yield field, name == field.words[0]
        else:
            yield field, _value(field, text if separator else next(rest, ""))


def _value(field: Field, text: str) -> Any:
    if not text or text.startswith("-"):
        raise ValueError(text)
    if field.kind is str or field.kind is Path:
        return field.kind(text)
    if not text.isascii() or not text.replace(".", "", 1).isdigit():
        raise ValueError(text)  # what int() and float() read besides, as "1_0", is not plain
    number = int(text) if field.kind is int else float(text)
    declared = field.declared
    if isinstance(declared, Option) and not (
        (declared.least is None or number >= declared.least)
        and (declared.most is None or number <= declared.most)
    ):
        raise ValueError(text)
    return number
