"""Headers from bytes alone: sizes, early-stop facts, and a reason for every damaged file."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image

from augd.pixels.headers.read_header import MAX_PIXELS, BadImage, Header, read_header


def sample_image(width: int = 37, height: int = 29, mode: str = "RGB") -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


JPEG = encoded(sample_image(), "JPEG", subsampling=2)
PNG = encoded(sample_image(), "PNG")
WEBP = encoded(sample_image(), "WEBP")
SOF = JPEG.index(b"\xff\xc0")
SOS = JPEG.index(b"\xff\xda")
SCAN = SOS + 2 + (JPEG[SOS + 2] << 8 | JPEG[SOS + 3])


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(BadImage) as caught:
        read_header(data, **options)
    return str(caught.value)


def patched(data: bytes, at: int, by: bytes) -> bytes:
    return data[:at] + by + data[at + len(by) :]


@pytest.mark.parametrize(
    ("subsampling", "mcu"), [(0, (8, 8)), (1, (16, 8)), (2, (16, 16))], ids=["444", "422", "420"]
)
def test_jpeg(subsampling: int, mcu: tuple[int, int]) -> None:
    data = encoded(sample_image(), "JPEG", subsampling=subsampling)
    header = read_header(data)
    assert (header.format, header.width, header.height) == ("jpeg", 37, 29)
    assert (header.mcu_width, header.mcu_height) == mcu
    assert header.can_stop_early and not header.progressive and not header.has_alpha
    assert data[header.sof_height_offset :][:2] == (29).to_bytes(2, "big")
    assert data[header.sos_offset :][:2] == b"\xff\xda"


def test_a_bytearray_reads_as_bytes() -> None:
    assert read_header(bytearray(JPEG)) == read_header(JPEG)


def test_progressive_jpeg_is_not_stopped_early() -> None:
    header = read_header(encoded(sample_image(), "JPEG", progressive=True))
    assert header.progressive and not header.can_stop_early


def test_first_scan_of_one_component_is_not_stopped_early() -> None:
    assert not read_header(patched(JPEG, SOS + 4, b"\x01")).can_stop_early


@pytest.mark.parametrize(("mode", "num_components"), [("L", 1), ("RGB", 3), ("CMYK", 4)])
def test_jpeg_components(mode: str, num_components: int) -> None:
    assert read_header(encoded(sample_image(mode=mode), "JPEG")).num_components == num_components


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_png(mode: str) -> None:
    image = Image.new("I;16", (37, 29)) if mode == "I;16" else sample_image(mode=mode)
    header = read_header(encoded(image, "PNG"))
    assert (header.format, header.width, header.height) == ("png", 37, 29)
    assert header.has_alpha == (mode in ("LA", "RGBA"))


def test_png_with_a_transparent_palette_entry_has_alpha() -> None:
    assert read_header(encoded(sample_image(mode="P"), "PNG", transparency=3)).has_alpha


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0"])
def test_webp(lossless: bool, mode: str, exif: bytes) -> None:
    image = sample_image(mode=mode)
    if mode == "RGBA":
        image.putalpha(77)
    header = read_header(encoded(image, "WEBP", lossless=lossless, exif=exif))
    assert (header.format, header.width, header.height) == ("webp", 37, 29)
    assert header.has_alpha == (mode == "RGBA")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_orientation_is_reported(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert read_header(encoded(sample_image(), kind, exif=exif)).orientation == orientation


def test_broken_exif_is_no_orientation() -> None:
    for block in (
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    ):
        assert read_header(encoded(sample_image(), "JPEG", exif=block)).orientation == 1


def test_junk_after_the_end_marker_is_fine() -> None:
    assert read_header(JPEG + b"appended by a camera" * 9) == read_header(JPEG)


def test_stray_bytes_and_fill_bytes_between_segments_are_fine() -> None:
    header = read_header(JPEG[:SOF] + b"\0\0\xff\xff" + JPEG[SOF:])
    assert header.sof_height_offset == read_header(JPEG).sof_height_offset + 4


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the file is empty: expected one of JPEG, PNG, WebP"),
        (b"hello, world", "got bytes 68 65 6c 6c 6f 2c"),
        (bytes(500), "got bytes 00 00 00 00"),
        (b"<!doctype html><title>", "not an image: expected one of JPEG, PNG"),
        (b"RIFF\x20\0\0\0WAVEfmt ", "not an image"),
        (JPEG[:2], "JPEG header is cut off: the file ends after 2 bytes"),
        (JPEG[: SOF + 3], f"JPEG header is cut off: the file ends after {SOF + 3} bytes"),
        (JPEG[: SOF + 9], f"JPEG segment FFC0 at byte {SOF}: expected a length of 2..7, got 17"),
        (JPEG[:SOS], f"JPEG header is cut off: the file ends after {SOS} bytes"),
        (b"\xff\xd8\xff\xd9", "JPEG without an image: its end marker comes at byte 2"),
        (JPEG[:2] + JPEG[SOS:], "JPEG without a frame header before its first scan at byte 2"),
        (patched(JPEG, SOF + 2, b"\0\1"), f"FFC0 at byte {SOF}: expected a length of 2.."),
        (patched(JPEG, SOF + 2, b"\xff\xff"), "got 65535"),
        (patched(JPEG, SOF + 2, b"\0\7"), "JPEG frame header: expected at least 8 bytes, got 7"),
        (patched(JPEG, SOF + 2, b"\0\x0e"), "expected 17 bytes for 3 components, got 14"),
        (patched(JPEG, SOF + 4, b"\x0c"), "JPEG precision: expected 8 bits, got 12"),
        (patched(JPEG, SOF + 9, b"\x02"), "JPEG components: expected 1, 3 or 4, got 2"),
        (patched(JPEG, SOF + 11, b"\0"), "JPEG sampling factors: expected 1..4, got 0x0"),
        (patched(JPEG, SOF + 1, b"\xc3"), "JPEG process FFC3: expected baseline"),
        (patched(JPEG, SOF + 5, b"\0\0"), "expected a size of at least 1x1, got 37x0"),
        (patched(JPEG, SOF + 7, b"\0\0"), "expected a size of at least 1x1, got 0x29"),
        (PNG[:20], "PNG header is cut off: expected at least 33 bytes, got 20"),
        (PNG[:33], "PNG without image data: it ends after 33 bytes"),
        (PNG[:-12], f"PNG ends after {len(PNG) - 12} bytes without its IEND chunk"),
        (PNG[:-30], "PNG chunk b'IDAT' at byte 33: expected a length of at most"),
        (patched(PNG, 8, b"\0\0\0\x0e"), "PNG: expected an IHDR of 13 bytes first, got 14 bytes"),
        (patched(PNG, 16, bytes(4)), "expected a size of at least 1x1, got 0x29"),
        (patched(PNG, 25, b"\x05"), "PNG colour type: expected 0, 2, 3, 4 or 6, got 5"),
        (patched(PNG, 33, b"\xff\xff\xff\xff"), "got 4294967295"),
        (PNG[:33] + PNG[-12:], "PNG without image data: its IEND comes at byte 33"),
        (WEBP[:20], "WebP header is cut off: expected at least 30 bytes, got 20"),
        (WEBP[:-4], f"WebP is cut off: expected {len(WEBP)} bytes, got {len(WEBP) - 4}"),
        (patched(WEBP, 16, b"\xff\xff\xff\xff"), "WebP chunk b'VP8 ': expected at most"),
        (patched(WEBP, 12, b"ABCD"), "WebP chunk: expected VP8, VP8L or VP8X, got b'ABCD'"),
        (patched(WEBP, 23, b"\0"), "WebP key frame: expected 9d 01 2a, got 00 01 2a"),
        (patched(WEBP, 26, b"\0\0"), "expected a size of at least 1x1, got 0x29"),
    ],
)
def test_damage_is_named(data: bytes, text: str) -> None:
    assert text in reason(data)


def test_what_decoders_may_not_have_as_it_is() -> None:
    animated = encoded(
        sample_image(), "WEBP", save_all=True, append_images=[sample_image().rotate(90)]
    )
    apng = encoded(sample_image(), "PNG", save_all=True, append_images=[sample_image().rotate(90)])
    for plain, other in ((WEBP, animated), (PNG, apng), (JPEG, JPEG[:-2])):
        header = read_header(other)
        assert read_header(plain).is_plain and not header.is_plain
        assert (header.width, header.height) == (37, 29)


def test_bombs_are_refused_from_the_header() -> None:
    jpeg = patched(JPEG, SOF + 5, struct.pack(">HH", 60_000, 60_000))
    assert reason(jpeg) == (
        "too large: expected at most 64,000,000 pixels, got 60000x60000 (3,600,000,000)"
    )
    ihdr = b"IHDR" + struct.pack(">II", 60_000, 60_000) + PNG[24:29]
    png = PNG[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + PNG[33:]
    assert "got 60000x60000" in reason(png)
    assert MAX_PIXELS == 64_000_000


def test_the_limit_is_an_argument() -> None:
    assert read_header(JPEG, max_pixels=37 * 29).width == 37
    assert "expected at most 1,072 pixels, got 37x29" in reason(JPEG, max_pixels=37 * 29 - 1)


@pytest.mark.parametrize("data", [JPEG, PNG, WEBP], ids=["jpeg", "png", "webp"])
def test_every_cut_gives_a_reason(data: bytes) -> None:
    """The end is looked for, so that no proper prefix passes as it is (WebP may lack padding)."""
    for length in range(len(data) - 1):
        if data is JPEG and length >= SCAN:
            assert not read_header(data[:length]).is_plain  # who decodes it looks at all of it
        else:
            assert reason(data[:length])


@pytest.mark.parametrize("data", [JPEG, PNG, WEBP], ids=["jpeg", "png", "webp"])
def test_any_changed_byte_gives_a_header_or_a_reason(data: bytes) -> None:
    for at in range(min(len(data), 700)):
        for value in (0, 1, 0x7F, 0xD9, 0xDA, 0xFF):
            try:
                assert isinstance(read_header(patched(data, at, bytes((value,)))), Header)
            except BadImage as bad:
                assert str(bad)


def test_needs_neither_numpy_nor_an_image_library() -> None:
    code = (
        "import sys, augd.pixels.headers.read_header, augd.dataset.index_file;"
        "print(sorted({'numpy', 'cv2', 'PIL', 'torch'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
