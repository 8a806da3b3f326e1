"""How an epoch is shuffled: not at all, as a whole, or by blocks; as arguments and contents write
it.

Used for a client's request, for the content of a stream, and by the order.

Invariants: pure, and imports no NumPy. One shuffle has one text.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from augd.errors import OptionError

BLOCK_SIZE_MAX: Final = 2**24
WINDOW_MAX: Final = 2**16  # a producer computes where all blocks of a window begin

_TEXT: Final = re.compile(r"blocks(?::([0-9]{1,9})x([0-9]{1,9}))?")


class Blocks(Struct, frozen=True):
    """A shuffle by blocks: of `size` samples that are neighbours, mixed `window` at a time."""

    size: Annotated[int, Meta(ge=1, le=BLOCK_SIZE_MAX)]
    window: Annotated[int, Meta(ge=1, le=WINDOW_MAX)]

    def __str__(self) -> str:
        return f"blocks:{self.size}x{self.window}"


DEFAULT: Final = Blocks(64, 256)
"""What "blocks" alone means."""

Shuffle = bool | Blocks
"""True shuffles an epoch whole, False leaves the index's order."""


def read_shuffle(asked: Any) -> Shuffle:
    """Read the argument `shuffle`.

    Raises:
        OptionError: it is neither True, False, "blocks" nor "blocks:SIZExWINDOW" within bounds.
    """
    if isinstance(asked, bool):
        return asked
    match = _TEXT.fullmatch(asked) if isinstance(asked, str) else None
    if match is not None:
        if match[1] is None:
            return DEFAULT
        size, window = int(match[1]), int(match[2])
        if 1 <= size <= BLOCK_SIZE_MAX and 1 <= window <= WINDOW_MAX:
            return Blocks(size, window)
    raise OptionError(
        'shuffle: expected True, False, "blocks" or "blocks:SIZExWINDOW" with SIZE in '
        f"1..{BLOCK_SIZE_MAX} samples and WINDOW in 1..{WINDOW_MAX} blocks, got {asked!r}"
    )
