"""A plan: what will happen to each row of a chunk, as arrays over its rows.

The planner makes it, `pixels` renders it, and nothing else passes between the two.

A plan covers m = n * V rows of n samples with V views each, sample after sample: row = sample * V +
view. A row takes one of two paths. The exact path resizes `crop` to `scaled`, cuts the output at
`window` and flips where `mirror`. The matrix path, taken where `bent`, halves `crop` a number of
times and then samples it once. An output position, plus displacement (`lens`, `warp`), goes through
`matrix` to a position in the image, with the recipe's fill outside the image. On both paths the
colour pass comes after, or a program of several steps, and erased boxes last.

Invariants: nothing here is drawn or computed. A row that is not `bent` is planned as if the recipe
had no affine op and no warp, so that its bytes are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from augd.plan.boxes import BoxFill
from augd.plan.program import Program
from augd.plan.random.numerics import Floats

if TYPE_CHECKING:
    from augd.plan.ops.plugin import Edit

Bools = NDArray[np.bool_]
Int8s = NDArray[np.int8]
Int32s = NDArray[np.int32]
Words = NDArray[np.uint64]


class LocalWarpField(NamedTuple):
    """The recipe's local_warp: displacements of at most `alpha` px, smoothed over `sigma` px."""

    alpha: float
    sigma: float


class Mixture(NamedTuple):
    """How each of m rows is blended with chains, which take the row itself as their image.

    A row is (weights[0] row + sum of weights[1 + i] chain_i(row)) / `MIX_UNIT`, rounded once.
    """

    chains: tuple[Plan, ...]
    weights: Int32s
    """(m, 1 + chains), which sum to `MIX_UNIT`."""


MIX_UNIT: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with each of m rows. The arrays are the caller's, for reading.

    Positions have pixel centres at +0.5, x to the right and y down. Which of the optional fields
    are None depends on the recipe alone.
    """

    crop: Int32s
    """(m, 4): x, y, width, height in source pixels: the region to decode, which no tap leaves.

    Where `bent`, x and y are multiples of 2 ** halvings, counted from the corner of `picture`, and
    the region ends at one or at its edge; positions that the fill takes back lie in it, too.
    """
    scaled: Int32s
    """(m, 2): exact path: width, height that the crop is resized to."""
    window: Int32s
    """(m, 2): exact path: x, y of the output inside the scaled crop."""
    mirror: Bools
    """(m,): exact path: flip the row. The matrix has it inside."""
    colour: Floats | None
    """(m, 3, 4): A and b of y = A x + b + C mean(row); RGB in and out, grey levels 0..255.

    None when the recipe has no colour op, or a `program`.
    """
    impossible: dict[int, str]
    """Samples (not rows) that cannot be made, with the reason; their rows are valid but void."""
    flip: Bools | None = None
    """(m,): exact path: turn the row upside down, as `mirror` does left and right.

    None when the recipe has no vertical_flip.
    """
    inset: Int32s | None = None
    """(m, 4): x, y, width, height in the row of what the image covers: the fill is around it.

    The window is of this size then. It is the whole row where `bent`. None when the recipe pads no
    image.
    """
    matrix: Floats | None = None
    """(m, 2, 3): maps an output position (x, y, 1) to a position in the stored image.

    None if no op of the recipe has a matrix. Given for rows that are not `bent` as well.
    """
    bent: Bools | None = None
    """(m,): rows that take the matrix path; None with `matrix`."""
    halvings: Int8s | None = None
    """(m,): how often the region is halved (means of 2x2) before the one resample.

    So often that what remains to be reduced is at most 1.5; 0 where not bent. Those that the
    decoder did, by `scale`, are among them. None with `matrix`.
    """
    picture: Int32s | None = None
    """(m, 4): x, y, width, height of what counts as the image in `bent` rows: fill is around it.

    None when that is the image in all rows. With a constant fill its edge is hard, and what lies
    outside keeps the fill's colour after the colour pass. `halvings` begin at its corner.
    """
    is_bicubic: Bools | None = None
    """(m,): rows whose resample is bicubic; None where the recipe's filter is not "random"."""
    lens: Floats | None = None
    """(m,): k of `lens`, 0 for none; None when the recipe has no lens."""
    warp: LocalWarpField | None = None
    """None when the recipe has no local_warp."""
    warp_key: Words | None = None
    """uint64 (m,): the key of the row's noise field; None with `warp`."""
    warp_on: Bools | None = None
    """(m,): rows whose local_warp was drawn; None with `warp`."""
    scale: Int8s | None = None
    """(m,): s, where the image is decoded at 1/s: 1, 2, 4 or 8; equal for all views of a sample.

    `crop` then begins at multiples of s, and ends at one or at the image's edge. None where the
    recipe decodes every image at its own size.
    """
    pivot: Floats | None = None
    """(m, 3, 3): C, by which the row's mean RGB before the colour pass is multiplied.

    None when the recipe has no contrast.
    """
    mixture: Mixture | None = None
    """After colour and before `erase`. None when the recipe has no aug_mix."""
    erase: Int32s | None = None
    """(m, B, 4): x, y, width, height in the output, filled after colour; width 0 for none.

    None when the recipe has no op that fills boxes.
    """
    erase_fill: BoxFill | None = None
    """What these boxes are filled with; None where it is the mean colour in all of them."""
    program: Program | None = None
    """The colour steps of each row, in place of `colour` and `pivot`, which are None then.

    None when the recipe's colour ops are all matrices.
    """
    edits: Sequence[Sequence[Edit]] | None = None
    """m lists: what own ops do to the finished row, last of all.

    None when the recipe has no own op that edits pixels.
    """
