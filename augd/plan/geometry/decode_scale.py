"""The scale at which an image is decoded: 1, 1/2, 1/4 or 1/8, if a recipe lets the plan choose.

The end of planning, for recipes with `scaled_decode="auto"`. A JPEG decoder can leave out the high
frequencies of each 8x8 block, and make only every second, fourth or eighth pixel of each axis. That
is cheaper if the row reduces the image that much afterwards.

A scale is written as its denominator. Pixel k of the scaled image stands for pixels k s to (k + 1)
s - 1 of the image, on both axes. The plan takes the largest s at which the row's region still has
at least as many pixels as the row, in both directions. All views of an image take the least reduced
scale among theirs, so that one decode serves them.

Invariants: chosen from sizes alone, never from a file, so that the geometry is the same for every
format. Nothing is drawn. With scale 1 a row is planned as if the recipe had no scaled decoding.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from augd.plan.geometry.affine import Bools
from augd.plan.plan import Int8s, Int32s
from augd.plan.random.numerics import Floats

# At 1/8 a block of a JPEG is one pixel.
_SCALES: Final = (2, 4, 8)


def scale_of_resize(crop_sides: Int32s, scaled: Int32s) -> Int8s:
    """Return the scale of rows that are resized from `crop_sides` to `scaled`, both (2, n).

    A crop of w pixels has at least w // s whole ones at 1/s, wherever it begins.
    """
    return _largest_scale((crop_sides // scaled).min(axis=0))


def scale_of_matrix(reduction: Floats, halvings: Int8s) -> Int8s:
    """Return the scale of rows whose matrix reduces by `reduction` or more in every direction.

    It takes the place of halvings, and of no more than there are.
    """
    return np.minimum(_largest_scale(reduction), np.left_shift(1, np.minimum(halvings, 3))).astype(
        np.int8
    )


def _largest_scale(reduction: NDArray[np.generic]) -> Int8s:
    scale = np.ones(reduction.shape, np.int8)
    for power in _SCALES:
        scale[reduction >= power] = power  # type: ignore[operator]
    return scale


def share_scale(scale: Int8s, num_views: int) -> Int8s:
    """Give all views of a sample, which are neighbours, the smallest s among them."""
    return np.repeat(scale.reshape(-1, num_views).min(axis=1), num_views)


def round_crops(crop: Int32s, scale: Int8s, image: Floats, is_kept: Bools | None) -> None:
    """Move the edges of crops, (4, n), to those of scaled pixels, by half a scaled pixel at most.

    In place, and not where `is_kept`. Afterwards a crop begins at a multiple of its scale and ends
    at one, or at the image's edge.
    """
    step = scale.astype(np.int32)
    if is_kept is not None:
        step[is_kept] = 1
    half = step >> 1
    end = (crop[:2] + crop[2:] + half) // step * step
    np.minimum(end, image, out=end, casting="unsafe")
    crop[:2] = (crop[:2] + half) // step * step
    crop[2:] = end - crop[:2]
