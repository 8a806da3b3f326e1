"""Padded rows: an image that covers a part of its row, with bars of the fill's colour around it.

`render` resizes such an image into a buffer of its own, and this module puts it into the row. After
a colour pass the bars are drawn again, so that they keep their colour. The planner says where the
image lies (`Plan.inset`).

Invariants: nothing of a row's size is allocated once the buffer is made; a row without bars is
written where it lies.
"""

from __future__ import annotations

import math

import numpy as np

from augd.pixels.decode import Pixels
from augd.pixels.row_plan import RowPlan


class Letterbox:
    """Pads the rows of one stream. Owns its buffer; for one thread at a time."""

    __slots__ = ("_buffer", "_colour")

    def __init__(self, fill_value: tuple[float, float, float]) -> None:
        """Draw bars of `fill_value` (R, G, B), rounded to whole grey levels."""
        self._colour = tuple(math.floor(level + 0.5) for level in fill_value)
        self._buffer = np.empty(0, np.uint8)

    def target(self, row_plan: RowPlan, out: Pixels) -> Pixels:
        """Return where the image of a row is rendered to: the row itself, or a buffer."""
        inset = row_plan.inset
        if inset is None or (inset[3], inset[2]) == out.shape[:2]:
            return out
        if self._buffer.size < out.size:
            self._buffer = np.empty(out.size, np.uint8)
        _, _, width, height = inset
        return self._buffer[: width * height * 3].reshape(height, width, 3)

    def put(self, row_plan: RowPlan, image: Pixels, out: Pixels) -> None:
        """Put the image that was rendered to its target into the row, with bars around it."""
        if row_plan.inset is None or image is out:
            return
        x, y, width, height = row_plan.inset
        out[y : y + height, x : x + width] = image
        self.draw_bars(row_plan, out)

    def draw_bars(self, row_plan: RowPlan, out: Pixels) -> None:
        """Draw what lies around the image."""
        if row_plan.inset is None:
            return
        x, y, width, height = row_plan.inset
        out[:y] = self._colour
        out[y + height :] = self._colour
        out[y : y + height, :x] = self._colour
        out[y : y + height, x + width :] = self._colour
