"""Images turned upright, against Pillow's own way; regions as parts of the whole."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from augd.pixels.decode import decode
from augd.pixels.exif_orientation import decode_upright, reader_of, upright_size
from augd.pixels.headers.read_header import read_header

WIDTH, HEIGHT = 37, 23


def photo(orientation: int, kind: str = "jpeg") -> bytes:
    rng = np.random.default_rng(orientation)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    small.resize((WIDTH, HEIGHT)).save(stream, kind, exif=exif, quality=95)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["jpeg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_what_pillow_shows(orientation: int, kind: str) -> None:
    data = photo(orientation, kind)
    header = read_header(data)
    assert header.orientation == orientation
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert("RGB"))
    width, height = upright_size(header)
    assert (width, height) == shown.size
    whole = decode_upright(data, header, (0, 0, width, height))
    assert whole.flags.c_contiguous
    assert np.abs(whole.astype(int) - np.asarray(shown)).max() <= (0 if kind == "png" else 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_is_a_part_of_the_whole(orientation: int) -> None:
    data = photo(orientation)
    header = read_header(data)
    width, height = upright_size(header)
    whole = decode_upright(data, header, (0, 0, width, height))
    for x, y, w, h in [(0, 0, 1, 1), (3, 5, 11, 7), (width - 9, height - 4, 9, 4)]:
        part = decode_upright(data, header, (x, y, w, h))
        assert np.array_equal(part, whole[y : y + h, x : x + w])


def test_it_is_ignored_unless_asked_for() -> None:
    data = photo(6)
    header = read_header(data)
    size_of, decode_region = reader_of("ignore")
    assert size_of(header) == (WIDTH, HEIGHT)
    stored = decode_region(data, header, (0, 0, WIDTH, HEIGHT))
    assert np.array_equal(stored, decode(data, header, (0, 0, WIDTH, HEIGHT)))
