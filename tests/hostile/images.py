"""Damaged and hostile image files, each with a number, a name and the verdict that it must get.

`python -m tests.hostile.images FOLDER` writes all of them. They are made, not collected, and the
same on every run. Three verdicts:

- GOOD: decodes, to the same pixels as the clean file `like`;
- REFUSED: `read_header` says why, so that no decoder sees a byte of it;
- MASKED: the header passes, and the decoder says why it is no image.

For a stream the last two are one: zeros, label -100, `valid` false, and the reason is listed.
"""

from __future__ import annotations

import enum
import io
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 96, 80


class Verdict(enum.Enum):
    GOOD = "good"
    REFUSED = "refused"
    MASKED = "masked"


@dataclass(frozen=True)
class Hostile:
    """One file. `reason` is a pattern that the reason must match; `like` is for GOOD ones."""

    number: int
    name: str
    data: bytes
    verdict: Verdict
    reason: str = ""
    like: bytes = b""

    @property
    def file_name(self) -> str:
        """Name that a scan takes for an image's, whatever is inside."""
        return f"{self.number:03}-{self.name.replace(' ', '-')}.jpg"


@cache
def hostile_images() -> tuple[Hostile, ...]:
    """Make all of them, in the order of their numbers."""
    made = [*_cut_off(), *_not_images(), *_odd_jpegs(), *_lying_jpegs(), *_pngs(), *_webps()]
    made += [*_bombs(), *_colours(), *_shapes(), *_others()]
    return tuple(Hostile(number, *row) for number, row in enumerate(made, 1))


# name, data, verdict, and then the reason of bad ones, or "" and the clean file of good ones
_Row = tuple[str, bytes, Verdict, str] | tuple[str, bytes, Verdict, str, bytes]
_GOOD, _REFUSED, _MASKED = Verdict.GOOD, Verdict.REFUSED, Verdict.MASKED


def _good(name: str, data: bytes, like: bytes) -> _Row:
    return name, data, _GOOD, "", like


# --- clean files -----------------------------------------------------------------------------


def photo(seed: int = 3) -> NDArray[np.uint8]:
    """Draw something smooth: uint8 (HEIGHT, WIDTH, 3), RGB."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 8, 3)).astype(np.uint8)
    large = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.asarray(large, np.uint8)


def jpeg(*, progressive: bool = False, restarts: int = 0, sampling: int | None = None) -> bytes:
    """Encode the photo with OpenCV."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_RST_INTERVAL, restarts]
    options += [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    if sampling is not None:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return cv2.imencode(".jpg", photo()[..., ::-1], options)[1].tobytes()


def saved(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """Encode the photo with Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(photo()).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(pixels: NDArray[np.generic]) -> bytes:
    """Encode any RGB or grey array without loss."""
    channels = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    return cv2.imencode(".png", channels)[1].tobytes()


JPEG = jpeg()
PROGRESSIVE = jpeg(progressive=True)
RESTARTS = jpeg(restarts=3)
CMYK = saved("JPEG", "CMYK")
PNG = saved("PNG")
WEBP = saved("WEBP")
LOSSLESS = saved("WEBP", lossless=True)
_EOI = b"\xff\xd9"


# --- taking files apart ----------------------------------------------------------------------


def segment(marker: int, payload: bytes) -> bytes:
    """Make a JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def find(data: bytes, marker: int) -> int:
    """Give the position of the first segment of a kind."""
    at = 2
    while data[at + 1] != marker:
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return at


def without(data: bytes, marker: int) -> bytes:
    """Take all segments of a kind out of a JPEG's header."""
    out, at = bytearray(data[:2]), 2
    while data[at + 1] != 0xDA:
        end = at + 2 + (data[at + 2] << 8 | data[at + 3])
        if data[at + 1] != marker:
            out += data[at:end]
        at = end
    return bytes(out) + data[at:]


def put(data: bytes, at: int, new: bytes) -> bytes:
    """Overwrite some bytes."""
    return data[:at] + new + data[at + len(new) :]


def insert(data: bytes, at: int, new: bytes) -> bytes:
    """Insert some bytes."""
    return data[:at] + new + data[at:]


def chunk(kind: bytes, payload: bytes = b"") -> bytes:
    """Make a PNG chunk."""
    crc = struct.pack(">I", zlib.crc32(kind + payload))
    return struct.pack(">I", len(payload)) + kind + payload + crc


def png(*chunks: bytes, ihdr: tuple[int, ...] = (WIDTH, HEIGHT, 8, 2, 0, 0, 0)) -> bytes:
    """Make a PNG of an IHDR, these chunks and an IEND."""
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *ihdr))
    return head + b"".join(chunks) + chunk(b"IEND")


def idat(pixels: NDArray[np.uint8] | None = None) -> bytes:
    """Make the image data of an 8-bit RGB PNG."""
    rows = (photo() if pixels is None else pixels).reshape(HEIGHT, -1)
    return chunk(b"IDAT", zlib.compress(np.insert(rows, 0, 0, axis=1).tobytes()))


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """Make a WebP of these chunks."""
    body = b"WEBP"
    for kind, payload in chunks:
        body += kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) & 1)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def vp8x(flags: int, width: int = WIDTH, height: int = HEIGHT) -> tuple[bytes, bytes]:
    """Make the chunk that announces a canvas."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", struct.pack("<I", flags) + sides


# --- the files -------------------------------------------------------------------------------

_SOF, _DHT, _SOS = find(JPEG, 0xC0), find(JPEG, 0xC4), find(JPEG, 0xDA)
_DQT = find(JPEG, 0xDB)
_SCAN = _SOS + 2 + (JPEG[_SOS + 2] << 8 | JPEG[_SOS + 3])
_HALF = (_SCAN + len(JPEG)) // 2
_TRAILER = b"\0\0\x30\x0aImage_UTC_Data1500000000000SEFHj\0\0\0\x01\0\0\0SEFT"


def _cut_off() -> Iterator[_Row]:
    yield "zero bytes", b"", _REFUSED, r"the file is empty"
    yield "one byte", b"\xff", _REFUSED, r"not an image: .* got bytes ff$"
    yield "SOI alone", JPEG[:2], _REFUSED, r"cut off: the file ends after 2 bytes"
    yield "cut in the marker of APP0", JPEG[:3], _REFUSED, r"cut off: the file ends after 3 bytes"
    yield "cut in DQT", JPEG[: _DQT + 30], _REFUSED, r"FFDB at byte \d+: expected a length of 2"
    yield "cut in SOF", JPEG[: _SOF + 7], _REFUSED, r"FFC0 at byte \d+: expected a length"
    yield "cut in DHT", JPEG[: _DHT + 12], _REFUSED, r"FFC4 at byte \d+: expected a length"
    yield "cut before SOS", JPEG[:_SOS], _REFUSED, r"cut off: the file ends after"
    yield "cut in SOS", JPEG[: _SOS + 6], _REFUSED, r"FFDA at byte \d+: expected a length"
    short = r"without an end marker, and not whole: broken scan: .*premature end"
    yield "cut at the scan", JPEG[:_SCAN], _MASKED, short
    yield "cut in the scan", JPEG[:_HALF], _MASKED, short
    yield "cut in the scan before a trailer", JPEG[:_HALF] + _TRAILER, _MASKED, r"not whole: broken"
    yield "zeros from the middle of the scan on", JPEG[:_HALF] + bytes(9000), _MASKED, r"not whole"
    yield "cut between restart markers", RESTARTS[: len(RESTARTS) // 2], _MASKED, r"not whole"
    yield _good("cut before EOI", JPEG[:-2], JPEG)
    yield _good("cut in EOI", JPEG[:-1], JPEG)
    yield _good("a trailer in the place of EOI", JPEG[:-2] + _TRAILER, JPEG)
    yield _good("a video in the place of EOI", JPEG[:-2] + b"moov \xff\xd9\0" * 20, JPEG)
    yield _good("restart markers and no EOI", RESTARTS[:-2], JPEG)
    yield _good("restart markers, a trailer for EOI", RESTARTS[:-2] + _TRAILER, JPEG)
    yield _good("bytes behind the last restart", RESTARTS[:-2] + b"abc" + _EOI, JPEG)
    yield _good("CMYK cut before EOI", CMYK[:-2], CMYK)
    yield "CMYK cut in the scan", CMYK[: len(CMYK) // 2], _MASKED, r"not whole: broken scan"
    yield _good("progressive cut before EOI", PROGRESSIVE[:-2], PROGRESSIVE)
    yield _good("progressive, a trailer for EOI", PROGRESSIVE[:-2] + _TRAILER, PROGRESSIVE)
    last = PROGRESSIVE.rindex(b"\xff\xda")
    yield (
        "progressive cut in its last scan",
        PROGRESSIVE[: last + 40],
        _MASKED,
        r"not whole: broken",
    )
    last = PROGRESSIVE.rindex(b"\xff\xc4")
    yield (
        "progressive without its last scan",
        PROGRESSIVE[:last],
        _REFUSED,
        r"end marker, and scans",
    )
    arithmetic = put(JPEG, _SOF + 1, b"\xc9")[:-2]
    yield "arithmetic cut before EOI", arithmetic, _REFUSED, r"in arithmetic coding nothing else"
    yield "an empty scan", JPEG[:_SCAN] + _EOI, _MASKED, r"broken scan: .*premature end"
    yield "half a scan with EOI", JPEG[:_HALF] + _EOI, _MASKED, r"broken scan: .*premature end"
    half = PROGRESSIVE[: len(PROGRESSIVE) // 2] + _EOI
    yield "half a progressive scan", half, _MASKED, r"broken scan"
    yield "PNG cut in IHDR", PNG[:20], _REFUSED, r"PNG header is cut off"
    yield "PNG cut in IDAT", PNG[:200], _REFUSED, r"IDAT' at byte 33: expected a length of at most"
    yield "PNG cut before IEND", PNG[:-12], _REFUSED, r"without its IEND"
    yield "PNG cut in IEND", PNG[:-3], _REFUSED, r"without its IEND"
    yield "WebP cut in its header", WEBP[:25], _REFUSED, r"WebP header is cut off"
    yield "WebP cut in half", WEBP[: len(WEBP) // 2], _REFUSED, r"WebP is cut off: expected"


def _not_images() -> Iterator[_Row]:
    def refused(name: str, data: bytes) -> _Row:
        return name, data, _REFUSED, r"not an image: expected one of JPEG, .*, got bytes"

    def named(name: str, data: bytes, what: str) -> _Row:
        return name, data, _REFUSED, rf"not an image: .*, got {what}"

    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='/etc/passwd'/></svg>"
    yield refused("text", b"a photo of a cat\n" * 9)
    yield named("HTML", b"<!doctype html><title>404 Not Found</title>", "an HTML page")
    yield named("SVG", svg, "an SVG")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    yield named("git-lfs", pointer, "a git-lfs pointer")
    yield named("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "a JPEG 2000")
    yield refused("a pickle", b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    yield refused("zeros", bytes(5000))
    yield named("a WAV in RIFF", b"RIFF\x24\0\0\0WAVEfmt " + bytes(30), "a RIFF file of type WAVE")
    yield refused("one byte before SOI", b"\0" + JPEG)
    yield "SOI and EOI", b"\xff\xd8" + _EOI, _REFUSED, r"without an image: its end marker"


def _odd_jpegs() -> Iterator[_Row]:
    """Files that break the letter of the format, and whose image is whole."""
    yield _good("trailing bytes", JPEG + b"appended by a camera" * 9, JPEG)
    scans = b"\xff\xda\0\x08" * 5000
    yield _good("progressive, scans behind its end", PROGRESSIVE + scans, PROGRESSIVE)
    yield _good("two images in one file", JPEG + saved("JPEG", quality=20), JPEG)
    yield _good("stray bytes between segments", insert(JPEG, _SOF, b"stray"), JPEG)
    yield _good("fill bytes before a marker", insert(JPEG, _SOF, b"\xff" * 9), JPEG)
    yield _good("a JFIF version of 9", put(JPEG, JPEG.index(b"JFIF") + 5, b"\x09"), JPEG)
    yield _good("odd scan parameters", put(JPEG, _SCAN - 2, b"\x05"), JPEG)
    yield _good("restart markers", RESTARTS, JPEG)
    # As in frames of a Motion JPEG, which rely on the standard tables.
    yield _good("no Huffman tables", without(JPEG, 0xC4), JPEG)
    for orientation in (0, 3, 6, 8, 9, 0xFFFF):
        exif = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1" + struct.pack(">H", orientation)
        rotated = insert(JPEG, 2, segment(0xE1, exif + bytes(6)))
        yield _good(f"EXIF orientation {orientation}", rotated, JPEG)
    for name, exif in {
        "EXIF without a directory": b"Exif\0\0II*\0",
        "EXIF that points outside": b"Exif\0\0II*\0\xff\xff\xff\xff",
        "EXIF of 65535 entries": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(60_000),
        "EXIF that points at itself": b"Exif\0\0II*\0\0\0\0\0" * 40,
    }.items():
        yield _good(name, insert(JPEG, 2, segment(0xE1, exif)), JPEG)
    profile = b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes((number, 40)) + bytes(65_000))
        for number in range(1, 41)
    )
    yield _good("a colour profile of 2.6 MB", insert(JPEG, 2, profile), JPEG)
    lying = segment(0xE2, b"ICC_PROFILE\0\xff\x01junk")
    yield _good("a lying colour profile", insert(JPEG, 2, lying), JPEG)
    yield _good("a thousand comments", insert(JPEG, 2, segment(0xFE, b"x") * 1000), JPEG)
    yield _good("a thumbnail that is an image", insert(JPEG, 2, segment(0xE1, JPEG[:9000])), JPEG)


def _lying_jpegs() -> Iterator[_Row]:
    gave_up = r"gave up: the file is damaged|does not decode|decoded to another size"
    broken = r"broken scan: "
    half = JPEG[:_HALF] + _EOI
    # libjpeg prints the first warning only: these hide that the scan ends in its middle.
    yield "stray bytes that hide a cut", insert(half, _SOF, b"stray"), _MASKED, broken
    jfif = put(half, JPEG.index(b"JFIF") + 5, b"\x09")
    yield "a JFIF version that hides a cut", jfif, _MASKED, broken
    yield "scan parameters that hide a cut", put(half, _SCAN - 2, b"\x05"), _MASKED, broken
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\x09")
    yield "Adobe code that hides a cut", insert(without(half, 0xE0), 2, adobe), _MASKED, broken
    yield (
        "a colour profile that hides a cut",
        insert(half, 2, segment(0xE2, b"ICC_PROFILE\0\xff\x01junk")),
        _MASKED,
        broken,
    )
    at = RESTARTS.index(b"\xff\xd2")
    yield "restart markers out of order", put(RESTARTS, at + 1, b"\xd6"), _MASKED, broken
    yield "bytes before a restart marker", insert(RESTARTS, at, b"abc"), _MASKED, broken
    yield "a missing restart marker", RESTARTS[:at] + RESTARTS[at + 2 :], _MASKED, broken
    ending = RESTARTS[:at] + b"abc" + _EOI
    yield "bytes that hide missing restarts", ending, _MASKED, broken
    second = PROGRESSIVE.index(b"\xff\xda", PROGRESSIVE.index(b"\xff\xda") + 2)
    yield "bytes between scans", insert(PROGRESSIVE, second, b"abc"), _MASKED, broken
    frame = JPEG[_SOF : _SOF + 19]
    smaller = put(frame, 5, struct.pack(">HH", 8, 8))
    yield "two frame headers that disagree", insert(JPEG, _SOF, smaller), _MASKED, gave_up
    yield "two frame headers alike", insert(JPEG, _SOF, frame), _MASKED, gave_up
    yield _good("a frame header after the scan", insert(JPEG, len(JPEG) - 2, smaller), JPEG)
    yield "a second SOI", insert(JPEG, _SOF, b"\xff\xd8"), _MASKED, gave_up
    yield "no quantisation tables", without(JPEG, 0xDB), _MASKED, gave_up
    yield "a Huffman table of 0xFF", put(JPEG, _DHT + 5, b"\xff" * 16), _MASKED, gave_up
    yield "a scan of an unknown component", put(JPEG, _SOS + 5, b"\x77"), _MASKED, gave_up
    yield "a scan of nine components", put(JPEG, _SOS + 4, b"\x09"), _MASKED, gave_up
    yield "no frame header", without(JPEG, 0xC0), _REFUSED, r"without a frame header before"
    yield "frame height zero and DNL", _with_dnl(), _REFUSED, r"at least 1x1, got 96x0"
    yield "width zero", put(JPEG, _SOF + 7, b"\0\0"), _REFUSED, r"at least 1x1, got 0x80"
    yield "taller than its scan", put(JPEG, _SOF + 5, b"\0\xff"), _MASKED, broken
    yield "12 bits", put(JPEG, _SOF + 4, b"\x0c"), _REFUSED, r"expected 8 bits, got 12"
    yield "two components", put(JPEG, _SOF + 9, b"\x02"), _REFUSED, r"expected 1, 3 or 4, got 2"
    for marker, process in ((0xC3, "lossless"), (0xC5, "hierarchical"), (0xCB, "arithmetic")):
        lossless = put(JPEG, _SOF + 1, bytes((marker,)))
        yield f"process {process}", lossless, _REFUSED, rf"JPEG process FF{marker:02X}: expected"
    for factors in (0x00, 0x05, 0x51, 0xFF):
        odd = put(JPEG, _SOF + 11, bytes((factors,)))
        text = rf"sampling factors: expected 1\.\.4, got {factors >> 4}x{factors & 15}"
        yield f"sampling factors {factors:02x}", odd, _REFUSED, text
    # Twelve blocks of luma instead of four: more than a scan may hold together.
    yield "sampling factors 44", put(JPEG, _SOF + 11, b"\x44"), _MASKED, gave_up
    yield "length of SOF 0", put(JPEG, _SOF + 2, b"\0\0"), _REFUSED, r"FFC0 at byte .*, got 0"
    yield "length of SOF 65535", put(JPEG, _SOF + 2, b"\xff\xff"), _REFUSED, r"got 65535"
    many = segment(0xFE, b"") * 5000
    yield "five thousand comments", insert(JPEG, 2, many), _REFUSED, r"at most 4096 segments"
    fill = insert(JPEG, _SOF, b"\xff" * 100_000)
    yield "a header of fill bytes", fill, _REFUSED, r"at most 4096 segments"
    last = PROGRESSIVE.rindex(b"\xff\xda")
    scans = PROGRESSIVE[:-2] + PROGRESSIVE[last:-2] * 5000 + _EOI
    yield "five thousand scans", scans, _REFUSED, r"JPEG scans: expected at most 200, got more"


def _with_dnl() -> bytes:
    """State the height after the scan, where no decoder here looks for it."""
    return put(JPEG, _SOF + 5, b"\0\0")[:-2] + segment(0xDC, struct.pack(">H", HEIGHT)) + _EOI


def _pngs() -> Iterator[_Row]:
    damaged = r"PNG decoder gave up: the file is damaged|does not decode"
    yield _good("PNG named jpg", PNG, PNG)
    yield _good("PNG of 16 bits", png_of(photo().astype(np.uint16) * 257), PNG)
    palette = saved("PNG", "P")
    yield _good("PNG with a palette", palette, _as_png(palette))
    yield _good("PNG in grey", saved("PNG", "L"), _as_png(saved("PNG", "L")))
    yield _good("PNG of one bit", saved("PNG", "1"), _as_png(saved("PNG", "1")))
    yield _good("PNG interlaced", _interlaced(), PNG)
    yield _good("PNG with zeros behind IEND", PNG + bytes(99), PNG)
    yield _good("PNG with a bad CRC in a comment", _bad_crc(b"tEXt"), PNG)
    yield "PNG with a bad CRC in IDAT", _bad_crc(b"IDAT"), _MASKED, damaged
    yield "PNG with a bad CRC in IHDR", put(PNG, 29, b"\0\0\0\0"), _MASKED, damaged
    yield "PNG without IDAT", png(), _REFUSED, r"PNG without image data: its IEND"
    yield "PNG with IDAT of nothing", png(chunk(b"IDAT")), _MASKED, damaged
    yield (
        "PNG with IDAT of noise",
        png(chunk(b"IDAT", b"\x78\x9c" + b"\xaa" * 99)),
        _MASKED,
        damaged,
    )
    short = chunk(b"IDAT", zlib.compress(bytes(1000)))
    yield "PNG with too few rows", png(short), _MASKED, damaged
    rows = chunk(b"IDAT", zlib.compress((b"\x09" + bytes(3 * WIDTH)) * HEIGHT))
    yield "PNG with unknown filters", png(rows), _MASKED, damaged
    bare = png(idat(), ihdr=(WIDTH, HEIGHT, 8, 3, 0, 0, 0))
    yield "PNG with a palette that is missing", bare, _MASKED, damaged
    for name, ihdr in {
        "PNG of width zero": (0, HEIGHT, 8, 2, 0, 0, 0),
        "PNG of height zero": (WIDTH, 0, 8, 2, 0, 0, 0),
    }.items():
        yield name, png(idat(), ihdr=ihdr), _REFUSED, r"at least 1x1"
    ihdr = (WIDTH, HEIGHT, 8, 5, 0, 0, 0)
    yield "PNG of colour type 5", png(idat(), ihdr=ihdr), _REFUSED, r"colour type: expected"
    yield "PNG of 7 bits", png(idat(), ihdr=(WIDTH, HEIGHT, 7, 2, 0, 0, 0)), _MASKED, damaged
    lying = put(PNG, 33, b"\xff\xff\xff\xff")
    yield "PNG with a chunk of 4 GB", lying, _REFUSED, r"got 4294967295"
    chunks = png(chunk(b"tEXt", b"a\0b") * 5000, idat())
    yield "PNG with five thousand chunks", chunks, _REFUSED, r"at most 4096 segments"
    noisy = png(idat(), (chunk(b"tIME", b"no") + chunk(b"gAMA", b"no")) * 2000)
    yield _good("PNG with four thousand complaints", noisy, PNG)
    yield _good("PNG animated", _animated(1), PNG)
    yield _good("PNG animated with 2 billion frames", _animated(2**31 - 1), PNG)
    frame = struct.pack(">IIIIIHHBB", 0, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0)
    fctl, actl = chunk(b"fcTL", frame), chunk(b"acTL", struct.pack(">II", 2, 0))
    yield _good("PNG with a frame of one byte", png(actl, idat(), fctl, chunk(b"fdAT", b"\0")), PNG)
    wild = chunk(b"fdAT", b"\0\0\0\1" + zlib.compress((b"\x09" + bytes(3 * WIDTH)) * HEIGHT))
    yield _good("PNG with frames of unknown filters", png(actl, idat(), fctl, wild), PNG)
    other = chunk(b"fdAT", b"\0\0\0\1" + zlib.compress(bytes((1 + 3 * WIDTH) * HEIGHT)))
    yield _good("PNG whose still image is no frame", png(actl, idat(), fctl, other), PNG)
    yield _good("PNG with frames and no animation", png(idat(), fctl, other), PNG)
    vast = struct.pack(">IIIIIHHBB", 0, 2**31 - 1, 2**31 - 1, 0, 0, 1, 10, 0, 0)
    yield _good("PNG with a vast frame", png(actl, idat(), chunk(b"fcTL", vast), other), PNG)
    late = png(idat(), actl, fctl, other)
    yield _good("PNG animated behind its image", late, PNG)
    for key in (b"Raw profile type exif", b"XML:com.adobe.xmp"):
        bomb = chunk(b"zTXt", key + b"\0\0" + _unpacks_to_64_mb())
        yield _good(f"PNG whose {key[:3].decode()} text is a bomb", png(bomb, idat()), PNG)


def _as_png(data: bytes) -> bytes:
    return png_of(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def _bad_crc(kind: bytes) -> bytes:
    bad = bytearray(chunk(b"tEXt", b"Comment\0x") if kind == b"tEXt" else idat())
    bad[-1] ^= 0xFF
    return png(bytes(bad), idat()) if kind == b"tEXt" else png(bytes(bad))


def _interlaced() -> bytes:
    """Write Adam7 by hand, as Pillow and OpenCV only read it."""
    pixels, out = photo(), b""
    for x, y, dx, dy in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):  # fmt: skip
        part = pixels[y::dy, x::dx]
        out += np.insert(part.reshape(len(part), -1), 0, 0, axis=1).tobytes()
    ihdr = (WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    return png(chunk(b"IDAT", zlib.compress(out)), ihdr=ihdr)


def _animated(num_frames: int) -> bytes:
    """Announce an animation, of which the first frame is there."""
    frame = struct.pack(">IIIIIHHBB", 0, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0)
    return png(chunk(b"acTL", struct.pack(">II", num_frames, 0)), chunk(b"fcTL", frame), idat())


def _webps() -> Iterator[_Row]:
    damaged = r"WEBP decoder gave up|does not decode|decoded to another size"
    lossy = WEBP[20:]
    yield _good("WebP named jpg", WEBP, WEBP)
    yield _good("WebP lossless", LOSSLESS, PNG)
    yield _good("WebP with a canvas", riff(vp8x(0), (b"VP8 ", lossy)), WEBP)
    still = Image.fromarray(photo())
    buffer = io.BytesIO()
    still.save(buffer, "WEBP", save_all=True, append_images=[still.rotate(90)])
    yield _good("WebP animated", buffer.getvalue(), _as_png(buffer.getvalue()))
    yield from _animated_webps()
    smaller = riff(vp8x(0, 8, 8), (b"VP8 ", lossy))
    yield "WebP with too small a canvas", smaller, _MASKED, damaged
    larger = riff(vp8x(0, 4000, 4000), (b"VP8 ", lossy))
    yield "WebP with too large a canvas", larger, _MASKED, damaged
    yield "WebP with nothing on its canvas", riff(vp8x(0), (b"XXXX", b"")), _MASKED, damaged
    half = riff((b"VP8 ", lossy[: len(lossy) // 2]))
    yield "WebP with half an image", half, _MASKED, damaged
    half = riff((b"VP8L", LOSSLESS[20:][: len(LOSSLESS) // 2]))
    yield "WebP with half a lossless one", half, _MASKED, damaged
    partition = (int.from_bytes(lossy[:3], "little") | 0x7FFFF << 5).to_bytes(3, "little")
    lying = riff((b"VP8 ", put(lossy, 0, partition)))
    yield "WebP with a partition of 512 kB", lying, _MASKED, damaged
    yield "WebP of an unknown kind", riff((b"VP9 ", lossy)), _REFUSED, r"expected VP8, VP8L or VP8X"
    lying = put(WEBP, 16, b"\xff\xff\xff\xff")
    yield "WebP with a chunk of 4 GB", lying, _REFUSED, r"WebP chunk b'VP8 ': expected at most"
    zero = put(WEBP, 26, b"\0\0")
    yield "WebP of width zero", zero, _REFUSED, r"at least 1x1, got 0x80"


def _animated_webps() -> Iterator[_Row]:
    anim = (b"ANIM", bytes(6))

    def frame(x: int, y: int, width: int, height: int, inner: bytes) -> tuple[bytes, bytes]:
        sides = (x // 2, y // 2, width - 1, height - 1, 10)
        return b"ANMF", b"".join(n.to_bytes(3, "little") for n in sides) + b"\0" + inner

    whole = frame(0, 0, WIDTH, HEIGHT, WEBP[12:])
    wild = (b"ANMF", b"\xff" * 99)
    yield _good("WebP with a wild second frame", riff(vp8x(2), anim, whole, wild), WEBP)
    yield "WebP animated without a frame", riff(vp8x(2), anim), _MASKED, r"without a frame"
    short = riff(vp8x(2), anim, (b"ANMF", b"x"))
    yield "WebP with a frame of one byte", short, _MASKED, r"frame: expected at least 16 bytes"
    beside = riff(vp8x(2), anim, frame(8, 0, WIDTH, HEIGHT, WEBP[12:]))
    yield "WebP with a frame beside its canvas", beside, _MASKED, r"expected a part of 96x80"
    lying = riff(vp8x(2), anim, frame(0, 0, 8, 8, WEBP[12:]))
    yield "WebP with a lying frame", lying, _MASKED, r"WebP frame: expected 8x8, got 96x80"
    nested = riff(vp8x(2), anim, frame(0, 0, 8, 8, b"VP8X\x0a\0\0\0\x02" + bytes(9)))
    yield "WebP with an animation in a frame", nested, _MASKED, r"expected VP8 or VP8L in it"
    half = riff(vp8x(2), anim, frame(0, 0, WIDTH, HEIGHT, WEBP[12 : len(WEBP) // 2]))
    yield "WebP with half a frame", half, _MASKED, r"gave up|does not decode|expected at most"


@cache
def _unpacks_to_64_mb() -> bytes:
    """Zeros; made once, since every process of a run collects these rows."""
    return zlib.compress(bytes(64 << 20), 9)


def _bombs() -> Iterator[_Row]:
    def refused(name: str, data: bytes) -> _Row:
        return name, data, _REFUSED, r"too large: expected at most 64,000,000 pixels, got \d+x\d+"

    side = struct.pack(">HH", 65_500, 65_500)
    yield refused("JPEG of 4 gigapixels", put(JPEG, _SOF + 5, side))
    at = find(PROGRESSIVE, 0xC2)
    yield refused("progressive JPEG of 4 gigapixels", put(PROGRESSIVE, at + 5, side))
    vast = (2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    yield refused("PNG of 4 exapixels", png(idat(), ihdr=vast))
    yield refused("WebP of 281 terapixels", riff(vp8x(0, 1 << 24, 1 << 24), (b"VP8 ", WEBP[20:])))
    lossless = put(LOSSLESS, 21, b"\xff\xff\xff\x0f")
    yield refused("lossless WebP of 268 megapixels", lossless)
    # The data unpacks to 64 MB, of which the header admits 23 kB.
    bomb = chunk(b"IDAT", _unpacks_to_64_mb())
    black = png_of(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    yield _good("PNG whose data is a bomb", png(bomb), black)
    bomb = chunk(b"iCCP", b"x\0\0" + _unpacks_to_64_mb())
    yield _good("PNG whose colour profile is a bomb", png(bomb, idat()), PNG)
    bomb = chunk(b"zTXt", b"x\0\0" + _unpacks_to_64_mb())
    yield _good("PNG whose comment is a bomb", png(bomb, idat()), PNG)
    thin = (1, 3_000_000, 8, 2, 0, 0, 0)
    yield "PNG of one column", png(idat(), ihdr=thin), _MASKED, r"does not decode|gave up"
    tall = put(JPEG, _SOF + 5, struct.pack(">HH", 60_000, 1000))
    yield "JPEG of 60 megapixels in 9 kB", tall, _MASKED, r"broken scan"


def _colours() -> Iterator[_Row]:
    grey = saved("JPEG", "L", quality=95)
    yield _good("JPEG in grey", grey, _as_png(grey))
    for factors in (0x31, 0x13, 0x44):
        # A scan of one component is not interleaved: its factors mean nothing.
        odd = put(grey, find(grey, 0xC0) + 11, bytes((factors,)))
        yield _good(f"JPEG in grey with factors {factors:02x}", odd, grey)
    yield _good("JPEG in CMYK", CMYK, _as_png(CMYK))
    ycck = put(CMYK, CMYK.index(b"Adobe") + 11, b"\x02")
    yield _good("JPEG in YCCK", ycck, _as_png(ycck))
    yield "CMYK cut in half", CMYK[: len(CMYK) // 2] + _EOI, _MASKED, r"broken scan"
    mpf = insert(CMYK, 2, segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"))
    yield _good("CMYK with a lying MPF block", mpf, CMYK)
    photoshop = insert(CMYK, 2, segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0\0"))
    yield _good("CMYK with a lying Photoshop block", photoshop, CMYK)
    exif = insert(CMYK, 2, segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"))
    yield _good("CMYK with a lying EXIF block", exif, CMYK)
    adobe = insert(CMYK, 2, segment(0xEE, b"Adobe"))
    yield _good("CMYK with a short Adobe block", adobe, CMYK)


def _shapes() -> Iterator[_Row]:
    for name, height, width in (("pixel", 1, 1), ("row", 1, 60_000), ("column", 60_000, 1)):
        pixels = np.resize(photo(), (height, width, 3))
        thin = cv2.imencode(".jpg", pixels)[1].tobytes()
        yield _good(f"JPEG of one {name} and zeros", thin + bytes(9), thin)
        yield _good(f"PNG of one {name} and zeros", png_of(pixels) + bytes(9), png_of(pixels))
    alpha = np.dstack([photo()[..., ::-1], np.full((HEIGHT, WIDTH), 255, np.uint8)])
    opaque = cv2.imencode(".png", alpha)[1].tobytes()
    yield _good("PNG with an alpha of 255", opaque, PNG)
    deep = cv2.imencode(".png", alpha.astype(np.uint16) * 257)[1].tobytes()
    yield _good("PNG of 16 bits with an alpha", deep, PNG)
    clear = cv2.imencode(".png", alpha * np.array([1, 1, 1, 0], np.uint8))[1].tobytes()
    yield _good("PNG that is clear all over", clear, png_of(np.zeros_like(photo())))


def _others() -> Iterator[_Row]:
    """Formats that Pillow decodes; what takes a package is tried in
    tests/unit/pixels/test_formats.py."""
    gave_up = r"decoder gave up|decoded to another size|expected"
    bmp, gif, tiff = saved("BMP"), saved("GIF"), saved("TIFF")
    for kind, data in (("BMP", bmp), ("GIF", gif), ("TIFF", tiff)):
        yield _good(f"{kind} named jpg", data, _as_png(data))
        yield _good(f"{kind} with zeros behind", data + bytes(999), _as_png(data))
    yield "BMP cut in half", bmp[: len(bmp) // 2], _MASKED, gave_up
    yield "BMP cut in its header", bmp[:28], _REFUSED, r"BMP header is cut off"
    yield "BMP of 5 bits", put(bmp, 28, b"\5\0"), _REFUSED, r"BMP: expected 1, 2"
    yield "BMP of a negative width", put(bmp, 18, b"\xff" * 4), _REFUSED, r"at least 1x1, got 0x80"
    vast = struct.pack("<ii", 2**31 - 1, -(2**31 - 1))
    yield "BMP of 4 exapixels", put(bmp, 18, vast), _REFUSED, r"too large"
    yield "BMP whose image lies elsewhere", put(bmp, 10, b"\xff" * 4), _MASKED, gave_up
    yield "GIF cut in its frame", gif[: len(gif) // 2], _MASKED, gave_up
    yield (
        "GIF without a frame",
        gif[:13] + b"\0" * 768 + b";" + bytes(9),
        _REFUSED,
        r"GIF without a",
    )
    blocks = gif[:13] + bytes(768) + b"\x21\xfe\0" * 9000 + gif[13:]
    yield "GIF of nine thousand comments", blocks, _REFUSED, r"GIF header: expected at most 4096"
    wide = put(gif, 6, struct.pack("<HH", 65535, 65535))
    yield "GIF with a screen of 4 gigapixels", wide, _REFUSED, r"too large"
    at = gif.index(b"\x2c", 13 + 768)
    far = put(gif, at + 1, struct.pack("<HHHH", 65535, 65535, WIDTH, HEIGHT))
    yield "GIF with a frame far out", far, _REFUSED, r"too large"
    bits = put(gif, at + 10 + (3 << (gif[at + 9] & 7) + 1 if gif[at + 9] & 0x80 else 0), b"\x7f")
    yield "GIF of 127 bits", bits, _MASKED, gave_up
    yield "TIFF cut in half", tiff[: len(tiff) // 2], _MASKED, gave_up
    ifd = struct.unpack_from("<I", tiff, 4)[0]
    yield "TIFF that points outside", put(tiff, 4, b"\xff" * 4), _REFUSED, r"TIFF header is cut off"
    yield "TIFF of 65535 tags", put(tiff, ifd, b"\xff\xff"), _REFUSED, r"at most 512 tags"
    strips = tiff.index(struct.pack("<H", 273), ifd)
    outside = put(tiff, strips + 8, b"\xff\xff\xff\x7f")
    yield "TIFF whose strip lies outside", outside, _MASKED, gave_up
    rows = tiff.index(struct.pack("<H", 278), ifd)
    zero = put(tiff, rows + 8, bytes(4))
    yield "TIFF of strips without rows", zero, _MASKED, gave_up
    sides = tiff.index(struct.pack("<H", 256), ifd)
    yield (
        "TIFF of 4 gigapixels wide",
        put(tiff, sides + 2, struct.pack("<HII", 4, 1, 2**32 - 1)),
        _REFUSED,
        r"too large",
    )
    yield (
        "HEIC of nothing",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1" + bytes(64),
        _REFUSED,
        r"HEIC without",
    )
    yield (
        "AVIF of nothing",
        b"\0\0\0\x18ftypavif\0\0\0\0mif1" + bytes(64),
        _REFUSED,
        r"AVIF without",
    )
    endless = b"\0\0\0\x10ftypavif\0\0\0\0" + b"\0\0\0\x08free" * 9000
    yield "AVIF of nine thousand boxes", endless, _REFUSED, r"AVIF boxes: expected at most 4096"
    large = b"\0\0\0\x10ftypheic\0\0\0\0\0\0\0\1meta" + b"\xff" * 8 + bytes(9)
    yield (
        "HEIC with a box of 16 exabytes",
        large,
        _REFUSED,
        r"HEIC box b'meta' at byte 16: expected",
    )
    yield "JPEG XL of a gigapixel", b"\xff\x0a" + b"\xfe" * 40, _REFUSED, r"too large"
    yield "BigTIFF", b"II+\0\x08\0\0\0" + bytes(40), _REFUSED, r"got a BigTIFF"


def main(folder: Path) -> None:
    """Write all files into a folder, with a table of what must become of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in hostile_images():
        (folder / one.file_name).write_bytes(one.data)
        print(
            f"{one.number:3} {one.verdict.value:8} {one.name}: {one.reason or 'as the clean one'}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
