"""Rows of recipes with pixel steps, through parsing, planning and rendering, against Pillow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from augd.pixels.decode import Pixels
from augd.pixels.program import ProgramPass
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlans
from augd.plan.planner.planner import Plan, Planner
from augd.plan.program import PixelStep, StepKind, compile_program
from augd.plan.recipe.recipe import parse_recipe

pytestmark = pytest.mark.usefixtures("kernels")

RNG = np.random.default_rng(5)


def make_images() -> dict[str, Pixels]:
    y, x = np.mgrid[0:37, 0:53]
    smooth = np.stack([x * 4, y * 6, x + y * 2], axis=2).astype(np.uint8)
    two = np.where(RNG.random((37, 53, 3)) < 0.3, 40, 200).astype(np.uint8)
    return {
        "random": RNG.integers(0, 256, (37, 53, 3), dtype=np.uint8),
        "smooth": smooth,
        "flat": np.full((37, 53, 3), 93, np.uint8),
        "black": np.zeros((37, 53, 3), np.uint8),
        "white": np.full((37, 53, 3), 255, np.uint8),
        "two-valued": two,
        "1x1": np.array([[[12, 170, 250]]], np.uint8),
        "1x9": RNG.integers(0, 256, (1, 9, 3), dtype=np.uint8),
    }


IMAGES = make_images()


def render(image: Pixels, *ops: dict[str, Any], num: int = 1, **fields: Any) -> tuple[Plan, Pixels]:
    """Render `num` rows of an image with these ops after a resize that changes nothing."""
    height, width = image.shape[:2]
    recipe = parse_recipe({"ops": [{"op": "resize", "size": [height, width]}, *ops], **fields})
    planner = Planner(recipe, 3, (height, width))
    sides = (np.full(num, side, np.int32) for side in (width, height))
    plan = planner.plan(np.arange(num), np.zeros(num, np.int64), *sides)
    renderer, row_plans = Renderer.of(recipe, (height, width)), RowPlans(plan, 0, num)
    out = np.empty((num, *image.shape), np.uint8)
    for row in range(num):
        renderer.render(image, row_plans[row], out[row])
    return plan, out


def pillow(image: Pixels, act: Callable[[Image.Image], Image.Image]) -> Pixels:
    return np.asarray(act(Image.fromarray(image)))


def add_below(image: Image.Image, add: int, threshold: int) -> Image.Image:
    """timm's `solarize_add`."""
    table = [min(255, x + add) if x < threshold else x for x in range(256)]
    return image.point(table * 3)


def raise_to(image: Image.Image, gamma: float) -> Image.Image:
    """torchvision's `adjust_gamma`."""
    table = [int((255 + 1.0 - 1e-3) * pow(x / 255.0, gamma)) for x in range(256)]
    return image.point(table * 3)


TABLES: list[tuple[dict[str, Any], Callable[[Image.Image], Image.Image]]] = [
    *(
        (
            {"op": "posterize", "bits": bits},
            lambda image, bits=bits: ImageOps.posterize(image, bits),
        )
        for bits in range(1, 9)
    ),
    *(
        (
            {"op": "solarize", "threshold": level},
            lambda image, level=level: ImageOps.solarize(image, level),
        )
        for level in (0, 1, 93, 128, 254.5, 255, 256)
    ),
    *(
        (
            {"op": "solarize_add", "add": add, "threshold": level},
            lambda image, add=add, level=level: add_below(image, add, level),
        )
        for add, level in ((0, 128), (110, 128), (200, 256), (7, 0))
    ),
    ({"op": "invert"}, ImageOps.invert),
    *(
        ({"op": "gamma", "gamma": gamma}, lambda image, gamma=gamma: raise_to(image, gamma))
        for gamma in (0.05, 0.5, 1.0, 2.2, 90.0)
    ),
]


@pytest.mark.parametrize(
    ("op", "act"), TABLES, ids=lambda part: str(part) if isinstance(part, dict) else ""
)
@pytest.mark.parametrize("name", IMAGES)
def test_tables_equal_pillow_on_every_bit(
    op: dict[str, Any], act: Callable[[Image.Image], Image.Image], name: str
) -> None:
    _, (row,) = render(IMAGES[name], op)
    np.testing.assert_array_equal(row, pillow(IMAGES[name], act))


def test_what_is_added_may_be_negative() -> None:
    _, (row,) = render(IMAGES["random"], {"op": "solarize_add", "add": -30})
    image = IMAGES["random"].astype(int)
    np.testing.assert_array_equal(row, np.where(image < 128, np.maximum(image - 30, 0), image))


def test_steps_act_in_the_recipes_order() -> None:
    ops = [
        {"op": "posterize", "bits": 3},
        {"op": "invert"},
        {"op": "solarize", "threshold": 100},
        {"op": "gamma", "gamma": 0.5},
    ]
    image = IMAGES["random"]
    forwards, backwards = render(image, *ops)[1][0], render(image, *ops[::-1])[1][0]
    acts: list[Callable[[Image.Image], Image.Image]] = [
        lambda image: ImageOps.posterize(image, 3),
        ImageOps.invert,
        lambda image: ImageOps.solarize(image, 100),
        lambda image: raise_to(image, 0.5),
    ]
    for act in acts:
        image = pillow(image, act)
    np.testing.assert_array_equal(forwards, image)
    assert (forwards != backwards).any()


def test_a_matrix_before_a_table_is_rounded_before_it() -> None:
    image = IMAGES["smooth"]
    bright = {"op": "brightness", "v": 0.4}
    alone, both = (
        render(image, {"op": "mirror", "p": 0}, bright, last, num=20)[1]
        for last in ({"op": "rgb_shift", "max": 0}, {"op": "posterize", "bits": 2})
    )
    expected = np.stack([pillow(row, lambda one: ImageOps.posterize(one, 2)) for row in alone])
    np.testing.assert_array_equal(both, expected)


def test_the_pivot_of_a_contrast_is_the_rows_mean_after_the_steps_before_it() -> None:
    image, num = IMAGES["random"], 10
    plan, rows = render(image, {"op": "invert"}, {"op": "contrast", "v": 0.9}, num=num)
    assert plan.program is not None
    inverted = 255.0 - image
    mean = inverted.reshape(-1, 3).mean(axis=0) @ [0.299, 0.587, 0.114]
    for row in range(num):
        factor = plan.program.matrices[row, 0, 0]
        expected = np.clip(factor * inverted + (1 - factor) * mean, 0, 255)
        assert np.abs(rows[row] - expected).max() <= 0.8


def test_a_row_that_drew_nothing_keeps_its_bytes_and_one_that_drew_matrices_alone_too() -> None:
    image = IMAGES["random"]
    colours = [{"op": "contrast", "p": 0.5}, {"op": "hue", "h": 0.1, "p": 0.5}, {"op": "pca"}]
    _, plain = render(image, {"op": "mirror", "p": 0}, *colours, num=40)
    plan, mixed = render(image, {"op": "invert", "p": 0.5}, *colours, num=40)
    assert plan.program is not None
    is_plain = ~(plan.program.kinds == StepKind.INVERT).any(axis=1)
    assert 5 < is_plain.sum() < 35
    np.testing.assert_array_equal(mixed[is_plain], plain[is_plain])
    assert (mixed[~is_plain] != plain[~is_plain]).any(axis=(1, 2, 3)).all()
    _, untouched = render(image, {"op": "solarize", "p": 0.0}, num=3)
    np.testing.assert_array_equal(untouched, np.broadcast_to(image, untouched.shape))


def test_erase_comes_after_the_program() -> None:
    image = IMAGES["white"]
    plan, (row,) = render(image, {"op": "erase", "area": [0.3, 0.3]}, {"op": "invert"})
    assert plan.erase is not None
    x, y, width, height = plan.erase[0, 0].tolist()
    assert width
    assert (row[y : y + height, x : x + width] == (124, 116, 104)).all()
    assert (row == 0).sum() == 3 * (37 * 53 - width * height)


def test_a_box_is_grey() -> None:
    values = np.array([[3.0], [2.0], [10.0], [7.0]])
    step = PixelStep(np.full(1, StepKind.BOX, np.uint8), values)
    row = IMAGES["random"].copy()
    ProgramPass(*row.shape[:2]).run(compile_program([step], 1), 0, row)
    expected = IMAGES["random"].copy()
    expected[2:7, 3:10] = 128
    np.testing.assert_array_equal(row, expected)
