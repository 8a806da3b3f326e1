"""The steps of programs without the native kernels: OpenCV and NumPy, in place on a row.

`program.py` calls them. The arithmetic is that of `kernels/tables.c`, `sharpness.c` and `blur.c`,
bit for bit: whole numbers, or doubles that are cut as there. JPEG is OpenCV's, whose bytes equal
the kernels' where both libjpegs encode alike.

Sources: Pillow's `ImageOps`, `ImageFilter.SMOOTH` and `ImageEnhance.Sharpness`.
"""

from __future__ import annotations

import math
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from augd.pixels.decode import Pixels
from augd.plan.program import StepKind
from augd.plan.random.numerics import exp

_LEVELS: Final = np.arange(256)
_MIDDLE_WEIGHT, _WEIGHT_SUM = 5, 13
_FACTOR_BITS: Final = 16
_SIGMAS_KEPT: Final = 3.0
# Weights of a blur in 1/2**14, lines between its passes in 1/64 level: see kernels/blur.c.
_WEIGHT_BITS, _KEPT_BITS = 14, 6
_ALONE: Final = np.ones(1)

TABLES: Final = frozenset(
    (
        StepKind.TABLE,
        StepKind.POSTERIZE,
        StepKind.SOLARIZE,
        StepKind.SOLARIZE_ADD,
        StepKind.INVERT,
    )
)


def table_of(kind: int, first: float, second: float) -> Pixels:
    """Return the values that the 256 grey levels become."""
    if kind == StepKind.POSTERIZE:
        made = _LEVELS & -(1 << (8 - int(first)))
    elif kind == StepKind.SOLARIZE:
        made = np.where(first > _LEVELS, _LEVELS, 255 - _LEVELS)
    elif kind == StepKind.SOLARIZE_ADD:
        raised = np.clip(_LEVELS + int(first), 0, 255)
        made = np.where(second > _LEVELS, raised, _LEVELS)
    else:
        made = 255 - _LEVELS
    return made.astype(np.uint8)


def equalize(row: Pixels) -> None:
    """Make the levels of each channel evenly frequent. Its sums leave out the level's own."""
    tables = np.empty((1, 256, 3), np.uint8)
    num_pixels = row.shape[0] * row.shape[1]
    for channel in range(3):
        counts = np.bincount(row[..., channel].reshape(-1), minlength=256)
        step = (num_pixels - int(counts[np.flatnonzero(counts)[-1]])) // 255
        before = np.cumsum(counts) - counts
        tables[0, :, channel] = np.minimum((step // 2 + before) // step, 255) if step else _LEVELS
    cv2.LUT(row, tables, dst=row)


def stretch_contrast(row: Pixels) -> None:
    """Stretch the levels of each channel to 0..255, cut towards zero."""
    tables = np.empty((1, 256, 3), np.uint8)
    for channel in range(3):
        least, most = int(row[..., channel].min()), int(row[..., channel].max())
        if most <= least:
            tables[0, :, channel] = _LEVELS
            continue
        scale = 255.0 / (most - least)
        cut = np.trunc(_LEVELS * scale + -least * scale)
        tables[0, :, channel] = np.clip(cut, 0.0, 255.0)
    cv2.LUT(row, tables, dst=row)


def sharpen(row: Pixels, factor: float) -> None:
    """Blend a row with its smoothed self; the outermost pixels stay."""
    before = row.astype(np.int32)
    middle = before[1:-1, 1:-1]
    total = middle * (_MIDDLE_WEIGHT - 1) + _WEIGHT_SUM // 2
    height, width = row.shape[:2]
    for y in range(3):
        for x in range(3):
            total += before[y : max(height - 2 + y, 0), x : max(width - 2 + x, 0)][
                : len(middle), : middle.shape[1]
            ]
    smooth = total // _WEIGHT_SUM
    steps = round(factor * (1 << _FACTOR_BITS))
    level = smooth + ((steps * (middle - smooth) + (1 << (_FACTOR_BITS - 1))) >> _FACTOR_BITS)
    row[1:-1, 1:-1] = np.clip(level, 0, 255)


def blur(row: Pixels, sigma: float, radius: int) -> None:
    """Convolve with a Gaussian of `sigma` px, cut at `radius`, or for 0 at 3 sigma."""
    radius = radius or max(1, math.ceil(_SIGMAS_KEPT * sigma))
    weights = blur_weights(sigma, radius)
    down = cv2.sepFilter2D(row, cv2.CV_64F, _ALONE, weights, borderType=cv2.BORDER_REFLECT_101)
    kept = np.floor(down / (1 << (_WEIGHT_BITS - _KEPT_BITS)) + 0.5)
    across = cv2.sepFilter2D(kept, cv2.CV_64F, weights, _ALONE, borderType=cv2.BORDER_REFLECT_101)
    row[...] = np.floor(across / (1 << (_WEIGHT_BITS + _KEPT_BITS)) + 0.5).reshape(row.shape)


def blur_weights(sigma: float, radius: int) -> NDArray[np.float64]:
    """Return a Gaussian in whole numbers of 1/2**14 that sum to one.

    Sums are rounded, from the ends inwards, so that errors spread and do not gather in the middle.
    """
    places = np.arange(radius, 0, -1) / sigma
    side = exp(np.maximum(-0.5 * places * places, -700.0)).tolist()
    total = 0.0
    for weight in side:
        total += weight
    total = 2.0 * total + 1.0
    sums, running = [0], 0.0
    for weight in side:
        running += weight
        sums.append(round(running * (1 << _WEIGHT_BITS) / total))
    halves = np.diff(sums).astype(np.float64)
    middle = float((1 << _WEIGHT_BITS) - 2 * sums[-1])
    return np.concatenate([halves, [middle], halves[::-1]])


def recompress(row: Pixels, quality: int) -> None:
    """Encode as a JPEG of 4:2:0 and decode."""
    options = [
        *(cv2.IMWRITE_JPEG_QUALITY, quality),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    ]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(row, cv2.COLOR_RGB2BGR), options)
    decoded: Any = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    row[...] = decoded
