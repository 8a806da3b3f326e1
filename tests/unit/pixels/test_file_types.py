"""What first bytes are, and which endings images have."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from augd.pixels.headers.formats import (
    ENDINGS,
    FORMAT_OF_ENDING,
    HEAD_BYTES,
    IMAGE_ENDINGS,
    NAMES,
    describe,
    recognise,
)


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (10, 200, 30)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "tiff", "gif", "avif"])
def test_what_pillow_writes_is_recognised(kind: str) -> None:
    data = saved(kind.upper())
    assert recognise(data) == recognise(data[:HEAD_BYTES]) == kind
    assert NAMES[kind] in describe(data)


def box(*brands: bytes) -> bytes:
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return (4 + len(body)).to_bytes(4, "big") + body + bytes(64)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (box(b"heic", b"mif1", b"heic"), "heic"),
        (box(b"mif1", b"miaf", b"heix"), "heic"),
        (box(b"mif1", b"miaf", b"avif"), "avif"),
        (box(b"avis", b"msf1"), "avif"),
        (box(b"mif1"), "heic"),
        (box(b"isom", b"avif"), None),
        (b"\xff\x0a" + bytes(20), "jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "jxl"),
        (b"MM\0*" + bytes(20), "tiff"),
        (b"BM" + bytes(40), None),
        (b"BM a text about a car" + bytes(40), None),
        (b"RIFF\x24\0\0\0WAVEfmt ", None),
        (b"", None),
        (b"\xff", None),
        (b"\0\0\0\x18ftyp", None),
    ],
)
def test_brands_and_starts(start: bytes, kind: str | None) -> None:
    assert recognise(start) == kind


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a git-lfs pointer"),
        (b"\n <!DOCTYPE html><html>", "an HTML page"),
        (b"\xef\xbb\xbf<html>", "an HTML page"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'>", "an SVG"),
        (b"\x1f\x8b\x08\0", "a gzip archive"),
        (b"P6\n64 48\n255\n", "a PPM, PGM or PBM"),
        (b"\0\0\0\x20ftypisom", "a video or other file of type isom"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "a RIFF file of type WAVE"),
        (b'{"message": "Not found"}', "a JSON file"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000"),
        (b"", "an empty file"),
        (b"\x01\x02\x03", "bytes 01 02 03"),
    ],
)
def test_what_is_no_image_is_named(start: bytes, words: str) -> None:
    assert recognise(start) is None
    assert describe(start).startswith(words)


def test_what_a_stranger_wrote_is_shown_in_printable_signs() -> None:
    for name in (b"\0\x1b[2", b"\xe9\x88\x1b\n", b"    "):
        for start in (b"RIFF\0\0\0\0" + name, b"\0\0\0\x20ftyp" + name):
            assert describe(start).isprintable()


def test_each_ending_belongs_to_one_format() -> None:
    assert len(IMAGE_ENDINGS) == sum(map(len, ENDINGS.values()))
    assert FORMAT_OF_ENDING[b"jfif"] == FORMAT_OF_ENDING[b"jpe"] == "jpeg"
    assert all(ending == ending.lower() for ending in IMAGE_ENDINGS)
    assert set(NAMES) == set(ENDINGS)
