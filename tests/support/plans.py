"""Plans for tests: a recipe's ops in, a plan out."""

from __future__ import annotations

from typing import Any

import numpy as np

from augd.plan.planner.planner import Plan, Planner
from augd.plan.recipe.recipe import output_size, parse_recipe

Ops = list[dict[str, Any]]

# A crop that draws nothing and takes the whole image, so that the frame is known.
WHOLE = {"op": "resize", "size": 224}


def planner_of(ops: Ops | str, *, seed: int = 0, first_size_px=(500, 375), **fields) -> Planner:
    """Make a planner of ops or a preset; `fields` are the recipe's own."""
    recipe = parse_recipe(ops if isinstance(ops, str) else {"ops": ops, **fields})
    return Planner(recipe, seed, output_size(recipe, first_size_px))


def plan_of(
    ops: Ops | str, *, num: int = 1, size=(500, 375), epoch: int = 0, seed: int = 1, **fields
) -> Plan:
    """Plan samples 0..num-1, all of `size` (width, height), in one epoch."""
    planner = planner_of(ops, seed=seed, first_size_px=size, **fields)
    widths, heights = (np.full(num, side, np.int32) for side in size)
    return planner.plan(np.arange(num), np.full(num, epoch, np.int64), widths, heights)


def move(matrix: np.ndarray, *points: tuple[float, float]) -> list[tuple[float, float]]:
    """Return where positions of the output lie in the image, rounded to 1e-9."""
    moved = [matrix @ (x, y, 1.0) for x, y in points]
    return [(round(float(x), 9) + 0.0, round(float(y), 9) + 0.0) for x, y in moved]
