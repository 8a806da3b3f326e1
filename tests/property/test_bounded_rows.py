"""Rows whose image ends at the frame's edge: Pillow's `transform` of the crop, and nothing beyond
it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from augd.pixels import native
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlan, RowPlans
from augd.plan.geometry.affine import Linear, rotation
from augd.plan.geometry.frame import Frame
from augd.plan.plan import Plan
from augd.plan.planner.build_plan import finish
from augd.plan.recipe.recipe import Recipe
from tests.support.examples import examples

pytestmark = pytest.mark.usefixtures("kernels")

Pixels = NDArray[np.uint8]
FILLS = ("reflect", "constant", "nearest", "wrap")
VALUE = (10, 200, 90)
ALL = np.ones(1, np.bool_)


def recipe_of(fill: str, **fields: Any) -> Recipe:
    value = VALUE if fill == "constant" else 0.0
    return Recipe(ops=(), fill=fill, fill_value=value, **fields)  # type: ignore[arg-type]


def framed(image: tuple[int, int], crop: tuple[int, int, int, int], size: tuple[int, int]) -> Frame:
    """Begin with an image of (width, height), cut to a crop and resized to (width, height)."""
    sides = [np.array(pair, np.float64)[:, None] for pair in (image, size, crop[:2], crop[2:])]
    frame = Frame(sides[0], sides[1])
    frame.cut(sides[2], sides[3])
    frame.resample(sides[1])
    return frame


def rendered(picture: Pixels, plan: Plan, recipe: Recipe) -> Pixels:
    """Render the only row of a plan from its region alone."""
    width, height = plan.scaled[0].tolist()
    row_plans = RowPlans(plan, 0, 1)
    x, y, w, h = row_plans.crop[0]
    out = np.empty((height, width, 3), np.uint8)
    Renderer.of(recipe, (height, width)).render(picture[y : y + h, x : x + w], row_plans[0], out)
    return out


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def smooth(height: int, width: int, seed: int = 0) -> Pixels:
    return np.asarray(cv2.GaussianBlur(noise(height, width, seed), (0, 0), 2), np.uint8)


def by_pillow(crop: Pixels, coefficients: Any) -> NDArray[np.int64]:
    image = Image.fromarray(crop.copy())
    return np.asarray(
        image.transform(
            image.size, Image.Transform.AFFINE, tuple(coefficients), Image.Resampling.BILINEAR,
            fillcolor=VALUE,
        )
    ).astype(np.int64)  # fmt: skip


def turned(frame: Frame, degrees: float) -> list[float]:
    """Turn about the centre as torchvision and timm do; return Pillow's coefficients."""
    frame.apply_linear(rotation(np.array([degrees / 360])), None)
    width, height = frame.sides[:, 0]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y = width / 2, height / 2
    return [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y]


def slanted(frame: Frame, level: float) -> list[float]:
    zero = np.zeros(1)
    frame.place(Linear(1.0, np.array([level]), 0.0, 1.0), zero, zero, ALL)
    return [1, level, 0, 0, 1, 0]


def moved(frame: Frame, pixels: float) -> list[float]:
    frame.shift(np.array([pixels]), np.zeros(1), ALL)
    return [1, 0, -pixels, 0, 1, 0]


@pytest.mark.parametrize(
    ("bend", "level"),
    [
        *((turned, level) for level in (30.0, -13.0, 45.0, 90.0, 0.0)),
        *((slanted, level) for level in (0.3, -0.21, 0.8, 0.0)),
        *((moved, level) for level in (13.0, -7.25, 59.5)),
    ],
)
def test_a_bounded_row_is_pillows(bend: Any, level: float) -> None:
    """One level apart at most, where nothing is halved; on the edge itself a pixel may be
    either."""
    picture, crop = smooth(90, 120), (31, 17, 60, 48)
    frame, recipe = framed((120, 90), crop, crop[2:]), recipe_of("constant")
    frame.bound()
    coefficients = bend(frame, level)
    found = rendered(picture, finish(frame, recipe, 1, {}), recipe).astype(np.int64)
    expected = by_pillow(picture[17:65, 31:91], coefficients)
    apart = np.abs(found - expected).max(axis=2)
    assert (apart > 1).sum() <= 2
    assert ((found == VALUE).all(axis=2) != (expected == VALUE).all(axis=2)).sum() <= 2


def test_a_shift_by_whole_pixels_is_pillows_on_every_bit() -> None:
    picture, crop = noise(90, 120), (31, 17, 60, 48)
    frame, recipe = framed((120, 90), crop, crop[2:]), recipe_of("constant")
    frame.bound()
    coefficients = moved(frame, -19.0)
    found = rendered(picture, finish(frame, recipe, 1, {}), recipe)
    assert np.array_equal(found, by_pillow(picture[17:65, 31:91], coefficients))
    assert (found[:, -19:] == VALUE).all()


def test_a_slant_leaves_the_top_left_corner_in_place() -> None:
    picture = noise(90, 120)
    frame, recipe = framed((120, 90), (31, 17, 60, 48), (60, 48)), recipe_of("constant")
    frame.bound()
    slanted(frame, 0.3)
    plan = finish(frame, recipe, 1, {})
    x, y = plan.matrix[0] @ (0.0, 0.0, 1.0)  # type: ignore[index]
    assert (x, y) == (31.0, 17.0)
    # Half a pixel down moves it by 0.15 px.
    found = rendered(picture, plan, recipe)[0, 0].astype(float)
    assert np.abs(found - (0.85 * picture[17, 31] + 0.15 * picture[17, 32])).max() <= 1


@examples(60)
@given(
    seed=st.integers(0, 2**32 - 1),
    fill=st.sampled_from(FILLS),
    size=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    is_scaled=st.booleans(),
    degrees=st.floats(-180, 180),
    level=st.floats(-0.9, 0.9),
    is_mirrored=st.booleans(),
)
def test_nothing_of_the_image_around_the_crop_is_seen(
    seed: int,
    fill: str,
    size: tuple[int, int],
    is_scaled: bool,
    degrees: float,
    level: float,
    is_mirrored: bool,
) -> None:
    """Made of the crop, a row equals the row of an image that is that crop; none is decoded
    else."""
    rng = np.random.default_rng(seed)
    width, height = rng.integers(20, 300, 2).tolist()
    w, h = int(rng.integers(1, width + 1)), int(rng.integers(1, height + 1))
    crop = (int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1)), w, h)
    recipe = recipe_of(fill, scaled_decode="auto" if is_scaled else "off")
    made = []
    for sides, inside in (((width, height), crop), ((w, h), (0, 0, w, h))):
        frame = framed(sides, inside, size)
        if is_mirrored:
            frame.flip(ALL)
        frame.bound()
        turned(frame, degrees)
        slanted(frame, level)
        frame.bound()  # of a second policy: changes nothing
        made.append(finish(frame, recipe, 1, {}))
    inner, alone = made
    x, y, region_width, region_height = inner.crop[0].tolist()
    if is_scaled:
        scale = int(inner.scale[0])  # type: ignore[index]
        assert x > crop[0] - scale and y > crop[1] - scale
        assert x % scale == 0 and y % scale == 0
        assert x + region_width < crop[0] + w + scale
        return
    assert crop[0] <= x and x + region_width <= crop[0] + w
    assert crop[1] <= y and y + region_height <= crop[1] + h
    picture = noise(height, width, seed)
    found = rendered(picture, inner, recipe)
    x, y, w, h = crop
    expected = rendered(picture[y : y + h, x : x + w], alone, recipe)
    # The matrices differ in their last bits: hence some positions by 1/256 px.
    apart = np.abs(found.astype(int) - expected).max(axis=2)
    assert (apart > 2).sum() <= 0.02 * apart.size + 2


def test_a_window_of_a_padded_crop_is_bounded_by_the_image_and_by_the_window() -> None:
    picture, recipe = np.full((32, 32, 3), 77, np.uint8), recipe_of("constant")
    frame = Frame(np.full((2, 1), 32.0), np.full((2, 1), 32.0))
    frame.cut_anywhere(np.array([[-4.0], [3.0]]), np.full((2, 1), 32.0))
    frame.bound()
    moved(frame, 2.0)
    plan = finish(frame, recipe, 1, {})
    found = rendered(picture, plan, recipe)
    expected = np.full((32, 32, 3), VALUE, np.uint8)
    expected[:29, 6:32] = 77
    assert plan.picture is not None and plan.picture[0].tolist() == [0, 3, 28, 29]
    assert np.array_equal(found, expected)


def test_the_edges_of_a_window_after_the_resize_move_outwards() -> None:
    frame = framed((100, 100), (10, 10, 80, 60), (60, 45))
    frame.cut(np.array([[5.0], [5.0]]), np.array([[31.0], [30.0]]))
    frame.bound()
    plan = finish(frame, recipe_of("constant"), 1, {})
    # 10 + 5 * 4 / 3 to 10 + 36 * 4 / 3, and 10 + 5 * 4 / 3 to 10 + 35 * 4 / 3
    assert plan.picture is not None and plan.picture[0].tolist() == [16, 16, 42, 41]
    assert plan.bent is not None and not plan.bent.any()
    assert plan.crop[0].tolist() == [10, 10, 80, 60]


def test_the_fill_keeps_its_colour() -> None:
    """Also under a lens, and where the image, recoloured, has it by chance."""
    picture = noise(50, 60)
    frame, recipe = framed((60, 50), (10, 10, 40, 32), (40, 32)), recipe_of("constant")
    frame.bound()
    turned(frame, 25.0)
    frame.lens = np.array([0.3])
    row_plans = RowPlans(finish(frame, recipe, 1, {}), 0, 1)
    x, y, w, h = row_plans.crop[0]
    out, again = np.empty((2, 32, 40, 3), np.uint8)
    row_plan = row_plans[0]
    renderer = Renderer.of(recipe, (32, 40))
    renderer.render(picture[y : y + h, x : x + w], row_plan, out)
    row_plan.colour = [[-1.0, 0, 0, 255.0], [0, -1.0, 0, 255.0], [0, 0, -1.0, 255.0]]
    renderer.render(picture[y : y + h, x : x + w], row_plan, again)
    is_fill = (out == VALUE).all(axis=2)
    assert 20 < is_fill.sum() < 900
    assert (again[is_fill] == VALUE).all()
    assert np.array_equal(again[~is_fill], 255 - out[~is_fill])


def test_another_fill_is_recoloured_with_the_image() -> None:
    frame, recipe = framed((60, 50), (10, 10, 40, 32), (40, 32)), recipe_of("reflect")
    frame.bound()
    turned(frame, 25.0)
    row_plans = RowPlans(finish(frame, recipe, 1, {}), 0, 1)
    x, y, w, h = row_plans.crop[0]
    row_plan, out = row_plans[0], np.empty((32, 40, 3), np.uint8)
    row_plan.colour = [[0.0, 0, 0, 9.0]] * 3
    Renderer.of(recipe, (32, 40)).render(noise(50, 60)[y : y + h, x : x + w], row_plan, out)
    assert (out == 9).all()


@examples(80)
@given(
    seed=st.integers(0, 1 << 32),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    halvings=st.integers(0, 2),
    lens=st.sampled_from([0.0, -0.2, 0.3]),
)
@pytest.mark.skipif(int(cv2.__version__[0]) < 5, reason="OpenCV 4 samples at 1/32 px")
def test_all_ways_give_the_same_bytes(
    seed: int, size: tuple[int, int], sides: tuple[int, int], halvings: int, lens: float
) -> None:
    """Vectors, none, and no kernels; also where the picture is smaller than the region."""
    kernels: Any = native.kernels
    if kernels is None:
        pytest.skip("no kernels to compare with")
    rng = np.random.default_rng(seed)
    height, width = sides
    region = noise(height, width, seed)
    linear = rng.normal(0, 0.9, (2, 2))
    shift = rng.uniform(-0.6, 1.6, 2) * (width, height) - linear @ (np.array(size[::-1]) / 2)
    corner = (rng.integers(-2, 3, 2) << halvings).tolist()
    picture = (*corner, *rng.integers(1, 50, 2).tolist())
    row_plan = RowPlan(
        matrix=np.hstack([linear, shift[:, None]]).tolist(),
        halvings=halvings, lens=lens, picture=picture, colour=[[0.5, 0, 0, 0.0]] * 3,
    )  # fmt: skip
    made = []
    for way in ("vectors", "portable", "libraries"):
        out = np.empty((*size, 3), np.uint8)
        kernels.use_simd(way == "vectors")
        with pytest.MonkeyPatch.context() as patch:
            if way == "libraries":
                patch.setattr(native, "kernels", None)
            Renderer.of(recipe_of("constant"), size).render(region, row_plan, out)
        made.append(out)
    kernels.use_simd(True)
    assert np.array_equal(made[0], made[1]) and np.array_equal(made[0], made[2])
