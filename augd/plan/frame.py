"""The frame: what the ops before have made of each image, while a chunk is planned.

Where it stands: between the planner, which makes one per call, and the samplers, which narrow,
resample, flip and tint it in the recipe's order.

Coordinates are those of the source until the one resample, and of the scaled crop after it.
Arrays are (2, n), x or width first, float64 holding whole numbers; (2, 1) where all rows are
alike.

Invariants: nothing here draws a number; the frame never leaves the image, so that no tap of the
resample can look past it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from augd.plan.numerics import Floats

Bools = NDArray[np.bool_]

_IDENTITY = np.eye(3, 4)


class Frame:
    """The window that is left of each of `num_rows` images, and what is laid upon it."""

    __slots__ = (
        "colour",
        "impossible",
        "mirror",
        "num_rows",
        "offset",
        "resampled_crop",
        "scaled",
        "sides",
    )

    def __init__(self, sides: Floats) -> None:
        self.num_rows = sides.shape[1]
        self.sides = sides
        self.offset: Floats | None = None
        self.resampled_crop: tuple[Floats | None, Floats] | None = None
        self.scaled = sides
        self.mirror: Bools | None = None
        self.colour: Floats | None = None
        self.impossible: dict[int, str] = {}

    def cut(self, offset: Floats, sides: Floats) -> None:
        """Narrow the frame to a window at `offset`, as seen after the flips so far."""
        if self.mirror is not None:
            from_right = self.sides[0] - sides[0] - offset[0]
            x = np.where(self.mirror, from_right, offset[0])
            offset = np.stack([x, np.broadcast_to(offset[1], x.shape)])
        self.offset = offset if self.offset is None else self.offset + offset
        self.sides = sides

    def resample(self, scaled: Floats) -> None:
        """Resize what is left to `scaled`; at most once, which the recipe made sure of."""
        assert self.resampled_crop is None
        self.resampled_crop = (self.offset, self.sides)
        self.offset = None
        self.sides = self.scaled = scaled

    def flip(self, is_flipped: Bools) -> None:
        """Flip the chosen rows left and right."""
        self.mirror = is_flipped if self.mirror is None else self.mirror ^ is_flipped

    def add_colour(self, added: Floats) -> None:
        """Add grey levels to each channel; `added` is (3, n), R, G, B."""
        if self.colour is None:
            self.colour = np.empty((self.num_rows, 3, 4))
            self.colour[...] = _IDENTITY
            self.colour[:, :, 3] = added.T
        else:
            self.colour[:, :, 3] += added.T

    def refuse(self, is_refused: Bools, reason: Callable[[int, int], str]) -> None:
        """Mark rows that cannot be made; `reason` gets the frame's (width, height) of the row."""
        for row in np.flatnonzero(is_refused).tolist():
            width, height = (int(side) for side in self.sides[:, row])
            self.impossible.setdefault(row, reason(width, height))
