"""Displacement fields: what `lens` and `local_warp` add to the positions that a row is sampled at.

The matrix path joins them with the matrix into one position per pixel. A lens is a factor on the
distance from the output's centre. A local warp is a field of uniform noise in [-1, 1], one value
for each output pixel and axis, smoothed by a Gaussian and scaled.

Invariants: a field depends only on its key, the output's size, alpha and sigma. No sum is ever
rounded: noise and weights are whole numbers, so small that float32 holds every sum of their
products, in any order, fused or not. So the field is the same on every processor.

Source: Simard et al. 2003, "Best practices for convolutional neural networks", section 2.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from augd.plan.plan import LocalWarpField
from augd.plan.random.numerics import exp
from augd.plan.random.philox import Philox

Field = NDArray[np.float32]
Steps = tuple[tuple[float, float], tuple[float, float]]

# The first 64 bits of pi's fraction: noise has a key of its own, as the row's is in the counter.
_NOISE_KEY: Final = 0x243F6A8885A308D3
_LOW_32: Final = 0xFFFFFFFF
_BYTES_PER_BLOCK: Final = 16

# Noise is 2 * byte - 255. Weights of 12 bits make 8 + 12 bits of it; 12 of them are kept, and
# the second pass makes 12 + 12, of the 24 that a float32 has.
_NOISE_MAX: Final = 255.0
_WEIGHT_SUM: Final = 1 << 12
_KEPT_SCALE: Final = np.array(2.0**-8, np.float32)
_FIELD_MAX: Final = _NOISE_MAX * _WEIGHT_SUM * (_WEIGHT_SUM >> 8)
_SIGMAS_KEPT: Final = 3.0

_ALONE: Final = np.ones(1, np.float32)


def lens_grid(out_size: tuple[int, int]) -> Field:
    """Return (r / rmax)**2 of each output pixel, float32 (h, w).

    r is the distance of its centre from the output's, rmax half the output's diagonal.
    """
    height, width = out_size
    across = np.arange(width) + 0.5 - width / 2
    down = (np.arange(height) + 0.5 - height / 2)[:, None]
    quarter = (width * width + height * height) / 4
    return ((across * across + down * down) / quarter).astype(np.float32)


def displace_by_lens(maps: Field, grid: Field, k: float, scratch: Field) -> None:
    """Multiply positions about the centre, (2, h, w), by 1 + k (r / rmax)**2, in place."""
    np.multiply(grid, np.float32(k), out=scratch)
    np.add(scratch, np.float32(1.0), out=scratch)
    np.multiply(maps, scratch, out=maps)


class LocalWarper:
    """Makes the fields of one recipe's local_warp. For one thread at a time."""

    __slots__ = ("_counters", "_field", "_noise", "_philox", "_weights", "_words", "scale", "warp")

    def __init__(self, warp: LocalWarpField, out_size: tuple[int, int]) -> None:
        """Make the buffers for rows of `out_size`, (height, width).

        Times `scale`, a field is a displacement in output pixels.
        """
        self.warp = warp
        self._noise: Field = np.empty((2, *out_size), np.float32)
        self._field: Field = np.empty((2, *out_size), np.float32)
        num_blocks = -(-self._noise.size // _BYTES_PER_BLOCK)
        self._philox = Philox(_NOISE_KEY, num_blocks)
        self._counters = np.arange(num_blocks, dtype=np.uint64)
        self._words = np.empty((4, num_blocks), "<u4")
        self._weights = _weights(warp.sigma)
        self.scale = warp.alpha / _FIELD_MAX

    def draw(self, key: int) -> Field:
        """Return a row's field, float32 (2, h, w), in units of `scale`; valid until the next one.

        `key` is the row's 64 bits.
        """
        self._draw_noise(key)
        self._smooth()
        return self._field

    def add(self, maps: Field, key: int, steps: Steps) -> None:
        """Add a field to positions, in place.

        `maps` is (2, h, w), x and y; `key` the row's 64 bits; `steps` the 2x2 matrix that turns
        a displacement in output pixels, (x, y), into one of these positions.
        """
        field = self.draw(key)
        scratch = self._noise[0]
        for positions, factors in zip(maps, steps, strict=True):
            for displacement, factor in zip(field, factors, strict=True):
                np.multiply(displacement, np.float32(factor * self.scale), out=scratch)
                np.add(positions, scratch, out=positions)

    def _draw_noise(self, key: int) -> None:
        philox, words = self._philox, self._words
        philox.even[0] = key & _LOW_32
        philox.odd[0] = key >> 32
        philox.even[1] = self._counters
        philox.odd[1] = 0
        philox.run()
        words[0::2] = philox.even[::-1]
        words[1::2] = philox.odd[::-1]
        noise = self._noise
        drawn = words.view(np.uint8).reshape(-1)[: noise.size].reshape(noise.shape)
        np.multiply(drawn, np.float32(2.0), out=noise)
        np.subtract(noise, np.float32(_NOISE_MAX), out=noise)

    def _smooth(self) -> None:
        for noise, field in zip(self._noise, self._field, strict=True):
            cv2.sepFilter2D(
                noise, cv2.CV_32F, self._weights, _ALONE, dst=field, borderType=cv2.BORDER_REFLECT
            )
            np.multiply(field, _KEPT_SCALE, out=field)
            np.rint(field, out=field)
            cv2.sepFilter2D(
                field, cv2.CV_32F, _ALONE, self._weights, dst=field, borderType=cv2.BORDER_REFLECT
            )


def _weights(sigma: float) -> Field:
    """Return a Gaussian in whole numbers that sum to `_WEIGHT_SUM`, cut at three sigmas.

    Rounded as sums from the ends inwards, so that the rounding errors spread and do not gather in
    the middle.
    """
    radius = max(1, math.ceil(_SIGMAS_KEPT * sigma))
    places = np.arange(-radius, 1) / sigma
    side: list[float] = exp(np.maximum(-0.5 * places * places, -700.0)).tolist()
    total = 2.0 * math.fsum(side[:-1]) + side[-1]
    sums = [round(math.fsum(side[:end]) * _WEIGHT_SUM / total) for end in range(radius + 1)]
    halves = np.diff(sums)
    middle = _WEIGHT_SUM - 2 * sums[-1]
    return np.concatenate([halves, [middle], halves[::-1]]).astype(np.float32)
