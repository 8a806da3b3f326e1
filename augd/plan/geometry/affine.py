"""Affine maps of many rows at once, from a frame's positions to those of the stored image.

A frame keeps one as soon as an op needs it; `source_region` reads it at the end.

Each op puts its own map in front: `source = M(p)` becomes `source = M(B(p))`, where B maps
positions of the frame after the op to those before it. So the ops of a recipe compose in their
order, each in the frame that the ops before it left.

Invariants: products and sums only, element by element and in a fixed order, never a matrix product,
so that the bits are the same on every processor. A row whose op is neutral keeps its bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from augd.plan.random.numerics import Floats, sin_cos

Bools = NDArray[np.bool_]


class Linear(NamedTuple):
    """2x2 matrices of n rows, or numbers for all: x = xx x' + xy y', y = yx x' + yy y'."""

    xx: Floats | float
    xy: Floats | float
    yx: Floats | float
    yy: Floats | float


def rotation(turns: Floats) -> Linear:
    """Map back from an image that was turned counter-clockwise, as seen with y down."""
    sine, cosine = sin_cos(turns)
    return Linear(cosine, -sine, sine, cosine)


def scaling(x: Floats | float, y: Floats | float) -> Linear:
    """Multiply the sampling grid: above 1 shows more."""
    return Linear(x, 0.0, 0.0, y)


def shearing(a: Floats, b: Floats) -> Linear:
    """Map back from x' = x + a y, y' = y + b x; a b < 1."""
    inverse = 1.0 / (1.0 - a * b)
    return Linear(inverse, -a * inverse, -b * inverse, inverse)


class Affine:
    """x = xx x' + xy y' + x0, y = yx x' + yy y' + y0, for n rows; each field is (n,)."""

    __slots__ = ("x0", "xx", "xy", "y0", "yx", "yy")

    def __init__(self, num_rows: int) -> None:
        self.xx, self.yy = np.ones(num_rows), np.ones(num_rows)
        self.xy, self.yx = np.zeros(num_rows), np.zeros(num_rows)
        self.x0, self.y0 = np.zeros(num_rows), np.zeros(num_rows)

    def move(self, x: Floats | float, y: Floats | float) -> None:
        """Begin the frame at (x, y) of the one before."""
        self.x0 = self.x0 + (self.xx * x + self.xy * y)
        self.y0 = self.y0 + (self.yx * x + self.yy * y)

    def scale(self, x: Floats | float, y: Floats | float) -> None:
        """Count the frame in units of x and y pixels of the one before."""
        self.xx, self.yx = self.xx * x, self.yx * x
        self.xy, self.yy = self.xy * y, self.yy * y

    def flip(self, is_flipped: Bools, width: Floats) -> None:
        """Count x from the right edge of the frame where `is_flipped`."""
        self.x0 = np.where(is_flipped, self.x0 + self.xx * width, self.x0)
        self.y0 = np.where(is_flipped, self.y0 + self.yx * width, self.y0)
        self.xx = np.where(is_flipped, -self.xx, self.xx)
        self.yx = np.where(is_flipped, -self.yx, self.yx)

    def flip_vertically(self, is_flipped: Bools, height: Floats) -> None:
        """Count y from the lower edge of the frame where `is_flipped`."""
        self.x0 = np.where(is_flipped, self.x0 + self.xy * height, self.x0)
        self.y0 = np.where(is_flipped, self.y0 + self.yy * height, self.y0)
        self.xy = np.where(is_flipped, -self.xy, self.xy)
        self.yy = np.where(is_flipped, -self.yy, self.yy)

    def apply_linear(self, linear: Linear, centre_x: Floats, centre_y: Floats) -> None:
        """Put a linear map about a centre in front."""
        xx, xy, yx, yy = linear
        self.move(
            centre_x - (xx * centre_x + xy * centre_y), centre_y - (yx * centre_x + yy * centre_y)
        )
        self.xx, self.xy = self.xx * xx + self.xy * yx, self.xx * xy + self.xy * yy
        self.yx, self.yy = self.yx * xx + self.yy * yx, self.yx * xy + self.yy * yy

    def stack(self) -> Floats:
        """Write the maps out as (n, 2, 3)."""
        matrix = np.empty((len(self.xx), 2, 3))
        parts = ((self.xx, self.xy, self.x0), (self.yx, self.yy, self.y0))
        for row, coefficients in enumerate(parts):
            for column, values in enumerate(coefficients):
                matrix[:, row, column] = values
        return matrix

    def reductions(self) -> tuple[Floats, Floats]:
        """Return how much the image is reduced at most and at least: the singular values."""
        first = self.xx * self.xx + self.xy * self.xy
        second = self.yx * self.yx + self.yy * self.yy
        mixed = 2.0 * (self.xx * self.yx + self.xy * self.yy)
        gap = first - second
        root = np.sqrt(gap * gap + mixed * mixed)
        most = np.asarray(np.sqrt(0.5 * (first + second + root)), dtype=np.float64)
        # By the area, as the difference of both squares has lost its digits where they are alike.
        area = np.abs(self.xx * self.yy - self.xy * self.yx)
        return most, area / most
