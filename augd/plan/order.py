"""The order of an epoch: position -> sample, without an array of the permutation.

Where it stands: a producer asks it which samples a chunk holds; nothing else knows.

A keyed Feistel network on (left, right) in Z_a x Z_b, a and b near the square root of N, is a
permutation of a*b >= N numbers. What falls on N or above is put through again until it falls
below (cycle walking); since a*b exceeds N by less than a, almost nothing does. Each of the 8
rounds adds a hash of one half to the other, with keys drawn by Philox from (seed, epoch).

Up to 256 samples the network is not used: the few values of a half would leave some
permutations more likely than others. There the positions are sorted by a random 64-bit key,
which draws every permutation alike.

Invariants: every epoch is a permutation of 0..N-1; a billion samples cost what a thousand cost;
the answer depends on nothing but (N, seed, shuffle, epoch, position), and no process keeps state
in order to be correct (what is kept are keys that can be computed again).

Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", methods FE2 and cycle
walking. The hash takes a random odd and a random additive key, and multiplies its high half into
itself, so that the sum of 8 rounds is far from linear.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from augd.errors import OptionError
from augd.plan.rng import Ints, Purpose, Words, mix, philox_words

MAX_SAMPLES: Final = 2**48
SORTED_UP_TO: Final = 256
_ROUNDS: Final = 8
_EPOCHS_KEPT: Final = 8

_U32 = np.array(32, np.uint64)

# The methods of an array do the same through slower wrappers.
_LARGEST = np.maximum.reduce
_SMALLEST = np.minimum.reduce

_Sides = tuple[Words, Words]
_RoundKeys = list[tuple[Words, Words]]


class Order:
    """The order of `num_samples` samples under `seed`; without `shuffle`, as they are indexed."""

    __slots__ = ("_epochs", "_key", "_sides", "num_samples", "shuffle")

    def __init__(self, num_samples: int, seed: int, shuffle: bool) -> None:
        if not 1 <= num_samples <= MAX_SAMPLES:
            raise OptionError(
                f"num_samples: expected 1 <= num_samples <= 2**48, got {num_samples}. "
                "Choose a data set, a split or classes that leave samples."
            )
        self.num_samples = num_samples
        self.shuffle = shuffle
        self._key = mix(seed, Purpose.ORDER)
        self._sides = feistel_sides(num_samples)
        self._epochs: dict[int, _RoundKeys | Ints] = {}

    def ids(self, epoch: int | Ints, positions: Ints) -> Ints:
        """Return the sample id at each position of the epoch, -1 from `num_samples` on.

        `positions` is int64 (n,), not negative; `epoch` from 0 to 2**32 - 1, one for all, which
        is faster, or one for each position. The array returned is new.
        """
        if not len(positions):
            return positions.copy()
        if isinstance(epoch, int):
            return self._ids_of_epoch(epoch, positions)
        if _LARGEST(epoch) == _SMALLEST(epoch):
            return self._ids_of_epoch(int(epoch[0]), positions)
        ids = np.empty_like(positions)
        for each in np.unique(epoch).tolist():
            rows = np.flatnonzero(epoch == each)
            ids[rows] = self._ids_of_epoch(each, positions[rows])
        return ids

    def _ids_of_epoch(self, epoch: int, positions: Ints) -> Ints:
        if _LARGEST(positions) < self.num_samples:
            return self._ids_inside(epoch, positions)
        ids = np.full_like(positions, -1)
        inside = np.flatnonzero(positions < self.num_samples)
        if not len(inside):
            return ids
        ids[inside] = self._ids_inside(epoch, positions[inside])
        return ids

    def _ids_inside(self, epoch: int, positions: Ints) -> Ints:
        if not self.shuffle:
            return positions.copy()
        state = self._epochs.get(epoch)
        if state is None:
            state = self._start_epoch(epoch)
        if isinstance(state, list):
            return feistel(positions, self.num_samples, self._sides, state)
        return state[positions]

    def _start_epoch(self, epoch: int) -> _RoundKeys | Ints:
        """Compute what all positions of an epoch share, and keep it for the next chunks."""
        state: _RoundKeys | Ints
        if self.num_samples > SORTED_UP_TO:
            state = round_keys(self._key, epoch)
        else:
            words = philox_words(self._key, np.arange(self.num_samples, dtype=np.uint64), epoch, 1)
            state = np.argsort(words[0] << _U32 | words[1], kind="stable")
        if len(self._epochs) >= _EPOCHS_KEPT:
            del self._epochs[next(iter(self._epochs))]
        self._epochs[epoch] = state
        return state


def feistel_sides(num_samples: int) -> _Sides:
    """Return a >= b with a * b >= num_samples, and less than a over, as 0-d arrays."""
    a = math.isqrt(num_samples - 1) + 1
    return np.array(a, np.uint64), np.array(-(-num_samples // a), np.uint64)


def round_keys(key: int, epoch: int) -> _RoundKeys:
    """Draw an additive and an odd multiplicative 64-bit key for each round."""
    words = philox_words(key, np.arange(_ROUNDS, dtype=np.uint64), epoch, 0)
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
