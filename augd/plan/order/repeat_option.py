"""How often each sample stands in an epoch: as arguments, requests and contents write it.

Used for a client's request, for the content of a stream, and by the sequence of samples.

Invariants: pure, and imports no NumPy. One way to repeat has one text.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from augd.errors import OptionError

COUNT_MAX: Final = 64
SPREAD_MAX: Final = 2**24

_TEXT: Final = re.compile(r"([0-9]{1,3})x([0-9]{1,9})")


class Repeats(Struct, frozen=True):
    """Each sample stands `count` times in an epoch, at positions that are `spread` apart.

    An epoch keeps its length, and so has its `count`-th part of the samples.
    """

    count: Annotated[int, Meta(ge=1, le=COUNT_MAX)] = 1
    spread: Annotated[int, Meta(ge=1, le=SPREAD_MAX)] = 1

    def __str__(self) -> str:
        return f"{self.count}x{self.spread}"


ONCE: Final = Repeats()


def read_repeats(asked: Any, batch_size: int, world: int) -> Repeats:
    """Read the argument `repeats`.

    A number lets copies stand side by side in one trainer's batch, and on different ranks where
    there are several: `batch_size` apart.

    Raises:
        OptionError: it is neither a number nor "COUNTxSPREAD" within bounds.
    """
    match = _TEXT.fullmatch(asked) if isinstance(asked, str) else None
    if match is not None:
        count, spread = int(match[1]), int(match[2])
        if 1 <= count <= COUNT_MAX and 1 <= spread <= SPREAD_MAX:
            return Repeats(count, spread) if count > 1 else ONCE
    elif isinstance(asked, int) and not isinstance(asked, bool) and 1 <= asked <= COUNT_MAX:
        return Repeats(asked, batch_size if world > 1 else 1) if asked > 1 else ONCE
    raise OptionError(
        f'repeats: expected a number in 1..{COUNT_MAX} or "COUNTxSPREAD" with SPREAD in '
        f"1..{SPREAD_MAX} positions, got {asked!r}"
    )
