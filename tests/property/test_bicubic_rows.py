"""Bicubic samples of bent rows: Keys' cubic in float64, and the same bytes from every way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from augd.pixels import native
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlan, RowPlans
from augd.plan.plan import LocalWarpField
from augd.plan.planner.planner import Planner
from augd.plan.recipe.recipe import output_size, parse_recipe
from tests.support.examples import examples
from tests.support.reference import Floats, centres, folded, halved, mapped

pytestmark = pytest.mark.usefixtures("kernels")

Pixels = NDArray[np.uint8]
FILLS = ("reflect", "constant", "nearest", "wrap")
VALUE = (10, 200, 90)

# Half a step of 1/256 px on both axes, where the cubic's slope is at most 1.15 levels a level for
# each; weights and sums are rounded by less than a level's tenth; then the last rounding.
BOUND = 0.5 + 0.1 + 255 * 2 * 1.3 * (2.0**-9 + 2.0**-11)


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def rendered(region: Pixels, row_plan: RowPlan, size: tuple[int, int], fill: str) -> Pixels:
    slot = np.full((3, *size, 3), 7, np.uint8)
    renderer = Renderer("bicubic", size, fill=fill, fill_value=VALUE)  # type: ignore[arg-type]
    renderer.render(region, row_plan, slot[1])
    assert (slot[0] == 7).all() and (slot[2] == 7).all()
    return slot[1]


def keys(x: Floats) -> Floats:
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def sampled(picture: Pixels, x: Floats, y: Floats, fill: str) -> Floats:
    """Sample by 4x4 taps at positions whose pixel centres are at +0.5; unclipped."""
    height, width = picture.shape[:2]
    left, top = np.floor(x - 0.5).astype(np.int64), np.floor(y - 0.5).astype(np.int64)
    total = np.zeros((*x.shape, 3))
    for down in range(-1, 3):
        rows, in_rows = folded(top + down, height, fill)
        for across in range(-1, 3):
            columns, in_columns = folded(left + across, width, fill)
            found = picture[rows, columns].astype(np.float64)
            found = np.where((in_rows & in_columns)[..., None], found, np.array(VALUE, float))
            weight = keys(left + across + 0.5 - x) * keys(top + down + 0.5 - y)
            total += weight[..., None] * found
    return total


@examples(40)
@given(
    seed=st.integers(0, 1 << 32),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    sides=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    fill=st.sampled_from(FILLS),
    halvings=st.integers(0, 2),
)
def test_a_bicubic_row_is_the_sampled_picture(
    seed: int, size: tuple[int, int], sides: tuple[int, int], fill: str, halvings: int
) -> None:
    rng = np.random.default_rng(seed)
    region = noise(*sides, seed)
    linear = rng.normal(0, 0.9, (2, 2)) * 2**halvings
    shift = rng.uniform(-0.2, 1.2, 2) * sides[::-1] - linear @ (np.array(size[::-1]) / 2)
    matrix = np.hstack([linear, shift[:, None]])
    found = rendered(region, RowPlan(matrix=matrix.tolist(), halvings=halvings), size, fill)
    small = halved(region, halvings)
    exact = sampled(small, *mapped(matrix * 0.5**halvings, *centres(size)), fill)
    assert np.abs(found - np.clip(exact, 0, 255)).max() <= BOUND


@examples(60)
@given(
    seed=st.integers(0, 1 << 32),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    fill=st.sampled_from(FILLS),
    lens=st.sampled_from([0.0, 0.3]),
    is_warped=st.booleans(),
    is_bounded=st.booleans(),
)
def test_all_ways_give_the_same_bytes(
    seed: int,
    size: tuple[int, int],
    sides: tuple[int, int],
    fill: str,
    lens: float,
    is_warped: bool,
    is_bounded: bool,
) -> None:
    """Vectors, none, and no kernels at all, whatever OpenCV is there."""
    kernels: Any = native.kernels
    if kernels is None:
        pytest.skip("no kernels to compare with")
    rng = np.random.default_rng(seed)
    height, width = sides
    region = noise(height + 3, width + 5, seed)[1 : 1 + height, 2 : 2 + width]
    linear = rng.normal(0, 0.9, (2, 2))
    shift = rng.uniform(-0.6, 1.6, 2) * (width, height) - linear @ (np.array(size[::-1]) / 2)
    row_plan = RowPlan(
        matrix=np.hstack([linear, shift[:, None]]).tolist(),
        lens=lens,
        picture=(-1, 0, *rng.integers(1, 50, 2).tolist()) if is_bounded else None,
        warp=LocalWarpField(40.0, 3.0) if is_warped else None,
        warp_key=seed,
    )
    made = []
    for way in ("vectors", "portable", "libraries"):
        kernels.use_simd(way == "vectors")
        with pytest.MonkeyPatch.context() as patch:
            if way == "libraries":
                patch.setattr(native, "kernels", None)
            made.append(rendered(region, row_plan, size, fill))
    kernels.use_simd(True)
    assert np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[2])


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("fill", ["reflect", "nearest", "wrap"])
def test_a_flat_region_stays_flat(fill: str, level: int) -> None:
    region = np.full((40, 50, 3), level, np.uint8)
    row_plan = RowPlan(matrix=[[0.37, 0.11, 2.0], [-0.13, 0.41, 9.0]])
    assert (rendered(region, row_plan, (48, 64), fill) == level).all()


def test_shifts_and_quarter_turns_are_exact() -> None:
    region = noise(32, 32)
    shifted = rendered(region, RowPlan(matrix=[[1, 0, 3], [0, 1, -2]]), (32, 32), "wrap")
    assert np.array_equal(shifted, np.roll(region, (2, -3), (0, 1)))
    turned = rendered(region, RowPlan(matrix=[[0, -1, 32], [1, 0, 0]]), (32, 32), "wrap")
    assert np.array_equal(turned, np.rot90(region))


def test_a_mirrored_row_is_the_row_mirrored() -> None:
    region = noise(32, 32)
    plain = rendered(region, RowPlan(matrix=[[1, 0, 0.3], [0, 1, 0.7]]), (32, 32), "reflect")
    other = rendered(
        region[:, ::-1].copy(), RowPlan(matrix=[[-1, 0, 31.7], [0, 1, 0.7]]), (32, 32), "reflect"
    )
    assert np.array_equal(plain, other)


@examples(25)
@given(
    seed=st.integers(0, 2**32 - 1),
    fill=st.sampled_from(FILLS),
    filter=st.sampled_from(["bicubic", "random"]),
)
def test_the_region_holds_all_that_is_read(seed: int, fill: str, filter: str) -> None:
    """Made of its region, a row equals the row made of the whole picture, byte for byte."""
    value = {"fill_value": list(VALUE)} if fill == "constant" else {}
    ops: list[dict[str, Any]] = [
        {"op": "random_resized_crop", "size": [40, 48]},
        {"op": "rotate", "degrees": 180},
        {"op": "zoom", "height": 0.6},
    ]
    recipe = parse_recipe({"ops": ops, "fill": fill, "filter": filter, **value})
    size = output_size(recipe, None)
    sides = np.random.default_rng(seed).integers(20, 400, (8, 2))
    widths, heights = sides.T.astype(np.int32)
    plan = Planner(recipe, seed, size).plan(np.arange(8), np.zeros(8, np.int64), widths, heights)
    row_plans, renderer = RowPlans(plan, 0, 8), Renderer.of(recipe, size)
    for row, (width, height) in enumerate(sides.tolist()):
        picture, row_plan = noise(height, width, seed), row_plans[row]
        x, y, w, h = row_plans.crop[row]
        found, whole = np.empty((2, *size, 3), np.uint8)
        renderer.render(picture[y : y + h, x : x + w], row_plan, found)
        row_plan.origin = (0, 0)
        renderer.render(picture, row_plan, whole)
        assert np.array_equal(found, whole)
