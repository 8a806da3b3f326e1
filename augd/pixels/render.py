"""Rendering: a decoded region and its plan in, one finished row of the slot out.

Last step of a sample in a producer. Crop, resize, window and mirror are one exact path, then one
colour pass; the result is written straight into the row that the caller hands in.

Invariants: RGB uint8 only; no tap of the resample looks past the region; no rounding in the
colour pass but one, to nearest, halves up; no generator and no clock, so equal arguments give
equal bytes. Apart from what Pillow's resize makes, nothing of a sample's size is allocated.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from augd.pixels.decode import Pixels

Filter = Literal["antialias", "linear"]

_IDENTITY: Final = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
# Coefficients are multiples of 2**-24, so that every product with a byte and every sum is exact
# in float64, in any order, fused or not: the same bytes on every processor.
_COEFFICIENT_STEPS: Final = float(1 << 24)


class Renderer:
    """Render rows of one stream. Owns its scratch buffers; for one thread at a time.

    `out_size` is (height, width) of a row.
    """

    def __init__(self, filter: Filter, out_size: tuple[int, int]) -> None:
        if filter not in ("antialias", "linear"):
            raise ValueError(f"filter: expected 'antialias' or 'linear', got {filter!r}")
        self._antialias = filter == "antialias"
        self._height, self._width = out_size
        self._resized = np.empty(0, np.uint8)
        self._before: NDArray[np.float64] | None = None
        self._after: NDArray[np.float64] | None = None

    def render(
        self,
        region: Pixels,
        scaled: tuple[int, int],
        window: tuple[int, int],
        mirror: bool,
        colour: NDArray[np.float64] | None,
        out: Pixels,
    ) -> None:
        """Write one row: `region` resized to `scaled` (w, h), cut at `window` (x, y), mirrored.

        `region` is the crop, uint8 (h, w, 3), strided or not. `colour` is a (3, 4) matrix on
        (R, G, B, 1) in grey levels, applied last, or None. `out` is the row itself: C-contiguous
        uint8 (height, width, 3), which must not overlap `region`.

        Raises:
            ValueError: `out` is not such an array, or the window leaves the scaled crop.
        """
        self._check(scaled, window, out)
        if region.shape[1] == scaled[0] and region.shape[0] == scaled[1]:
            self._cut(region, window, mirror, out)
        elif self._antialias:
            self._cut(self._antialiased(region, scaled, window), (0, 0), mirror, out)
        elif scaled == (self._width, self._height):
            cv2.resize(region, scaled, dst=out, interpolation=cv2.INTER_LINEAR)
            if mirror:
                cv2.flip(out, 1, dst=out)
        else:
            resized = self._scratch(scaled)
            cv2.resize(region, scaled, dst=resized, interpolation=cv2.INTER_LINEAR)
            self._cut(resized, window, mirror, out)
        if colour is not None:
            self._recolour(colour, out)

    def _check(self, scaled: tuple[int, int], window: tuple[int, int], out: Pixels) -> None:
        height, width = self._height, self._width
        if out.shape != (height, width, 3) or not out.flags.c_contiguous:
            # OpenCV would write into an array of its own and leave the row as it was.
            raise ValueError(
                f"out: expected C-contiguous ({height}, {width}, 3), got {out.shape} with "
                f"strides {out.strides}"
            )
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
        """Lend the scratch buffer as (h, w, 3); it grows to the largest size asked for."""
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
        Pillow's taps end at the picture, not at the box. Pillow keeps the box in float32, so that
        a window of less than the whole may differ by a level from the whole resize (by two where
        neighbouring pixels are unrelated); making the whole would cost twice the time for `eval`.
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

    def _recolour(self, colour: NDArray[np.float64], out: Pixels) -> None:
        (rr, rg, rb, r), (gr, gg, gb, g), (br, bg, bb, b) = colour.tolist()
        if ((rr, rg, rb), (gr, gg, gb), (br, bg, bb)) == _IDENTITY:
            _shift(out, r, g, b)
        else:
            self._transform(colour, out)

    def _transform(self, colour: NDArray[np.float64], out: Pixels) -> None:
        """Apply a full matrix in exact arithmetic; one rounding and one clip at the end."""
        if self._before is None or self._after is None:
            self._before = np.empty(out.shape, np.float64)
            self._after = np.empty(out.shape, np.float64)
        before, after = self._before, self._after
        matrix = np.rint(colour * _COEFFICIENT_STEPS) / _COEFFICIENT_STEPS
        matrix[:, 3] += 0.5
        np.copyto(before, out)
        cv2.transform(before, matrix, dst=after)
        np.floor(after, out=after)
        np.clip(after, 0.0, 255.0, out=after)
        np.copyto(out, after, casting="unsafe")


def _shift(out: Pixels, r: float, g: float, b: float) -> None:
    """Add whole numbers to the channels, in place, saturating.

    A shift rounds to a whole number because the pixels are whole. OpenCV is five times faster on
    scalars that need no sign, hence up to two passes, of which each channel is changed by one.
    """
    shift = [max(-255, min(255, math.floor(c + 0.5))) for c in (r, g, b)]
    if max(shift) > 0:
        # A fourth scalar, since OpenCV reads three as a column of a matrix.
        raised: Any = (*(max(c, 0) for c in shift), 0)
        cv2.add(out, raised, dst=out)
    if min(shift) < 0:
        lowered: Any = (*(max(-c, 0) for c in shift), 0)
        cv2.subtract(out, lowered, dst=out)
