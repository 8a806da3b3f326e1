"""Rendering: crop, resize, window, mirror and colour, straight into the row."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from augd.pixels.colour_matrix import COLOUR_ERROR
from augd.pixels.headers.read_header import read_header
from augd.pixels.render import Renderer
from augd.pixels.resample import Filter
from augd.pixels.row_plan import RowPlan
from tests.support.examples import examples

pytestmark = pytest.mark.usefixtures("kernels")

FILTERS: tuple[Filter, ...] = ("linear", "antialias")


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def rendered(
    filter: Filter,
    region: NDArray[np.uint8],
    scaled: tuple[int, int],
    size: tuple[int, int],
    window: tuple[int, int] = (0, 0),
    mirror: bool = False,
    colour: NDArray[np.float64] | None = None,
) -> NDArray[np.uint8]:
    """Render into the middle row of a slot and look that its neighbours are untouched."""
    slot = np.full((3, *size, 3), 7, np.uint8)
    matrix = None if colour is None else colour.tolist()
    row_plan = RowPlan(scaled, window, mirror, colour=matrix)
    Renderer(filter, size).render(region, row_plan, slot[1])
    assert (slot[0] == 7).all() and (slot[2] == 7).all()
    return slot[1]


def resized(
    filter: Filter, region: NDArray[np.uint8], scaled: tuple[int, int]
) -> NDArray[np.uint8]:
    """Resize with the library that is the reference, which the kernels equal within a level."""
    if filter == "linear":
        return np.asarray(cv2.resize(region, scaled, interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.asarray(Image.fromarray(region).resize(scaled, Image.Resampling.BILINEAR))


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("shape", [(50, 70), (20, 15), (24, 90), (24, 32)])
def test_crop_to_output(kernels: str, filter: Filter, shape: tuple[int, int]) -> None:
    region = noise(*shape)
    found = rendered(filter, region, (32, 24), (24, 32))
    apart = np.abs(found.astype(int) - resized(filter, region, (32, 24)))
    assert apart.max() <= (0 if kernels == "none" else 1)


@pytest.mark.parametrize("filter", FILTERS)
def test_a_region_inside_a_image_is_read_no_further(filter: Filter) -> None:
    """No tap looks past the crop: what surrounds it changes nothing."""
    image = noise(80, 90)
    region = image[13:60, 22:71]
    alone = rendered(filter, region.copy(), (32, 24), (24, 32))
    image[:13], image[60:], image[:, :22], image[:, 71:] = 0, 255, 255, 0
    assert (rendered(filter, region, (32, 24), (24, 32)) == alone).all()


@examples(80)
@given(
    filter=st.sampled_from(FILTERS),
    crop=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    scaled=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    mirror=st.booleans(),
    drawn=st.data(),
)
def test_a_window_equals_the_whole_resize_then_the_cut(
    kernels: str,
    filter: Filter,
    crop: tuple[int, int],
    scaled: tuple[int, int],
    mirror: bool,
    drawn: st.DataObject,
) -> None:
    width = drawn.draw(st.integers(1, scaled[0]))
    height = drawn.draw(st.integers(1, scaled[1]))
    x = drawn.draw(st.integers(0, scaled[0] - width))
    y = drawn.draw(st.integers(0, scaled[1] - height))
    region = noise(*crop)
    found = rendered(filter, region, scaled, (height, width), (x, y), mirror)
    expected = resized(filter, region, scaled)[y : y + height, x : x + width]
    if mirror:
        expected = expected[:, ::-1]
    # Two passes, each of which may round the other way: Pillow's boxes are float32.
    bound = (2 if filter == "antialias" else 0) if kernels == "none" else 1
    assert np.abs(found.astype(int) - expected).max() <= bound
    if kernels != "none":
        whole = rendered(filter, region, scaled, (scaled[1], scaled[0]), mirror=mirror)
        x = scaled[0] - width - x if mirror else x
        assert (found == whole[y : y + height, x : x + width]).all()


@pytest.mark.parametrize(("shape", "scaled"), [((375, 500), (341, 256)), ((640, 480), (256, 341))])
def test_an_antialiased_window_of_a_photo_is_within_a_level(
    shape: tuple[int, int], scaled: tuple[int, int]
) -> None:
    photo = np.asarray(cv2.GaussianBlur(noise(*shape), (0, 0), 1.5), np.uint8)
    x, y = (scaled[0] - 224) // 2, (scaled[1] - 224) // 2
    found = rendered("antialias", photo, scaled, (224, 224), (x, y))
    expected = resized("antialias", photo, scaled)[y : y + 224, x : x + 224]
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("mirror", [False, True])
def test_same_size_is_a_copy(filter: Filter, mirror: bool) -> None:
    region = noise(40, 50)[3:33, 4:44]
    found = rendered(filter, region, (40, 30), (24, 32), (5, 2), mirror)
    expected = region[2:26, 5:37]
    assert (found == (expected[:, ::-1] if mirror else expected)).all()


@pytest.mark.parametrize("filter", FILTERS)
def test_mirror_is_exact(filter: Filter) -> None:
    region = noise(50, 71)
    plain = rendered(filter, region, (33, 24), (24, 33))
    mirrored = rendered(filter, region, (33, 24), (24, 33), mirror=True)
    assert (mirrored == plain[:, ::-1]).all()


def shift_matrix(*shift: float) -> NDArray[np.float64]:
    return np.hstack([np.eye(3), np.array(shift)[:, None]])


@pytest.mark.parametrize(
    "shift",
    [
        (0, 0, 0),
        (3.4, 2.5, 1.6),
        (-3.4, -2.5, -1.6),
        (7.2, -5.9, 0.4),
        (-0.4, 0.49, -0.2),
        (300, -300, 0),
        (254.6, -255.2, 12.0),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (4, 1), (1, 4), (4, 3), (24, 32)])
def test_a_shift_is_exact_and_saturates(
    shift: tuple[float, float, float], size: tuple[int, int]
) -> None:
    region = noise(*size)
    scaled = (size[1], size[0])
    found = rendered("linear", region, scaled, size, colour=shift_matrix(*shift))
    expected = np.clip(region + np.floor(np.array(shift) + 0.5), 0, 255)
    assert (found == expected).all()


def test_a_shift_touches_the_channels_in_rgb_order() -> None:
    found = rendered("linear", np.full((2, 2, 3), 100, np.uint8), (2, 2), (2, 2),
                     colour=shift_matrix(10, 0, -20))  # fmt: skip
    assert found[0, 0].tolist() == [110, 100, 80]


@examples(60)
@given(st.lists(st.floats(-1.5, 1.5), min_size=12, max_size=12), st.floats(1, 100))
def test_a_full_matrix_is_rounded_and_clipped_once(values: list[float], reach: float) -> None:
    colour = np.array(values).reshape(3, 4)
    colour[:, 3] *= reach
    region = noise(9, 11)
    found = rendered("linear", region, (11, 9), (9, 11), colour=colour)
    exact = region @ colour[:, :3].T + colour[:, 3]
    assert np.abs(found - np.clip(exact, 0, 255)).max() <= 0.5 + COLOUR_ERROR


def test_shift_and_full_matrix_agree() -> None:
    region = noise(30, 30)
    shift = shift_matrix(4.3, -9.7, 0.2)
    nearly = shift.copy()
    nearly[0, 1] = 2.0**-24
    a = rendered("linear", region, (30, 30), (30, 30), colour=shift)
    b = rendered("linear", region, (30, 30), (30, 30), colour=nearly)
    assert (a == b).all()


def test_colour_comes_after_the_resize() -> None:
    region = noise(50, 60)
    plain = rendered("linear", region, (20, 16), (16, 20))
    shifted = rendered("linear", region, (20, 16), (16, 20), colour=shift_matrix(5, 5, 5))
    assert (shifted == np.minimum(plain.astype(int) + 5, 255)).all()


def test_one_renderer_serves_many_sizes(kernels: str) -> None:
    """The scratch buffer is lent again and grows; what one row left in it shows in no other."""
    renderer = Renderer("linear", (16, 16))
    out = np.empty((16, 16, 3), np.uint8)
    for side in (40, 90, 17, 64):
        region = noise(33, 44, seed=side)
        renderer.render(region, RowPlan((side, side), (1, 1)), out)
        apart = np.abs(out.astype(int) - resized("linear", region, (side, side))[1:17, 1:17])
        assert apart.max() <= (0 if kernels == "none" else 1)


def test_a_row_of_another_shape_or_stride_is_refused() -> None:
    renderer = Renderer("linear", (16, 20))
    region = noise(30, 30)
    for out in (np.empty((20, 16, 3), np.uint8), np.empty((16, 40, 3), np.uint8)[:, ::2]):
        with pytest.raises(ValueError, match=r"out: expected C-contiguous \(16, 20, 3\), got"):
            renderer.render(region, RowPlan((20, 16)), out)


def test_a_window_outside_is_refused() -> None:
    renderer = Renderer("linear", (16, 20))
    out = np.empty((16, 20, 3), np.uint8)
    with pytest.raises(ValueError, match=r"window: expected 20x16 at \(1, 0\) inside .* of 20x16"):
        renderer.render(noise(30, 30), RowPlan((20, 16), (1, 0)), out)


@pytest.mark.parametrize(
    ("crop", "scale", "says"),
    [
        ((480, 0, 50, 50), 1, r"region: expected a part of 500x400, got 50x50 at \(480, 0\)"),
        ((0, 0, 96, 96), 3, "scale: expected 1, 2, 4 or 8, got 3"),
        ((1, 0, 96, 96), 2, "region: expected multiples of the scale 2"),
    ],
)
def test_a_crop_that_cannot_be_decoded_is_the_planners_fault(
    crop: tuple[int, int, int, int], scale: int, says: str
) -> None:
    data = bytearray(cv2.imencode(".jpg", noise(400, 500))[1].tobytes())
    out = np.empty((16, 20, 3), np.uint8)
    with pytest.raises(ValueError, match=says):
        Renderer("linear", (16, 20)).render_image(
            data, read_header(data), crop, scale, RowPlan((20, 16)), out
        )


def test_an_unknown_filter_is_refused() -> None:
    text = "filter: expected one of antialias, linear, bicubic, random, got 'area'"
    with pytest.raises(ValueError, match=text):
        Renderer("area", (2, 2))  # type: ignore[arg-type]
