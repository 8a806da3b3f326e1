"""The matrix path: a region through an affine matrix and its warps, in one resample.

The other way of a row beside the exact path of `render`, taken by rows for which the plan drew
an affine op or a warp. Halved as often as the plan says, then read once at positions

    output pixel -> lens about the output's centre + local warp -> matrix -> region

with bilinear weights. Positions are rounded to 1/256 px. OpenCV 5 reads at float32 positions, and
with 8 bits behind the point no product or sum of its bilinear weights and bytes needs more than
the 24 bits of a float32: no step is rounded but the last, to nearest, so that no processor, fused
or not, gives other bytes. A result is within `BEND_ERROR` grey levels of the exact one, at most
one level from the exact one rounded. OpenCV 4 rounds positions to 1/32 px on its own: there the
weights are coarser and the error up to eight levels, between a black and a white pixel.

The fill begins where the region ends. The plan makes sure that this is the picture's edge wherever
a position lies outside, and that a side is whole where a fill comes from its other end. In a
halved region the edge is that of its last pixel, which an odd side has twice.

Invariants: one resample for any number of ops; a shift by whole pixels and a quarter turn are
exact; nothing of a sample's size is allocated once the buffers have grown.
"""

from __future__ import annotations

import math
from typing import Final, Literal, get_args

import cv2
import numpy as np

from augd.pixels.decode import Pixels
from augd.pixels.halve import Halver
from augd.pixels.header import BadImage
from augd.pixels.outline import Outline
from augd.pixels.warp import Field, LocalWarper, Steps, bend_by_lens, lens_grid

Fill = Literal["reflect", "constant", "nearest", "wrap"]

_BORDERS: Final = {
    "reflect": cv2.BORDER_REFLECT,
    "constant": cv2.BORDER_CONSTANT,
    "nearest": cv2.BORDER_REPLICATE,
    "wrap": cv2.BORDER_WRAP,
}

_SIDE_MAX: Final = 32766  # imgwarp.cpp: below SHRT_MAX

# Added and taken away again, it leaves a float32 of less than 2**14 in steps of 1/256: between
# 2**15 and 2**16 these are all that there are.
_ROUNDER: Final = np.float32(1.5 * 2**15)

BEND_ERROR: Final = 0.5 + 255 * 2 * (2.0**-9 + 2.0**-11)
"""Grey levels: the last rounding, and on both axes a position half a step off.

2**-11 px are lost in float32, as far as 2,048 px from the output's centre, or 512 with warps.
"""


class Bender:
    """Makes the bent rows of one stream. Owns its buffers; for one thread at a time."""

    def __init__(
        self,
        out_size: tuple[int, int],
        fill: Fill,
        fill_value: tuple[float, float, float],
    ) -> None:
        """Make rows of `out_size` (height, width); `fill_value` is R, G, B for "constant"."""
        if fill not in get_args(Fill):
            raise ValueError(f"fill: expected one of {', '.join(get_args(Fill))}, got {fill!r}")
        height, width = out_size
        self._out_size = out_size
        self._border = _BORDERS[fill]
        self._fill_value = (*(math.floor(level + 0.5) for level in fill_value), 0)
        self._centre = width / 2, height / 2
        self._across = np.arange(width) + (0.5 - width / 2)
        self._down = np.arange(height)[:, None] + (0.5 - height / 2)
        self._maps: Field = np.empty((2, height, width), np.float32)
        self._row_parts: Field = np.empty((2, 1, width), np.float32)
        self._column_parts: Field = np.empty((2, height, 1), np.float32)
        self._halver = Halver()
        self._warper: LocalWarper | None = None
        self._lens_grid: Field | None = None
        self._scratch: Field | None = None

    def bend(self, region: Pixels, outline: Outline, out: Pixels) -> None:
        """Write one row by the outline's matrix.

        `region` begins at its `origin`, and was decoded at its `scale`.

        Raises:
            BadImage: the region is too large for OpenCV even when halved.
        """
        num_left = outline.halvings - (outline.scale.bit_length() - 1)
        halved = self._halver.halve(region, num_left)
        if max(halved.shape) > _SIDE_MAX:
            raise BadImage(
                f"too large to be rotated or warped at its own size: expected sides of at most "
                f"{_SIDE_MAX} px, got a region of {halved.shape[1]}x{halved.shape[0]}"
            )
        self._make_maps(outline)
        cv2.remap(
            halved,
            self._maps[0],
            self._maps[1],
            cv2.INTER_LINEAR,
            dst=out,
            borderMode=self._border,
            borderValue=self._fill_value,
        )

    def _make_maps(self, outline: Outline) -> None:
        """Write where each output pixel is read: x and y in the halved region, from its first.

        Positions are counted from a whole pixel near that of the output's centre until they are
        rounded, so that it does not matter which region of the picture was decoded.
        """
        maps, rows, columns = self._maps, self._row_parts, self._column_parts
        steps, centre, whole = _steps(outline, self._centre)
        is_warped = outline.lens != 0.0 or outline.warp is not None
        for axis, (step_x, step_y) in enumerate(steps):
            np.multiply(self._across, step_x, out=rows[axis], casting="same_kind")
            columns[axis] = self._down * step_y + (0.0 if is_warped else centre[axis])
        np.add(rows, columns, out=maps)
        if is_warped:
            self._warp(outline, steps)
            maps += np.array(centre, np.float32)[:, None, None]
        maps += _ROUNDER
        maps -= np.array([_ROUNDER - place for place in whole], np.float32)[:, None, None]

    def _warp(self, outline: Outline, steps: Steps) -> None:
        if outline.lens != 0.0:
            if self._lens_grid is None or self._scratch is None:
                self._lens_grid = lens_grid(self._out_size)
                self._scratch = np.empty_like(self._lens_grid)
            bend_by_lens(self._maps, self._lens_grid, outline.lens, self._scratch)
        if outline.warp is not None:
            if self._warper is None or self._warper.warp != outline.warp:
                self._warper = LocalWarper(outline.warp, self._out_size)
            self._warper.add(self._maps, outline.warp_key, steps)


def _steps(
    outline: Outline, centre: tuple[float, float]
) -> tuple[Steps, tuple[float, float], tuple[int, int]]:
    """Return the matrix's 2x2 part, and where the output's centre falls, as fraction and whole.

    In pixels of the halved region, where a pixel's centre has whole numbers, as OpenCV has it.
    """
    assert outline.matrix is not None
    (xx, xy, x), (yx, yy, y) = outline.matrix
    scale = 2.0**-outline.halvings
    middle_x = (xx * centre[0] + xy * centre[1] + x) * scale - 0.5
    middle_y = (yx * centre[0] + yy * centre[1] + y) * scale - 0.5
    pixel_x, pixel_y = math.floor(middle_x), math.floor(middle_y)
    first_x, first_y = (place >> outline.halvings for place in outline.origin)
    return (
        ((xx * scale, xy * scale), (yx * scale, yy * scale)),
        (middle_x - pixel_x, middle_y - pixel_y),
        (pixel_x - first_x, pixel_y - first_y),
    )
