"""Decoding: the right RGB for every kind of file, and a reason for every damaged one."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from augd.pixels import decode as decoding
from augd.pixels.decode import decode
from augd.pixels.headers.read_header import BadImage, read_header
from tests.support.scenes import EITHER_KERNELS, caught_noise

pytestmark = EITHER_KERNELS

WIDTH, HEIGHT = 131, 97


def smooth(channels: int = 3) -> NDArray[np.uint8]:
    noise = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, channels)).astype(np.uint8)
    blurred = cv2.GaussianBlur(noise, (0, 0), 4).reshape(HEIGHT, WIDTH, channels)
    stretched = cv2.normalize(blurred, np.empty_like(blurred), 0, 255, cv2.NORM_MINMAX)
    return np.asarray(stretched, np.uint8).reshape(HEIGHT, WIDTH, channels)


RGB = smooth()


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def whole(data: bytes) -> NDArray[np.uint8]:
    header = read_header(data)
    return decode(data, header, (0, 0, header.width, header.height))


def by_pillow(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_files_equal_pillow(kind: str, mode: str) -> None:
    data = encoded(Image.fromarray(RGB).convert(mode), kind)
    assert difference(whole(data), by_pillow(data)) == 0


def test_channels_are_red_green_blue() -> None:
    image = Image.new("RGB", (16, 16), (250, 130, 10))
    for data in (encoded(image, "PNG"), encoded(image, "WEBP", lossless=True)):
        assert whole(data)[3, 3].tolist() == [250, 130, 10]
    assert np.abs(whole(encoded(image, "JPEG"))[3, 3].astype(int) - (250, 130, 10)).max() <= 2


def test_grey_jpeg_gives_three_equal_channels() -> None:
    found = whole(encoded(Image.fromarray(RGB).convert("L"), "JPEG"))
    assert (found[..., 0] == found[..., 1]).all() and (found[..., 0] == found[..., 2]).all()


def test_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "WEBP"):
        turned = encoded(Image.fromarray(RGB), kind, exif=exif)
        assert (whole(turned) == whole(encoded(Image.fromarray(RGB), kind))).all()


def test_sixteen_bit_png_keeps_the_high_bytes() -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
    found = whole(cv2.imencode(".png", deep)[1].tobytes())
    assert (found == (deep >> 8)[..., ::-1]).all()
    grey = deep[..., 0]
    found = whole(cv2.imencode(".png", grey)[1].tobytes())
    assert (found == (grey >> 8)[..., None]).all()


def on_black(image: Image.Image) -> NDArray[np.uint8]:
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return np.asarray(Image.alpha_composite(black, image.convert("RGBA")).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_on_black(mode: str) -> None:
    image = Image.fromarray(RGB)
    image.putalpha(Image.fromarray(smooth(1)[..., 0]))
    image = image.convert(mode)
    assert difference(whole(encoded(image, "PNG")), on_black(image)) <= 1
    if mode == "RGBA":
        lossless = encoded(image, "WEBP", lossless=True, exact=True)
        assert difference(whole(lossless), on_black(image)) <= 1


def test_transparent_palette_entries_become_black() -> None:
    image = Image.fromarray(RGB).quantize(16)
    data = encoded(image, "PNG", transparency=3)
    found = whole(data)
    transparent = np.asarray(image) == 3
    assert transparent.any() and not found[transparent].any()
    assert (found[~transparent] == np.asarray(image.convert("RGB"))[~transparent]).all()


def test_sixteen_bit_alpha_is_dropped_on_black() -> None:
    deep = np.zeros((6, 5, 4), np.uint16)
    deep[...] = (10 << 8, 100 << 8, 200 << 8, 128 << 8)
    found = whole(cv2.imencode(".png", deep)[1].tobytes())
    assert found.shape == (6, 5, 3) and found[0, 0].tolist() == [100, 50, 5]


def without_adobe_marker(data: bytes) -> bytes:
    at = data.index(b"\xff\xee")
    (length,) = struct.unpack_from(">H", data, at + 2)
    return data[:at] + data[at + 2 + length :]


def test_cmyk_jpegs_come_out_right_inverted_or_not() -> None:
    data = encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert difference(whole(data), by_pillow(data)) == 0
    assert difference(whole(data), RGB) < 24
    inverted = Image.fromarray(255 - np.asarray(Image.fromarray(RGB).convert("CMYK")), "CMYK")
    plain = without_adobe_marker(encoded(inverted, "JPEG", quality=95))
    assert difference(whole(plain), RGB) < 24


def test_a_png_named_jpg_is_a_png() -> None:
    """The name never reaches the decoder: magic bytes decide."""
    data = encoded(Image.fromarray(RGB), "PNG")
    assert read_header(data).format == "png" and difference(whole(data), RGB) == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_region_is_that_part_of_the_whole(kind: str) -> None:
    data = encoded(Image.fromarray(RGB), kind)
    found = decode(data, read_header(data), (11, 5, 40, 33))
    assert (found == whole(data)[5:38, 11:51]).all()


def test_early_stop_leaves_a_bytearray_as_it_was() -> None:
    data = encoded(Image.fromarray(RGB), "JPEG")
    ours = bytearray(data)
    found = decode(ours, read_header(ours), (0, 0, WIDTH, 20))
    assert ours == data and (found == whole(data)[:20]).all()


def test_early_stop_reads_no_further_than_it_must() -> None:
    """What lies below the region is not looked at: here it would not decode."""
    data = encoded(Image.fromarray(RGB), "JPEG", quality=95, subsampling=0)
    header = read_header(data)
    assert decoding._rows_needed(header, 8) == 8
    assert decoding._rows_needed(header, 9) == 16
    assert decoding._rows_needed(header, HEIGHT) == HEIGHT
    smooth_chroma = read_header(encoded(Image.fromarray(RGB), "JPEG", subsampling=2))
    assert [decoding._rows_needed(smooth_chroma, end) for end in (14, 15, 16)] == [16, 32, 32]


@pytest.mark.parametrize(
    "region", [(0, 0, 0, 5), (0, 0, 5, 0), (-1, 0, 5, 5), (0, 0, WIDTH + 1, 5), (0, 90, 5, 8)]
)
def test_a_region_outside_is_a_mistake_of_the_caller(region: tuple[int, int, int, int]) -> None:
    data = encoded(Image.fromarray(RGB), "PNG")
    with pytest.raises(ValueError, match="region: expected a part of 131x97, got"):
        decode(data, read_header(data), region)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_other_scales_and_regions_between_scaled_pixels_are_refused(kind: str) -> None:
    data = encoded(Image.fromarray(RGB), kind)
    header = read_header(data)
    for scale in (0, 3, 16):
        with pytest.raises(ValueError, match=f"scale: expected 1, 2, 4 or 8, got {scale}"):
            decode(data, header, (0, 0, 8, 8), scale)
    for region in ((2, 0, 8, 8), (0, 4, 8, 10), (0, 0, WIDTH - 1, 8)):
        with pytest.raises(ValueError, match="expected multiples of the scale 4 or the image's"):
            decode(data, header, region, 4)
    assert decode(data, header, (4, 8, WIDTH - 4, HEIGHT - 8), 4).shape == (23, 32, 3)


@caught_noise()
def test_a_scaled_jpeg_with_missing_data_is_bad() -> None:
    data = encoded(Image.fromarray(RGB), "JPEG", quality=95)
    cut = data[: len(data) // 2] + b"\xff\xd9"
    with pytest.raises(BadImage, match="broken scan"):
        decode(cut, read_header(cut), (0, 0, WIDTH, HEIGHT), 8)
    assert decode(data, read_header(data), (0, 0, WIDTH, HEIGHT), 8).shape == (13, 17, 3)


def reason(data: bytes) -> str:
    with pytest.raises(BadImage) as caught:
        whole(data)
    return str(caught.value)


def zeroed(data: bytes, at: int, length: int) -> bytes:
    return data[:at] + bytes(length) + data[at + length :]


def taller(png: bytes) -> bytes:
    ihdr = png[12:20] + struct.pack(">I", 500) + png[24:29]
    return png[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + png[33:]


def half_of_the_data(png: bytes) -> bytes:
    body = png[41 : 41 + (len(png) - 65) // 2]
    crc = struct.pack(">I", zlib.crc32(b"IDAT" + body))
    return png[:33] + struct.pack(">I", len(body)) + b"IDAT" + body + crc + png[-12:]


def test_damaged_png_and_webp_are_bad() -> None:
    png = encoded(Image.fromarray(RGB), "PNG")
    gave_up = "the PNG decoder gave up: the file is damaged"
    assert reason(zeroed(png, 1000, 10)) == gave_up
    assert reason(zeroed(png, 41, 2)) == gave_up
    assert reason(taller(png)) == gave_up
    assert reason(half_of_the_data(png)) == gave_up
    webp = encoded(Image.fromarray(RGB), "WEBP")
    assert reason(zeroed(webp, 200, 60)) == "the WEBP decoder gave up: the file is damaged"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@caught_noise()
def test_a_jpeg_with_missing_data_is_bad_and_never_grey(mode: str, progressive: bool) -> None:
    image = Image.fromarray(RGB).convert(mode)
    data = encoded(image, "JPEG", quality=95, progressive=progressive)
    cut = data[: len(data) // 2] + b"\xff\xd9"
    assert reason(cut) in (
        "broken scan: Corrupt JPEG data: premature end of data segment",
        "the JPEG decoder gave up: the file is damaged",
        # Where a segment between two scans was cut, it takes the marker for its own.
        f"JPEG ends after {len(cut)} bytes without an end marker, and scans are missing",
    )
    assert whole(data).shape == (HEIGHT, WIDTH, 3)


@caught_noise()
def test_a_jpeg_taller_than_its_data_is_bad() -> None:
    data = encoded(Image.fromarray(RGB), "JPEG")
    at = read_header(data).sof_height_offset
    assert "premature end" in reason(data[:at] + (5000).to_bytes(2, "big") + data[at + 2 :])


@caught_noise()
def test_damage_below_the_region_is_not_looked_at() -> None:
    data = encoded(Image.fromarray(RGB), "JPEG", quality=95, subsampling=0)
    cut = data[: len(data) * 3 // 4] + b"\xff\xd9"
    region = (0, 0, WIDTH, HEIGHT // 2)
    assert (decode(cut, read_header(cut), region) == whole(data)[: HEIGHT // 2]).all()
    assert "premature end" in reason(cut)
    assert whole(data).any(), "the warning of one file must not stick to the next"


@caught_noise()
def test_early_stops_and_trailing_junk_are_not_broken_scans() -> None:
    data = encoded(Image.fromarray(RGB), "JPEG")
    assert (whole(data + b"junk" * 9) == whole(data)).all()
    assert decode(data, read_header(data), (0, 0, 9, 9)).shape == (9, 9, 3)


def test_a_size_other_than_the_headers_is_bad() -> None:
    data = encoded(Image.fromarray(RGB), "PNG")
    other = read_header(encoded(Image.new("RGB", (140, 97)), "PNG"))
    with pytest.raises(BadImage, match=r"expected 140x97 RGB, got shape \(97, 131, 3\) of uint8"):
        decode(data, other, (0, 0, 140, 97))


def test_silenced_noise_leaves_python_and_faulthandler_audible() -> None:
    code = """
import faulthandler, os, sys
from augd.pixels import decode
faulthandler.enable()
decode.configure()
decode.silence_library_noise()
decode.silence_library_noise()
os.write(2, b"hidden noise")
print("visible words", file=sys.stderr)
faulthandler._sigsegv()
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode != 0
    assert "visible words" in found.stderr and "Segmentation fault" in found.stderr
    assert "hidden noise" not in found.stderr
