"""Plans rendered: a row made of its region alone equals the slow sampling of the whole image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlan, RowPlans
from augd.plan.planner.planner import Planner
from augd.plan.recipe.recipe import output_size, parse_recipe
from tests.support.examples import examples
from tests.support.reference import WARP_BOUND, bent, halved

pytestmark = pytest.mark.usefixtures("kernels")

_ROWS = 8
_FIRST: tuple[list[dict[str, Any]], ...] = (
    [{"op": "random_resized_crop", "size": [40, 48]}],
    [{"op": "scale_jitter", "short": [50, 90], "crop": 48}],
    [{"op": "resize", "size": [40, 48]}],
    [{"op": "random_crop", "size": 32, "pad": 4}],
    [{"op": "resize", "short": 36}, {"op": "center_crop", "size": 32}],
)
_BENDING: tuple[dict[str, Any], ...] = (
    {"op": "rotate", "degrees": 180},
    {"op": "zoom", "height": 0.6},
    {"op": "shear", "x": 0.5, "y": 0.5},
    {"op": "stretch", "x": 0.5, "y": 0.5},
    {"op": "translate", "x": 0.9, "y": 0.9},
)
_LENS: dict[str, Any] = {"op": "lens", "k": [-0.2, 0.2]}
_WARP: dict[str, Any] = {"op": "local_warp", "alpha": 12.0, "sigma": 2.0}
_VALUE = (3, 100, 250)


def recipe_of(first: int, bending: list[int], *last: dict[str, Any], fill: str) -> dict[str, Any]:
    value = {"fill_value": list(_VALUE)} if fill == "constant" else {}
    ops = [*_FIRST[first], {"op": "mirror"}, *(_BENDING[number] for number in bending), *last]
    return {"ops": ops, "fill": fill, "filter": "linear", **value}


def images(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    sides = rng.integers(20, 400, (_ROWS, 2)).tolist()
    return [rng.integers(0, 256, (*side, 3)).astype(np.uint8) for side in sides]


def planned(recipe: dict[str, Any], seed: int, made: list[np.ndarray]) -> tuple[Any, RowPlans]:
    parsed = parse_recipe(recipe)
    size = output_size(parsed, None)
    heights, widths = np.array([image.shape[:2] for image in made], np.int32).T
    ids, epochs = np.arange(_ROWS), np.zeros(_ROWS, np.int64)
    plan = Planner(parsed, seed, size).plan(ids, epochs, widths, heights)
    assert not plan.impossible
    return size, RowPlans(plan, 0, _ROWS)


def rendered(
    renderer: Renderer, image: np.ndarray, crop: Any, row_plan: RowPlan, size: tuple[int, int]
) -> np.ndarray:
    x, y, width, height = crop
    out = np.empty((*size, 3), np.uint8)
    renderer.render(image[y : y + height, x : x + width], row_plan, out)
    return out


def bent_rows(
    recipe: Any, seed: int, fill: str
) -> Iterator[tuple[Renderer, tuple[int, int], np.ndarray, RowPlan, np.ndarray]]:
    """Yield renderer, size, image, row_plan and the row made of its region, of bent rows."""
    made = images(seed)
    size, row_plans = planned(recipe, seed, made)
    renderer = Renderer("linear", size, fill=fill, fill_value=_VALUE)  # type: ignore[arg-type]
    for row, image in enumerate(made):
        row_plan = row_plans[row]
        if row_plan.matrix is not None:
            found = rendered(renderer, image, row_plans.crop[row], row_plan, size)
            yield renderer, size, image, row_plan, found


_drawn = given(
    seed=st.integers(0, 2**32 - 1),
    first=st.integers(0, len(_FIRST) - 1),
    bending=st.lists(
        st.integers(0, len(_BENDING) - 1), min_size=1, max_size=3, unique=True
    ),
    fill=st.sampled_from(["reflect", "constant", "nearest", "wrap"]),
    has_lens=st.booleans(),
)  # fmt: skip


@examples(30)
@_drawn
def test_a_planned_row_is_the_sampled_image(
    seed: int, first: int, bending: list[int], fill: str, has_lens: bool
) -> None:
    recipe = recipe_of(first, bending, *[_LENS] * has_lens, fill=fill)
    for _, size, image, row_plan, found in bent_rows(recipe, seed, fill):
        matrix = np.array(row_plan.matrix) * 0.5**row_plan.halvings
        small = halved(image, row_plan.halvings)
        exact = bent(small, matrix, size, fill, _VALUE, row_plan.lens)
        assert np.abs(found - exact).max() <= WARP_BOUND


@examples(30)
@_drawn
def test_the_region_of_a_warped_row_holds_all_that_it_reads(
    seed: int, first: int, bending: list[int], fill: str, has_lens: bool
) -> None:
    """Made of its region, a row equals the row made of the whole image, byte for byte."""
    recipe = recipe_of(first, bending, *[_LENS] * has_lens, _WARP, fill=fill)
    for renderer, size, image, row_plan, found in bent_rows(recipe, seed, fill):
        row_plan.origin = (0, 0)
        height, width = image.shape[:2]
        whole = rendered(renderer, image, (0, 0, width, height), row_plan, size)
        assert (found == whole).all()
