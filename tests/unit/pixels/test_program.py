"""Rows of recipes with pixel steps, through parsing, planning and rendering, against Pillow."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

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


STATISTICS: list[tuple[str, Callable[[Image.Image], Image.Image]]] = [
    ("equalize", ImageOps.equalize),
    ("autocontrast", ImageOps.autocontrast),
]


@pytest.mark.parametrize(("op", "act"), STATISTICS)
@pytest.mark.parametrize("name", IMAGES)
def test_tables_of_the_rows_histogram_equal_pillow_on_every_bit(
    op: str, act: Callable[[Image.Image], Image.Image], name: str
) -> None:
    _, (row,) = render(IMAGES[name], {"op": op})
    np.testing.assert_array_equal(row, pillow(IMAGES[name], act))


def test_statistics_are_of_the_row_after_the_steps_before_them() -> None:
    image = IMAGES["smooth"]
    _, (row,) = render(image, {"op": "solarize"}, {"op": "equalize"}, {"op": "autocontrast"})
    for act in (ImageOps.solarize, ImageOps.equalize, ImageOps.autocontrast):
        image = pillow(image, act)
    np.testing.assert_array_equal(row, image)


@pytest.mark.parametrize("factor", [0.0, 0.1, 1.0, 1.9, 6.0])
@pytest.mark.parametrize("name", IMAGES)
def test_sharpness_is_pillows_within_a_level_and_leaves_the_outermost_pixels(
    factor: float, name: str
) -> None:
    image = IMAGES[name]
    _, (row,) = render(image, {"op": "sharpness", "factor": factor})
    expected = pillow(image, lambda one: ImageEnhance.Sharpness(one).enhance(factor))
    assert np.abs(row.astype(int) - expected).max() <= 1
    inside = np.zeros(image.shape[:2], np.bool_)
    inside[1:-1, 1:-1] = True
    np.testing.assert_array_equal(row[~inside], image[~inside])
    if factor == 1.0:
        np.testing.assert_array_equal(row, image)


def true_blur(image: Pixels, sigma: float, radius: int) -> np.ndarray:
    """Convolve in float, edges reflected without the edge pixel itself."""
    away = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (away / sigma) ** 2)
    weights /= weights.sum()
    out = image.astype(float)
    for axis in (0, 1):
        pad = [(radius, radius) if other == axis else (0, 0) for other in range(3)]
        wide = np.pad(out, pad, mode="reflect")
        out = sum(
            weight * np.take(wide, np.arange(out.shape[axis]) + place, axis=axis)
            for place, weight in enumerate(weights)
        )
    return out


@pytest.mark.parametrize(("sigma", "radius"), [(0.1, None), (0.7, None), (2.0, None), (2.0, 4)])
@pytest.mark.parametrize("name", ["random", "smooth", "flat", "white", "two-valued"])
def test_a_blur_is_the_true_kernels_within_a_level(
    sigma: float, radius: int | None, name: str
) -> None:
    image = IMAGES[name]
    _, (row,) = render(image, {"op": "gaussian_blur", "sigma": sigma, "radius": radius})
    expected = true_blur(image, sigma, radius or max(1, math.ceil(3 * sigma)))
    assert np.abs(row - expected).max() <= 1
    if name in ("flat", "white"):
        np.testing.assert_array_equal(row, image)


def test_a_blur_is_symmetric_and_keeps_the_sum() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    _, (row,) = render(image, {"op": "gaussian_blur", "sigma": 1.0})
    for turned in (row[::-1], row[:, ::-1], row.transpose(1, 0, 2)):
        np.testing.assert_array_equal(row, turned)
    assert abs(int(row[..., 0].sum()) - 255) <= 12


def test_p_of_a_blur_is_the_probability_of_blurring() -> None:
    """DINOv2's is the opposite."""
    image = IMAGES["random"]
    _, rows = render(image, {"op": "gaussian_blur", "sigma": 2.0, "p": 0.1}, num=400)
    blurred = (rows != image).any(axis=(1, 2, 3))
    assert 10 < blurred.sum() < 90


def test_noise_has_its_standard_deviation_and_differs_by_row_and_view() -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    _, rows = render(image, {"op": "gaussian_noise", "std": 12}, num=6)
    noise = rows.astype(int) - 128
    assert np.abs(noise.mean(axis=(1, 2, 3))).max() < 0.6
    assert np.abs(noise.std(axis=(1, 2, 3)) - 12).max() < 0.5
    flat = noise.reshape(6, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(6)).max() < 0.06
    channels = noise.transpose(3, 0, 1, 2).reshape(3, -1)
    assert np.abs(np.corrcoef(channels) - np.eye(3)).max() < 0.04
    _, again = render(image, {"op": "gaussian_noise", "std": 12}, num=6)
    np.testing.assert_array_equal(rows, again)


def test_jpeg_recompresses_at_its_quality() -> None:
    image = IMAGES["smooth"]
    errors = []
    for quality in (5, 50, 95):
        _, (row,) = render(image, {"op": "jpeg", "quality": quality})
        errors.append(float(np.abs(row.astype(int) - image).mean()))
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
        expected = np.asarray(Image.open(buffer))
        assert np.abs(row.astype(int) - expected).mean() < 1.0
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize(
    "op",
    [
        {"op": "equalize"},
        {"op": "autocontrast"},
        {"op": "sharpness", "factor": [0, 2]},
        {"op": "gaussian_blur"},
        {"op": "gaussian_noise", "std": [0, 30]},
        {"op": "jpeg", "quality": [10, 90]},
    ],
    ids=lambda op: op["op"],
)
def test_rows_that_did_not_draw_an_op_keep_their_bytes(op: dict[str, Any]) -> None:
    image = IMAGES["smooth"]
    colours = [{"op": "color_jitter", "brightness": 0.4, "contrast": 0.4, "p": 0.5}]
    _, plain = render(image, *colours, num=20)
    plan, mixed = render(image, *colours, {**op, "p": 0.5}, num=20)
    assert plan.program is not None
    drawn = (plan.program.kinds > StepKind.MATRIX).any(axis=1)
    assert 3 < drawn.sum() < 17
    np.testing.assert_array_equal(mixed[~drawn], plain[~drawn])


def test_a_box_is_grey() -> None:
    values = np.array([[3.0], [2.0], [10.0], [7.0]])
    step = PixelStep(np.full(1, StepKind.BOX, np.uint8), values)
    row = IMAGES["random"].copy()
    ProgramPass(*row.shape[:2]).run(compile_program([step], 1), 0, row)
    expected = IMAGES["random"].copy()
    expected[2:7, 3:10] = 128
    np.testing.assert_array_equal(row, expected)
