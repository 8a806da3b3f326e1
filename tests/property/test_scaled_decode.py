"""Scaled decoding: what the plan chooses, and that regions of scaled photos are exact."""

from __future__ import annotations

import io
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from augd.pixels.box_reduce import reduce
from augd.pixels.decode import decode
from augd.pixels.exif_orientation import decode_upright, upright_size
from augd.pixels.headers.read_header import read_header
from augd.pixels.render import Renderer
from augd.pixels.render_views import box_around, cut_region
from augd.pixels.row_plan import RowPlans
from augd.plan.plan import Plan
from augd.plan.recipe.recipe import output_size, parse_recipe
from tests.property.test_decode_property import _FACTORS, jpeg
from tests.support.examples import examples
from tests.support.plans import plan_of

SCALES = (2, 4, 8)
EXACT = [
    [{"op": "random_resized_crop", "size": 64}],
    [{"op": "random_resized_crop", "size": [24, 160], "ratio": [0.2, 5]}, {"op": "mirror"}],
    [{"op": "resize", "short": 40}, {"op": "center_crop", "size": 32}],
    [{"op": "resize", "size": [33, 90]}],
    [{"op": "scale_jitter", "short": [30, 200], "crop": 28}],
    [{"op": "random_crop", "size": 50}],
    [{"op": "random_crop", "size": 50, "min_area": 0.3}],
    [{"op": "multi_scale", "short": [32, 64, 256], "crop": 32}],
    [{"op": "resize", "short": 100}, {"op": "ten_crop", "size": 64}],
]
BENDS = [
    {"op": "rotate", "factor": 0.5, "p": 0.5},
    {"op": "zoom", "height": 0.9, "width": 0.5},
    {"op": "shear", "x": 0.8, "y": 0.5, "p": 0.5},
    {"op": "stretch", "x": 1.0, "y": 3.0},
    {"op": "lens", "k": [-0.3, 0.9]},
    {"op": "translate", "x": 1.0, "y": 0.7},
    {"op": "local_warp", "alpha": 7, "sigma": 3, "p": 0.5},
]
SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 2500))
UNCHANGED = [f.name for f in fields(Plan) if f.name not in ("crop", "scale")]


def both(ops, **asked) -> tuple[Plan, Plan]:
    return plan_of(ops, scaled_decode="auto", **asked), plan_of(ops, **asked)


def same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and np.array_equal(one, other, equal_nan=True)
    return one == other


def scaled_sides(plan: Plan) -> NDArray[np.int64]:
    return -(-plan.crop[:, 2:] // plan.scale[:, None])


@examples(80)
@given(
    ops=st.sampled_from(EXACT), views=st.sampled_from([1, 3]), size=SIZES, seed=st.integers(0, 9)
)
def test_a_resized_row_never_has_fewer_pixels_than_it_needs(ops, views, size, seed):
    many = len({"multi_scale", "ten_crop"} & {op["op"] for op in ops})
    auto, off = both(ops, num=4, size=size, seed=seed, views=1 if many else views)
    assert off.scale is None
    assert all(same(getattr(auto, name), getattr(off, name)) for name in UNCHANGED)
    scale = auto.scale[:, None]
    assert set(scale.ravel().tolist()) <= {1, *SCALES}
    # Rounded by half a scaled pixel at most, at each edge.
    ends, exact_ends = (plan.crop[:, :2] + plan.crop[:, 2:] for plan in (auto, off))
    assert (np.abs(auto.crop[:, :2] - off.crop[:, :2]) * 2 <= scale).all()
    assert (np.abs(ends - exact_ends) * 2 <= scale).all()
    assert (auto.crop[:, :2] % scale == 0).all()
    assert ((ends % scale == 0) | (ends == size)).all() and (auto.crop >= 0).all()
    possible = np.repeat([at not in auto.impossible for at in range(4)], len(scale) // 4)
    is_kept = (scale == 1).ravel()
    assert (scaled_sides(auto) >= auto.scaled)[possible & ~is_kept].all()
    assert (auto.crop[is_kept] == off.crop[is_kept]).all()
    # The largest such scale, of the view that needs the most.
    twice = (off.crop[:, 2:] // (2 * scale) >= off.scaled).all(axis=1).reshape(4, -1)
    assert not (twice.all(axis=1) & (scale.reshape(4, -1)[:, 0] < 8))[
        possible[:: len(scale) // 4]
    ].any()


@examples(80)
@given(
    sizing=st.sampled_from(EXACT[:2]),
    bends=st.lists(st.sampled_from(BENDS), min_size=1, max_size=3, unique_by=lambda op: op["op"]),
    fill=st.sampled_from(["reflect", "constant", "wrap"]),
    views=st.sampled_from([1, 2]),
    size=SIZES,
    seed=st.integers(0, 9),
)
def test_a_bent_row_is_scaled_in_place_of_halvings(sizing, bends, fill, views, size, seed):
    asked = {"num": 4, "size": size, "seed": seed, "fill": fill, "views": views}
    auto, off = both([*sizing, *bends], **asked)
    assert all(same(getattr(auto, name), getattr(off, name)) for name in UNCHANGED)
    assert (auto.scale.reshape(4, views) == auto.scale.reshape(4, views)[:, :1]).all()
    for row in np.flatnonzero(auto.bent).tolist():
        scale = int(auto.scale[row])
        assert (auto.crop[row] == off.crop[row]).all()
        assert scale <= 2 ** int(auto.halvings[row])
        if scale > 1:
            lens = 1 + 3 * min(0.0, 0.0 if auto.lens is None else float(auto.lens[row]))
            least = np.linalg.svd(auto.matrix[row, :, :2])[1][1] * lens
            assert least >= scale * (1 - 1e-9)
    exact = np.flatnonzero(~auto.bent)
    assert (scaled_sides(auto) >= auto.scaled)[exact][auto.scale[exact] > 1].all()


def test_the_scale_is_that_of_the_reduction():
    ops = [{"op": "resize", "size": 100}]
    found = {
        size: int(plan_of(ops, size=size, scaled_decode="auto").scale[0])
        for size in ((199, 500), (200, 200), (400, 399), (400, 400), (799, 5000), (5000, 800))
    }
    assert found == {
        (199, 500): 1,
        (200, 200): 2,
        (400, 399): 2,
        (400, 400): 4,
        (799, 5000): 4,
        (5000, 800): 8,
    }
    # Turned by 90 degrees and zoomed out: 300 x 300 over 100 pixels is a reduction of 3.
    turned = [{"op": "rotate", "degrees": 1e-9}, *ops]
    assert plan_of(turned, size=(300, 300), scaled_decode="auto").scale.tolist() == [2]
    # 1.6 is halved, which leaves fewer pixels than the row has: the decoder never does that.
    plan = plan_of(turned, size=(160, 160), scaled_decode="auto")
    assert (plan.halvings.tolist(), plan.scale.tolist()) == ([1], [1])


@examples(80)
@given(
    width=st.integers(1, 130),
    height=st.integers(1, 170),
    kind=st.sampled_from([*_FACTORS, "grey"]),
    scale=st.sampled_from(SCALES),
    restart=st.sampled_from([0, 7]),
    progressive=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_a_scaled_region_equals_the_scaled_whole_then_the_crop(
    width, height, kind, scale, restart, progressive, seed
):
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    data = bytearray(jpeg(rgb, kind, 75, restart, progressive))
    before = bytes(data)
    header = read_header(data)
    whole = decode(data, header, (0, 0, width, height), scale)
    sides = -(-width // scale), -(-height // scale)
    assert whole.shape == (sides[1], sides[0], 3)
    # Against another binding of libjpeg-turbo, whole: the pixels are the inverse DCT's.
    by_pillow = Image.open(io.BytesIO(before))
    by_pillow.draft("RGB", sides)
    if by_pillow.decoderconfig[:1] == (scale,):
        assert np.abs(whole.astype(int) - np.asarray(by_pillow.convert("RGB"))).max() <= 1
    for _ in range(6):
        x, y = int(rng.integers(sides[0])), int(rng.integers(sides[1]))
        w, h = int(rng.integers(1, sides[0] - x + 1)), int(rng.integers(1, sides[1] - y + 1))
        left, top = x * scale, y * scale
        region = left, top, min(w * scale, width - left), min(h * scale, height - top)
        part = decode(data, header, region, scale)
        assert np.array_equal(part, whole[y : y + h, x : x + w])
    assert data == before


def ramp(width: int, height: int) -> NDArray[np.uint8]:
    """Make an image whose red grows to the right and whose green grows downwards."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, np.full_like(x, 128.0)], -1).astype(
        np.uint8
    )


def encoded(image: NDArray[np.uint8], kind: str, orientation: int = 1) -> bytes:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    mode = {"CMYK": "CMYK", "RGBA": "RGBA"}.get(kind, "RGB")
    file_type = {"CMYK": "JPEG", "RGBA": "PNG"}.get(kind, kind)
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}
    Image.fromarray(image).convert(mode).save(
        stream, file_type, exif=exif, **options.get(file_type, {})
    )
    return stream.getvalue()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "RGBA", "WEBP", "CMYK"])
def test_every_format_has_the_geometry_of_means_of_blocks(kind, scale):
    """A shift by a pixel of the photo would be seven levels of this ramp."""
    width, height = 128 // 7 * 2 + 1, 41
    image = ramp(width, height)
    data = encoded(image, kind)
    header = read_header(data)
    found = decode(data, header, (0, 0, width, height), scale)
    inner = image[: height // scale * scale, : width // scale * scale].astype(float)
    blocks = inner.reshape(height // scale, scale, width // scale, scale, 3).mean(axis=(1, 3))
    assert np.abs(found[: len(blocks), : blocks.shape[1]] - blocks).max() < 3.5
    region = (scale, 2 * scale, width - scale, height - 2 * scale)
    assert np.array_equal(decode(data, header, region, scale), found[2:, 1:])


@pytest.mark.parametrize("scale", SCALES)
def test_a_reduction_is_the_mean_of_each_block_rounded_to_nearest(scale):
    pixels = np.random.default_rng(scale).integers(0, 256, (45, 37, 3)).astype(np.uint8)
    padded = np.pad(pixels, ((0, -45 % scale), (0, -37 % scale), (0, 0)), "edge").astype(float)
    height, width = padded.shape[0] // scale, padded.shape[1] // scale
    blocks = padded.reshape(height, scale, width, scale, 3).mean(axis=(1, 3))
    assert np.abs(reduce(pixels, scale) - blocks).max() <= 0.5
    assert reduce(pixels, 1) is pixels


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("sides", [(64, 48), (67, 45)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_scaled_pixels_are_those_of_the_upright_image(orientation, sides, scale):
    data = encoded(ramp(*sides), "JPEG", orientation)
    header = read_header(data)
    width, height = upright_size(header)
    upright = decode_upright(data, header, (0, 0, width, height))
    found = decode_upright(data, header, (0, 0, width, height), scale)
    assert found.flags.c_contiguous
    assert np.abs(found.astype(int) - reduce(upright, scale)).max() <= 4
    region = (2 * scale, scale, 3 * scale, height - scale)
    part = decode_upright(data, header, region, scale)
    assert np.array_equal(part, found[1:, 2:5])


def photo(width: int, height: int) -> NDArray[np.uint8]:
    """Make an image that is smooth, as photos are at 1/8."""
    small = np.random.default_rng(5).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def rows_of(data: bytes, plan: Plan, recipe: dict, whole: bool) -> NDArray[np.uint8]:
    """Render all views of the plan's one sample, from what they need or from the whole photo."""
    parsed = parse_recipe(recipe)
    height, width = output_size(parsed, None)
    row_plans = RowPlans(plan, 0, len(plan.crop))
    renderer = Renderer.of(parsed, (height, width))
    header = read_header(data)
    box = (0, 0, header.width, header.height) if whole else box_around(row_plans.crop)
    decoded = decode(data, header, box, row_plans.scale[0])
    out = np.empty((len(plan.crop), height, width, 3), np.uint8)
    for view, crop in enumerate(row_plans.crop):
        region = cut_region(decoded, box, crop, row_plans.scale[view])
        renderer.render(region, row_plans[view], out[view])
    return out


@pytest.mark.parametrize("filter", ["antialias", "linear"])
@pytest.mark.parametrize(
    "ops",
    [
        [{"op": "random_resized_crop", "size": 48, "scale": [0.3, 1]}, {"op": "mirror"}],
        [{"op": "random_resized_crop", "size": 48}, {"op": "rotate", "factor": 0.1}],
        [
            {"op": "resize", "size": 48},
            {"op": "zoom", "height": 0.5},
            {"op": "lens", "k": [0, 0.3]},
        ],
    ],
)
def test_views_of_a_scaled_photo_look_like_those_of_the_whole(ops, filter):
    seen = set()
    recipe = {"ops": ops, "views": 3, "filter": filter, "scaled_decode": "auto"}
    for seed, size in enumerate([(901, 703), (430, 380), (230, 180)] * 4):
        data = bytearray(encoded(photo(*size), "JPEG"))
        plan = plan_of(ops, size=size, seed=seed, views=3, scaled_decode="auto")
        seen |= set(plan.scale.tolist())
        found = rows_of(data, plan, recipe, whole=False)
        assert np.array_equal(found, rows_of(data, plan, recipe, whole=True))
        plain = rows_of(data, replace(plan, scale=None), recipe, whole=False)
        apart = np.abs(found.astype(int) - plain)
        assert apart.mean() < 1.5 and np.percentile(apart, 99) < 8
        if (plan.scale == 1).all():
            assert np.array_equal(found, plain)
    assert seen >= {1, 2, 4} or seen >= {2, 4, 8}
