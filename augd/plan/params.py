"""What happened to each row, as numbers that a trainer can read: `batch.params`.

Where it stands: written by producers beside the rows when a stream asks for it, split by the
client. Boxes or key points can be moved with `matrix`; the rest says what was drawn.

Invariants: computed from a plan alone, nothing is drawn; the layout of a row is fixed.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from augd.plan.numerics import Floats
from augd.plan.plan import Plan

# Name, place of the first number, shape.
PARAMS: Final[tuple[tuple[str, int, tuple[int, ...]], ...]] = (
    ("crop", 0, (4,)),  # x, y, width, height of the region in the stored picture
    ("mirror", 4, ()),  # 1 where flipped left and right; 0 where `bent`, whose matrix has it
    ("bent", 5, ()),  # 1 where an affine op or a warp was drawn
    ("matrix", 6, (2, 3)),  # output position (x, y, 1), centres at +0.5, to the stored picture
    ("lens", 12, ()),  # k
    ("colour", 13, (3, 4)),  # on (R, G, B, 1) in grey levels, before the mean's part
    ("erase", 25, (4,)),  # x, y, width, height in the output; width 0 where there is none
    ("view", 29, ()),  # which view of its sample the row is
)
NUM_PARAMS: Final = 30


def describe(plan: Plan, num_views: int, out_width: int) -> Floats:
    """Write float64 (m, 30) of a plan's m rows of `out_width` px, as `PARAMS` lays them out."""
    num_rows = len(plan.crop)
    found = np.zeros((num_rows, NUM_PARAMS))
    found[:, 0:4] = plan.crop
    found[:, 4] = plan.mirror
    found[:, 6:12] = _exact_matrix(plan, out_width).reshape(num_rows, 6)
    if plan.bent is not None and plan.matrix is not None:
        found[plan.bent, 4] = 0.0
        found[:, 5] = plan.bent
        found[plan.bent, 6:12] = plan.matrix[plan.bent].reshape(-1, 6)
    if plan.lens is not None:
        found[:, 12] = plan.lens
    found[:, 13:25] = np.eye(3, 4).ravel() if plan.colour is None else _flat(plan.colour)
    if plan.erase is not None:
        found[:, 25:29] = plan.erase
    found[:, 29] = np.arange(num_rows) % num_views
    return found


def _flat(colour: Floats) -> Floats:
    return colour.reshape(len(colour), 12)


def _exact_matrix(plan: Plan, out_width: int) -> Floats:
    """Return (m, 2, 3): crop, resize, window and mirror of the exact path as one map."""
    step = plan.crop[:, 2:] / plan.scaled
    sign = np.where(plan.mirror, -1.0, 1.0)
    matrix = np.zeros((len(plan.crop), 2, 3))
    matrix[:, 0, 0] = sign * step[:, 0]
    matrix[:, 1, 1] = step[:, 1]
    matrix[:, :, 2] = plan.crop[:, :2] + plan.window * step
    matrix[:, 0, 2] += plan.mirror * out_width * step[:, 0]
    return matrix
