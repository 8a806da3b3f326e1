"""Fills boxes of finished rows: with a colour, or with noise about ImageNet's mean.

Last of all but own ops: after a row's colour steps, so that a fill keeps its colour. The boxes are
those of `augd/plan/boxes.py`.

Invariants: equal bytes with and without the native kernels (`noise.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from augd.pixels.decode import Pixels
from augd.pixels.noise import Box, fill_noise
from augd.plan.boxes import MEAN_RGB
from augd.plan.plan import Plan

# ImageNet's constants, in grey levels: noise of 1 after normalising is a standard deviation.
_MEAN: Final = (255 * 0.485, 255 * 0.456, 255 * 0.406)
_STD: Final = (255 * 0.229, 255 * 0.224, 255 * 0.225)

_LOW_32: Final = 0xFFFFFFFF


class FilledBox(NamedTuple):
    """A box and its fill."""

    box: Box
    """x, y, width, height, in pixels of the row."""
    colour: Sequence[int] | None = MEAN_RGB
    """None for noise of the next two."""
    key: int = 0
    number: int = 0
    """The box's place among the row's boxes: its stream of noise."""


def list_boxes(plan: Plan, part: slice, num_rows: int) -> list[list[FilledBox]]:
    """Return the boxes of each row of a part of a plan."""
    if plan.erase is None:
        return [[] for _ in range(num_rows)]
    boxes, fill = plan.erase[part].tolist(), plan.erase_fill
    if fill is None:
        return [[FilledBox(box) for box in row if box[2]] for row in boxes]
    columns = (
        boxes,
        fill.colours[part].tolist(),
        fill.is_noise[part].tolist(),
        fill.keys[part].tolist(),
    )
    return [
        [
            FilledBox(box, None if is_noise else colour, key, number)
            for number, (box, colour, is_noise, key) in enumerate(zip(*row, strict=True))
            if box[2]
        ]
        for row in zip(*columns, strict=True)
    ]


def fill_boxes(row: Pixels, boxes: Sequence[FilledBox]) -> None:
    """Fill boxes of a C-contiguous uint8 row (h, w, 3), in their order."""
    for box, colour, key, number in boxes:
        if colour is None:
            fill_noise(row, box, (key & _LOW_32, key >> 32), number, _MEAN, _STD)
        else:
            x, y, width, height = box
            row[y : y + height, x : x + width] = colour
