"""Random numbers for an own op, one row at a time.

A plug-in's `sample` gets one `OpRandom` for each row. The numbers come from the same counter as
those of the built-in ops (`philox`), from the op's own place in it. They depend only on the
stream's seed, the sample, the epoch, the view and the op's place in the recipe.

    draw 0           whether the op is applied at all
    draws 1 to 4095  four numbers each, in the order of the calls

An op in a group has 64 draws at the group's place. Draw 1 of them is a key of the op's own, under
which it draws as above.

Invariants: no state outlives a row; the number of draws changes no other op's numbers; only
operations that give the same bits on every processor.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from augd.plan.random.numerics import Floats
from augd.plan.random.philox import (
    Words,
    normals,
    philox_block,
    philox_words,
    stream_counter,
    uniforms,
)

_DRAWS: Final = 1 << 12
_WORDS_MAX: Final = 4 * (_DRAWS - 1)
_UNIT: Final = 2.0**-32
_DRAWS_PER_OP: Final = 64  # of an op in a group (augd/plan/samplers/groups.py)


class OpRandom:
    """The random numbers of one op for one row."""

    __slots__ = ("_draw", "_epoch", "_key", "_left", "_place", "_sample", "_view")

    def __init__(
        self,
        key: int,
        sample: int,
        epoch: int,
        place: int,
        view: int,
        number: int | None = None,
    ) -> None:
        """Begin at the op's `place` in the counter of this sample, epoch and view.

        `number` is that of an op in the group at `place`.
        """
        if number is not None:
            stream = stream_counter(place, view, _DRAWS_PER_OP * (number + 1) + 1)
            high, low, _, _ = philox_block(key, sample, epoch, stream)
            key = high << 32 | low
        self._key = key
        self._sample, self._epoch, self._place, self._view = sample, epoch, place, view
        self._draw = 0
        self._left: list[int] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw a number between `low` and `high`, both excluded."""
        return low + (high - low) * ((self._word() + 0.5) * _UNIT)

    def normal(self, mean: float = 0.0, std: float = 1.0) -> float:
        """Draw a normal number; none is farther than 6.34 `std` from `mean`."""
        return mean + std * float(normals(np.array([self._word()], np.uint64))[0])

    def integers(self, low: int, high: int) -> int:
        """Draw a whole number from `low` to `high`, both included. Raises ValueError."""
        if not 0 <= high - low < 2**31:
            raise ValueError(f"integers: expected low <= high < low + 2**31, got {low}, {high}")
        return low + (self._word() * (high - low + 1) >> 32)

    def chance(self, p: float) -> bool:
        """Return True with probability `p`."""
        return self._word() < round(p * 2**32)

    def uniforms(self, shape: int | tuple[int, ...]) -> Floats:
        """Draw an array of numbers between 0 and 1, float64, such as one for each pixel."""
        return uniforms(self._field(shape))

    def normals(self, shape: int | tuple[int, ...]) -> Floats:
        """Draw an array of standard normal numbers, float64."""
        return normals(self._field(shape))

    def _word(self) -> int:
        if not self._left:
            self._draw += 1
            if self._draw >= _DRAWS:
                raise ValueError(
                    f"more than {_WORDS_MAX} numbers were drawn one by one for a row; draw arrays "
                    "with uniforms(shape) or normals(shape)"
                )
            stream = stream_counter(self._place, self._view, self._draw)
            self._left = list(philox_block(self._key, self._sample, self._epoch, stream))[::-1]
        return self._left.pop()

    def _field(self, shape: int | tuple[int, ...]) -> Words:
        """Draw an array of words by a key of its own, so that its size has no bound."""
        key = self._word() << 32 | self._word()
        count = int(np.prod(shape))
        words = philox_words(key, np.arange(-(-count // 4), dtype=np.uint64), 0, 0)
        return words.T.reshape(-1)[:count].reshape(shape)


Dice = OpRandom
"""The name that it had first; plug-ins that are written with it stay as they are."""
