"""Region decoding equals whole decoding followed by the crop, bit for bit."""

from __future__ import annotations

import io

import cv2
import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from augd.pixels import decode as decoding
from augd.pixels.decode import decode
from augd.pixels.headers.read_header import BadImage, read_header
from tests.support.examples import examples
from tests.support.scenes import EITHER_KERNELS

pytestmark = EITHER_KERNELS

_FACTORS = {
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "440": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "411": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}


def jpeg(rgb: NDArray[np.uint8], kind: str, quality: int, restart: int, progressive: bool) -> bytes:
    """Encode; with Huffman tables of its own where the quality is odd."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_RST_INTERVAL,
        restart,
        cv2.IMWRITE_JPEG_PROGRESSIVE,
        int(progressive),
        cv2.IMWRITE_JPEG_OPTIMIZE,
        quality % 2,
    ]
    if kind == "grey":
        rgb = rgb[..., 0]
    else:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _FACTORS[kind]]
    return cv2.imencode(".jpg", rgb, options)[1].tobytes()


@examples(100)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 120),
    kind=st.sampled_from([*_FACTORS, "grey"]),
    quality=st.sampled_from([30, 75, 95]),
    restart=st.sampled_from([0, 1, 7]),
    progressive=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_region_equals_whole_then_crop(
    width: int, height: int, kind: str, quality: int, restart: int, progressive: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    data = bytearray(jpeg(rgb, kind, quality, restart, progressive))
    before = bytes(data)
    header = read_header(data)
    assert (header.width, header.height) == (width, height)
    assert header.can_stop_early == (not progressive and not restart)
    whole = decode(data, header, (0, 0, width, height))
    by_pillow = np.asarray(Image.open(io.BytesIO(before)).convert("RGB"))
    assert np.abs(whole.astype(int) - by_pillow).max() <= 1
    for _ in range(6):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        w, h = int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1))
        part = decode(data, header, (x, y, w, h))
        assert part.shape == (h, w, 3)
        assert (part == whole[y : y + h, x : x + w]).all()
    assert data == before


@given(st.integers(1, 500), st.sampled_from([1, 2, 4]), st.data())
def test_the_stop_lies_below_the_region_and_on_an_mcu_row(
    height: int, v: int, drawn: st.DataObject
) -> None:
    end = drawn.draw(st.integers(1, height))
    header = read_header(jpeg(np.zeros((height, 8, 3), np.uint8), "444", 75, 0, False))
    header = msgspec.structs.replace(header, mcu_height=8 * v, max_v_sampling=v)
    rows = decoding._rows_needed(header, end)
    assert end <= rows <= height
    assert rows == height or rows % (8 * v) == 0
    assert rows - end < 2 * 8 * v


def _seeds() -> list[bytes]:
    rgb = np.random.default_rng(0).integers(0, 256, (33, 41, 3)).astype(np.uint8)
    seeds = [jpeg(rgb, "420", 75, 0, False), jpeg(rgb, "444", 75, 3, True)]
    for kind, mode in (("PNG", "RGBA"), ("PNG", "P"), ("WEBP", "RGB"), ("JPEG", "CMYK")):
        buffer = io.BytesIO()
        Image.fromarray(rgb).convert(mode).save(buffer, kind)
        seeds.append(buffer.getvalue())
    return seeds


_SEEDS = _seeds()


@examples(100)
@given(
    which=st.integers(0, len(_SEEDS) - 1),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    cut=st.floats(0.5, 1),
)
def test_damaged_bytes_give_pixels_or_a_reason(
    which: int, edits: list[tuple[float, int]], cut: float
) -> None:
    data = bytearray(_SEEDS[which])
    for place, value in edits:
        data[int(place * len(data))] = value
    del data[int(cut * len(data)) :]
    try:
        header = read_header(data, max_pixels=1_000_000)
        region = (0, 0, header.width, header.height // 2 or 1)
        found = decode(data, header, region)
    except BadImage as bad:
        assert str(bad) and "\n" not in str(bad)
    else:
        assert found.shape == (region[3], region[2], 3) and found.dtype == np.uint8
