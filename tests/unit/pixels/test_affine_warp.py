"""The matrix path, against a slow bilinear sampler in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from augd.pixels.halving import Halver
from augd.pixels.headers.read_header import BadImage
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlan
from tests.support.examples import examples
from tests.support.reference import WARP_BOUND, bent, halved

pytestmark = pytest.mark.usefixtures("kernels")

FILLS = ("reflect", "constant", "nearest", "wrap")
VALUE = (10, 200, 90)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def rendered(
    region: NDArray[np.uint8],
    matrix: NDArray[np.float64],
    size: tuple[int, int],
    fill: str = "reflect",
    origin: tuple[int, int] = (0, 0),
    halvings: int = 0,
    lens: float = 0.0,
) -> NDArray[np.uint8]:
    """Render into the middle row of a slot and look that its neighbours are untouched."""
    slot = np.full((3, *size, 3), 7, np.uint8)
    row_plan = RowPlan(
        matrix=np.asarray(matrix, np.float64).tolist(),
        origin=origin,
        halvings=halvings,
        lens=lens,
    )
    renderer = Renderer("linear", size, fill=fill, fill_value=VALUE)  # type: ignore[arg-type]
    renderer.render(region, row_plan, slot[1])
    assert (slot[0] == 7).all() and (slot[2] == 7).all()
    return slot[1]


def about(
    linear: NDArray[np.float64], source: tuple[float, float], size: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the matrix that takes the output's centre to `source` (x, y)."""
    centre = np.array([size[1] / 2, size[0] / 2])
    linear = np.asarray(linear, np.float64)
    return np.hstack([linear, (np.array(source) - linear @ centre)[:, None]])


def turned(angle: float, reduction: float = 1.0) -> NDArray[np.float64]:
    c, s = math.cos(angle) * reduction, math.sin(angle) * reduction
    return np.array([[c, -s], [s, c]])


def largest(found: NDArray, expected: NDArray) -> float:
    return float(np.abs(found.astype(np.float64) - expected).max())


def test_the_identity_is_a_copy() -> None:
    image = noise(24, 32)
    found = rendered(image, np.eye(2, 3), (24, 32))
    assert (found == image).all()


def test_points_moved_by_hand() -> None:
    """The matrix takes (x, y, 1), pixel centres at +0.5, from the output to the image."""
    image = noise(20, 30)
    matrix = np.array([[0.0, 2.0, 1.0], [1.0, 0.0, 3.0]])
    found = rendered(image, matrix, (6, 4), "nearest")
    # Output pixel (1, 2) has its centre at (1.5, 2.5): to x = 2 * 2.5 + 1 = 6, y = 1.5 + 3 = 4.5,
    # halfway between the pixels 5 and 6 of row 4.
    exact = (image[4, 5].astype(float) + image[4, 6]) / 2
    assert np.abs(found[2, 1] - exact).max() <= 0.5


@examples(40)
@given(x=st.integers(-70, 70), y=st.integers(-70, 70), fill=st.sampled_from(FILLS))
def test_a_shift_by_whole_pixels_is_exact(x: int, y: int, fill: str) -> None:
    image = noise(25, 30)
    matrix = np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
    found = rendered(image, matrix, (20, 22), fill)
    assert (found == bent(image, matrix, (20, 22), fill, VALUE)).all()


@pytest.mark.parametrize("quarter", [1, 2, 3, -1])
@pytest.mark.parametrize("side", [32, 33, 224])
def test_quarter_turns_are_exact(quarter: int, side: int) -> None:
    """Although cosines of quarter turns are not zero in floating point."""
    image = noise(side, side)
    matrix = about(turned(quarter * math.pi / 2), (side / 2, side / 2), (side, side))
    found = rendered(image, matrix, (side, side), "constant")
    assert (found == np.rot90(image, quarter)).all()


def test_a_mirror_in_the_matrix_is_exact() -> None:
    image = noise(24, 31)
    matrix = np.array([[-1.0, 0.0, 31.0], [0.0, 1.0, 0.0]])
    assert (rendered(image, matrix, (24, 31)) == image[:, ::-1]).all()


@examples(80)
@given(
    seed=st.integers(0, 2**32),
    fill=st.sampled_from(FILLS),
    image=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    lens=st.sampled_from([0.0, 0.0, -0.2, 0.1]),
)
def test_random_matrices_and_all_fills(
    seed: int, fill: str, image: tuple[int, int], size: tuple[int, int], lens: float
) -> None:
    rng = np.random.default_rng(seed)
    source = noise(*image, seed=seed)
    linear = rng.normal(0, 0.8, (2, 2))
    matrix = about(linear, tuple(rng.uniform(-0.5, 1.5, 2) * image[::-1]), size)
    found = rendered(source, matrix, size, fill, lens=lens)
    assert largest(found, bent(source, matrix, size, fill, VALUE, lens)) <= WARP_BOUND


def region_of(
    matrix: NDArray[np.float64], size: tuple[int, int], image: tuple[int, int], halvings: int
) -> tuple[int, int, int, int]:
    """Return x, y, width, height of what bilinear taps touch, as a plan has it."""
    corners = np.array([[0, 0, 1], [size[1], 0, 1], [0, size[0], 1], [size[1], size[0], 1]])
    moved = corners @ matrix.T
    step = 1 << halvings
    low = np.floor(moved.min(axis=0) / step - 1.0) * step
    high = np.ceil(moved.max(axis=0) / step + 1.0) * step
    sides = np.array(image[::-1])
    low, high = np.clip(low, 0, sides - 1) // step * step, np.clip(high, 1, sides)
    x, y, right, bottom = (int(v) for v in (*low, *high))
    return x, y, right - x, bottom - y


@examples(100)
@given(
    seed=st.integers(0, 2**32),
    fill=st.sampled_from(["constant", "nearest"]),
    halvings=st.integers(0, 3),
)
def test_a_region_is_as_good_as_the_image(seed: int, fill: str, halvings: int) -> None:
    """Decoding what the taps touch, and rendering it, equals rendering the whole image."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(40, 150, 2).tolist()
    image, size = noise(height, width, seed=seed), (16, 20)
    reduction = rng.uniform(0.75, 1.5) * 2**halvings
    matrix = about(
        turned(rng.uniform(-4, 4), reduction), tuple(rng.uniform(-0.1, 1.1, 2) * (width, height)),
        size,
    )  # fmt: skip
    x, y, w, h = region_of(matrix, size, (height, width), halvings)
    part = rendered(image[y : y + h, x : x + w], matrix, size, fill, (x, y), halvings)
    assert (part == rendered(image, matrix, size, fill, (0, 0), halvings)).all()


@examples(60)
@given(seed=st.integers(0, 2**32), fill=st.sampled_from(FILLS), halvings=st.integers(1, 3))
def test_a_halved_image_is_read_where_it_was(seed: int, fill: str, halvings: int) -> None:
    rng = np.random.default_rng(seed)
    image, size = noise(*rng.integers(1, 90, 2).tolist(), seed=seed), (16, 20)
    matrix = about(turned(rng.uniform(-4, 4), 2.0**halvings), tuple(rng.uniform(0, 60, 2)), size)
    found = rendered(image, matrix, size, fill, halvings=halvings)
    scaled = matrix * 0.5**halvings
    expected = bent(halved(image, halvings), scaled, size, fill, VALUE)
    assert largest(found, expected) <= WARP_BOUND


@examples(80)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    times=st.integers(0, 4),
    strided=st.booleans(),
)
def test_halving_is_exact(size: tuple[int, int], times: int, strided: bool) -> None:
    image = noise(size[0] + 3, size[1] + 5)
    region = image[1 : 1 + size[0], 2 : 2 + size[1]]
    if not strided:
        region = region.copy()
    assert (Halver().halve(region, times) == halved(region, times)).all()


def test_halving_white_stays_white() -> None:
    for width in range(1, 70):
        assert (Halver().halve(np.full((7, width, 3), 255, np.uint8), 1) == 255).all()


@pytest.mark.parametrize("angle", [0.0, 0.3, -1.1])
@pytest.mark.parametrize("reduction", [0.7, 1.0, 1.4])
def test_a_ramp_stays_a_ramp(angle: float, reduction: float) -> None:
    """Bilinear samples of a plane lie on it: no gain, no shift."""
    y, x = np.mgrid[:300, :300]
    image = np.repeat((0.4 * x + 0.25 * y + 20)[..., None], 3, axis=2)
    matrix = about(turned(angle, reduction), (150.0, 150.0), (100, 100))
    found = rendered(np.rint(image).astype(np.uint8), matrix, (100, 100))
    ys, xs = np.mgrid[:100, :100] + 0.5
    at = matrix @ np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size)])
    plane = (0.4 * (at[0] - 0.5) + 0.25 * (at[1] - 0.5) + 20).reshape(100, 100)
    # The image itself was rounded, by up to half a level.
    error = found - plane[..., None]
    assert np.abs(error).max() <= 0.5 + 0.5 + 0.65 / 256 + 0.01
    assert abs(error.mean()) < 0.05


@pytest.mark.parametrize(("reduction", "halvings"), [(2.0, 1), (3.1, 2)])
@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_a_checkerboard_becomes_flat_grey(reduction: float, halvings: int, angle: float) -> None:
    """No aliasing: without halving, bilinear taps make stripes of it over the whole range."""
    y, x = np.mgrid[:300, :300]
    board = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    matrix = about(turned(angle, reduction), (150.3, 149.6), (90, 90))
    found = rendered(board, matrix, (90, 90), halvings=halvings).astype(int)
    # 127.5, and half a level up with the first rounding.
    assert np.abs(found - 128).max() <= 1
    aliased = rendered(board, matrix, (90, 90)).astype(int)
    assert angle == 0.0 or aliased.max() - aliased.min() > 100


def test_an_impulse_keeps_its_weight_and_place() -> None:
    """Reduced by two, a point adds a quarter of itself, near where it was."""
    image = np.zeros((120, 120, 3), np.uint8)
    image[60, 44] = 240
    matrix = about(2.0 * np.eye(2), (60.0, 60.0), (60, 60))
    found = rendered(image, matrix, (60, 60), halvings=1)[..., 0].astype(float)
    assert abs(found.sum() - 240 / 4) <= 1
    rows, columns = np.nonzero(found)
    assert abs(rows.mean() + 0.5 - 60.5 / 2) <= 0.5 and abs(columns.mean() + 0.5 - 44.5 / 2) <= 0.5


def test_the_exact_path_and_the_matrix_path_meet() -> None:
    """Where no reduction is left, a resize by two bilinear taps is the same by either path."""
    region = noise(40, 50)
    size, scaled = (60, 75), (75, 60)
    out = np.empty((*size, 3), np.uint8)
    Renderer("linear", size).render(region, RowPlan(scaled), out)
    matrix = np.array([[50 / 75, 0.0, 0.0], [0.0, 40 / 60, 0.0]])
    # OpenCV's resize has weights of 11 bits, and so errors of its own.
    assert largest(rendered(region, matrix, size, "nearest"), out) <= WARP_BOUND + 0.6


def test_an_unknown_fill_is_refused() -> None:
    with pytest.raises(ValueError, match="fill: expected one of reflect, constant, nearest, wrap"):
        Renderer("linear", (4, 4), fill="mirror")  # type: ignore[arg-type]


def test_a_row_of_another_shape_is_refused() -> None:
    row_plan = RowPlan(matrix=np.eye(2, 3).tolist())
    with pytest.raises(ValueError, match=r"out: expected C-contiguous \(4, 4, 3\), got"):
        Renderer("linear", (4, 4)).render(noise(4, 4), row_plan, np.empty((4, 5, 3), np.uint8))


def test_a_region_that_opencv_cannot_take_is_a_bad_image() -> None:
    out = np.empty((4, 4, 3), np.uint8)
    region = np.zeros((1, 40000, 3), np.uint8)
    renderer = Renderer("linear", (4, 4))
    with pytest.raises(BadImage, match="at most 32766 px, got a region of 40000x1"):
        renderer.render(region, RowPlan(matrix=np.eye(2, 3).tolist()), out)
    renderer.render(region, RowPlan(matrix=np.eye(2, 3).tolist(), halvings=1), out)


def test_one_bender_serves_many_rows() -> None:
    """What one row left in the buffers shows in no other."""
    renderer = Renderer("linear", (16, 20))
    first, second = np.empty((2, 16, 20, 3), np.uint8)
    region = noise(90, 80)
    matrix = about(turned(0.2, 3.0), (40.0, 45.0), (16, 20)).tolist()
    row_plan = RowPlan(matrix=matrix, halvings=2)
    renderer.render(region, row_plan, first)
    renderer.render(noise(33, 44), RowPlan((20, 16)), second)
    renderer.render(noise(200, 300), RowPlan(matrix=matrix, lens=0.3, halvings=1), second)
    renderer.render(region, row_plan, second)
    assert (first == second).all()
