"""The matrix path's resample without native kernels: positions by NumPy, samples by OpenCV.

Bicubic samples are NumPy's, too (`warp_cubic`).

Used by `warp` in place of the kernel, which does both at once. This module fixes the order of
operations. The kernel repeats it, so that it samples at the very same positions (`kernels/warp.c`).

Invariants: positions in float32, counted from a whole pixel near that of the output's centre until
they are rounded to 1/256 px, so that the result does not depend on which region of the image was
decoded. Nothing is allocated per row except by OpenCV.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np

from augd.pixels.decode import Pixels
from augd.pixels.displacement import Field, LocalWarper, Steps, displace_by_lens
from augd.pixels.warp_cubic import STEPS, sample_cubics

# Added and subtracted again, it leaves a float32 of less than 2**14 in steps of 1/256: between
# 2**15 and 2**16 there are no other values.
_ROUNDER: Final = np.float32(1.5 * 2**15)

_BORDERS: Final = {
    "reflect": cv2.BORDER_REFLECT,
    "constant": cv2.BORDER_CONSTANT,
    "nearest": cv2.BORDER_REPLICATE,
    "wrap": cv2.BORDER_WRAP,
}


Limits = tuple[int, int, int, int]
"""Positions x in [0]..[1] and y in [2]..[3] of the region, in 1/256 px, ends excluded, are
inside."""

UNLIMITED: Final[Limits] = (-(2**31), 2**31 - 1, -(2**31), 2**31 - 1)


class Places(NamedTuple):
    """Where a row is sampled by its matrix, in pixels of the region, whose centres are whole
    numbers.

    `steps` are the matrix's 2x2 part; the output's centre falls on `whole` plus `centre`, (x, y).
    """

    steps: Steps
    centre: tuple[float, float]
    whole: tuple[int, int]


class Remapper:
    """Samples the rows of one stream. Owns its buffers; for one thread at a time."""

    __slots__ = (
        "_across",
        "_border",
        "_columns",
        "_down",
        "_fill",
        "_fill_value",
        "_maps",
        "_rows",
        "_scratch",
    )

    def __init__(
        self, out_size: tuple[int, int], fill: str, fill_value: tuple[int, int, int]
    ) -> None:
        """Make the buffers for rows of `out_size` (height, width)."""
        height, width = out_size
        self._fill = fill
        self._border = _BORDERS[fill]
        self._fill_value = (*fill_value, 0)
        self._across = np.arange(width) + (0.5 - width / 2)
        self._down = np.arange(height)[:, None] + (0.5 - height / 2)
        self._maps: Field = np.empty((2, height, width), np.float32)
        self._rows: Field = np.empty((2, 1, width), np.float32)
        self._columns: Field = np.empty((2, height, 1), np.float32)
        self._scratch: Field = np.empty((height, width), np.float32)

    def place(
        self,
        places: Places,
        grid: Field | None,
        lens: float,
        warper: LocalWarper | None,
        warp_key: int,
    ) -> None:
        """Find the positions of a row, for the calls that follow.

        `grid` is None without a lens, `warper` without a local warp.
        """
        maps, (steps, centre, whole) = self._maps, places
        is_warped = grid is not None or warper is not None
        for axis, (step_x, step_y) in enumerate(steps):
            np.multiply(self._across, step_x, out=self._rows[axis], casting="same_kind")
            self._columns[axis] = self._down * step_y + (0.0 if is_warped else centre[axis])
        np.add(self._rows, self._columns, out=maps)
        if grid is not None:
            displace_by_lens(maps, grid, lens, self._scratch)
        if warper is not None:
            warper.add(maps, warp_key, steps)
        if is_warped:
            maps += np.array(centre, np.float32)[:, None, None]
        maps += _ROUNDER
        maps -= np.array([_ROUNDER - place for place in whole], np.float32)[:, None, None]

    def sample(self, region: Pixels, limits: Limits | None, out: Pixels, is_bicubic: bool) -> None:
        """Write the row that was placed. With limits what lies outside of them is the fill's
        colour."""
        if is_bicubic:
            x, y = np.rint(self._maps * STEPS).astype(np.int32)
            fill = self._fill if limits is None else "nearest"
            sample_cubics(region, x, y, fill, self._fill_value[:3], out)
        else:
            self._sample_linearly(region, limits is None, out)
        if limits is not None:
            self.refill(limits, out)

    def _sample_linearly(self, region: Pixels, is_filled: bool, out: Pixels) -> None:
        cv2.remap(
            *(region, self._maps[0], self._maps[1], cv2.INTER_LINEAR),
            dst=out,
            borderMode=self._border if is_filled else cv2.BORDER_REPLICATE,
            borderValue=self._fill_value,
        )

    def refill(self, limits: Limits, out: Pixels) -> None:
        """Set what lies outside the limits to the fill's colour, in the row that was placed."""
        x, y = self._maps
        left, right, top, bottom = (np.float32(limit / STEPS) for limit in limits)
        out[(x < left) | (x >= right) | (y < top) | (y >= bottom)] = self._fill_value[:3]
