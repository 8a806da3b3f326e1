"""The region of the image that a row with a matrix needs, and how often it is halved first.

The last step of planning the matrix path, when the map of each row is known.

The region holds every pixel that a tap can touch: the box around the positions of all output
pixels, moved as far as lens and local_warp can move them, one halved pixel more on each side (two
for bicubic samples), and the pixels inside the image that the fill repeats. Positions outside the
image need no others.

Invariants: the region lies in the picture, which is the image or what of it counts, and is never
empty. From the picture's corner its origin is a multiple of 2 ** halvings, and so is its end,
except at the picture's edge.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from augd.plan.geometry.affine import Affine
from augd.plan.plan import Int8s, Int32s
from augd.plan.random.numerics import Floats

Fill = Literal["reflect", "constant", "nearest", "wrap"]

# Of the single bilinear resample; above it, the taps begin to skip pixels.
MAX_REDUCTION: Final = 1.5

# No image has a side of more than 2**16 pixels.
MAX_HALVINGS: Final = 16


def count_halvings(reduction: Floats) -> Int8s:
    """Return the least h >= 0 with reduction / 2 ** h <= 1.5; 16, which leave a pixel, at most."""
    fraction, exponent = np.frexp(reduction / MAX_REDUCTION)
    # fraction * 2 ** exponent with fraction in [1/2, 1): a power of two needs one less.
    halvings = np.where(fraction == 0.5, exponent - 1, exponent)
    return np.clip(halvings, 0, MAX_HALVINGS).astype(np.int8)


def find_region(
    affine: Affine,
    out_sides: Floats,
    picture: Floats,
    fill: Fill,
    halvings: Int8s,
    stretch: Floats | float,
    reach_px: Floats | float,
    num_around: int = 1,
) -> Int32s:
    """Return (4, n): x, y, width, height.

    `out_sides` is (2, 1), `picture` (4, n): what of the image counts, x, y, width, height in whole
    pixels. Displaced output positions lie in the output's box of pixel centres after it was
    multiplied by `stretch` about its centre and then widened by `reach_px` on each side. Taps reach
    `num_around` halved pixels beyond.
    """
    width, height = out_sides[:, 0].tolist()
    half_x = 0.5 * (width - 1.0) * stretch + reach_px
    half_y = 0.5 * (height - 1.0) * stretch + reach_px
    block = np.ldexp(1.0, halvings.astype(np.int32))
    region = np.empty((4, len(block)), np.int32)
    for axis, (to_x, to_y, offset) in enumerate(
        ((affine.xx, affine.xy, affine.x0), (affine.yx, affine.yy, affine.y0))
    ):
        start, side = picture[axis], picture[2 + axis]
        centre = to_x * (0.5 * width) + to_y * (0.5 * height) + offset - start
        reach = np.abs(to_x) * half_x + np.abs(to_y) * half_y + num_around * block
        # Whole blocks before folding, since the last one may reach beyond the picture by itself.
        low = np.floor((centre - reach) / block) * block
        high = np.ceil((centre + reach) / block) * block
        low, high = _fold(low, high, side, fill)
        low = np.floor(np.clip(low, 0.0, side - 1.0) / block) * block
        high = np.ceil(np.maximum(high, low + 1.0) / block) * block
        region[axis] = low + start
        region[2 + axis] = np.minimum(high, side) - low
    return region


def _fold(low: Floats, high: Floats, side: Floats, fill: Fill) -> tuple[Floats, Floats]:
    """Widen a span to the pixels that the fill repeats outside 0..side."""
    if fill == "wrap":
        leaves = (low < 0.0) | (high > side)
        return np.where(leaves, 0.0, low), np.where(leaves, side, high)
    if fill == "reflect":
        folded_high = np.where(low < 0.0, np.maximum(high, -low), high)
        return np.where(high > side, np.minimum(low, 2.0 * side - high), low), folded_high
    return low, high
