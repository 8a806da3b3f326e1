"""timm's way to write RandAugment in one string: `rand-m9-mstd0.5-inc1`.

Read by `RandAugment` (`policies.py`). Sections stand in any order after `rand`, separated by `-`:

    m9        the level, a whole number; 10 if it is left out
    n2        how many layers, 2
    p0.5      the probability that a layer is applied, 0.5
    mstd0.5   the levels' standard deviation, 0; above 100 levels are uniform from 0 to m
    mmax10    what levels are clipped at, 10
    inc1      0 or 1: whether all ops become stronger with the level, 0
    tweights  ops by weight, without replacement; also t3a, t3aw

timm itself takes `inc0` for `inc1`, and passes over what it can't read. Here `inc0` means no, and
what can't be read is an error that names the character. Source: timm, `data/auto_augment.py`,
`rand_augment_transform`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

_EXAMPLE: Final = 'Write for example "rand-m9-mstd0.5-inc1".'
_CHOICES: Final = ("weights", "3a", "3aw")


class TimmSpec(NamedTuple):
    """What a string says, with timm's defaults for what it leaves out."""

    m: int = 10
    n: int = 2
    p: float = 0.5
    mstd: float = 0.0
    mmax: int = 10
    inc: bool = False
    t: str = "all"


def parse_timm_spec(spec: str) -> TimmSpec:
    """Read timm's string. Raises ValueError, which names the character, counted from 1."""
    head, *sections = spec.split("-")
    if head != "rand":
        raise _error("rand", 1, head)
    found: dict[str, int | float | bool | str] = {}
    at = len(head) + 2
    for section in sections:
        key, value = _read_section(section, at)
        if key in found:
            raise _error(f"{key} once", at, section)
        found[key] = value
        at += len(section) + 1
    return TimmSpec(**found)  # type: ignore[arg-type]


def _read_section(section: str, at: int) -> tuple[str, int | float | bool | str]:
    key = max((key for key in _READERS if section.startswith(key)), key=len, default=None)
    if key is None:
        hint = "timm took the key w out; tweights has other weights. " if section[:1] == "w" else ""
        raise _error(f"one of the keys {', '.join(sorted(_READERS))}", at, section, hint)
    pattern, expected, read = _READERS[key]
    rest = section[len(key) :]
    if not re.fullmatch(pattern, rest):
        raise _error(f"{expected} after {key}", at + len(key), rest)
    return key, read(rest)


def _read_flag(text: str) -> bool:
    return text == "1"


_WHOLE: Final = (r"[0-9]{1,4}", "a whole number", int)
_NUMBER: Final = (r"[0-9]{1,4}(\.[0-9]{0,9})?", "a number", float)
_READERS: Final[dict[str, tuple[str, str, Callable[[str], int | float | bool | str]]]] = {
    "m": _WHOLE,
    "n": _WHOLE,
    "p": _NUMBER,
    "mstd": _NUMBER,
    "mmax": _WHOLE,
    "inc": (r"[01]", "0 or 1", _read_flag),
    "t": ("|".join(_CHOICES), "one of " + ", ".join(_CHOICES), str),
}


def _error(expected: str, at: int, found: str, hint: str = "") -> ValueError:
    shown = repr(found[:40]) if found else "nothing"
    return ValueError(f"spec: expected {expected} at character {at}, got {shown}. {hint}{_EXAMPLE}")
