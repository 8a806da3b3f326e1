"""Transparency: one rule for every way that a file has for it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from augd.errors import RecipeError
from augd.pixels.decode import Pixels, decode
from augd.pixels.headers.read_header import read_header
from augd.pixels.transparency import BLACK, Background
from augd.plan.recipe.recipe import expand, parse_recipe, recipe_from_toml, recipe_to_toml
from tests.hostile.images import chunk
from tests.support.scenes import EITHER_KERNELS

pytestmark = EITHER_KERNELS

SIDE = 16
OPS = {"ops": [{"op": "center_crop", "size": 8}]}


def png(values: NDArray[np.generic], colour: int, depth: int, *chunks: bytes) -> bytes:
    """Make a PNG of (h, w, channels) samples, whose rows are packed by the caller below 8 bits."""
    height, width = SIDE, SIDE
    rows = np.ascontiguousarray(values, ">u2" if depth == 16 else "u1")
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", head), *chunks, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def trns(*levels: int) -> bytes:
    return chunk(b"tRNS", struct.pack(f">{len(levels)}H", *levels))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def files() -> dict[str, bytes]:
    """The same image: left opaque 201, right 200 and transparent."""
    grey = np.full((SIDE, SIDE), 201, np.uint8)
    grey[:, SIDE // 2 :] = 200
    alpha = np.where(grey == 200, 0, 255).astype(np.uint8)
    rgb, rgba = np.dstack([grey] * 3), np.dstack([grey] * 3 + [alpha])
    deep = np.uint16(257)
    places = (grey == 200).astype(np.uint8)
    palette = chunk(b"PLTE", bytes((201,) * 3 + (200,) * 3))
    bits = np.packbits(places, axis=1)
    return {
        "rgba": png(rgba, 6, 8),
        "rgba of 16 bits": png(rgba * deep, 6, 16),
        "grey and alpha": png(np.dstack([grey, alpha]), 4, 8),
        "grey and alpha of 16 bits": png(np.dstack([grey, alpha]) * deep, 4, 16),
        "rgb key": png(rgb, 2, 8, trns(200, 200, 200)),
        "rgb key of 16 bits": png(rgb * deep, 2, 16, trns(*(200 * 257,) * 3)),
        "grey key": png(grey, 0, 8, trns(200)),
        "grey key of 16 bits": png(grey * deep, 0, 16, trns(200 * 257)),
        "palette": png(places, 3, 8, palette, chunk(b"tRNS", b"\xff\0")),
        "palette of 1 bit": png(bits, 3, 1, palette, chunk(b"tRNS", b"\xff\0")),
        "webp": saved(Image.fromarray(rgba), "WEBP", lossless=True, exact=True),
    }


def decoded(data: bytes, background: Background = BLACK) -> Pixels:
    header = read_header(data)
    return decode(data, header, (0, 0, header.width, header.height), background=background)


@pytest.mark.parametrize("name", files())
def test_one_rule_for_all(name: str) -> None:
    data = files()[name]
    for background, right in ((BLACK, [0] * 3), (None, [200] * 3), ((255, 9, 64), [255, 9, 64])):
        found = decoded(data, background)
        assert (found[:, : SIDE // 2] == 201).all(), (name, background)
        assert (found[:, SIDE // 2 :] == right).all(), (name, background)
    if name != "grey key of 16 bits":  # which Pillow clips
        stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(decoded(data, None), stored)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_keys_of_few_bits(depth: int) -> None:
    most = (1 << depth) - 1
    row = np.arange(SIDE, dtype=np.uint8) % (most + 1)
    packed = np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - depth :].ravel())
    data = png(np.tile(packed, (SIDE, 1)), 0, depth, trns(most))
    assert (decoded(data)[:, row == most] == 0).all()
    assert np.array_equal(decoded(data, None)[..., 0], np.tile(row * (255 // most), (SIDE, 1)))


def test_part_alpha_is_composed_and_rounded() -> None:
    draw = np.random.default_rng(5)
    rgba = draw.integers(0, 256, (SIDE, SIDE, 4)).astype(np.uint8)
    colour, alpha = rgba[..., :3].astype(float), rgba[..., 3:] / 255
    for background in ((0, 0, 0), (255, 255, 255), (10, 200, 30)):
        exact = colour * alpha + np.array(background) * (1 - alpha)
        found = decoded(png(rgba, 6, 8), background).astype(float)
        assert np.abs(found - exact).max() <= 0.5 + 1e-9
    assert np.array_equal(decoded(png(rgba, 6, 8), None), rgba[..., :3])


@pytest.mark.parametrize(
    ("given", "kept"),
    [(0, 0), ([0, 0, 0], 0), (255, 255), ([255, 0, 9], [255, 0, 9]), ("stored", "stored")],
)
def test_a_recipe_says_the_background(given: object, kept: object) -> None:
    recipe = parse_recipe({**OPS, "background": given})
    plain = expand(recipe)
    assert plain.get("background", 0) == kept
    assert ("background" in plain) is (kept != 0)  # contents without it stay what they were
    assert parse_recipe(plain) == recipe == recipe_from_toml(recipe_to_toml(recipe))


@pytest.mark.parametrize("given", [-1, 256, [1, 2], [0, 0, 300], "white", 0.5, None])
def test_other_backgrounds_are_refused(given: object) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.background|background: expected"):
        parse_recipe({**OPS, "background": given})


def test_rows_have_the_background_of_their_recipe() -> None:
    from augd.pixels.render import Renderer
    from augd.pixels.row_plan import RowPlan

    data = files()["grey key"]
    for background, right in ((0, 0), (255, 255), ("stored", 200)):
        recipe = parse_recipe({**OPS, "background": background})
        out = np.empty((SIDE, SIDE, 3), np.uint8)
        whole: Sequence[int] = (0, 0, SIDE, SIDE)
        Renderer.of(recipe, (SIDE, SIDE)).render_image(
            data, read_header(data), tuple(whole), 1, RowPlan((SIDE, SIDE)), out
        )
        assert (out[:, SIDE // 2 :] == right).all()
