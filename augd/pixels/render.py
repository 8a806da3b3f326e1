"""Renders: an image, or a region of it, and its `RowPlan` in, one finished row of the slot out.

Last step of a sample in a producer. A row takes one of two paths. The exact path resizes, cuts a
window and mirrors in whole numbers (`resample.py`). The matrix path warps the row in one resample
(`warp.py`). Then follow one colour pass (`colour_matrix.py`), or the row's program (`program.py`),
and erased boxes. The result is written directly into the row that the caller hands in.

On the exact path the native kernels decode and resize in one call, a few lines at a time: the
region as such never exists, and lines and columns that the window doesn't need are not decoded.

Invariants: RGB uint8 only. On the exact path no tap of the resample reads beyond the region. A row
is resampled once and rounded by the colour pass once, or by each step of a program. No generator
and no clock, so equal arguments give equal bytes. With the kernels nothing of a sample's size is
allocated for such a row.
"""

from __future__ import annotations

from mmap import mmap
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from augd.pixels import native
from augd.pixels.boxes import fill_boxes
from augd.pixels.colour_matrix import ColourPass
from augd.pixels.decode import (
    Pixels,
    at_scale,
    check_region,
    cut_arguments,
    decode,
    is_native,
    prepared,
    run_native,
)
from augd.pixels.exif_orientation import DecodedRegion, DecodeStored, Exif, Region, reader_of, turn
from augd.pixels.headers.read_header import Header
from augd.pixels.jpeg_segments import Cut
from augd.pixels.letterbox import Letterbox
from augd.pixels.mixture import MixturePass
from augd.pixels.program import ProgramPass
from augd.pixels.render_views import box_around, cut_region
from augd.pixels.resample import BICUBIC, Filter, Resampler, flips_in
from augd.pixels.row_plan import Matrix, RowPlan, RowPlans
from augd.pixels.transparency import BLACK, Background
from augd.pixels.warp import AffineWarp, Fill
from augd.plan.plan import Plan
from augd.plan.recipe.recipe import Recipe

ColourOn = Literal["producer", "device"]

_UNCHANGED: Final[Matrix] = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))


_COLOUR_OUT: Final = (
    "colour_out: expected an array with colour_on='device' and none with 'producer'"
)

_DECODE_HERE = decode


class Renderer:
    """Render rows of one stream. Owns its scratch buffers; for one thread at a time.

    `out_size` is (height, width) of a row. `fill` and `fill_value` (R, G, B, rounded to whole grey
    levels) are the recipe's, for rows with a matrix. With `colour_on` "device" pixels are left as
    resampled, and the row's colour matrix is returned instead.
    """

    def __init__(
        self,
        filter: Filter,
        out_size: tuple[int, int],
        *,
        fill: Fill = "reflect",
        fill_value: tuple[float, float, float] = (0.0, 0.0, 0.0),
        colour_on: ColourOn = "producer",
        exif: Exif = "ignore",
        background: Background = BLACK,
        decode: DecodeStored = decode,
    ) -> None:
        """Make the buffers. With `exif` "apply" images are rendered upright.

        `background` is the colour behind transparent parts: see `compose`. `decode` decodes, in
        this process or another, with the same rows.

        Raises:
            ValueError: an option is not one of its choices.
        """
        if colour_on not in ("producer", "device"):
            raise ValueError(f"colour_on: expected 'producer' or 'device', got {colour_on!r}")
        self._kernels = native.kernels
        self._resampler = Resampler(filter)
        self._is_stored = exif == "ignore"
        _, self.decode = reader_of(exif, background, decode)
        self._is_decoded_here = decode is _DECODE_HERE
        self._is_colour_applied = colour_on == "producer"
        self._height, self._width = out_size
        self._affine_warp = AffineWarp(out_size, fill, fill_value)
        self._colour_pass = ColourPass()
        self._program_pass = ProgramPass(*out_size)
        self._mixture_pass = MixturePass(self._affine_warp, self._recolour)
        self._letterbox = Letterbox(fill_value)

    @classmethod
    def of(
        cls, recipe: Recipe, out_size: tuple[int, int], decode: DecodeStored = decode
    ) -> Renderer:
        """Make the renderer of a recipe, whose rows are (height, width)."""
        return cls(
            recipe.filter,
            out_size,
            fill=recipe.fill,
            fill_value=recipe.fill_rgb,
            colour_on=recipe.colour_on,
            exif=recipe.exif,
            background=recipe.background_rgb,
            decode=decode,
        )

    def needed(self, plan: Plan, rows: slice) -> NDArray[np.int64]:
        """Return the region of each row's image that is needed to render it: int64 (n, 4).

        (x, y, width, height) of the image as the recipe sees it, if it is stored so. It is less
        than the crop if that is not resampled whole: only what the window needs counts.
        """
        crop = plan.crop[rows].astype(np.int64)
        if self._kernels is None:
            return crop
        scale = 1 if plan.scale is None else plan.scale[rows].astype(np.int64)
        window, scaled = plan.window[rows], plan.scaled[rows]
        filters = self._resampler.filters_of(plan, rows)
        region = np.empty_like(crop)
        sides = (self._width, self._height) if plan.inset is None else plan.inset[rows, 2:].T
        for axis, count in enumerate(sides):
            side = crop[:, 2 + axis]
            start, end = self._resampler.tapped(
                *(-(-side // scale), scaled[:, axis], window[:, axis], count, filters)
            )
            region[:, axis] = crop[:, axis] + start * scale
            region[:, 2 + axis] = np.minimum(end * scale, side) - start * scale
        if plan.bent is not None:
            region[plan.bent[rows]] = crop[plan.bent[rows]]
        return region

    def render_sample(
        self,
        data: bytes | bytearray,
        header: Header,
        row_plans: RowPlans,
        first: int,
        out: Pixels,
        colour_out: NDArray[np.float32] | None = None,
        origin: tuple[int, int] | None = None,
    ) -> None:
        """Render all views of a sample, whose row plans begin at `first`. Its image is decoded
        once.

        `data` may hold a part of the image, at `origin` (x, y), which contains what is `needed`;
        the header is then the part's. `out` is uint8 (views, height, width, 3) and `colour_out`
        float32 (views, 3, 4). Raises as `render_image`.
        """
        num_views, scale = len(out), row_plans.scale[first]
        if num_views == 1:
            matrix_out = None if colour_out is None else colour_out[0]
            self.render_image(
                *(data, header, row_plans.crop[first], scale, row_plans[first], out[0], matrix_out),
                origin=origin,
            )
            return
        left, top = origin or (0, 0)
        crops = [
            (x - left, y - top, w, h) for x, y, w, h in row_plans.crop[first : first + num_views]
        ]
        whole = box_around(crops)
        decoded = self.decode(data, header, whole, scale)
        for view, crop in enumerate(crops):
            matrix_out = None if colour_out is None else colour_out[view]
            region = cut_region(decoded, whole, crop, scale)
            self.render(region, row_plans[first + view], out[view], matrix_out)

    def render_decoded(
        self,
        image: DecodedRegion,
        row_plans: RowPlans,
        first: int,
        out: Pixels,
        colour_out: NDArray[np.float32] | None = None,
    ) -> None:
        """Render all views of a sample from its whole decoded image, with the bytes of
        `render_sample`.

        Its row plans must be at scale 1. The crop is a view of the image: nothing is copied, unless
        the image is turned.
        """
        is_turned = not self._is_stored and image.orientation != 1
        pixels = turn(image.pixels, image) if is_turned else image.pixels
        for view, row in enumerate(out, first):
            x, y, width, height = row_plans.crop[view]
            region = pixels[y : y + height, x : x + width]
            if is_turned:
                region = np.ascontiguousarray(region)
            matrix_out = None if colour_out is None else colour_out[view - first]
            self.render(region, row_plans[view], row, matrix_out)

    def can_render_rows(self, plan: Plan) -> bool:
        """Return whether `render_rows` can render this plan: stored images, exact path."""
        is_exact = plan.matrix is None and plan.inset is None
        return self._kernels is not None and self._is_stored and is_exact

    def render_rows(
        self,
        cache: mmap,
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int32],
        plan: Plan,
        rows: slice,
        row_plans: RowPlans,
        out: Pixels,
        colour_out: NDArray[np.float32] | None = None,
    ) -> None:
        """Render the rows of a slice of a plan from images in a cache, as `render_decoded` does.

        Each image lies from its offset on, uint8 (height, width, 3); `sizes` are (width, height).
        `row_plans` and `out`, uint8 (rows, height, width, 3), begin with the slice's first row.

        Raises:
            ValueError: an image is not in the cache, or a crop not in its image.
        """
        if self._is_colour_applied != (colour_out is None):
            raise ValueError(_COLOUR_OUT)
        self._kernels.resize_rows(
            cache, out, offsets, sizes,
            *map(np.ascontiguousarray, (plan.crop[rows], plan.scaled[rows], plan.window[rows])),
            flips_in(plan, rows), self._resampler.filters_of(plan, rows),
        )  # fmt: skip
        is_unfinished = plan.program is not None or plan.colour is not None or plan.mixture
        if is_unfinished or plan.erase is not None or colour_out is not None:
            for number, row in enumerate(out):
                matrix_out = None if colour_out is None else colour_out[number]
                self._finish(row_plans[number], row, matrix_out)

    def can_render_cuts(self, plan: Plan) -> bool:
        """Return whether `render_cut` can render this plan: stored images, exact path."""
        return native.has_own_entropy_decoder() and self._is_stored and plan.matrix is None

    def render_cut(
        self,
        cut: Cut,
        row_plans: RowPlans,
        row: int,
        out: Pixels,
        colour_out: NDArray[np.float32] | None = None,
    ) -> bool:
        """Render a row from the segments that were read of its image; False if they don't decode.

        The cut holds what is `needed`; `out` and `colour_out` as for `render`.
        """
        self._check_row(out, colour_out)
        row_plan = row_plans[row]
        scale = row_plans.scale[row]
        x, y, width, height = at_scale(row_plans.crop[row], scale)
        target = self._letterbox.target(row_plan, out)
        try:
            self._kernels.render_cut(
                *cut_arguments(cut, target), x, y, scale, width, height,
                *self._resampler.arguments_of(row_plan),
            )  # fmt: skip
        except self._kernels.DecodeError:
            return False
        self._letterbox.put(row_plan, target, out)
        self._finish(row_plan, out, colour_out)
        return True

    def render_image(
        self,
        data: bytes | bytearray,
        header: Header,
        crop: Region,
        scale: int,
        row_plan: RowPlan,
        out: Pixels,
        colour_out: NDArray[np.float32] | None = None,
        *,
        origin: tuple[int, int] | None = None,
    ) -> None:
        """Decode a crop (x, y, w, h) of an image at 1/`scale`, and write one row of it.

        See `decode` for the crop and the scale, `render_sample` for the origin, and `render` for
        the others.

        A `bytearray` may change while this runs. It is as before when this returns.

        Raises:
            BadImage: the image does not decode, or its crop is too large to be warped.
            ValueError: as `render`, and for a crop that leaves the image.
        """
        if origin is not None:
            crop = crop[0] - origin[0], crop[1] - origin[1], crop[2], crop[3]
        is_upright = self._is_stored or header.orientation == 1
        is_fused = self._is_decoded_here and row_plan.matrix is None and is_upright
        if not is_fused or not is_native(header):
            self.render(self.decode(data, header, crop, scale), row_plan, out, colour_out)
            return
        self._check_row(out, colour_out)
        target = self._letterbox.target(row_plan, out)
        self._resampler.check_window(row_plan, target)
        if origin is None:
            check_region(header, crop, scale)
        x, y, width, height = at_scale(crop, scale)
        run_native(
            self._kernels.render_jpeg, prepared(data, header), target, header, x, y, scale, width,
            height, *self._resampler.arguments_of(row_plan),
        )  # fmt: skip
        self._letterbox.put(row_plan, target, out)
        self._finish(row_plan, out, colour_out)

    def render(
        self,
        region: Pixels,
        row_plan: RowPlan,
        out: Pixels,
        colour_out: NDArray[np.float32] | None = None,
    ) -> None:
        """Write one row.

        `region` is the crop, uint8 (h, w, 3), strided or not. `out` is the row itself: C-contiguous
        uint8 (height, width, 3), which must not overlap `region`. `colour_out`, float32 (3, 4),
        gets the row's colour matrix if the device applies colours: on (R, G, B, 1) in grey levels,
        with its contrast's mean folded in, the identity for no change.

        Raises:
            ValueError: `out` is not such an array, the window leaves the scaled crop, or
                `colour_out` is missing or not wanted.
            BadImage: the region is too large to be warped.
        """
        self._check_row(out, colour_out)
        if row_plan.matrix is not None:
            is_bicubic = self._resampler.filter_of(row_plan) == BICUBIC
            self._affine_warp.warp(region, row_plan, out, is_bicubic)
        else:
            target = self._letterbox.target(row_plan, out)
            self._resampler.resample(region, row_plan, target)
            self._letterbox.put(row_plan, target, out)
        self._finish(row_plan, out, colour_out)

    def _finish(
        self, row_plan: RowPlan, out: Pixels, colour_out: NDArray[np.float32] | None
    ) -> None:
        if colour_out is not None:
            colour_out[...] = self._colour_pass.add_mean(
                row_plan.colour or _UNCHANGED, row_plan.pivot, out
            )
        elif row_plan.program is not None or row_plan.colour is not None:
            self._recolour(row_plan, out)
        if row_plan.mixture is not None:
            is_bicubic = self._resampler.filter_of(row_plan) == BICUBIC
            self._mixture_pass.run(row_plan.mixture, row_plan.mixture_row, out, is_bicubic)
        if row_plan.erase:
            fill_boxes(out, row_plan.erase)

    def _recolour(self, row_plan: RowPlan, out: Pixels) -> None:
        """Run the row's program or its colour pass. The fill around a bounded or padded row
        keeps its colour."""
        if row_plan.program is not None:
            self._program_pass.run(row_plan.program, row_plan.program_row, out)
        elif row_plan.colour is not None:
            self._colour_pass.apply(row_plan.colour, row_plan.pivot, out)
        if row_plan.matrix is None:
            self._letterbox.draw_bars(row_plan, out)
        elif row_plan.picture is not None:
            self._affine_warp.refill(row_plan, out)

    def _check_row(self, out: Pixels, colour_out: NDArray[np.float32] | None) -> None:
        height, width = self._height, self._width
        if out.shape != (height, width, 3) or not out.flags.c_contiguous:
            # OpenCV would write into an array of its own and leave the row as it was.
            raise ValueError(
                f"out: expected C-contiguous ({height}, {width}, 3), got {out.shape} with "
                f"strides {out.strides}"
            )
        if self._is_colour_applied != (colour_out is None):
            raise ValueError(_COLOUR_OUT)
