"""Normal noise by counters: a number for each byte of a row, from the row's key.

What `gaussian_noise` adds, and what `erase` fills boxes with. Block b of a key and a stream is that
of Philox4x32-10 whose counter is (key, b, stream). Of each 32 blocks come all first words, then all
second ones, third and fourth ones. Each word is two numbers, of its low half and of its high one.
These 16 bits are the number of one of 65,536 equal parts of the normal distribution, of which the
middle quantile is taken. None is farther than 4.33 from 0.

Invariants: numbers depend on their key, stream and place alone. All arithmetic on them is in whole
numbers, of 1/4096 for quantiles and 1/256 for standard deviations, so that the native kernels and
all processors give the same bytes. Levels are rounded to nearest, halves up, and clipped.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from augd.pixels import native
from augd.pixels.decode import Pixels
from augd.plan.random.numerics import normal_quantile
from augd.plan.random.philox import philox_words

# The second 64 bits of pi's fraction: numbers of other uses have other keys.
_NOISE_KEY: Final = 0x13198A2E03707344
_BLOCKS_AT_ONCE: Final = 32
_NUMBERS_AT_ONCE: Final = 8 * _BLOCKS_AT_ONCE
_PARTS: Final = 1 << 16
_QUANTILE_BITS, _STD_BITS = 12, 8
_BITS: Final = _QUANTILE_BITS + _STD_BITS

Colour = tuple[float, float, float]
Box = tuple[int, int, int, int]


@cache
def quantiles() -> NDArray[np.int16]:
    """Return the middle quantile of each of 65,536 equal parts, in 1/4096."""
    upper = normal_quantile(0.5 + (np.arange(_PARTS // 2) + 0.5) / _PARTS)
    whole = np.rint(upper * (1 << _QUANTILE_BITS)).astype(np.int16)
    return np.concatenate([-whole[::-1], whole])


def numbers(key: tuple[int, int], stream: int, count: int) -> NDArray[np.int32]:
    """Return the first numbers of a key, (low, high), and a stream, in 1/4096."""
    groups = -(-count // _NUMBERS_AT_ONCE)
    blocks = groups * _BLOCKS_AT_ONCE
    low, high = key
    # Here the counter's first two words are the key, and its third one is the block.
    ids = np.full(blocks, high << 32 | low, np.uint64)
    words = philox_words(_NOISE_KEY, ids, np.arange(blocks, dtype=np.uint64), stream)
    words = words.reshape(4, groups, _BLOCKS_AT_ONCE).transpose(1, 0, 2)
    halves = np.ascontiguousarray(words, "<u4").view("<u2").reshape(-1)[:count]
    drawn: NDArray[np.int32] = quantiles()[halves].astype(np.int32)
    return drawn


def add_noise(row: Pixels, std: float, key: tuple[int, int]) -> None:
    """Add numbers of a standard deviation, in levels, to a row, without the native kernels."""
    noise = numbers(key, 0, row.size)
    noise *= round(std * (1 << _STD_BITS))
    noise += row.reshape(-1).astype(np.int32) << _BITS
    row[...] = _levels(noise).reshape(row.shape)


def fill_noise(
    row: Pixels, box: Box, key: tuple[int, int], stream: int, mean: Colour, std: Colour
) -> None:
    """Fill a box of a row with mean plus std times a number, for each pixel and channel.

    `row` is C-contiguous uint8 (h, w, 3); `mean` and `std` are in levels.
    """
    if native.kernels is not None:
        native.kernels.fill_noise(row, quantiles(), *box, *key, stream, *mean, *std)
        return
    x, y, width, height = box
    noise = numbers(key, stream, height * width * 3).reshape(height, width, 3)
    noise *= np.array([round(level * (1 << _STD_BITS)) for level in std], np.int32)
    noise += np.array([round(level * (1 << _BITS)) for level in mean], np.int32)
    row[y : y + height, x : x + width] = _levels(noise)


def _levels(steps: NDArray[np.int32]) -> Pixels:
    steps += 1 << (_BITS - 1)
    steps >>= _BITS
    return np.clip(steps, 0, 255).astype(np.uint8)
