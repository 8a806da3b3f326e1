"""Boxes: rectangles of the finished row that `erase`, `coarse_dropout` and `cutout` fill.

Samplers hand them to the frame. The planner stacks them, in the recipe's order, and
`augd/pixels/boxes.py` fills them after the row's colour steps.

A box has a colour of its own, or noise: a number for each pixel and channel, from the row's key and
the box's place among the row's boxes.

Invariants: a box lies within the row; width 0 stands for none; nothing is drawn here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from augd.plan.random.numerics import Floats

MEAN_RGB: Final = (124, 116, 104)
"""ImageNet's mean, 255 * (0.485, 0.456, 0.406), rounded: 0 after normalising."""


class BoxStep(NamedTuple):
    """The boxes of one op, k for each of n rows."""

    boxes: Floats
    """(k, 4, n): x, y, width, height in whole pixels of the output; zeros where there is none."""
    colours: NDArray[np.uint8] | None = None
    """(k, 3, n); None where all are the mean colour, or noise."""
    keys: NDArray[np.uint64] | None = None
    """(n,): the keys of noise; None where boxes have a colour."""


@dataclass(frozen=True, slots=True)
class BoxFill:
    """What the B boxes of m rows are filled with."""

    colours: NDArray[np.uint8]
    """(m, B, 3): of boxes without noise."""
    is_noise: NDArray[np.bool_]
    """(m, B)"""
    keys: NDArray[np.uint64]
    """(m, B): of boxes with noise; 0 elsewhere."""


def stack_boxes(steps: Sequence[BoxStep]) -> tuple[NDArray[np.int32], BoxFill | None]:
    """Write the boxes of all ops as (m, B, 4), and their fills; None if all are the mean colour."""
    boxes = np.concatenate([step.boxes for step in steps]).transpose(2, 0, 1).astype(np.int32)
    if all(step.colours is None and step.keys is None for step in steps):
        return boxes, None
    num_rows, num_boxes = boxes.shape[:2]
    colours = np.empty((num_rows, num_boxes, 3), np.uint8)
    colours[...] = MEAN_RGB
    is_noise = np.zeros((num_rows, num_boxes), np.bool_)
    keys = np.zeros((num_rows, num_boxes), np.uint64)
    first = 0
    for step in steps:
        part = slice(first, first + len(step.boxes))
        if step.colours is not None:
            colours[:, part] = step.colours.transpose(2, 0, 1)
        if step.keys is not None:
            is_noise[:, part] = True
            keys[:, part] = step.keys[:, None]
        first = part.stop
    return boxes, BoxFill(colours, is_noise, keys)
