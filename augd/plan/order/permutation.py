"""A permutation of 0..N-1 as a function: nothing of its size is stored, whatever N is.

Used by the order of an epoch. A keyed Feistel network on (left, right) in Z_a x Z_b, a and b near
the square root of N, is a permutation of a*b >= N numbers. A result of N or above is permuted again
until it falls below (cycle walking). Since a*b exceeds N by less than a, almost no result does.
Each of the 8 rounds adds a hash of one half to the other, with keys drawn by Philox.

Up to 256 numbers the network is not used: the few values of a half would leave some permutations
more likely than others. There the numbers are sorted by a random 64-bit key, which draws every
permutation alike.

Invariants: always a permutation; a billion numbers cost what a thousand cost.

Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", methods FE2 and cycle
walking. The hash takes a random odd and a random additive key, and multiplies its high half into
itself, so that the sum of 8 rounds is far from linear.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from augd.plan.random.philox import Ints, Words, philox_words

SORTED_UP_TO: Final = 256
_ROUNDS: Final = 8
# Of a counter's ids: the rounds or the numbers of one permutation take up to 8 bits.
_SERIAL_SHIFT: Final = 8

_U32 = np.array(32, np.uint64)

# The method of an array does the same through a slower wrapper.
_LARGEST = np.maximum.reduce

_Sides = tuple[Words, Words]
_RoundKeys = list[tuple[Words, Words]]
Drawn = _RoundKeys | Ints
"""One permutation: what all its numbers share."""


class Permutation:
    """Permutations of 0..size-1: one for each key, epoch and serial number."""

    __slots__ = ("_sides", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._sides = feistel_sides(size)

    def draw(self, key: int, epoch: int, serial: int = 0) -> Drawn:
        """Draw one of them; `serial` from 0 to 2**48."""
        if self.size > SORTED_UP_TO:
            return round_keys(key, epoch, serial)
        numbers = np.arange(self.size, dtype=np.uint64)
        words = philox_words(key, numbers + np.uint64(serial << _SERIAL_SHIFT), epoch, 1)
        return np.argsort(words[0] << _U32 | words[1], kind="stable")

    def apply(self, drawn: Drawn, numbers: Ints) -> Ints:
        """Permute `numbers`, int64 (n,), n > 0, from 0 to size - 1; the array returned is new."""
        if isinstance(drawn, list):
            return feistel(numbers, self.size, self._sides, drawn)
        return drawn[numbers]


def feistel_sides(num_samples: int) -> _Sides:
    """Return a >= b with a * b >= num_samples, and less than a over, as 0-d arrays."""
    a = math.isqrt(num_samples - 1) + 1
    return np.array(a, np.uint64), np.array(-(-num_samples // a), np.uint64)


def round_keys(key: int, epoch: int, serial: int = 0) -> _RoundKeys:
    """Draw an additive and an odd multiplicative 64-bit key for each round."""
    rounds = np.arange(_ROUNDS, dtype=np.uint64) + np.uint64(serial << _SERIAL_SHIFT)
    words = philox_words(key, rounds, epoch, 0)
    added = words[0] << _U32 | words[1]
    odd = words[2] << _U32 | words[3] | np.uint64(1)
    return [(added[i, ...].copy(), odd[i, ...].copy()) for i in range(_ROUNDS)]


def feistel(positions: Ints, num_samples: int, sides: _Sides, keys: _RoundKeys) -> Ints:
    """Permute 0..num_samples-1; `positions` is int64 (n,), n > 0, inside that range."""
    found = _permute(positions.view(np.uint64), sides, keys).view(np.int64)
    if _LARGEST(found) >= num_samples:
        rows = np.flatnonzero(found >= num_samples)
        found[rows] = feistel(found[rows], num_samples, sides, keys)
    return found


def _permute(numbers: Words, sides: _Sides, keys: _RoundKeys) -> Words:
    """Permute 0..a*b-1 once; the array returned is new."""
    a, b = sides
    left, right = np.divmod(numbers, b)
    changed, other, side = left, right, a
    next_side = b
    mixed = np.empty_like(left)
    high = np.empty_like(left)
    add, multiply, shift = np.add, np.multiply, np.right_shift
    for added, odd in keys:
        add(other, added, mixed)
        multiply(mixed, odd, mixed)
        shift(mixed, _U32, high)
        multiply(mixed, high, mixed)
        shift(mixed, _U32, mixed)
        # 32 bits of hash against a side below 2**24: uneven by less than 1 in 256 for the
        # largest, 1 in 4,000 at a trillion samples, and a permutation whatever it is.
        add(changed, mixed, changed)
        np.remainder(changed, side, changed)
        changed, other, side, next_side = other, changed, next_side, side
    multiply(left, b, left)
    return add(left, right, left)
