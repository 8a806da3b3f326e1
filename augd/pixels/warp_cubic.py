"""The matrix path's bicubic samples without native kernels: 4x4 taps in whole numbers, by NumPy.

Used by `warp_opencv` for rows whose filter is bicubic: OpenCV's cubic has another a. Positions come
in 1/256 px. Weights have 14 bits and sum to exactly 1. Columns are summed first, of levels less
128, each product rounded to 7 bits behind the point; then the line of four. The pixel alone is
clipped. The kernel does the same, number for number (`kernels/warp_cubic.c`), in a fiftieth of the
time.

Source: Keys 1981, "Cubic convolution interpolation", with a = -1/2, the cubic of Pillow's `resize`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from augd.pixels.decode import Pixels

STEPS: Final = 256
"""Of a position, per pixel."""

_NUM_TAPS: Final = 4
_WEIGHT_BITS: Final = 14
_DOWN_SHIFT: Final = 7
_ACROSS_SHIFT: Final = 21
_MIDDLE: Final = 128

Ints = NDArray[np.int32]


def _weigh() -> Ints:
    """Return (256, 4): the weights of the taps at -1, 0, 1 and 2 px, by a position's fraction.

    What rounding leaves goes to the nearest tap.
    """
    at = np.arange(STEPS, dtype=np.int64)
    square, cube = at**2, at**3
    twice = np.stack(
        [
            -cube + 2 * square * STEPS - at * STEPS**2,
            3 * cube - 5 * square * STEPS + 2 * STEPS**3,
            -3 * cube + 4 * square * STEPS + at * STEPS**2,
            cube - square * STEPS,
        ],
        axis=1,
    )
    shift = 3 * 8 + 1 - _WEIGHT_BITS
    weights = (twice + (1 << (shift - 1))) >> shift
    weights[at, np.where(at < STEPS // 2, 1, 2)] += (1 << _WEIGHT_BITS) - weights.sum(axis=1)
    return weights.astype(np.int32)


_WEIGHTS: Final = _weigh()


def sample_cubics(
    region: Pixels, x: Ints, y: Ints, fill: str, value: tuple[int, int, int], out: Pixels
) -> None:
    """Write a row, uint8 (h, w, 3), whose pixels are read at (x, y) of the region, in 1/256 px."""
    height, width = region.shape[:2]
    pixels = np.empty((height * width + 1, 3), np.int32)
    pixels[:-1] = region.reshape(-1, 3)
    pixels[-1] = value
    pixels -= _MIDDLE
    across, down = _WEIGHTS[x & (STEPS - 1)], _WEIGHTS[y & (STEPS - 1)]
    columns = [_bring_back((x >> 8) + tap - 1, width, fill) for tap in range(_NUM_TAPS)]
    rows = [_bring_back((y >> 8) + tap - 1, height, fill) for tap in range(_NUM_TAPS)]
    start = (1 << (_ACROSS_SHIFT - 1)) + (_MIDDLE << _ACROSS_SHIFT)
    total = np.full((*x.shape, 3), start, np.int32)
    for tap, column in enumerate(columns):
        line = np.zeros_like(total)
        for number, row in enumerate(rows):
            place = np.where((row < 0) | (column < 0), height * width, row * width + column)
            product = down[..., number, None] * pixels[place]
            line += (product + (1 << (_DOWN_SHIFT - 1))) >> _DOWN_SHIFT
        line *= across[..., tap, None]
        total += line
    total >>= _ACROSS_SHIFT
    np.clip(total, 0, 255, out=total)
    out[...] = total


def _bring_back(at: Ints, size: int, fill: str) -> Ints:
    """Return the pixels that stand for places of an axis; -1 for the fill's value."""
    match fill:
        case "nearest":
            return np.clip(at, 0, size - 1)
        case "reflect":
            at = np.mod(at, 2 * size)
            return np.where(at < size, at, 2 * size - 1 - at)
        case "wrap":
            return np.mod(at, size)
        case _:
            return np.where((at >= 0) & (at < size), at, -1)
