"""The layout of `batch.params`: what happened to each row, as numbers that a trainer can read.

Producers write them beside the rows if a stream requests it (`augd.plan.params_writer`). Slots have
space for them, and the client splits them by name. Boxes or key points can be moved with `matrix`;
the other numbers are what was drawn. Imports no NumPy.
"""

from __future__ import annotations

import math
from typing import Final

# Name, place of the first number, shape.
PARAMS: Final[tuple[tuple[str, int, tuple[int, ...]], ...]] = (
    ("crop", 0, (4,)),  # x, y, width, height of the region in the stored image
    ("mirror", 4, ()),  # 1 where flipped left and right; 0 where `bent`, whose matrix has it
    ("bent", 5, ()),  # 1 where an affine op or a warp was drawn
    ("matrix", 6, (2, 3)),  # output position (x, y, 1), centres at +0.5, to the stored image
    ("lens", 12, ()),  # k
    ("colour", 13, (3, 4)),  # on (R, G, B, 1) in grey levels, before the mean's part
    ("erase", 25, (4,)),  # the first box, in the output; width 0 where there is none
    ("view", 29, ()),  # which view of its sample the row is
)
NUM_PARAMS: Final = sum(math.prod(shape) for _, _, shape in PARAMS)

MAX_STEPS: Final = 8
STEP_NUMBERS: Final = 21
# Where an op of the recipe is no matrix: the row's first steps, each its kind
# (`augd.plan.program.StepKind`, 0 for none) and its numbers: 12 of A | b and 9 of C for a matrix,
# the step's four values for others. `colour` is the identity then.
STEPS: Final[tuple[str, int, tuple[int, ...]]] = (
    "steps",
    NUM_PARAMS,
    (MAX_STEPS, 1 + STEP_NUMBERS),
)
NUM_PARAMS_WITH_STEPS: Final = NUM_PARAMS + MAX_STEPS * (1 + STEP_NUMBERS)
