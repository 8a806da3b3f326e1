"""The matrix path: a region through an affine matrix and its warps, in one resample.

The alternative to the exact path of `render`, for rows with an affine op or a warp. The region is
halved as often as the plan says, then read once at positions

    output pixel -> lens about the output's centre + local warp -> matrix -> region

with bilinear weights, or bicubic ones. Positions are rounded to 1/256 px. From there on the native
kernel computes in whole numbers, and rounds once, halves to even. A result is within `WARP_ERROR`
grey levels of the exact one, at most one level from the exact one rounded.

Without kernels NumPy computes the positions, by the same operations in the same order, and OpenCV
samples. OpenCV 5 does so in float32. With 8 fractional bits no product or sum of its weights and
bytes needs more than the 24 bits of one. So no step is rounded but the last, and every processor,
fused or not, gives the same bytes as the kernel. OpenCV 4 rounds positions to 1/32 px on its own.
There the weights are coarser and the error is up to eight levels, between a black and a white
pixel.

With the bicubic filter it is 4x4 taps of Keys' cubic, a = -1/2, of the halved region, at the same
positions. Its sums are whole numbers, rounded to 1/128 and then to levels, and clipped once, and
without kernels they are NumPy's, to the same bytes. It does not widen with the reduction of at most
1.5 that halving leaves.

The fill begins where the region ends. The plan makes sure that this is the image's edge wherever a
position lies outside, and that a side is whole if a fill comes from its other end. In a halved
region the edge is that of its last pixel, which counts twice on an odd side.

A plan may bound the image: its `picture` then counts instead. With a constant fill its edge is
hard, as in Pillow's `transform`: a pixel whose position lies outside is the fill, to the last bit,
and taps of the others that would lie outside take the edge pixel. Such a fill can be put back after
a colour pass.

Invariants: one resample for any number of ops. A shift by whole pixels and a quarter turn are
exact. Nothing of a sample's size is allocated once the buffers have grown.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, get_args

from augd.pixels import native
from augd.pixels.decode import Pixels
from augd.pixels.displacement import Field, LocalWarper, lens_grid
from augd.pixels.halving import Halver
from augd.pixels.headers.read_header import BadImage
from augd.pixels.row_plan import RowPlan
from augd.pixels.warp_cubic import STEPS
from augd.pixels.warp_opencv import UNLIMITED, Limits, Places, Remapper
from augd.plan.plan import LocalWarpField

Fill = Literal["reflect", "constant", "nearest", "wrap"]

_FILLS: Final[tuple[Fill, ...]] = get_args(Fill)  # as the kernel counts them, too

_SIDE_MAX: Final = 32766  # imgwarp.cpp: below SHRT_MAX

WARP_ERROR: Final = 0.5 + 255 * 2 * (2.0**-9 + 2.0**-11)
"""Grey levels: the last rounding, and on both axes a position half a step off.

2**-11 px are lost in float32, as far as 2,048 px from the output's centre, or 512 with warps.
Beyond 16,384 px nothing is promised but that a pixel is one of the region's, or the fill.
"""


class AffineWarp:
    """Makes the rows of one stream that have a matrix. Owns its buffers; for one thread at a
    time."""

    def __init__(
        self,
        out_size: tuple[int, int],
        fill: Fill,
        fill_value: tuple[float, float, float],
    ) -> None:
        """Make rows of `out_size` (height, width); `fill_value` is R, G, B for "constant"."""
        if fill not in _FILLS:
            raise ValueError(f"fill: expected one of {', '.join(_FILLS)}, got {fill!r}")
        self._out_size = out_size
        self._centre = out_size[1] / 2, out_size[0] / 2
        red, green, blue = (math.floor(level + 0.5) for level in fill_value)
        self._fill = _FILLS.index(fill), red, green, blue
        self._is_constant = fill == "constant"
        # Taps beside a hard edge.
        self._hard_fill = _FILLS.index("nearest"), red, green, blue
        self._halver = Halver()
        self._lens_grid: Field | None = None
        self._warper: LocalWarper | None = None
        self._kernels = native.kernels
        self._remapper: Remapper | None = None
        if self._kernels is None:
            self._remapper = Remapper(out_size, fill, (red, green, blue))

    def warp(self, region: Pixels, row_plan: RowPlan, out: Pixels, is_bicubic: bool) -> None:
        """Write one row by the matrix of its plan.

        `region` begins at the plan's `origin`, and was decoded at its `scale`.

        Raises:
            BadImage: the region is too large for OpenCV even when halved.
        """
        num_left = row_plan.halvings - (row_plan.scale.bit_length() - 1)
        halved = self._halver.halve(region, num_left)
        if max(halved.shape) > _SIDE_MAX:  # with kernels, too, so that the same samples are bad
            raise BadImage(
                f"too large to be rotated or warped at its own size: expected sides of at most "
                f"{_SIDE_MAX} px, got a region of {halved.shape[1]}x{halved.shape[0]}"
            )
        limits = self._limits_of(row_plan)
        if self._remapper is not None:
            self._remapper.place(*self._displacement(row_plan))
            self._remapper.sample(halved, limits, out, is_bicubic)
        else:
            fill = self._fill if limits is None else self._hard_fill
            arguments = self._arguments(row_plan, fill)
            self._kernels.warp(halved, out, *arguments, *(limits or UNLIMITED), is_bicubic)

    def refill(self, row_plan: RowPlan, out: Pixels) -> None:
        """Set what lies outside a hard edge to the fill's colour again, in a recoloured row."""
        limits = self._limits_of(row_plan)
        if limits is None:
            return
        if self._remapper is not None:
            self._remapper.place(*self._displacement(row_plan))
            self._remapper.refill(limits, out)
        else:
            arguments = self._arguments(row_plan, self._hard_fill)
            self._kernels.refill(out, *arguments, *limits, False)

    def _limits_of(self, row_plan: RowPlan) -> Limits | None:
        """Return where the picture ends, if its edge is hard: see `Limits`."""
        if row_plan.picture is None or not self._is_constant:
            return None
        (left, top), (x, y, width, height) = row_plan.origin, row_plan.picture
        half, times = STEPS // 2, row_plan.halvings
        return (
            ((x - left) * STEPS >> times) - half,
            ((x + width - left) * STEPS >> times) - half,
            ((y - top) * STEPS >> times) - half,
            ((y + height - top) * STEPS >> times) - half,
        )

    def _displacement(
        self, row_plan: RowPlan
    ) -> tuple[Places, Field | None, float, LocalWarper | None, int]:
        places = _find_places(row_plan, self._centre)
        grid = self._grid() if row_plan.lens != 0.0 else None
        warper = self._warper_of(row_plan.warp) if row_plan.warp is not None else None
        return places, grid, row_plan.lens, warper, row_plan.warp_key

    def _arguments(self, row_plan: RowPlan, fill: tuple[int, int, int, int]) -> tuple[Any, ...]:
        """Return the kernels' arguments between the row and the limits."""
        places, grid, lens, warper, key = self._displacement(row_plan)
        field = None if warper is None else warper.draw(key)
        scale = 0.0 if warper is None else warper.scale
        (xx, xy), (yx, yy) = places.steps
        steps_and_fill = xx, xy, yx, yy, *places.centre, *places.whole, *fill
        return *steps_and_fill, grid, lens, field, scale

    def _grid(self) -> Field:
        if self._lens_grid is None:
            self._lens_grid = lens_grid(self._out_size)
        return self._lens_grid

    def _warper_of(self, warp: LocalWarpField) -> LocalWarper:
        if self._warper is None or self._warper.warp != warp:
            self._warper = LocalWarper(warp, self._out_size)
        return self._warper


def _find_places(row_plan: RowPlan, centre: tuple[float, float]) -> Places:
    assert row_plan.matrix is not None
    (xx, xy, x), (yx, yy, y) = row_plan.matrix
    scale = 2.0**-row_plan.halvings
    corner_x, corner_y = (0, 0) if row_plan.picture is None else row_plan.picture[:2]
    middle_x = (xx * centre[0] + xy * centre[1] + x - corner_x) * scale - 0.5
    middle_y = (yx * centre[0] + yy * centre[1] + y - corner_y) * scale - 0.5
    pixel_x, pixel_y = math.floor(middle_x), math.floor(middle_y)
    first_x = (row_plan.origin[0] - corner_x) >> row_plan.halvings
    first_y = (row_plan.origin[1] - corner_y) >> row_plan.halvings
    return Places(
        ((xx * scale, xy * scale), (yx * scale, yy * scale)),
        (middle_x - pixel_x, middle_y - pixel_y),
        (pixel_x - first_x, pixel_y - first_y),
    )
