"""The steps of programs one by one: against Pillow, the true kernel and the law of their noise."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from augd.pixels.colour_matrix import ColourPass
from augd.pixels.decode import Pixels
from augd.pixels.noise import fill_noise, quantiles
from augd.pixels.program import ProgramPass
from augd.pixels.program_steps import blur_weights
from augd.plan.program import Program
from augd.plan.program import StepKind as Kind
from tests.support.laws import assert_counts
from tests.support.program import TINT, Step, make_rows, program_of

pytestmark = pytest.mark.usefixtures("kernels")

ROWS = make_rows()
KEY = (0x89ABCDEF, 0x01234567)
NOISE = (Kind.NOISE, (20.0, *KEY))


def after(row: Pixels, *steps: Step, program: Program | None = None) -> Pixels:
    """Return a row after a program of these steps."""
    changed = row.copy()
    ProgramPass(*row.shape[:2]).run(program or program_of(*steps), 0, changed)
    return changed


def distance(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("name", ROWS)
def test_equalize_and_autocontrast_equal_pillow_on_every_bit(name: str) -> None:
    image = Image.fromarray(ROWS[name])
    np.testing.assert_array_equal(after(ROWS[name], (Kind.EQUALIZE, ())), ImageOps.equalize(image))
    np.testing.assert_array_equal(
        after(ROWS[name], (Kind.AUTOCONTRAST, ())), ImageOps.autocontrast(image)
    )


@pytest.mark.parametrize("least", range(0, 256, 5))
def test_autocontrast_is_cut_as_pillows_is_whatever_the_range(least: int) -> None:
    for most in range(least, 256, 7):
        row = np.linspace(least, most, 48).reshape(4, 4, 3).astype(np.uint8)
        expected = ImageOps.autocontrast(Image.fromarray(row))
        np.testing.assert_array_equal(after(row, (Kind.AUTOCONTRAST, ())), expected)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("factor", [0.0, 0.1, 1.0, 1.9, 5.0])
def test_sharpness_is_within_a_level_of_pillows_and_copies_the_outermost_pixels(
    name: str, factor: float
) -> None:
    row = ROWS[name]
    found = after(row, (Kind.SHARPNESS, (factor,)))
    expected = ImageEnhance.Sharpness(Image.fromarray(row)).enhance(factor)
    assert distance(found, np.asarray(expected)) <= 1
    if factor in (0.0, 1.0):
        np.testing.assert_array_equal(found, expected)
    for outermost in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        np.testing.assert_array_equal(found[outermost], row[outermost])


GREY = np.array([[0.299, 0.587, 0.114]] * 3)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("factor", [0.1, 0.55, 1.0, 1.45, 1.9])
@pytest.mark.parametrize("act", ["Brightness", "Color", "Contrast"])
def test_blends_by_a_matrix_are_within_a_level_of_pillows(
    name: str, factor: float, act: str
) -> None:
    linear, pivot = np.eye(3) * factor, np.zeros((3, 3))
    if act == "Color":
        linear += GREY * (1 - factor)
    elif act == "Contrast":
        pivot = GREY * (1 - factor)
    entries = np.concatenate([np.hstack([linear, np.zeros((3, 1))]).ravel(), pivot.ravel()])
    program = program_of((Kind.MATRIX, (0,)), matrices=entries)
    expected = getattr(ImageEnhance, act)(Image.fromarray(ROWS[name])).enhance(factor)
    # Pillow cuts, and takes the pivot from whole levels; here the nearest of the exact one counts.
    assert distance(after(ROWS[name], program=program), np.asarray(expected)) <= 1


def blurred(row: Pixels, sigma: float, radius: int) -> np.ndarray:
    """Return a row after the true kernel, not rounded."""
    places = np.arange(-radius, radius + 1)
    weights = np.exp(-(places**2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in range(2):
        around = [(radius, radius) if one == axis else (0, 0) for one in range(3)]
        padded = np.pad(row.astype(np.float64), around, mode="reflect")
        parts = [np.take(padded, range(at, at + row.shape[axis]), axis) for at in places + radius]
        row = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    return row


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(
    ("sigma", "radius"), [(0.1, 0), (0.5, 0), (1.0, 0), (2.0, 0), (2.0, 4), (7.3, 0), (0.4, 60)]
)
def test_blur_is_within_a_level_of_the_true_kernel(name: str, sigma: float, radius: int) -> None:
    found = after(ROWS[name], (Kind.BLUR, (sigma, radius)))
    exact = blurred(ROWS[name], sigma, radius or max(1, math.ceil(3 * sigma)))
    assert np.abs(found - exact).max() < 1
    if np.ptp(ROWS[name]) == 0:
        np.testing.assert_array_equal(found, ROWS[name])


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0, 40.0])
def test_blur_is_symmetric_and_its_weights_sum_to_one(sigma: float) -> None:
    weights = blur_weights(sigma, max(1, math.ceil(3 * sigma)))
    assert weights.sum() == 2**14
    assert (weights == weights[::-1]).all() and (weights >= 0).all()
    row, step = ROWS["photo"], (Kind.BLUR, (sigma, 0))
    for turned in (np.s_[::-1], np.s_[:, ::-1]):
        flipped = np.ascontiguousarray(row[turned])
        np.testing.assert_array_equal(after(flipped, step), after(row, step)[turned])


def test_noise_is_normal_independent_of_the_place_and_its_keys_own() -> None:
    row, std = np.full((200, 170, 3), 128, np.uint8), 20.0
    found = after(row, (Kind.NOISE, (std, *KEY))).astype(int) - 128
    edges = np.arange(-59.5, 60)
    shares = np.diff([0.0, *(0.5 * (1 + math.erf(x / std / math.sqrt(2))) for x in edges), 1.0])
    counts = np.bincount(np.digitize(found.ravel(), edges), minlength=len(shares))
    assert_counts(counts, shares)
    above = found.ravel() > 0
    for apart in (1, 2, 3, 8, 170 * 3):
        assert_counts(np.bincount(above[apart:] * 2 + above[:-apart]), _of_pairs(above))
    other = after(row, (Kind.NOISE, (std, KEY[0], KEY[1] + 1)))
    assert (other != row + found).mean() > 0.9
    np.testing.assert_array_equal(after(row, (Kind.NOISE, (0.0, *KEY))), row)


def _of_pairs(above: np.ndarray) -> np.ndarray:
    share = above.mean()
    return np.outer([1 - share, share], [1 - share, share]).ravel()


def test_noise_is_clipped_and_the_same_whatever_made_it() -> None:
    row = ROWS["photo"]
    found = after(row, (Kind.NOISE, (90.0, *KEY)))
    assert found.min() == 0 and found.max() == 255
    levels = after(np.full((9, 9, 3), 128, np.uint8), NOISE).reshape(-1)
    assert levels[:12].tolist() == [130, 129, 150, 161, 113, 123, 133, 144, 138, 160, 102, 139]
    assert levels[-4:].tolist() == [92, 134, 139, 155]


def test_quantiles_are_symmetric_and_of_a_standard_deviation_of_one() -> None:
    exact = quantiles().astype(np.float64) / 4096
    assert (exact == -exact[::-1]).all() and (np.diff(exact) >= 0).all()
    assert abs(exact.std() - 1) < 1e-3


def test_boxes_of_noise_lie_where_they_are_and_nowhere_else() -> None:
    row = np.full((40, 60, 3), 9, np.uint8)
    fill_noise(row, (5, 6, 50, 30), KEY, 2, (124.0, 116.0, 104.0), (58.0, 57.0, 57.0))
    inside = row[6:36, 5:55].astype(float)
    assert np.abs(inside.mean(axis=(0, 1)) - (124, 116, 104)).max() < 8
    assert np.abs(inside.std(axis=(0, 1)) - 57).max() < 8
    row[6:36, 5:55] = 9
    assert (row == 9).all()
    for box in ((0, 0, 0, 0), (59, 39, 1, 1)):
        fill_noise(row, box, KEY, 0, (9.0, 9.0, 9.0), (0.0, 0.0, 0.0))
    assert (row == 9).all()


@pytest.mark.parametrize("name", ["photo", "smooth", "1x1", "2x2", "1x9"])
@pytest.mark.parametrize("quality", [1, 40, 100])
def test_jpeg_is_what_pillow_makes_of_it(name: str, quality: int) -> None:
    encoded = io.BytesIO()
    Image.fromarray(ROWS[name]).save(encoded, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.asarray(Image.open(encoded))
    found = after(ROWS[name], (Kind.JPEG, (quality,)))
    # Pillow's libjpeg may be another one, whose transforms round otherwise.
    assert np.abs(found.astype(int) - expected).mean() < 0.1


def test_a_program_is_its_steps_one_after_another() -> None:
    steps = [
        (Kind.POSTERIZE, (5,)), (Kind.TABLE, (0,)), (Kind.SOLARIZE_ADD, (40, 128)),
        (Kind.MATRIX, (1,)), (Kind.SOLARIZE, (100.5,)), (Kind.EQUALIZE, ()), (Kind.INVERT, ()),
        (Kind.SHARPNESS, (1.7,)), (Kind.BLUR, (0.6, 0)), NOISE, (Kind.AUTOCONTRAST, ()),
        (Kind.BOX, (2, 1, 9, 4)), (Kind.MATRIX, (0,)),
    ]  # fmt: skip
    expected = ROWS["photo"]
    for step in steps:
        expected = after(expected, step)
    np.testing.assert_array_equal(after(ROWS["photo"], *steps), expected)
    np.testing.assert_array_equal(after(ROWS["photo"]), ROWS["photo"])


def test_a_matrix_is_the_colour_passs_however_large_its_entries_are() -> None:
    large = np.array([40.0, -20.0, -19.0, 0.5, *TINT[4:], *(9 * [0.0]), *TINT, *(9 * [-0.1])])
    program = program_of(
        (Kind.INVERT, ()), (Kind.MATRIX, (0,)), (Kind.MATRIX, (1,)), matrices=large
    )
    expected = 255 - ROWS["photo"]
    colour_pass = ColourPass()
    for entries in large.reshape(2, -1):
        pivot = entries[12:].reshape(3, 3).tolist()
        colour_pass.apply(entries[:12].reshape(3, 4).tolist(), pivot, expected)
    np.testing.assert_array_equal(after(ROWS["photo"], program=program), expected)


def test_a_row_of_a_chunk_has_its_own_program() -> None:
    kinds = np.array([[Kind.INVERT, 0], [Kind.POSTERIZE, Kind.INVERT], [0, 0]], np.uint8)
    values = np.zeros((3, 2, 4))
    values[1, 0, 0] = 2
    none = np.zeros((3, 0, 21)), np.zeros((3, 0, 256), np.uint8)
    program, row = Program(kinds, values, *none), ROWS["random"]
    found = [row.copy() for _ in range(3)]
    for number, one in enumerate(found):
        ProgramPass(*row.shape[:2]).run(program, number, one)
    expected = [255 - row, 255 - (row & 0xC0), row]
    np.testing.assert_array_equal(found, expected)
