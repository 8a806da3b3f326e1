"""Formats beyond JPEG, PNG and WebP: their headers, their first images, and their decoders."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

from augd.diagnostics.decode_process import DecodeProcess
from augd.pixels.decode import Pixels, decode
from augd.pixels.exif_orientation import decode_upright, upright_size
from augd.pixels.headers.formats import PACKAGES
from augd.pixels.headers.read_header import BadImage, Header, read_header
from tests.hostile.images import HEIGHT, WIDTH, photo
from tests.support.scenes import caught_noise

NEEDS_HEIC = pytest.mark.skipif(
    find_spec("pillow_heif") is None, reason="needs pillow-heif: the extra `formats`"
)
NEEDS_JXL = pytest.mark.skipif(
    find_spec("pillow_jxl") is None, reason="needs pillow-jxl-plugin: the extra `formats`"
)
NEEDS_AVIF = pytest.mark.skipif(
    not features.check("avif"), reason="needs a Pillow with libavif, 11.3 or newer"
)
KINDS = [
    "BMP", "TIFF", "GIF",
    pytest.param("AVIF", marks=NEEDS_AVIF),
    pytest.param("HEIF", marks=NEEDS_HEIC),
    pytest.param("JXL", marks=NEEDS_JXL),
]  # fmt: skip
FORMATS = {"HEIF": "heic"}


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    elif kind == "JXL":
        import pillow_jxl  # noqa: F401 - importing it registers it
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def whole(data: bytes, header: Header | None = None) -> Pixels:
    found = header or read_header(data)
    with caught_noise():
        return decode(data, found, (0, 0, found.width, found.height))


def pillows(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened.convert("RGB"))


def grey16(shape: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint16]:
    return np.random.default_rng(4).integers(0, 65536, shape).astype(np.uint16)


# --- what is read ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (37, 29), (16, 16), (300, 9)])
def test_size_and_pixels_are_pillows(kind: str, size: tuple[int, int]) -> None:
    data = saved(Image.fromarray(photo()).resize(size), kind)
    header = read_header(data)
    assert (header.format, header.width, header.height) == (FORMATS.get(kind, kind.lower()), *size)
    assert np.array_equal(whole(data), pillows(data))
    with caught_noise():
        part = decode(data, header, (1, 2, 8, 7))
        half = decode(data, header, (0, 0, 8, 8), 2)
    assert np.array_equal(part, pillows(data)[2:9, 1:9])
    assert half.shape == (4, 4, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiffs(mode: str, compression: str | None) -> None:
    if mode == "I;16":
        data = saved(Image.fromarray(grey16()), "TIFF", compression=compression)
        assert (whole(data) == (grey16() >> 8).astype(np.uint8)[..., None]).all()
        return
    image = Image.fromarray(photo()).convert(mode)
    data = saved(image, "TIFF", compression=compression)
    if mode in ("LA", "RGBA"):
        assert np.array_equal(whole(data), photo() if mode == "RGBA" else pillows(data))
    else:
        assert np.array_equal(whole(data), pillows(data))


def tiff(
    samples: NDArray[np.generic], photometric: int, order: str = "<", **more: tuple[int, int]
) -> bytes:
    """Write a TIFF of one strip by hand; `more` are tags tNNN: (type, value)."""
    height, width, channels = samples.shape
    bits = samples.dtype.itemsize * 8
    content = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    bits_at = 8 + len(content)
    short, long = 3, 4
    tags = {
        256: (short, 1, width), 257: (short, 1, height), 258: (short, channels, bits_at),
        259: (short, 1, 1), 262: (short, 1, photometric), 273: (long, 1, 8),
        277: (short, 1, channels), 278: (short, 1, height), 279: (long, 1, len(content)),
    }  # fmt: skip
    if channels < 3:
        tags[258] = (short, 1, bits)
    for name, (kind, value) in more.items():
        tags[int(name[1:])] = (kind, 1, value)
    listed = b""
    for tag, (kind, count, value) in sorted(tags.items()):
        is_inline_short = kind == short and count == 1
        form = "HHIHxx" if is_inline_short else "HHII"
        listed += struct.pack(order + form, tag, kind, count, value)
    ifd_at = bits_at + 2 * channels
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(order + "I", ifd_at)
    table = struct.pack(f"{order}{channels}H", *[bits] * channels)
    number = struct.pack(order + "H", len(tags))
    return head + content + table + number + listed + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_of_16_bits_give_upper_bytes(order: str) -> None:
    deep = np.random.default_rng(5).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    upper = (deep >> 8).astype(np.uint8)
    assert np.array_equal(whole(tiff(deep, 2, order)), upper)
    assert np.array_equal(whole(tiff(deep[..., :1], 1, order)), np.repeat(upper[..., :1], 3, 2))
    if order == "<":  # the other Pillow does not read, and says so
        inverted = whole(tiff(deep[..., :1], 0, order))
        assert np.array_equal(inverted, 255 - np.repeat(upper[..., :1], 3, 2))


@pytest.mark.parametrize("turn", range(1, 9))
def test_tiffs_come_upright(turn: int) -> None:
    data = tiff(photo(), 2, t274=(3, turn))
    found, right = whole(data), pillows(data)
    assert found.shape == ((HEIGHT, WIDTH, 3) if turn < 5 else (WIDTH, HEIGHT, 3))
    assert np.array_equal(found, right)
    assert read_header(data).orientation == 1


@NEEDS_AVIF
@pytest.mark.parametrize("turn", range(1, 9))
def test_avifs_are_turned_as_pillow_does(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = saved(Image.fromarray(photo()), "AVIF", exif=exif, quality=90)
    header = read_header(data)
    assert header.orientation == turn and (header.width, header.height) == (WIDTH, HEIGHT)
    with Image.open(io.BytesIO(data)) as opened:
        right = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    with caught_noise():
        found = decode_upright(data, header, (0, 0, *upright_size(header)))
    assert np.array_equal(found, right)


@NEEDS_HEIC
@pytest.mark.parametrize("turn", range(1, 9))
def test_heics_come_upright(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = saved(Image.fromarray(photo()), "HEIF", exif=exif.tobytes())
    header = read_header(data)
    assert header.orientation == 1
    with Image.open(io.BytesIO(data)) as opened:
        assert (header.width, header.height) == opened.size
        assert np.array_equal(whole(data), np.asarray(opened.convert("RGB")))


@NEEDS_HEIC
def test_a_heic_of_tiles_has_the_size_of_all() -> None:
    image = Image.fromarray(photo()).resize((300, 200))
    data = saved(image, "HEIF", tile_size=128)
    header = read_header(data)
    assert (header.width, header.height) == (300, 200)
    assert np.array_equal(whole(data), pillows(data))


@NEEDS_JXL
def test_a_jpeg_in_a_jpeg_xl_is_that_jpeg(tmp_path: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(Image.fromarray(photo()), "JPEG", exif=exif))
    with Image.open(path) as opened:
        data = saved(opened, "JXL", lossless_jpeg=True)
        header = read_header(data)
        assert b"jbrd" in data and (header.width, header.height) == (WIDTH, HEIGHT)
        assert header.orientation == 6
        assert np.array_equal(whole(data), np.asarray(opened))


@NEEDS_JXL
@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "I;16"])
def test_jpeg_xls(mode: str) -> None:
    if mode == "I;16":
        data = saved(Image.fromarray(grey16()), "JXL", lossless=True)
        assert (whole(data) == (grey16() >> 8).astype(np.uint8)[..., None]).all()
    else:
        image = Image.fromarray(photo()).convert(mode)
        data = saved(image, "JXL", lossless=True)
        assert np.array_equal(whole(data), np.asarray(image.convert("RGB")))


@NEEDS_JXL
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (256, 256), (257, 255), (600, 400), (513, 9)])
def test_sizes_of_jpeg_xls(size: tuple[int, int]) -> None:
    header = read_header(saved(Image.new("RGB", size), "JXL"))
    assert (header.width, header.height) == size


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_bmps(mode: str) -> None:
    image = Image.fromarray(photo()).convert(mode)
    data = saved(image, "BMP")
    assert np.array_equal(whole(data), pillows(data))
    flipped = bytearray(data)
    flipped[22:26] = struct.pack("<i", -HEIGHT)
    assert np.array_equal(whole(bytes(flipped)), pillows(data)[::-1])


def test_transparency_of_the_others_follows_the_rule() -> None:
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, 48:] = 0
    rgba = Image.fromarray(np.dstack([np.full((HEIGHT, WIDTH, 3), 200, np.uint8), alpha]))
    made = {"TIFF": {}, "GIF": {}}
    more = {"HEIF": ("pillow_heif", {"quality": -1}), "JXL": ("pillow_jxl", {"lossless": True})}
    made |= {kind: options for kind, (module, options) in more.items() if find_spec(module)}
    for kind, options in made.items():
        data = saved(rgba, kind, **options)
        header = read_header(data)
        size = (0, 0, header.width, header.height)
        with caught_noise():
            black, white = decode(data, header, size), decode(data, header, size, 1, (255,) * 3)
        assert (black[:, :48] > 190).all() and (black[:, 48:] == 0).all(), kind
        assert (white[:, 48:] == 255).all(), kind


# --- one image of several ------------------------------------------------------------------


def test_the_first_frame_of_a_gif(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.fromarray(photo(seed)).convert("P") for seed in (3, 4, 5)]
    still = saved(frames[0], "GIF")
    many = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(whole(many), whole(still))
    wild = many[: len(still) + 40] + b"\xff" * 99
    assert np.array_equal(whole(wild), whole(still))
    seen: list[int] = []
    opened = Image.open
    monkeypatch.setattr(
        Image,
        "open",
        lambda file, **more: seen.append(len(file.getvalue())) or opened(file, **more),
    )
    whole(many)
    assert seen[0] < len(still) + 64 < len(many)


def test_a_frame_that_is_smaller_or_larger_than_its_screen() -> None:
    data = bytearray(saved(Image.fromarray(photo()).convert("P"), "GIF"))
    for screen in ((8, 8), (200, 100)):
        data[6:10] = struct.pack("<HH", *screen)
        header = read_header(data)
        assert (header.width, header.height) == (max(screen[0], WIDTH), max(screen[1], HEIGHT))
        right = pillows(bytes(data))
        found = whole(bytes(data))
        assert np.array_equal(found[:HEIGHT, :WIDTH], right[:HEIGHT, :WIDTH])


def test_the_first_page_of_a_tiff() -> None:
    pages = [Image.fromarray(photo(seed)) for seed in (3, 4)]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert np.array_equal(whole(data), photo(3))
    ifd = struct.unpack_from("<I", data, 4)[0]
    at = ifd + 2 + 12 * struct.unpack_from("<H", data, ifd)[0]
    for second in (ifd, 0xFFFFFFFF, 1):  # itself, nowhere, the header
        odd = data[:at] + struct.pack("<I", second) + data[at + 4 :]
        assert np.array_equal(whole(odd), photo(3))


@NEEDS_AVIF
def test_the_still_image_of_a_sequence() -> None:
    frames = [Image.fromarray(photo(seed)) for seed in (3, 4, 5)]
    data = saved(frames[0], "AVIF", save_all=True, append_images=frames[1:], quality=95)
    header = read_header(data)
    assert b"moov" in data and not header.is_plain
    assert np.abs(whole(data).astype(int) - photo(3)).mean() < 4
    at = data.index(b"moov") + 60
    wild = data[:at] + b"\xff" * 300 + data[at + 300 :]
    assert np.array_equal(whole(wild), whole(data))


@NEEDS_HEIC
def test_the_primary_image_of_several() -> None:
    frames = [Image.fromarray(photo(seed)) for seed in (3, 4)]
    for first in (0, 1):
        data = saved(
            frames[0], "HEIF", save_all=True, append_images=frames[1:], primary_index=first
        )
        assert np.abs(whole(data).astype(int) - photo(3 + first)).mean() < 8


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_is_a_bad_image_and_nothing_else(kind: str) -> None:
    data = saved(Image.fromarray(photo()).resize((24, 20)), kind)
    for length in range(0, len(data), max(1, len(data) // 60)):
        try:
            found = whole(data[:length])
        except BadImage as bad:
            assert str(bad).isprintable()
        else:  # what is missing is metadata, or padding
            assert found.shape == (20, 24, 3)


@pytest.fixture(scope="module")
def apart() -> Iterator[DecodeProcess]:
    data = saved(Image.fromarray(photo()), "BMP")
    with DecodeProcess() as process:
        process.decode(data, read_header(data), (0, 0, 8, 8))  # it starts with its first question
        yield process


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(30))
def test_random_damage_is_a_bad_image_or_a_image(
    kind: str, seed: int, apart: DecodeProcess
) -> None:
    """DecodeProcess, since a library of another version may die of what this one refuses."""
    draw = np.random.default_rng(seed)
    data = bytearray(saved(Image.fromarray(photo()).resize((24, 20)), kind))
    for _ in range(1 + seed % 4):
        data[int(draw.integers(len(data)))] = int(draw.integers(256))
    try:
        header = read_header(data, max_pixels=1 << 20)
        found = apart.decode(data, header, (0, 0, header.width, header.height))
    except BadImage as bad:
        assert str(bad).isprintable() and len(str(bad)) < 2500
    else:
        assert found.shape == (header.height, header.width, 3)


def _vast(kind: str) -> bytes:
    data = bytearray(saved(Image.fromarray(photo()), kind))
    side = 60_000
    if kind == "BMP":
        data[18:26] = struct.pack("<ii", side, side)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
    elif kind in ("AVIF", "HEIF"):
        at = data.index(b"ispe") + 8
        data[at : at + 8] = struct.pack(">II", side, side)
    elif kind == "JXL":
        # Not small, both sides by 18 bits.
        bits = 0 | 2 << 1 | (side - 1) << 3 | 0 << 21 | 2 << 24 | (side - 1) << 26
        return b"\xff\x0a" + bits.to_bytes(8, "little") + bytes(data[10:])
    else:
        return tiff(photo(), 2, t256=(4, side), t257=(4, side))
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_bombs_are_refused_before_a_decoder_sees_them(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        BadImage, match=r"too large: expected at most 64,000,000 pixels, got 60000x"
    ):
        read_header(_vast(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_that_lies_about_its_size_stops_the_decoder(kind: str) -> None:
    header = read_header(saved(Image.fromarray(photo()), kind))
    other = saved(Image.fromarray(photo()).resize((48, 40)), kind)
    with pytest.raises(BadImage, match=r"decoded to another size: expected 96x80, got 48x40"):
        whole(other, header)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"BM" + bytes(12) + struct.pack("<I", 40), "BMP header is cut off"),
        (
            b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 9, 9, 1, 7) + bytes(9),
            "BMP: expected 1, 2",
        ),
        (b"GIF89a\x09\0\x09\0\0\0\0;" + bytes(20), "GIF without an image: its end"),
        (b"GIF89a\x09\0\x09\0\0\0\0" + b"\x21\xfe\0" * 5000 + bytes(20), "at most 4096 segments"),
        (b"GIF89a\x09\0\x09\0\0\0\0\x99" + bytes(20), "a block 99 comes at byte 13"),
        (b"II*\0\xff\xff\xff\xff", "TIFF header is cut off"),
        (b"II*\0\x08\0\0\0\xff\xff" + bytes(99), "TIFF directory: expected at most 512 tags"),
        (tiff(photo(), 2, t339=(3, 3)), "expected unsigned whole numbers"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1" + bytes(64), "it has no box `meta`"),
        (b"\0\0\0\x14ftypavif\0\0\0\0mif1", "AVIF without a still image: it has no box `meta`"),
        (b"\0\0\0\x14ftypheic\0\0\0\0mif1\0\0\0\x0cmeta\0\0\0\0", "it names no primary one"),
        (b"\0\0\0\x14ftypheic\0\0\0\0mif1\xff\0\0\0mdat", "HEIC box b'mdat' at byte 20"),
        (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x08jxlc", "JPEG XL without a codestream"),
        (b"\0\0\0\x0cJXL \r\n\x87\n\xff\0\0\x08jxlc", "JPEG XL box b'jxlc' at byte 12"),
    ],
)
def test_damage_is_named(data: bytes, text: str) -> None:
    with pytest.raises(BadImage) as caught:
        read_header(data)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "module"),
    [
        pytest.param("HEIF", "pillow_heif", marks=NEEDS_HEIC),
        pytest.param("JXL", "pillow_jxl", marks=NEEDS_JXL),
    ],
)
def test_without_its_package_a_format_is_a_bad_sample_that_names_it(
    kind: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(Image.fromarray(photo()), kind)
    monkeypatch.setitem(sys.modules, module, None)
    package = PACKAGES[read_header(data).format]
    with pytest.raises(BadImage, match=rf"take the package {package}, .*'\.\[formats\]'"):
        whole(data)


def test_an_old_pillow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    header = Header("avif", WIDTH, HEIGHT)
    plugin = pytest.importorskip("PIL.AvifImagePlugin")
    monkeypatch.setattr(plugin, "SUPPORTED", False)
    with pytest.raises(BadImage, match=r"AVIF images take Pillow 11\.3 or newer"):
        whole(b"", header)
    monkeypatch.setitem(sys.modules, "PIL.AvifImagePlugin", None)
    monkeypatch.delattr("PIL.AvifImagePlugin")
    with pytest.raises(BadImage, match=r"AVIF images take Pillow 11\.3 or newer"):
        whole(b"", header)


def test_what_libraries_raise_is_a_bad_image(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.fromarray(photo()), "BMP")

    class PanicException(BaseException):
        pass

    def raising(error: BaseException) -> Callable[..., object]:
        def fail(*_: object, **__: object) -> object:
            raise error

        return fail

    for error in (KeyError("x"), AssertionError(), MemoryError(), PanicException("at x.rs\n9")):
        with monkeypatch.context() as patch:
            patch.setattr(Image, "open", raising(error))
            with pytest.raises(BadImage, match=r"the BMP decoder gave up: "):
                whole(data)
    monkeypatch.setattr(Image, "open", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        whole(data)
