"""The frame: how the ops so far have changed each image, while a chunk is planned.

The planner makes one per call. The samplers narrow, resample, flip, warp and recolour it in the
recipe's order.

It has two representations. The exact path's crop, resize, window and mirror always exist. The map
of the matrix path exists from the first op on that may need it. Coordinates of the exact path are
those of the source until the one resample, and of the scaled crop after it. Arrays are (2, n), x or
width first, float64 holding whole numbers; (2, 1) if all rows are alike.

Invariants: nothing here draws a number. In rows that are not `bent` the frame never leaves the
image, so that no tap of the resample reads beyond it. A change to other rows leaves their bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from augd.plan.boxes import BoxStep
from augd.plan.geometry.affine import Affine, Linear
from augd.plan.plan import Bools, Int32s, LocalWarpField, Words
from augd.plan.program import Step, StepOrder
from augd.plan.random.numerics import Floats
from augd.plan.random.philox import Ints

if TYPE_CHECKING:
    from augd.plan.ops.plugin import Edit

__all__ = ["Bools", "Frame"]

_EDGE_STEPS: Final = 1024.0


class FrameMixture(NamedTuple):
    """Frames of the chains that rows are blended with, and the weights: see `plan.Mixture`."""

    chains: list[Frame]
    weights: Int32s


class Frame:
    """The window that is left of each of `num_rows` images, and the steps applied to it."""

    __slots__ = (
        "affine",
        "bent",
        "boxes",
        "chosen",
        "colour_order",
        "edits",
        "epochs",
        "ids",
        "image",
        "impossible",
        "inset",
        "is_bicubic",
        "is_known",
        "is_native",
        "lens",
        "mirror",
        "mixture",
        "num_rows",
        "offset",
        "orders",
        "out_sides",
        "picture",
        "resampled_crop",
        "scaled",
        "sides",
        "steps",
        "upside_down",
        "warp",
        "warp_key",
        "warp_on",
    )

    def __init__(self, sides: Floats, out_sides: Floats) -> None:
        """Begin with whole images of `sides`, (2, n); `out_sides` is (2, 1)."""
        self.num_rows = sides.shape[1]
        self.image = self.sides = self.scaled = sides
        self.out_sides = out_sides
        self.offset: Floats | None = None
        self.resampled_crop: tuple[Floats | None, Floats] | None = None
        self.is_native: Bools | None = None
        self.inset: Floats | None = None
        self.mirror: Bools | None = None
        self.upside_down: Bools | None = None
        self.affine: Affine | None = None
        self.bent: Bools | None = None
        self.picture: Floats | None = None
        self.is_bicubic: Bools | None = None
        self.lens: Floats | None = None
        self.warp: LocalWarpField | None = None
        self.warp_key: Words | None = None
        self.warp_on: Bools | None = None
        self.chosen: Bools | None = None  # the rows that the group of an op chose; None for all
        self.steps: list[Step] = []
        self.orders: list[StepOrder] = []
        self.colour_order: Ints | None = None
        self.boxes: list[BoxStep] = []
        self.mixture: FrameMixture | None = None
        self.edits: list[list[Edit]] | None = None
        self.ids: Ints | None = (
            None  # with the next two: for own ops, which get these sizes for each row
        )
        self.epochs: Ints | None = None
        self.is_known: Bools | None = None
        self.impossible: dict[int, str] = {}

    # the exact path

    def cut(self, offset: Floats, sides: Floats) -> None:
        """Narrow the frame to a window at `offset`, as seen after the flips so far."""
        if self.affine is not None:
            self.affine.move(offset[0], offset[1])
        offset = self._unflip(offset, sides)
        self.offset = offset if self.offset is None else self.offset + offset
        self.sides = sides

    def cut_anywhere(self, offset: Floats, sides: Floats) -> None:
        """Cut a window that may leave the image. Rows where it does take the matrix path."""
        affine, bent = self.begin_matrix()
        affine.move(offset[0], offset[1])
        offset = self._unflip(offset, sides)
        whole = offset if self.offset is None else self.offset + offset
        room = (self.image if self.resampled_crop is None else self.scaled) - sides
        bent |= ((whole < 0.0) | (whole > room)).any(axis=0)
        self.offset = np.clip(whole, 0.0, np.maximum(room, 0.0))
        self.sides = sides

    def resample(self, scaled: Floats) -> None:
        """Resize what is left to `scaled`. The recipe makes sure that this happens once at most."""
        assert self.resampled_crop is None
        if self.affine is not None:
            self.affine.scale(*(self.sides / scaled))
        self.resampled_crop = (self.offset, self.sides)
        self.offset = None
        self.sides = self.scaled = scaled

    def enlarge(self, is_enlarged: Bools, scaled: Floats) -> None:
        """Resample some rows; the others, whose `scaled` are their sides, stay native."""
        self.resample(scaled)
        self.is_native = ~is_enlarged

    def pad(self, offset: Floats, sides: Floats) -> None:
        """Put the image at `offset` of a larger frame of `sides`. Nothing cuts that afterwards."""
        if self.affine is not None:
            self.bound()
            self.affine.move(-offset[0], -offset[1])
        self.inset = np.empty((4, self.num_rows))
        self.inset[:2], self.inset[2:] = offset, self.sides
        self.sides = sides

    def flip(self, is_flipped: Bools) -> None:
        """Flip the chosen rows left and right."""
        if self.affine is not None:
            self.affine.flip(is_flipped, self.sides[0])
        if self.inset is not None:
            x, width = self.inset[0], self.inset[2]
            self.inset[0] = np.where(is_flipped, self.sides[0] - x - width, x)
        self.mirror = is_flipped if self.mirror is None else self.mirror ^ is_flipped

    def flip_vertically(self, is_flipped: Bools) -> None:
        """Turn the chosen rows upside down."""
        if self.affine is not None:
            self.affine.flip_vertically(is_flipped, self.sides[1])
        if self.inset is not None:
            y, height = self.inset[1], self.inset[3]
            self.inset[1] = np.where(is_flipped, self.sides[1] - y - height, y)
        before = self.upside_down
        self.upside_down = is_flipped if before is None else before ^ is_flipped

    def _unflip(self, offset: Floats, sides: Floats) -> Floats:
        """Return where a window lies in the frame as it was before the flips so far."""
        if self.mirror is None and self.upside_down is None:
            return offset
        x, y = offset
        far_x, far_y = self.sides - sides - offset
        if self.mirror is not None:
            x = np.where(self.mirror, far_x, x)
        if self.upside_down is not None:
            y = np.where(self.upside_down, far_y, y)
        return np.stack(np.broadcast_arrays(x, y))

    # the matrix path

    def begin_matrix(self) -> tuple[Affine, Bools]:
        """Return the map from the frame to the image and which rows are `bent`; make it if
        missing."""
        if self.affine is None or self.bent is None:
            self.affine = self._map_exactly()
            self.bent = np.zeros(self.num_rows, np.bool_)
            if self.inset is not None:
                self.picture = self._find_picture(self.affine, self.inset)
        return self.affine, self.bent

    def _map_exactly(self) -> Affine:
        """Write the exact path so far as a map."""
        affine = Affine(self.num_rows)
        if self.resampled_crop is not None:
            offset, sides = self.resampled_crop
            if offset is not None:
                affine.move(offset[0], offset[1])
            affine.scale(*(sides / self.scaled))
        if self.offset is not None:
            affine.move(self.offset[0], self.offset[1])
        sides = self.sides if self.inset is None else self.inset[2:]
        if self.mirror is not None:
            affine.flip(self.mirror, sides[0])
        if self.upside_down is not None:
            affine.flip_vertically(self.upside_down, sides[1])
        if self.inset is not None:
            affine.move(-self.inset[0], -self.inset[1])
        return affine

    def apply_linear(self, linear: Linear, is_bent: Bools | None) -> None:
        """Put a linear map about the frame's centre in front. None applies it to all rows."""
        affine, bent = self.begin_matrix()
        affine.apply_linear(linear, 0.5 * self.sides[0], 0.5 * self.sides[1])
        bent |= True if is_bent is None else is_bent

    def shift(self, x: Floats, y: Floats, is_bent: Bools | None) -> None:
        """Move the image by these pixels of the frame."""
        affine, bent = self.begin_matrix()
        affine.move(-x, -y)
        bent |= True if is_bent is None else is_bent

    def place(self, linear: Linear, x: Floats, y: Floats, is_bent: Bools) -> None:
        """Put a linear map followed by a shift in front: each (n,), neutral where not `is_bent`."""
        affine, bent = self.begin_matrix()
        affine.move(x, y)
        affine.apply_linear(linear, x * 0.0, y * 0.0)
        bent |= is_bent

    def bound(self) -> None:
        """Let the image end at the frame's edges, as it stands, in rows that are bent.

        Its edges move outwards to whole pixels of the image. A frame that was turned is bounded by
        the box around it. Of several calls the first one counts.
        """
        affine, _ = self.begin_matrix()
        if self.picture is None:
            whole = np.concatenate([np.zeros_like(self.sides), self.sides])
            self.picture = self._find_picture(affine, whole)

    def _find_picture(self, affine: Affine, box: Floats) -> Floats:
        """Return what of the image lies in a box of the frame, (4, n): its edges moved outwards."""
        x, y, width, height = box
        picture = np.empty((4, self.num_rows))
        maps = ((affine.xx, affine.xy, affine.x0), (affine.yx, affine.yy, affine.y0))
        for axis, (to_x, to_y, start) in enumerate(maps):
            across, down = to_x * width, to_y * height
            low = start + (to_x * x + to_y * y)
            high = low + np.maximum(across, 0.0) + np.maximum(down, 0.0)
            low = low + np.minimum(across, 0.0) + np.minimum(down, 0.0)
            # A whole number may have lost its last bits in the map.
            low, high = (np.rint(edge * _EDGE_STEPS) / _EDGE_STEPS for edge in (low, high))
            low = np.clip(np.floor(low), 0.0, self.image[axis] - 1.0)
            picture[axis] = low
            end = np.clip(np.ceil(high), low + 1.0, self.image[axis])
            picture[2 + axis] = end - low
        return picture

    # the rest

    def refuse(self, is_refused: Bools, reason: Callable[[int, int], str]) -> None:
        """Mark rows that cannot be made; `reason` gets the frame's (width, height) of the row."""
        sides = np.broadcast_to(self.sides, (2, self.num_rows))
        for row in np.flatnonzero(is_refused).tolist():
            width, height = (int(side) for side in sides[:, row])
            self.impossible.setdefault(row, reason(width, height))
