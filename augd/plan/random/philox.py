"""Counter-based random numbers: Philox4x32-10, vectorised.

Used by the order and the planner. A number is a pure function of (seed, purpose, sample, epoch, op,
view, draw), so any process computes any sample's parameters alone.

    key      mix(seed, purpose)                                64 bits
    counter  sample id (64) | epoch (32) | op (8) view (12) draw (12)

Each counter gives one block of four 32-bit words.

Invariants: no generator has state, none is process-wide, and NumPy's own generators are not used,
because their streams change with its version.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; Random123.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from augd.errors import OptionError
from augd.plan.random.numerics import Floats, normal_quantile

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

_MULTIPLIER_0: Final = 0xD2511F53
_MULTIPLIER_2: Final = 0xCD9E8D57
_WEYL_0: Final = 0x9E3779B9
_WEYL_1: Final = 0xBB67AE85
_ROUNDS: Final = 10
_MASK_32: Final = 0xFFFFFFFF
_MASK_64: Final = 0xFFFFFFFFFFFFFFFF

# As 0-d arrays, which a ufunc takes without the conversion that a Python number costs.
_U32 = np.array(32, np.uint64)
_LOW = np.array(_MASK_32, np.uint64)


class Purpose(IntEnum):
    """What a key is for, so that streams of different use never share numbers."""

    ORDER = 1
    PARAMS = 2
    BALANCE = 3
    BLOCKS = 4
    WINDOWS = 5
    MIX = 6
    REPEATS = 7


def mix(seed: int, purpose: Purpose) -> int:
    """Return the 64-bit key of a seed and a purpose.

    `seed` is any integer from -2**63 to 2**64 - 1; a negative one stands for its two's
    complement. Raises OptionError outside. Source of the mixing: SplitMix64's finaliser.
    """
    if not -(2**63) <= seed < 2**64:
        raise OptionError(
            f"seed: expected -2**63 <= seed < 2**64, got {seed}. Give an integer of 64 bits."
        )
    z = (seed + purpose * 0x9E3779B97F4A7C15) & _MASK_64
    for _ in range(2):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK_64
        z ^= z >> 31
    return z


def stream_counter(op: int, view: int, draw: int) -> int:
    """Pack the last 32 bits of a counter. The fields must fit into 8, 12 and 12 bits."""
    assert 0 <= op < 1 << 8
    assert 0 <= view < 1 << 12
    assert 0 <= draw < 1 << 12
    return op << 24 | view << 12 | draw


class Philox:
    """Blocks of random words for `num_lanes` counters at once, in arrays made once.

    Fill `even` and `odd`, uint64 of (2, num_lanes) below 2**32, then call `run`, which
    overwrites them with the words:

        before   even = ids' low half, epoch      odd = ids' high half, stream_counter(...)
        after    even = word 2, word 0            odd = word 3, word 1

    Not for use by two threads at once.
    """

    __slots__ = ("_product", "_schedule", "even", "odd")

    def __init__(self, key: int, num_lanes: int) -> None:
        self.even: Words = np.zeros((2, num_lanes), np.uint64)
        self.odd: Words = np.zeros((2, num_lanes), np.uint64)
        self._product: Words = np.empty((2, num_lanes), np.uint64)
        self._schedule = list(self._schedule_of(key & _MASK_32, key >> 32))

    def _schedule_of(self, key_0: int, key_1: int) -> Iterator[tuple[Words, ...]]:
        """Lay out which arrays each round reads and writes.

        A call of NumPy costs more than its work here, so no round moves words to where the
        next one expects them. The low halves of the products become the odd words where they
        lie, the new even words are made where the odd ones lay, and what changes instead is
        which array, and which of its rows, holds what. In every other round, each odd word
        lies in the row of the high half that it wants, and one call does for both.
        """
        multipliers = np.empty((2, 2, self.even.shape[1]), np.uint64)
        multipliers[0, 0] = multipliers[1, 1] = _MULTIPLIER_0
        multipliers[0, 1] = multipliers[1, 0] = _MULTIPLIER_2
        even, odd, high = self.even, self.odd, self._product
        row_c0, row_c1 = 0, 0
        for number in range(_ROUNDS):
            keys = np.empty_like(odd)
            keys[row_c1] = (key_0 + number * _WEYL_0) & _MASK_32
            keys[1 - row_c1] = (key_1 + number * _WEYL_1) & _MASK_32
            pairs = (odd[0], high[1], odd[1], high[0]) if row_c0 == row_c1 else (odd, high)
            yield even, multipliers[row_c0], odd, keys, *pairs
            even, odd = odd, even
            row_c0, row_c1 = row_c1, 1 - row_c0

    def run(self) -> None:
        """Turn the counters in `even` and `odd` into words, in place."""
        multiply, shift = np.multiply, np.right_shift
        mask, xor = np.bitwise_and, np.bitwise_xor
        product = self._product
        for even, multipliers, odd, keys, *pairs in self._schedule:
            multiply(even, multipliers, product)
            mask(product, _LOW, even)
            shift(product, _U32, product)
            xor(odd, keys, odd)
            xor(pairs[0], pairs[1], pairs[0])
            if len(pairs) == 4:
                xor(pairs[2], pairs[3], pairs[2])


def philox_words(key: int, ids: Words, epoch: int | Words, stream: int) -> Words:
    """Return the words 0..3 of each id's block as uint64 (4, n) below 2**32; `ids` is (n,)."""
    philox = Philox(key, len(ids))
    philox.even[0] = ids & _LOW
    philox.odd[0] = ids >> _U32
    philox.even[1] = epoch
    philox.odd[1] = stream
    philox.run()
    return np.stack([philox.even[1], philox.odd[1], philox.even[0], philox.odd[0]])


def philox_block(key: int, sample: int, epoch: int, stream: int) -> tuple[int, int, int, int]:
    """Return the words 0..3 of one block, as `philox_words` does: 20 times faster for one alone."""
    c0, c1, c2, c3 = sample & _MASK_32, sample >> 32, epoch, stream
    key_0, key_1 = key & _MASK_32, key >> 32
    for _ in range(_ROUNDS):
        product_0, product_2 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_2
        c0, c1 = (product_2 >> 32) ^ c1 ^ key_0, product_2 & _MASK_32
        c2, c3 = (product_0 >> 32) ^ c3 ^ key_1, product_0 & _MASK_32
        key_0, key_1 = (key_0 + _WEYL_0) & _MASK_32, (key_1 + _WEYL_1) & _MASK_32
    return c0, c1, c2, c3


def uniforms(words: Words | Ints) -> Floats:
    """Return (word + 0.5) / 2**32, which lies inside (0, 1) and is symmetric about 1/2."""
    return (words.astype(np.float64) + 0.5) * 2.0**-32


# The quantile's table: one cubic for each 16th of each octave of the tail's probability, so
# that an error of 1e-7 holds out to the farthest of the 2**32 values, 6.3.
_OCTAVES: Final = 32
_PARTS: Final = 16
_SEGMENTS = np.array(_OCTAVES * _PARTS - 1, np.int64)
_FRACTION_BITS: Final = 48
_FRACTION_SHIFT = np.array(_FRACTION_BITS, np.int64)
_FRACTION_MASK = np.array((1 << _FRACTION_BITS) - 1, np.int64)
# Chebyshev's points of degree 4, moved to (0, 1).
_NODES: Final = (0.03806023374435663, 0.3086582838174551, 0.6913417161825449, 0.9619397662556434)


def _normal_table() -> Floats:
    """Fit the cubics of -quantile(q / 2**32) for q from 1/2 to 2**31; highest power first.

    Shaped (4, segments). A segment's number is the low end of q's exponent and the first 4 bits of
    its fraction, read from its bits. The argument is the rest of the fraction as an integer.
    """
    segment = np.arange(_OCTAVES * _PARTS)
    octave, part = segment // _PARTS, segment % _PARTS
    start = np.ldexp(1.0 + part / _PARTS, octave - 1)
    width = np.ldexp(1.0 / _PARTS, octave - 1)
    newton = [-normal_quantile((start + width * node) * 2.0**-32) for node in _NODES]
    for order in range(1, 4):
        for number in range(3, order - 1, -1):
            gap = _NODES[number] - _NODES[number - order]
            newton[number] = (newton[number] - newton[number - 1]) / gap
    powers = [newton[3]]
    for number in (2, 1, 0):
        node = _NODES[number]
        inner = [powers[i] - node * powers[i - 1] for i in range(1, len(powers))]
        powers = [powers[0], *inner, newton[number] - node * powers[-1]]
    scaled = [power * 2.0 ** (-_FRACTION_BITS * (3 - i)) for i, power in enumerate(powers)]
    first = int(np.array(0.5).view(np.int64) >> _FRACTION_SHIFT) & int(_SEGMENTS)
    return np.roll(np.stack(scaled), first, axis=1)


_NORMAL_TABLE: Final = _normal_table()


def normals(words: Words | Ints) -> Floats:
    """Return standard normal numbers, one from each word, by inverting the distribution.

    With q = word - 2**31 + 1/2, the number has q's sign and the tail |q| / 2**32 beyond it:
    symmetric, within 1e-7 of the exact quantile, never beyond 6.34. Signed words are faster.
    """
    q = words.astype(np.float64)
    q -= 2.0**31 - 0.5
    bits = q.view(np.int64)
    segment = np.right_shift(bits, _FRACTION_SHIFT)
    segment &= _SEGMENTS
    a: Floats
    a, b, c, d = _NORMAL_TABLE.take(segment, axis=1)
    fraction = np.bitwise_and(bits, _FRACTION_MASK).astype(np.float64)
    a *= fraction
    a += b
    a *= fraction
    a += c
    a *= fraction
    a += d
    np.copysign(a, q, a)
    return a
