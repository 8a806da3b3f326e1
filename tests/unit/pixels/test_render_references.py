"""Rows held against PIL and torchvision, and against decoding the whole photo."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from augd.pixels.decode import decode
from augd.pixels.headers.read_header import read_header
from augd.pixels.render import Renderer
from augd.pixels.resample import Filter
from augd.pixels.row_plan import RowPlan, RowPlans
from augd.plan.plan import LocalWarpField
from tests.support.plans import plan_of

pytestmark = pytest.mark.usefixtures("kernels")


def photo(height: int, width: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(height * width)
    small = rng.integers(0, 256, (height // 6, width // 6, 3)).astype(np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    return np.clip(image + rng.integers(-9, 10, image.shape), 0, 255).astype(np.uint8)


def rendered(
    region: NDArray[np.uint8],
    scaled: tuple[int, int],
    size: tuple[int, int],
    window: tuple[int, int] = (0, 0),
    mirror: bool = False,
    filter: Filter = "antialias",
) -> NDArray[np.uint8]:
    out = np.empty((*size, 3), np.uint8)
    Renderer(filter, size).render(region, RowPlan(scaled, window, mirror), out)
    return out


@pytest.mark.parametrize("crop", [(0, 0, 500, 375), (31, 20, 330, 290), (80, 7, 90, 350)])
def test_a_resized_crop_is_pillows(kernels: str, crop: tuple[int, int, int, int]) -> None:
    x, y, width, height = crop
    region = photo(375, 500)[y : y + height, x : x + width]
    expected = Image.fromarray(region.copy()).resize((224, 224), Image.Resampling.BILINEAR)
    apart = np.abs(rendered(region, (224, 224), (224, 224)).astype(int) - np.asarray(expected))
    assert apart.max() <= (0 if kernels == "none" else 1)
    assert apart.mean() < 0.25  # Pillow rounds between its two passes, the kernels only after them


@pytest.mark.parametrize("size", [(224, 224), (300, 260), (64, 90)])
@pytest.mark.parametrize("crop", [(0, 0, 500, 375), (31, 20, 330, 290), (80, 7, 90, 350)])
def test_a_bicubic_crop_is_pillows(
    kernels: str, crop: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    """Of levels that no lobe takes out of 0..255; else Pillow clips between its passes, too."""
    x, y, width, height = crop
    calm = (photo(375, 500) // 2 + 64).astype(np.uint8)
    region = calm[y : y + height, x : x + width]
    expected = Image.fromarray(region.copy()).resize(size, Image.Resampling.BICUBIC)
    found = rendered(region, size, size[::-1], filter="bicubic")
    apart = np.abs(found.astype(int) - np.asarray(expected))
    assert apart.max() <= (0 if kernels == "none" else 1)
    assert apart.mean() < 0.3


def test_a_bicubic_row_of_a_photo_is_pillows_but_for_what_it_clips() -> None:
    region = photo(375, 500)
    expected = Image.fromarray(region).resize((224, 200), Image.Resampling.BICUBIC)
    found = rendered(region, (224, 200), (200, 224), filter="bicubic")
    apart = np.abs(found.astype(int) - np.asarray(expected))
    assert apart.mean() < 0.3 and (apart > 1).mean() < 0.001


def test_windows_and_flips_of_a_bicubic_row() -> None:
    """A window has the pixels of the whole resize; the fall-back's box is kept in float32."""
    region = (photo(375, 500) // 2 + 64).astype(np.uint8)
    whole = np.asarray(Image.fromarray(region).resize((300, 256), Image.Resampling.BICUBIC))
    for mirror, flip in ((False, False), (True, False), (False, True), (True, True)):
        out = np.empty((200, 224, 3), np.uint8)
        row_plan = RowPlan((300, 256), (30, 20), mirror, flip)
        Renderer("bicubic", (200, 224)).render(region, row_plan, out)
        window = whole[20:220, 30:254].astype(int)
        window = window[:: -1 if flip else 1, :: -1 if mirror else 1]
        assert np.abs(out - window).max() <= 2


@pytest.mark.parametrize("is_bicubic", [False, True])
def test_a_drawn_filter_is_one_of_both(is_bicubic: bool) -> None:
    region, found = photo(375, 500), []
    for filter in ("random", "bicubic" if is_bicubic else "antialias"):
        out = np.empty((224, 224, 3), np.uint8)
        row_plan = RowPlan((224, 224), is_bicubic=is_bicubic if filter == "random" else None)
        Renderer(filter, (224, 224)).render(region, row_plan, out)
        found.append(out)
    assert np.array_equal(*found)


def test_a_resized_crop_is_torchvisions_within_a_level() -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    image = photo(375, 500)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    for x, y, width, height in ((0, 0, 500, 375), (31, 20, 330, 290), (200, 100, 100, 210)):
        expected = functional.resized_crop(tensor, y, x, height, width, [224, 224], antialias=True)
        found = rendered(image[y : y + height, x : x + width], (224, 224), (224, 224))
        difference = np.abs(found.astype(int) - expected.permute(1, 2, 0).numpy())
        assert difference.max() <= 1


def ten_windows(width: int, height: int, side: int) -> list[tuple[int, int, bool]]:
    """Return x, y in the photo and mirror of TL, TR, BL, BR, C; then of the mirrored photo's."""
    right, bottom = width - side, height - side
    middle = round(right / 2), round(bottom / 2)
    five = [(0, 0), (right, 0), (0, bottom), (right, bottom), middle]
    return [(x, y, False) for x, y in five] + [(right - x, y, True) for x, y in five]


@pytest.mark.parametrize("shape", [(300, 260), (257, 401), (224, 224)])
def test_ten_crops_are_torchvisions(shape: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    image = photo(*shape)
    expected = functional.ten_crop(torch.from_numpy(image).permute(2, 0, 1), [224, 224])
    windows = ten_windows(shape[1], shape[0], 224)
    for crop, (x, y, mirror) in zip(expected, windows, strict=True):
        found = rendered(image, (shape[1], shape[0]), (224, 224), (x, y), mirror)
        assert (found == crop.permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize(("name", "num_views"), [("five_crop", 5), ("ten_crop", 10)])
@pytest.mark.parametrize("shape", [(300, 260), (257, 401), (225, 224), (224, 224)])
def test_planned_views_are_torchvisions(name: str, num_views: int, shape: tuple[int, int]) -> None:
    """From the recipe on: what is planned and rendered, in torchvision's order."""
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    image = photo(*shape)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    expected = getattr(functional, name)(tensor, [224, 224])
    plan = plan_of([{"op": name, "size": 224}], size=(shape[1], shape[0]))
    row_plans = RowPlans(plan, 0, num_views)
    out = np.empty((224, 224, 3), np.uint8)
    renderer = Renderer("antialias", (224, 224))
    for view, crop in enumerate(expected):
        x, y, width, height = row_plans.crop[view]
        renderer.render(image[y : y + height, x : x + width], row_plans[view], out)
        assert (out == crop.permute(1, 2, 0).numpy()).all()


def test_views_after_a_resize_are_torchvisions_within_two_levels() -> None:
    """As the preset `ten-crop`: short side 256, then ten crops of 224."""
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    image = photo(375, 500)
    resized = functional.resize(torch.from_numpy(image).permute(2, 0, 1), [256], antialias=True)
    plan = plan_of("ten-crop", size=(500, 375))
    row_plans = RowPlans(plan, 0, 10)
    out = np.empty((224, 224, 3), np.uint8)
    renderer = Renderer("antialias", (224, 224))
    for view, crop in enumerate(functional.ten_crop(resized, [224, 224])):
        x, y, width, height = row_plans.crop[view]
        renderer.render(image[y : y + height, x : x + width], row_plans[view], out)
        apart = np.abs(out.astype(int) - crop.permute(1, 2, 0).numpy())
        # A window of the resize has its box in float32: two passes of one level each.
        assert apart.max() <= 2 and apart.mean() < 0.25


def jpeg(image: NDArray[np.uint8]) -> bytearray:
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    return bytearray(cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes())


def test_a_decoded_region_is_as_good_as_the_whole_photo() -> None:
    """On the exact path: decode the crop and render, or decode all, crop, and render."""
    content = jpeg(photo(333, 450))
    header = read_header(content)
    whole = decode(content, header, (0, 0, 450, 333))
    for x, y, width, height in ((0, 0, 450, 333), (37, 19, 222, 111), (401, 300, 49, 33)):
        region = decode(content, header, (x, y, width, height))
        cropped = whole[y : y + height, x : x + width]
        found = rendered(region, (96, 80), (80, 96))
        assert (found == rendered(cropped, (96, 80), (80, 96))).all()


@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_a_bent_row_of_a_decoded_region_is_that_of_the_whole_photo(halvings: int) -> None:
    content = jpeg(photo(333, 450))
    header = read_header(content)
    c, s = math.cos(0.5) * 1.2 * 2**halvings, math.sin(0.5) * 1.2 * 2**halvings
    size = (32, 40)
    matrix = [[c, -s, 221.3 - 20 * c + 16 * s], [s, c, 170.8 - 20 * s - 16 * c]]
    half = int(28 * 1.2 * 2**halvings) + 8
    x, y = ((centre - half) // 8 * 8 for centre in (221, 170))
    assert x > 0 and y > 0 and x + 2 * half + 8 < 450 and y + 2 * half + 8 < 333
    rows = []
    for crop in ((x, y, 2 * half + 8, 2 * half + 8), (0, 0, 450, 333)):
        row_plan = RowPlan(
            matrix=matrix,
            origin=crop[:2],
            halvings=halvings,
            lens=0.1,
            warp=LocalWarpField(10.0, 3.0),
            warp_key=9,
        )
        out = np.empty((*size, 3), np.uint8)
        renderer = Renderer("antialias", size)
        renderer.render(decode(content, header, crop), row_plan, out)
        rows.append(out)
    assert (rows[0] == rows[1]).all()
