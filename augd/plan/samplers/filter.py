"""The sampler of `filter="random"`: which filter makes a row.

The planner adds it behind those of the ops, at a place of its own in the counter. So a recipe with
another filter draws the words that it always drew.

Invariants: those of `all_samplers`.
"""

from __future__ import annotations

import numpy as np

from augd.plan.geometry.frame import Frame
from augd.plan.random.philox import Ints

_HALF = np.array(1 << 31, np.int64)


class FilterSampler:
    """Block 0, word 0: below a half the row is made by the bicubic filter.

    Source: timm, `transforms.py`, `_RANDOM_INTERPOLATION`: bilinear or bicubic for each image.
    """

    num_blocks = 1

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Draw the filter of each row."""
        frame.is_bicubic = even[1, 0] < _HALF
