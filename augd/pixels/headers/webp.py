"""The header of a WebP: its first chunk, and the metadata of an extended one.

Source: RFC 9649, §2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from augd.pixels.headers.exif import find_orientation
from augd.pixels.headers.header import MAX_SEGMENTS, BadImage, Header

ANIMATION: Final = 0x02
ALPHA: Final = 0x10
_XMP, _EXIF = 0x04, 0x08
_u32 = struct.Struct("<I").unpack_from


def read_webp(data: bytes | bytearray) -> Header:
    """Read the first chunk; the chunks of an extended file."""
    size = len(data)
    if size < 30:
        raise BadImage(f"WebP header is cut off: expected at least 30 bytes, got {size}")
    (riff,) = _u32(data, 4)
    if riff + 8 > size:
        raise BadImage(f"WebP is cut off: expected {riff + 8} bytes, got {size}")
    kind = bytes(data[12:16])
    (length,) = _u32(data, 16)
    if length + 20 > riff + 8:
        raise BadImage(f"WebP chunk {kind!r}: expected at most {riff - 12} bytes, got {length}")
    if kind == b"VP8 ":
        return _lossy(data)
    if kind == b"VP8L":
        return _lossless(data)
    if kind == b"VP8X":
        return _extended(data, riff + 8)
    raise BadImage(f"WebP chunk: expected VP8, VP8L or VP8X, got {kind!r}")


def _lossy(data: bytes | bytearray) -> Header:
    if data[23:26] != b"\x9d\x01\x2a":
        raise BadImage(f"WebP key frame: expected 9d 01 2a, got {bytes(data[23:26]).hex(' ')}")
    width, height = struct.unpack_from("<HH", data, 26)
    return Header("webp", width & 0x3FFF, height & 0x3FFF)


def _lossless(data: bytes | bytearray) -> Header:
    if data[20] != 0x2F:
        raise BadImage(f"WebP lossless signature: expected 2f, got {data[20]:02x}")
    (bits,) = _u32(data, 21)
    return Header(
        "webp",
        (bits & 0x3FFF) + 1,
        (bits >> 14 & 0x3FFF) + 1,
        has_alpha=bool(bits >> 28 & 1),
    )


def _extended(data: bytes | bytearray, end: int) -> Header:
    flags = data[20]
    width = int.from_bytes(data[24:27], "little") + 1
    height = int.from_bytes(data[27:30], "little") + 1
    exif = xmp = None
    for kind, start, length in chunks_of(data, end) if flags & (_EXIF | _XMP) else ():
        if kind == b"EXIF" and flags & _EXIF and exif is None:
            exif = data[start : start + length]
        elif kind == b"XMP " and flags & _XMP and xmp is None:
            xmp = data[start : start + length]
    orientation = 1 if exif is None and xmp is None else find_orientation(exif, xmp)
    has_alpha, is_animated = bool(flags & ALPHA), bool(flags & ANIMATION)
    return Header("webp", width, height, orientation, has_alpha=has_alpha, is_plain=not is_animated)


def chunks_of(data: bytes | bytearray, end: int, at: int = 12) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and length of the chunks from `at` to `end`; a cut one is shortened."""
    for _ in range(MAX_SEGMENTS):
        if at + 8 > end:
            return
        (length,) = _u32(data, at + 4)
        yield bytes(data[at : at + 4]), at + 8, min(length, end - at - 8)
        at += 8 + length + (length & 1)
