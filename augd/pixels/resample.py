"""The exact path: a region resized, cut at a window and mirrored, in whole numbers.

Called by `render` for rows without a matrix. The native kernels resize; without them Pillow
(antialias) and OpenCV (linear) do.

Invariants: no tap of the resample reads beyond the region; only the window is made; with the
kernels nothing of an image's size is allocated.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from augd.pixels import native
from augd.pixels.decode import Pixels

Filter = Literal["antialias", "linear"]


class Resampler:
    """Resizes regions to rows of one size. Owns its scratch buffer; for one thread at a time."""

    def __init__(self, filter: Filter, out_size: tuple[int, int]) -> None:
        """Make rows of `out_size` (height, width).

        Raises:
            ValueError: `filter` is neither "antialias" nor "linear".
        """
        if filter not in ("antialias", "linear"):
            raise ValueError(f"filter: expected 'antialias' or 'linear', got {filter!r}")
        self._kernels = native.kernels
        self._is_antialiased = filter == "antialias"
        self._height, self._width = out_size
        self._resized = np.empty(0, np.uint8)

    def tapped(
        self,
        side: NDArray[np.int64],
        scaled: NDArray[np.int32],
        start: NDArray[np.int32],
        count: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first pixel under the taps of a window, and the end: see resize.c."""
        step = side / np.maximum(scaled, 1)  # may be 0 for rows with a matrix
        support = np.maximum(step, 1.0) if self._is_antialiased else np.ones_like(step)
        taps = (np.minimum(np.ceil(2.0 * support).astype(np.int64), side) + 1) & ~1
        first = np.maximum(0.0, (start + 0.5) * step - support + 0.5).astype(np.int64)
        last = np.maximum(0.0, (start + count - 0.5) * step - support + 0.5).astype(np.int64)
        return first, np.minimum(last + taps, side)

    def resample(
        self,
        region: Pixels,
        scaled: tuple[int, int],
        window: tuple[int, int],
        mirror: bool,
        out: Pixels,
    ) -> None:
        """Resize to `scaled` (width, height), cut at `window` (x, y), mirror, and write `out`.

        Raises:
            ValueError: the window leaves the scaled region.
        """
        self.check_window(scaled, window)
        if self._kernels is not None:
            self._kernels.resize(region, out, *scaled, *window, mirror, not self._is_antialiased)
        elif region.shape[1] == scaled[0] and region.shape[0] == scaled[1]:
            self._cut(region, window, mirror, out)
        elif self._is_antialiased:
            self._cut(self._antialiased(region, scaled, window), (0, 0), mirror, out)
        elif scaled[0] == self._width and scaled[1] == self._height:
            cv2.resize(region, scaled, dst=out, interpolation=cv2.INTER_LINEAR)
            if mirror:
                cv2.flip(out, 1, dst=out)
        else:
            resized = self._scratch(scaled)
            cv2.resize(region, scaled, dst=resized, interpolation=cv2.INTER_LINEAR)
            self._cut(resized, window, mirror, out)

    def check_window(self, scaled: tuple[int, int], window: tuple[int, int]) -> None:
        """Raise ValueError if a window (x, y) leaves what is scaled to (width, height)."""
        height, width = self._height, self._width
        x, y = window
        if x < 0 or y < 0 or x + width > scaled[0] or y + height > scaled[1]:
            raise ValueError(
                f"window: expected {width}x{height} at ({x}, {y}) inside the scaled crop of "
                f"{scaled[0]}x{scaled[1]}"
            )

    def _cut(self, source: Pixels, window: tuple[int, int], mirror: bool, out: Pixels) -> None:
        x, y = window
        part = source[y : y + self._height, x : x + self._width]
        if mirror:
            cv2.flip(part, 1, dst=out)
        else:
            np.copyto(out, part)

    def _scratch(self, scaled: tuple[int, int]) -> Pixels:
        """Return the scratch buffer as (h, w, 3). It grows to the largest size needed."""
        width, height = scaled
        size = width * height * 3
        if self._resized.size < size:
            self._resized = np.empty(size, np.uint8)
        return self._resized[:size].reshape(height, width, 3)

    def _antialiased(
        self, region: Pixels, scaled: tuple[int, int], window: tuple[int, int]
    ) -> Pixels:
        """Resize with a triangle filter that widens with the reduction, per axis.

        Only the window is made: a box in source pixels has the same taps as the whole resize, as
        Pillow's taps end at the image, not at the box. Pillow keeps the box in float32, so a window
        of less than the whole may differ by a level from the whole resize (by two if neighbouring
        pixels are unrelated). Making the whole would cost twice the time for `eval`.
        Source: Pillow, `Resample.c`.
        """
        from PIL import Image

        x, y = window
        step_x = region.shape[1] / scaled[0]
        step_y = region.shape[0] / scaled[1]
        box = (
            x * step_x,
            y * step_y,
            min((x + self._width) * step_x, region.shape[1]),
            min((y + self._height) * step_y, region.shape[0]),
        )
        resized = Image.fromarray(region).resize(
            (self._width, self._height), Image.Resampling.BILINEAR, box=box
        )
        return np.asarray(resized)
