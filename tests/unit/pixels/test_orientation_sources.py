"""Orientation wherever it may stand: Pillow's `exif_transpose` is the judge."""

from __future__ import annotations

import io
import itertools
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from augd.pixels.headers.read_header import read_header
from tests.hostile.images import JPEG, PNG, chunk, insert, photo, riff, segment, vp8x

EXIF, XMP_MARK = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
TURNS = {
    None: 1,
    Image.Transpose.FLIP_LEFT_RIGHT: 2,
    Image.Transpose.ROTATE_180: 3,
    Image.Transpose.FLIP_TOP_BOTTOM: 4,
    Image.Transpose.TRANSPOSE: 5,
    Image.Transpose.ROTATE_270: 6,
    Image.Transpose.TRANSVERSE: 7,
    Image.Transpose.ROTATE_90: 8,
}
LOSSLESS = io.BytesIO()
Image.fromarray(photo()).save(LOSSLESS, "WEBP", lossless=True)
VP8L = LOSSLESS.getvalue()[20:]


def pillows(data: bytes) -> int:
    """Find which turn Pillow makes of an image."""
    with Image.open(io.BytesIO(data)) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        stored = opened.convert("RGB")
    turned = (
        number
        for turn, number in TURNS.items()
        if np.array_equal(np.asarray(stored if turn is None else stored.transpose(turn)), shown)
    )
    return next(turned)


def exif(value: int, kind: int = 3, order: str = ">", count: int = 1, more: bytes = b"") -> bytes:
    formats = {1: "B3x", 3: "H2x", 4: "I", 6: "b3x", 8: "h2x", 9: "i", 13: "I"}
    mark = b"MM\0*" if order == ">" else b"II*\0"
    entries = [struct.pack(order + "HHI", 0x010F, 2, 4) + b"abc\0"]
    entries += [struct.pack(order + "HHI" + formats[kind], 0x0112, kind, count, value)]
    body = struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4) + more
    return mark + struct.pack(order + "I", 8) + body


def xmp(value: int, as_element: bool = False) -> bytes:
    if as_element:
        return b"<x:xmpmeta><tiff:Orientation>%d</tiff:Orientation></x:xmpmeta>" % value
    return b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % value


def jpeg(*payloads: bytes) -> bytes:
    return insert(JPEG, 2, b"".join(segment(0xE1, payload) for payload in payloads))


def png(*chunks: bytes, behind: bytes = b"") -> bytes:
    made = insert(PNG, 33, b"".join(chunks))
    return insert(made, len(made) - 12, behind)


def webp(flags: int, *chunks: tuple[bytes, bytes]) -> bytes:
    return riff(vp8x(flags), (b"VP8L", VP8L), *chunks)


def raw_profile(block: bytes) -> bytes:
    return b"\nexif\n%8d\n" % len(block) + block.hex().encode() + b"\n"


def text_chunk(kind: bytes, key: bytes, text: bytes) -> bytes:
    if kind == b"tEXt":
        return chunk(kind, key + b"\0" + text)
    if kind == b"zTXt":
        return chunk(kind, key + b"\0\0" + zlib.compress(text))
    return chunk(kind, key + b"\0\1\0\0\0" + zlib.compress(text))


def agree(data: bytes, expected: int | None = None) -> None:
    found = read_header(data).orientation
    assert found == pillows(data)
    assert expected is None or found == expected


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [3, 4, 6, 8, 9, 13])
def test_numbers_of_every_type(kind: int, order: str) -> None:
    for value in (0, 1, 6, 8, 9):
        agree(jpeg(EXIF + exif(value, kind, order)), value if 1 <= value <= 8 else 1)


def test_a_byte_is_a_number_too() -> None:
    """As TIFF 6.0 has it, section 2; Pillow takes a BYTE for text here."""
    assert read_header(jpeg(EXIF + exif(6, 1))).orientation == 6


def test_several_numbers_of_which_the_first_counts() -> None:
    for order in "<>":
        where = struct.pack(order + "I", 8 + 2 + 24 + 4)
        block = exif(0, 3, order, 3, struct.pack(order + "HHH", 6, 3, 1))
        at = block.index(struct.pack(order + "HHI", 0x0112, 3, 3)) + 8
        agree(jpeg(EXIF + block[:at] + where + block[at + 4 :]), 6)


def test_one_block_in_two_segments_and_two_blocks() -> None:
    block = exif(6)
    for cut in (4, 8, 16, 30, len(block)):
        agree(jpeg(EXIF + block[:cut], EXIF + block[cut:]), 6)
    for first, second in itertools.product((1, 3, 6), repeat=2):
        agree(jpeg(EXIF + exif(first), EXIF + exif(second)), first)
    agree(jpeg(EXIF, EXIF + exif(6)))


def test_xmp_counts_where_exif_says_nothing() -> None:
    agree(jpeg(XMP_MARK + xmp(6)), 6)
    agree(jpeg(XMP_MARK + xmp(8, as_element=True)), 8)
    agree(jpeg(XMP_MARK + xmp(9)), 1)
    agree(jpeg(EXIF + exif(1), XMP_MARK + xmp(6)), 1)
    agree(jpeg(XMP_MARK + xmp(6), EXIF + exif(3)), 3)
    nothing = b"MM\0*\0\0\0\x08\0\0\0\0\0\0"
    agree(jpeg(EXIF + nothing, XMP_MARK + xmp(5)), 5)
    agree(jpeg(XMP_MARK + xmp(6), XMP_MARK + xmp(3)))


def test_blocks_of_others_in_the_same_segments_count_for_nothing() -> None:
    agree(jpeg(exif(6)), 1)
    agree(jpeg(b"Exif\0" + exif(6)), 1)
    agree(jpeg(EXIF + EXIF + exif(6)), 6)


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_texts_of_a_png(kind: bytes) -> None:
    key, xmp_key = b"Raw profile type exif", b"XML:com.adobe.xmp"
    for block in (EXIF + exif(6), exif(6)):
        profile = text_chunk(kind, key, raw_profile(block))
        agree(png(profile), 6)
        agree(png(behind=profile), 6)
        agree(png(profile, chunk(b"eXIf", exif(3))), 3)
    agree(png(text_chunk(kind, xmp_key, xmp(8))), 8)
    agree(png(text_chunk(kind, xmp_key, xmp(8)), text_chunk(kind, key, raw_profile(exif(3)))), 3)
    assert read_header(png(text_chunk(kind, key, b"\nexif\n 3\nno hex"))).orientation == 1


def test_exif_chunks_of_a_png() -> None:
    agree(png(chunk(b"eXIf", exif(6))), 6)
    agree(png(behind=chunk(b"eXIf", exif(7, 4, "<"))), 7)
    agree(png(chunk(b"eXIf", exif(6)), behind=chunk(b"eXIf", exif(3))))
    long = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(4)
    agree(png(chunk(b"iTXt", long)), 4)
    for broken in (b"", b"XML:com.adobe.xmp\0", b"XML:com.adobe.xmp\0\1\0\0\0junk"):
        assert read_header(png(chunk(b"iTXt", broken))).orientation == 1


def test_chunks_of_a_webp() -> None:
    agree(webp(8, (b"EXIF", exif(6))), 6)
    agree(webp(8, (b"EXIF", EXIF + exif(6))), 6)
    agree(webp(4, (b"XMP ", xmp(8))), 8)
    agree(webp(12, (b"EXIF", exif(3)), (b"XMP ", xmp(8))), 3)
    agree(webp(8, (b"EXIF", exif(6)), (b"EXIF", exif(3))), 6)
    agree(webp(0, (b"EXIF", exif(6))), 1)
    agree(webp(8, (b"XMP ", xmp(8))), 1)


@pytest.mark.parametrize("seed", range(40))
def test_broken_blocks_are_upright_and_raise_nothing(seed: int) -> None:
    draw = np.random.default_rng(seed)
    block = bytearray(
        exif(int(draw.integers(1, 9)), int(draw.choice([3, 4])), str(draw.choice([*"<>"])))
    )
    for _ in range(3):
        block[int(draw.integers(len(block)))] = int(draw.integers(256))
    cut = bytes(block[: int(draw.integers(len(block) + 1))])
    made = (
        jpeg(EXIF + cut, XMP_MARK + cut),
        png(chunk(b"eXIf", cut), chunk(b"zTXt", b"Raw profile type exif\0\0" + cut)),
        webp(12, (b"EXIF", cut), (b"XMP ", cut)),
    )
    assert all(1 <= read_header(data).orientation <= 8 for data in made)
