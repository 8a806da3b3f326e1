"""Programs for tests: steps in, a program of one row out; rows of many kinds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from augd.pixels.decode import Pixels
from augd.plan.program import MATRIX_SIZE, NUM_VALUES, Program, StepKind

Step = tuple[StepKind, Sequence[float]]

TINT = (1.1, -0.1, 0.05, 3.0, 0.02, 0.9, 0.1, -4.0, -0.05, 0.1, 1.2, 2.0)
TINTS = np.array([[*TINT, *(9 * [0.0])], [*TINT, *(9 * [0.05])]])
"""A matrix, and one with a mean's part."""


def program_of(
    *steps: Step, matrices: np.ndarray = TINTS, tables: np.ndarray | None = None
) -> Program:
    """Make the program of one row."""
    kinds = np.zeros((1, len(steps) + 1), np.uint8)
    values = np.zeros((1, len(steps) + 1, NUM_VALUES))
    for number, (kind, given) in enumerate(steps):
        kinds[0, number] = kind
        values[0, number, : len(given)] = given
    if tables is None:
        tables = np.arange(255, -1, -1, dtype=np.uint8)[None] // 2
    return Program(
        kinds, values, matrices.reshape(1, -1, MATRIX_SIZE), np.ascontiguousarray(tables[None])
    )


def make_rows() -> dict[str, Pixels]:
    """Make random, smooth, flat, two-valued and very small rows, and one that looks like a
    photo."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:61, 0:83]
    waves = np.stack([np.sin(x / 9) + np.cos((y + 7 * of) / 13) for of in range(3)], axis=2)
    photo = np.clip(waves * 50 + 110 + rng.normal(0, 6, waves.shape), 0, 255).astype(np.uint8)
    sides = {"random": (37, 53), "1x1": (1, 1), "2x2": (2, 2), "1x9": (1, 9), "9x1": (9, 1)}
    made = {name: rng.integers(0, 256, (*size, 3), np.uint8) for name, size in sides.items()}
    return made | {
        "photo": photo,
        "smooth": np.stack([x * 3, y * 4, x + y], axis=2).astype(np.uint8),
        "flat": np.full((37, 53, 3), 93, np.uint8),
        "black": np.zeros((16, 16, 3), np.uint8),
        "white": np.full((16, 16, 3), 255, np.uint8),
        "two-valued": np.where(rng.random((37, 53, 3)) < 0.3, 40, 200).astype(np.uint8),
        "one other pixel": np.where(np.arange(48).reshape(4, 4, 3) < 3, 12, 250).astype(np.uint8),
    }
