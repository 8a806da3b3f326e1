"""Extracts what a decoder gets of a file: one still image, with an end.

Called between the header and the decoder, for the few files that decoders may not get as they are
(`Header.is_plain`). An animated PNG loses its animation: readers of PNGs show the still image, and
no decoder sees the frames. Of an animated WebP the first frame is kept. A JPEG without an end
marker gets one, where its image data end. A GIF ends behind its first frame, a TIFF has one page,
and a sequence of AVIF or HEIC has no tracks beside its still image.

Invariants: copies what it keeps, decodes nothing, raises only `BadImage`.
Source: PNG, third edition, §13; RFC 9649, §2.7; ITU T.81, B.2.1.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from augd.pixels.headers.bmp_gif_tiff import find_gif_frame, next_directory_at, skip_blocks
from augd.pixels.headers.formats import HEAD_BYTES
from augd.pixels.headers.header import BadImage, Header
from augd.pixels.headers.heif import TRACKS, box_starts
from augd.pixels.headers.jpeg import Scans, find_scan_end, scan_start
from augd.pixels.headers.png import ANIMATION_CHUNKS, MAX_CHUNKS, PNG_MAGIC
from augd.pixels.headers.webp import chunks_of, read_webp

_EOI: Final = b"\xff\xd9"
_IEND: Final = b"\0\0\0\0IEND\xaeB`\x82"
_FRAME_HEAD_BYTES: Final = 16

_IMAGES: Final = (b"VP8 ", b"VP8L")
_STILL_BRANDS: Final = {b"avis": b"avif", b"hevc": b"heic", b"hevx": b"heix", b"msf1": b"mif1"}


class StillFrame(NamedTuple):
    """A still image, and where it lies on the canvas: x and y in pixels of the canvas."""

    data: bytes
    header: Header
    x: int
    y: int


def ended_jpeg(data: bytes | bytearray, header: Header) -> bytearray:
    """Give a JPEG its end marker: behind what may be data of its last scan.

    Zeros at the end are none: a file that was not written to its end has them, and decoders would
    take them for image data. A scan's last byte is filled up with ones (T.81, F.1.2.3).
    """
    at = header.sos_offset
    if header.is_single_scan:
        start, end = scan_start(data, at), find_scan_end(data, at)
    else:
        scans = Scans(data, at)
        start, end = scans.start, scans.end
    scan = bytearray(data[start:end]).rstrip(b"\0")
    if start + len(scan) < end and scan.endswith(b"\xff"):
        scan += b"\0"  # which belongs to the byte before
    return bytearray(data[:start]) + scan + _EOI


def still_png(data: bytes | bytearray) -> bytes:
    """Remove the animation from a PNG.

    Raises:
        BadImage: it has more chunks than any image has.
    """
    out, at, size = [PNG_MAGIC], len(PNG_MAGIC), len(data)
    for _ in range(MAX_CHUNKS):
        kind = bytes(data[at + 4 : at + 8])
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > size:  # the decoder reports what is missing, if it belongs to the image
            return b"".join([*out, _IEND if kind in ANIMATION_CHUNKS else data[at:]])
        if kind not in ANIMATION_CHUNKS:
            out.append(bytes(data[at:end]))
        if kind == b"IEND":
            return b"".join(out)
        at = end
    raise BadImage(f"PNG chunks: expected at most {MAX_CHUNKS}, got more")


def first_frame(data: bytes | bytearray, header: Header) -> StillFrame:
    """Find the first frame of an animated WebP, as a WebP of its own.

    Raises:
        BadImage: there is none, or it does not lie on the canvas.
    """
    (riff,) = struct.unpack_from("<I", data, 4)
    frames = (place[1:] for place in chunks_of(data, riff + 8) if place[0] == b"ANMF")
    start, length = next(frames, (0, -1))
    if length < 0:
        raise BadImage("WebP is an animation without a frame")
    if length < _FRAME_HEAD_BYTES:
        raise BadImage(f"WebP frame: expected at least {_FRAME_HEAD_BYTES} bytes, got {length}")
    x, y, width, height = (
        int.from_bytes(data[at : at + 3], "little") for at in range(start, start + 12, 3)
    )
    x, y, width, height = 2 * x, 2 * y, width + 1, height + 1
    if x + width > header.width or y + height > header.height:
        raise BadImage(
            f"WebP frame: expected a part of {header.width}x{header.height}, got "
            f"{width}x{height} at ({x}, {y})"
        )
    found = _frame_file(data, start + _FRAME_HEAD_BYTES, start + length, width, height)
    inner = read_webp(found)
    if (inner.width, inner.height) != (width, height) or not inner.is_plain:
        raise BadImage(f"WebP frame: expected {width}x{height}, got {inner.width}x{inner.height}")
    return StillFrame(found, inner, x, y)


def _frame_file(data: bytes | bytearray, start: int, end: int, width: int, height: int) -> bytes:
    """Make a WebP of a frame's alpha and image."""
    alpha, image = b"", b""
    for kind, at, length in chunks_of(data, end, start):
        chunk = bytes(data[at - 8 : at + length]) + b"\0" * (length & 1)
        if kind == b"ALPH" and not image:
            alpha = chunk
        elif kind in _IMAGES:
            image = chunk
            break
    if not image:
        raise BadImage("WebP frame: expected VP8 or VP8L in it, got neither")
    canvas = b""
    if alpha and image.startswith(b"VP8 "):
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        canvas = b"VP8X" + struct.pack("<II", 10, 0x10) + sides
    else:
        alpha = b""
    body = b"WEBP" + canvas + alpha + image
    return b"RIFF" + struct.pack("<I", len(body)) + body


def first_gif(data: bytes | bytearray) -> bytes:
    """Cut a GIF behind its first frame."""
    end = skip_blocks(data, find_gif_frame(data).data_at + 1)
    return bytes(data[:end]) + b";"


def first_page(data: bytes | bytearray) -> bytearray:
    """Remove the link to a TIFF's second page."""
    out = bytearray(data)
    at = next_directory_at(data)
    out[at : at + 4] = bytes(len(out[at : at + 4]))
    return out


def without_tracks(data: bytes | bytearray) -> bytearray:
    """Remove the tracks of a sequence of AVIF or HEIC, and the brands that announce them."""
    out = bytearray(data)
    for at in box_starts(data, TRACKS, "HEIF"):
        out[at : at + 4] = b"free"
    end = min(int.from_bytes(data[:4], "big"), HEAD_BYTES)
    for at in (8, *range(16, end - 3, 4)):
        out[at : at + 4] = _STILL_BRANDS.get(bytes(out[at : at + 4]), out[at : at + 4])
    return out


def png_key(data: bytes | bytearray) -> tuple[int, int] | None:
    """Return the grey level that a PNG's tRNS chunk names as transparent, and the bits of one.

    None if its colour type is other than grey. `read_png` has walked these chunks.
    """
    if data[25] != 0:
        return None
    at = 33
    for _ in range(MAX_CHUNKS):
        kind = data[at + 4 : at + 8]
        length = int.from_bytes(data[at : at + 4], "big")
        if kind == b"tRNS" and length >= 2:
            return int.from_bytes(data[at + 8 : at + 10], "big"), data[24]
        if kind in (b"IDAT", b"IEND"):
            return None
        at += 12 + length
    return None
