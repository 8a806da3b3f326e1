"""Slow references: bilinear sampling, halving and the colour pass as they are defined, in float64.

For tests to hold the fast code against. Nothing here is shared with it but
the bound that it promises.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from augd.pixels.warp import WARP_ERROR

Floats = NDArray[np.float64]

# OpenCV 4 rounds positions to 1/32 px, and its weights to 15 bits.
WARP_BOUND = WARP_ERROR if int(cv2.__version__[0]) >= 5 else 0.5 + 255 * 2 / 64 + 0.1


def folded(at: NDArray[np.int64], size: int, fill: str) -> tuple[NDArray[np.int64], NDArray]:
    """Return the pixel that stands for each place of an axis, and which places are inside."""
    inside = (at >= 0) & (at < size)
    match fill:
        case "reflect":
            at = np.mod(at, 2 * size)
            at = np.where(at < size, at, 2 * size - 1 - at)
        case "wrap":
            at = np.mod(at, size)
        case "nearest" | "constant":
            at = np.clip(at, 0, size - 1)
    return at, inside | (fill != "constant")


def sampled(
    image: NDArray, x: Floats, y: Floats, fill: str, value: tuple[int, int, int] = (0, 0, 0)
) -> Floats:
    """Sample (h, w, 3) at positions whose pixel centres are at +0.5."""
    height, width = image.shape[:2]
    left, top = np.floor(x - 0.5).astype(np.int64), np.floor(y - 0.5).astype(np.int64)
    right_part, low_part = (x - 0.5 - left)[..., None], (y - 0.5 - top)[..., None]

    def pixel(down: int, across: int) -> Floats:
        rows, in_rows = folded(top + down, height, fill)
        columns, in_columns = folded(left + across, width, fill)
        found = image[rows, columns].astype(np.float64)
        return np.where((in_rows & in_columns)[..., None], found, np.array(value, np.float64))

    above = pixel(0, 0) * (1 - right_part) + pixel(0, 1) * right_part
    below = pixel(1, 0) * (1 - right_part) + pixel(1, 1) * right_part
    return above * (1 - low_part) + below * low_part


def centres(size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return x and y of the pixel centres of an output (height, width)."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return x, y


def mapped(matrix: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Move points by a (2, 3) matrix."""
    return (
        matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2],
        matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2],
    )


def bent(
    image: NDArray,
    matrix: Floats,
    size: tuple[int, int],
    fill: str,
    value: tuple[int, int, int] = (0, 0, 0),
    lens: float = 0.0,
) -> Floats:
    """Sample an image at the positions of an output, through a lens and a matrix."""
    height, width = size
    x, y = centres(size)
    from_x, from_y = x - width / 2, y - height / 2
    grown = lens * (from_x**2 + from_y**2) / ((width**2 + height**2) / 4)
    return sampled(image, *mapped(matrix, x + from_x * grown, y + from_y * grown), fill, value)


def halved(image: NDArray, times: int) -> NDArray:
    """Take means of 2x2 pixels, halves up; the last row and column of an odd side count twice."""
    for _ in range(times):
        height, width = image.shape[:2]
        wide = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(int)
        total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
        image = ((total + 2) // 4).astype(np.uint8)
    return image


def tinted(row: NDArray, colour: Floats, pivot: Floats | None = None) -> Floats:
    """Apply A | b, and C to the row's mean; unrounded, clipped."""
    found = row.astype(np.float64) @ colour[:, :3].T + colour[:, 3]
    if pivot is not None:
        found = found + pivot @ row.reshape(-1, 3).astype(np.float64).mean(axis=0)
    return np.clip(found, 0.0, 255.0)
