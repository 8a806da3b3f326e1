"""The attacks by number: what each does and what must be seen stand in its docstring.

An attack is a function that takes the `Target` and plays a peer who can reach the sockets. It
asserts what it itself must see; that nobody else noticed is looked at for every one of them by
`tests/attacks/test_attacks.py`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.attacks.target import Target

Play = Callable[["Target"], None]
MB = 1_000_000


@dataclass(frozen=True)
class Attack:
    """One attack. `peak_bytes` is how much the daemon's own memory may grow while it lasts."""

    number: str
    play: Play
    peak_bytes: int
    is_slow: bool
    is_withstood: bool
    may_end: bool  # its process; the next one is there within a second

    @property
    def does(self) -> str:
        return self._parts()[0]

    @property
    def seen(self) -> str:
        return self._parts()[1]

    def _parts(self) -> tuple[str, str]:
        does, _, seen = (self.play.__doc__ or "").partition("Seen:")
        return " ".join(does.split()), " ".join(seen.split())


_MODULES = ("garbage", "sessions", "specs", "floods", "attachments", "bytes_by_hand", "producers")
_ATTACKS: dict[str, Attack] = {}


def all_attacks() -> list[Attack]:
    """Load every module of attacks; returns them by number."""
    for module in _MODULES:
        importlib.import_module(f"tests.attacks.{module}")
    return [_ATTACKS[number] for number in sorted(_ATTACKS)]


def attack(
    number: str,
    *,
    peak_mb: int = 16,
    is_slow: bool = False,
    is_withstood: bool = True,
    may_end: bool = False,
) -> Callable[[Play], Play]:
    """Put a function into the catalogue."""

    def register(play: Play) -> Play:
        assert re.fullmatch(r"A\d\d", number) and number not in _ATTACKS
        _ATTACKS[number] = Attack(number, play, peak_mb * MB, is_slow, is_withstood, may_end)
        return play

    return register
