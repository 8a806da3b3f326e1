"""The exact path: a region resized, cut at a window and mirrored, in whole numbers.

Called by `render` for rows without a matrix. The native kernels resize; without them Pillow
(antialias, bicubic) and OpenCV (linear) do.

The bicubic filter is that of Pillow's `resize`: Keys' cubic with a = -1/2, whose support of two
pixels grows with the reduction. Its negative lobes overshoot beside edges. The kernels clip once,
at the end; Pillow clips between its two passes, too. So results are within a level of each other
where no row of the crop, resized alone, leaves 0..255, and differ by what Pillow cuts off
elsewhere.

Invariants: no tap of the resample reads beyond the region; only the window is made; with the
kernels nothing of an image's size is allocated.
"""

from __future__ import annotations

from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from augd.pixels import native
from augd.pixels.decode import Pixels
from augd.pixels.row_plan import RowPlan
from augd.plan.plan import Plan

Filter = Literal["antialias", "linear", "bicubic", "random"]

ANTIALIAS: Final = 0  # as the kernels count filters
LINEAR: Final = 1
BICUBIC: Final = 2

# "random" is either of two; the plan tells which.
_FIXED: Final = {
    "antialias": ANTIALIAS,
    "linear": LINEAR,
    "bicubic": BICUBIC,
    "random": ANTIALIAS,
}

MIRRORED: Final = 1  # as the kernels count flips; the sum is both
UPSIDE_DOWN: Final = 2
_OPENCV_FLIPS: Final = (0, 1, 0, -1)


def flips_of(row_plan: RowPlan) -> int:
    """Return how a row is flipped."""
    return MIRRORED * row_plan.mirror + UPSIDE_DOWN * row_plan.flip


def flips_in(plan: Plan, rows: slice) -> NDArray[np.uint8]:
    """Return how each row is flipped."""
    flips = plan.mirror[rows].astype(np.uint8)
    if plan.flip is not None:
        flips += UPSIDE_DOWN * plan.flip[rows].astype(np.uint8)
    return flips


class Resampler:
    """Resizes regions to rows. Owns its scratch buffer; for one thread at a time."""

    def __init__(self, filter: Filter) -> None:
        """Make the rows of one recipe.

        Raises:
            ValueError: there is no such filter.
        """
        if filter not in _FIXED:
            raise ValueError(f"filter: expected one of {', '.join(_FIXED)}, got {filter!r}")
        self._kernels = native.kernels
        self._filter = _FIXED[filter]
        self._resized = np.empty(0, np.uint8)

    def filter_of(self, row_plan: RowPlan) -> int:
        """Return the filter of a row."""
        return BICUBIC if row_plan.is_bicubic else self._filter

    def arguments_of(self, row_plan: RowPlan) -> tuple[int, ...]:
        """Return the last arguments of the kernels that resize."""
        filter = self.filter_of(row_plan)
        return *row_plan.scaled, *row_plan.window, flips_of(row_plan), filter

    def filters_of(self, plan: Plan, rows: slice) -> NDArray[np.uint8]:
        """Return the filter of each row."""
        filters = np.full(len(plan.crop[rows]), self._filter, np.uint8)
        if plan.is_bicubic is not None:
            filters[plan.is_bicubic[rows]] = BICUBIC
        return filters

    def tapped(
        self,
        side: NDArray[np.int64],
        scaled: NDArray[np.int32],
        start: NDArray[np.int32],
        count: NDArray[np.int32] | int,
        filters: NDArray[np.uint8],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first pixel under the taps of a window, and the end: see resize.c."""
        step = side / np.maximum(scaled, 1)  # may be 0 for rows with a matrix
        support = np.where(filters == LINEAR, 1.0, np.maximum(step, 1.0))
        support[filters == BICUBIC] *= 2.0
        taps = (np.minimum(np.ceil(2.0 * support).astype(np.int64), side) + 1) & ~1
        first = np.maximum(0.0, (start + 0.5) * step - support + 0.5).astype(np.int64)
        last = np.maximum(0.0, (start + count - 0.5) * step - support + 0.5).astype(np.int64)
        return first, np.minimum(last + taps, side)

    def resample(
        self,
        region: Pixels,
        row_plan: RowPlan,
        out: Pixels,
    ) -> None:
        """Resize to `scaled` (width, height), cut at `window` (x, y), flip, and write `out`.

        Raises:
            ValueError: the window leaves the scaled region.
        """
        scaled, window = row_plan.scaled, row_plan.window
        self.check_window(row_plan, out)
        if self._kernels is not None:
            self._kernels.resize(region, out, *self.arguments_of(row_plan))
            return
        filter, flips = self.filter_of(row_plan), flips_of(row_plan)
        if region.shape[1] == scaled[0] and region.shape[0] == scaled[1]:
            self._cut(region, window, flips, out)
        elif filter != LINEAR:
            resized = _antialiased(region, row_plan, out.shape[:2], filter)
            self._cut(resized, (0, 0), flips, out)
        elif scaled[0] == out.shape[1] and scaled[1] == out.shape[0]:
            cv2.resize(region, scaled, dst=out, interpolation=cv2.INTER_LINEAR)
            if flips:
                cv2.flip(out, _OPENCV_FLIPS[flips], dst=out)
        else:
            resized = self._scratch(scaled)
            cv2.resize(region, scaled, dst=resized, interpolation=cv2.INTER_LINEAR)
            self._cut(resized, window, flips, out)

    @staticmethod
    def check_window(row_plan: RowPlan, out: Pixels) -> None:
        """Raise ValueError if the window leaves the scaled crop."""
        height, width, _ = out.shape
        (x, y), scaled = row_plan.window, row_plan.scaled
        if x < 0 or y < 0 or x + width > scaled[0] or y + height > scaled[1]:
            raise ValueError(
                f"window: expected {width}x{height} at ({x}, {y}) inside the scaled crop of "
                f"{scaled[0]}x{scaled[1]}"
            )

    def _cut(self, source: Pixels, window: tuple[int, int], flips: int, out: Pixels) -> None:
        x, y = window
        part = source[y : y + out.shape[0], x : x + out.shape[1]]
        if flips:
            cv2.flip(part, _OPENCV_FLIPS[flips], dst=out)
        else:
            np.copyto(out, part)

    def _scratch(self, scaled: tuple[int, int]) -> Pixels:
        """Return the scratch buffer as (h, w, 3). It grows to the largest size needed."""
        width, height = scaled
        size = width * height * 3
        if self._resized.size < size:
            self._resized = np.empty(size, np.uint8)
        return self._resized[:size].reshape(height, width, 3)


def _antialiased(region: Pixels, row_plan: RowPlan, size: tuple[int, int], filter: int) -> Pixels:
    """Resize with a triangle or a cubic that widens with the reduction, per axis.

    Only the window of `size` (height, width) is made: a box in source pixels has the same taps as
    the whole resize, as Pillow's taps end at the image, not at the box. Pillow keeps the box in
    float32, so a window of less than the whole may differ by a level from the whole resize (by two
    if neighbouring pixels are unrelated). Making the whole would cost twice the time for `eval`.
    Source: Pillow, `Resample.c`.
    """
    from PIL import Image

    (x, y), (height, width) = row_plan.window, size
    step_x = region.shape[1] / row_plan.scaled[0]
    step_y = region.shape[0] / row_plan.scaled[1]
    box = (
        x * step_x,
        y * step_y,
        min((x + width) * step_x, region.shape[1]),
        min((y + height) * step_y, region.shape[0]),
    )
    method = Image.Resampling.BICUBIC if filter == BICUBIC else Image.Resampling.BILINEAR
    resized = Image.fromarray(region).resize((width, height), method, box=box)
    return np.asarray(resized)
