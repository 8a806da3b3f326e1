"""The colour pass: one 3x4 matrix over a finished row, one rounding, one clip.

The last step of a row but one: after its geometry and before erasing. A matrix that only shifts is
exact. A matrix with entries beyond the range of the fast path is exact, too. Any other is rounded
to multiples of 1/1024 and applied in whole numbers. The value of a pixel before its rounding is
then within `COLOUR_ERROR` grey levels of the exact one. So a result is the exact one, rounded, or
its neighbour if the exact one is that close to a half.

Invariants: RGB in grey levels 0..255. Halves are rounded up. Only whole numbers, or sums that
float64 holds exactly, so that no processor gives other bytes.
"""

from __future__ import annotations

import math
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from augd.pixels import native
from augd.pixels.decode import Pixels
from augd.pixels.row_plan import Matrix

# OpenCV's transform of three bytes to three works with 10 bits behind the point, on coefficients
# below 32 and offsets below 8192 (matmul.simd.hpp, transform_8u). The native kernel does the same.
_STEPS: Final = 1 << 10
_LARGEST_COEFFICIENT: Final = 31.0
_LARGEST_OFFSET: Final = 8000.0
_MIDDLE: Final = 127.5

COLOUR_ERROR: Final = (3 * _MIDDLE + 1) * 0.5 / _STEPS
"""Grey levels: three coefficients and an offset, each half a step off, on -127.5..127.5."""

# OpenCV uses another path, which rounds halves to even, for a diagonal matrix. Its test for that
# sees this entry, which is less than a step of the coefficients.
_BESIDE_THE_DIAGONAL: Final = 2.0**-20

# Coefficients are multiples of 2**-24, so that every product with a byte and every sum is exact
# in float64, in any order, fused or not.
_EXACT_STEPS: Final = float(1 << 24)


class ColourPass:
    """Recolours rows of one size in place. Owns its scratch buffers; for one thread at a time."""

    __slots__ = ("_after", "_before", "_kernels", "_matrix")

    def __init__(self) -> None:
        self._kernels = native.kernels
        self._matrix = np.empty((3, 4), np.float32)
        self._before: NDArray[np.float64] | None = None
        self._after: NDArray[np.float64] | None = None

    def add_mean(self, colour: Matrix, pivot: Matrix | None, row: Pixels) -> Matrix:
        """Return the 3x4 matrix A | b + C mean(row), where `colour` is A | b and `pivot` is C.

        The mean is that of exact sums. `row` is C-contiguous uint8 (h, w, 3).
        """
        if pivot is None:
            return colour
        if self._kernels is None:
            red, green, blue, _ = cv2.sumElems(row)
        else:
            red, green, blue = self._kernels.sums(row)
        num_pixels = row.shape[0] * row.shape[1]
        red, green, blue = red / num_pixels, green / num_pixels, blue / num_pixels
        return [
            [*entries[:3], entries[3] + ((of[0] * red + of[1] * green) + of[2] * blue)]
            for entries, of in zip(colour, pivot, strict=True)
        ]

    def apply(self, colour: Matrix, pivot: Matrix | None, row: Pixels) -> None:
        """Apply `add_mean`'s 3x4 matrix on (R, G, B, 1) to a C-contiguous uint8 row (h, w, 3)."""
        if self._kernels is not None:
            red, green, blue = colour
            if pivot is None:
                is_done = self._kernels.apply_colour(row, *red, *green, *blue)
            else:
                of_red, of_green, of_blue = pivot
                is_done = self._kernels.apply_colour(
                    row, *red, *green, *blue, *of_red, *of_green, *of_blue
                )
            if not is_done:
                self._transform_exactly(self.add_mean(colour, pivot, row), row)
            return
        colour = self.add_mean(colour, pivot, row)
        (rr, rg, rb, r), (gr, gg, gb, g), (br, bg, bb, b) = colour
        if rr == gg == bb == 1.0 and rg == rb == gr == gb == br == bg == 0.0:
            _shift(row, r, g, b)
        elif all(_fits(*entries) for entries in colour):
            self._transform(colour, row)
        else:
            self._transform_exactly(colour, row)

    def _transform(self, colour: Matrix, row: Pixels) -> None:
        matrix = self._matrix
        matrix[...] = [_in_steps(*entries) for entries in colour]
        matrix *= 1.0 / _STEPS
        if not matrix[0, 1]:
            matrix[0, 1] = _BESIDE_THE_DIAGONAL
        cv2.transform(row, matrix, dst=row)

    def _transform_exactly(self, colour: Matrix, row: Pixels) -> None:
        if self._before is None or self._after is None:
            self._before = np.empty(row.shape, np.float64)
            self._after = np.empty(row.shape, np.float64)
        before, after = self._before, self._after
        matrix = np.rint(np.array(colour) * _EXACT_STEPS) / _EXACT_STEPS
        matrix[:, 3] += 0.5
        np.copyto(before, row)
        cv2.transform(before, matrix, dst=after)
        np.floor(after, out=after)
        np.clip(after, 0.0, 255.0, out=after)
        np.copyto(row, after, casting="unsafe")


def _fits(red: float, green: float, blue: float, offset: float) -> bool:
    return (
        -_LARGEST_COEFFICIENT <= red <= _LARGEST_COEFFICIENT
        and -_LARGEST_COEFFICIENT <= green <= _LARGEST_COEFFICIENT
        and -_LARGEST_COEFFICIENT <= blue <= _LARGEST_COEFFICIENT
        and -_LARGEST_OFFSET <= offset <= _LARGEST_OFFSET
    )


def _in_steps(red: float, green: float, blue: float, offset: float) -> tuple[int, ...]:
    """Round to whole steps. What the coefficients lose is given back at a middle grey."""
    red, green, blue = red * _STEPS, green * _STEPS, blue * _STEPS
    whole = round(red), round(green), round(blue)
    lost = (red - whole[0]) + (green - whole[1]) + (blue - whole[2])
    return *whole, round(offset * _STEPS + lost * _MIDDLE)


def _shift(row: Pixels, red: float, green: float, blue: float) -> None:
    """Add whole numbers to the channels, in place, saturating.

    A shift rounds to a whole number because the pixels are whole. OpenCV is five times faster on
    scalars that need no sign, hence up to two passes, of which each channel is changed by one.
    """
    shift = [max(-255, min(255, math.floor(c + 0.5))) for c in (red, green, blue)]
    if max(shift) > 0:
        # A fourth scalar, since OpenCV reads three as a column of a matrix.
        raised: Any = (*(max(c, 0) for c in shift), 0)
        cv2.add(row, raised, dst=row)
    if min(shift) < 0:
        lowered: Any = (*(max(-c, 0) for c in shift), 0)
        cv2.subtract(row, lowered, dst=row)
