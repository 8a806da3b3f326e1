"""Images that are fitted into a row: Pillow's resize between bars of the fill's colour."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from augd.errors import RecipeError
from augd.pixels import native
from augd.pixels.headers.read_header import read_header
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlans
from augd.plan.params_writer import describe
from augd.plan.plan import Plan
from augd.plan.recipe.recipe import output_size, parse_recipe
from tests.support.examples import examples
from tests.support.plans import plan_of

pytestmark = pytest.mark.usefixtures("kernels")

Pixels = NDArray[np.uint8]
VALUE = (114, 20, 250)
FIELDS: dict[str, Any] = {"fill": "constant", "fill_value": list(VALUE)}


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(64, 192, (height, width, 3)).astype(np.uint8)


def rows_of(ops: list[dict[str, Any]], picture: Pixels, num: int = 1, **fields: Any) -> Any:
    """Return the plan of `num` rows of a picture, and the rows."""
    size = (picture.shape[1], picture.shape[0])
    plan = plan_of(ops, num=num, size=size, **FIELDS, **fields)
    recipe = parse_recipe({"ops": ops, **FIELDS, **fields})
    renderer, row_plans = Renderer.of(recipe, output_size(recipe, None)), RowPlans(plan, 0, num)
    rows = np.full((num, *output_size(recipe, None), 3), 77, np.uint8)
    for number, row in enumerate(rows):
        x, y, w, h = row_plans.crop[number]
        region = picture[y : y + h, x : x + w]
        if plan.scale is not None:
            scale = int(plan.scale[number])
            region = np.asarray(Image.fromarray(region).reduce(scale))
        renderer.render(region, row_plans[number], row)
    return plan, rows


def letterboxed(picture: Pixels, size: tuple[int, int], method: Any) -> Pixels:
    """Write out the letterbox of Ultralytics by Pillow."""
    height, width = picture.shape[:2]
    ratio = min(size[0] / height, size[1] / width)
    inner = max(1, round(width * ratio)), max(1, round(height * ratio))
    left, top = round((size[1] - inner[0]) / 2 - 0.1), round((size[0] - inner[1]) / 2 - 0.1)
    out = np.full((*size, 3), VALUE, np.uint8)
    resized = Image.fromarray(picture).resize(inner, method)
    out[top : top + inner[1], left : left + inner[0]] = np.asarray(resized)
    return out


@examples(60)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    filter=st.sampled_from(["antialias", "bicubic"]),
)
def test_a_fitted_image_is_pillows_between_bars(
    height: int, width: int, size: tuple[int, int], filter: str
) -> None:
    picture = noise(height, width)
    method = Image.Resampling.BICUBIC if filter == "bicubic" else Image.Resampling.BILINEAR
    plan, rows = rows_of([{"op": "resize", "longest": list(size)}], picture, filter=filter)
    expected = letterboxed(picture, size, method)
    is_bar = np.ones(size, np.bool_)
    x, y, w, h = plan.inset[0].tolist()
    is_bar[y : y + h, x : x + w] = False
    assert (rows[0][is_bar] == VALUE).all()
    # Noise between 64 and 192 keeps within 0..255, where Pillow clips between its passes.
    assert np.abs(rows[0].astype(int) - expected).max() <= 1


def test_one_number_stands_for_both_sides() -> None:
    one, both = (
        parse_recipe({"ops": [{"op": "resize", "longest": s}], **FIELDS}) for s in (32, [32, 32])
    )
    assert one == both
    assert output_size(one, None) == (32, 32)


def test_flips_before_and_after_the_padding() -> None:
    """An odd pixel of padding lies right and below; a flip after the resize moves it."""
    picture = noise(41, 61)
    longest = {"op": "resize", "longest": [40, 36]}
    flips = [{"op": "mirror", "p": 1.0}, {"op": "vertical_flip", "p": 1.0}]
    _, (plain,) = rows_of([longest], picture, filter="linear")
    _, (after,) = rows_of([longest, *flips], picture, filter="linear")
    _, (before,) = rows_of([*flips, longest], picture, filter="linear")
    assert np.array_equal(after, plain[::-1, ::-1])
    _, (turned,) = rows_of([longest], np.ascontiguousarray(picture[::-1, ::-1]), filter="linear")
    assert np.array_equal(before, turned)


@pytest.mark.parametrize("is_flip_first", [False, True])
def test_the_matrix_is_that_of_the_pixels(is_flip_first: bool) -> None:
    """Exact and bent rows agree on where the image lies, and so does `batch.params`."""
    ops = [{"op": "mirror", "p": 0.5}, {"op": "vertical_flip", "p": 0.5}]
    resize = {"op": "resize", "longest": [40, 90]}
    chain = [*ops, resize] if is_flip_first else [resize, *ops]
    still = {"op": "translate", "x": 0.0}
    exact = plan_of(chain, num=40, size=(61, 41), **FIELDS)
    bent = plan_of([*chain, still], num=40, size=(61, 41), **FIELDS)
    assert bent.bent is not None and bent.bent.all()
    assert np.allclose(*(describe(plan, 1, (40, 90))[:, 6:12] for plan in (exact, bent)))
    assert bent.inset is not None and (bent.inset == (0, 0, 90, 40)).all()
    assert bent.picture is not None and (bent.picture == (0, 0, 61, 41)).all()
    assert_alike(chain, still)


def assert_alike(chain: list[dict[str, Any]], still: dict[str, Any]) -> None:
    """At a scale where both paths read the same pixels: enlarged to twice the size."""
    picture = noise(20, 30)
    _, exact = rows_of(chain, picture, 12, filter="linear")
    _, bent = rows_of([*chain, still], picture, 12, filter="linear")
    assert np.abs(exact.astype(int) - bent).max() <= 1


def test_a_bent_padded_row_shows_no_more_than_was_cut_before() -> None:
    picture = noise(60, 80)
    picture[:, 40:] = 255
    ops = [
        {"op": "center_crop", "size": [60, 40]},
        {"op": "resize", "longest": 60},
        {"op": "translate", "x": 0.1},
    ]
    size = (80, 60)
    for row in range(6):
        plan = plan_of(ops, num=6, size=size, **FIELDS)
        assert plan.picture is not None
        assert plan.picture[row, 2:].tolist() == [40, 60]
        x, _, w, _ = plan.crop[row].tolist()
        assert plan.picture[row, 0] <= x and x + w <= plan.picture[row, 0] + 40


@pytest.mark.parametrize("bend", [[], [{"op": "rotate", "degrees": 30}]])
def test_the_padding_keeps_its_colour(bend: list[dict[str, Any]]) -> None:
    picture = noise(30, 60)
    ops = [{"op": "resize", "longest": 48}, *bend]
    _, (plain,) = rows_of(ops, picture)
    _, (recoloured,) = rows_of([*ops, {"op": "brightness", "v": 0.9}], picture)
    is_bar = (plain == VALUE).all(axis=2)
    assert 900 < is_bar.sum() < 48 * 48
    assert (recoloured[is_bar] == VALUE).all()
    assert not np.array_equal(recoloured, plain)


def test_an_image_of_the_right_shape_has_no_bars() -> None:
    picture = noise(40, 40)
    _, (fitted,) = rows_of([{"op": "resize", "longest": 32}], picture)
    _, (squashed,) = rows_of([{"op": "resize", "size": 32}], picture)
    assert np.array_equal(fitted, squashed)


@pytest.mark.parametrize("size", [(500, 375), (200, 333)])
@pytest.mark.parametrize("filter", ["antialias", "bicubic", "random"])
@pytest.mark.parametrize("scaled_decode", ["off", "auto"])
def test_a_file_makes_the_row_that_its_pixels_make(
    size: tuple[int, int], filter: str, scaled_decode: str
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(size[1], size[0])).save(buffer, "JPEG", quality=90)
    data = bytearray(buffer.getvalue())
    fields = {**FIELDS, "filter": filter, "scaled_decode": scaled_decode}
    ops = [{"op": "resize", "longest": 64}, {"op": "mirror"}]
    plan, recipe = plan_of(ops, num=4, size=size, **fields), parse_recipe({"ops": ops, **fields})
    renderer, row_plans = Renderer.of(recipe, (64, 64)), RowPlans(plan, 0, 4)
    header = read_header(data)
    for row in range(4):
        out, again = np.full((2, 64, 64, 3), 7, np.uint8)
        renderer.render_sample(data, header, row_plans, row, out[None])
        region = renderer.decode(data, header, row_plans.crop[row], row_plans.scale[row])
        renderer.render(region, row_plans[row], again)
        assert np.array_equal(out, again)


def test_what_is_needed_is_the_whole_image() -> None:
    if native.kernels is None:
        pytest.skip("without kernels the whole crop is")
    plan: Plan = plan_of([{"op": "resize", "longest": 64}], size=(500, 375), **FIELDS)
    recipe = parse_recipe({"ops": [{"op": "resize", "longest": 64}], **FIELDS})
    needed = Renderer.of(recipe, (64, 64)).needed(plan, slice(0, 1))
    assert needed[0].tolist() == [0, 0, 500, 375]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            {"ops": [{"op": "resize", "longest": 32}]},
            'recipe.ops[0].longest: expected fill="constant" beside it, got fill="reflect". The',
        ),
        (
            {"ops": [{"op": "resize", "longest": 32, "short": 9}], **FIELDS},
            "recipe.ops[0].short: expected one of short, size and longest, got short and longest.",
        ),
        (
            {"ops": [{"op": "resize"}], **FIELDS},
            "recipe.ops[0].short: expected one of short, size and longest, got none.",
        ),
        (
            {"ops": [{"op": "resize", "longest": 0}], **FIELDS},
            "recipe.ops[0].longest: expected a side of 1 to 16384 pixels, got 0.",
        ),
        *(
            (
                {"ops": [{"op": "resize", "longest": 32}, {"op": op, "size": 16}], **FIELDS},
                f"recipe.ops[1].op: expected no crop of a padded image, got {op} after resize",
            )
            for op in ("center_crop", "random_crop", "five_crop")
        ),
    ],
)
def test_what_makes_no_sense_is_refused(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        parse_recipe(recipe)
    assert str(raised.value).startswith(message)
