"""Reads image headers: what kind of image some bytes hold, its size, and where decoding may stop.

First step of a producer after the read: bytes in, `Header` out. It runs before a decoder sees the
bytes, so that limits and broken files are reported from the bytes alone. `dataset` reads the size
of the first image with it, too. Formats are told by magic bytes, never by the file's name.

Invariants: never decodes, never copies the payload, imports neither NumPy nor OpenCV, raises only
`BadImage`, whatever the bytes are, and takes a bounded number of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from augd.pixels.headers.bmp_gif_tiff import read_bmp, read_gif, read_tiff
from augd.pixels.headers.formats import HEAD_BYTES, NAMES, Format, describe, recognise
from augd.pixels.headers.header import MAX_SCANS, MAX_SEGMENTS, BadImage, Header
from augd.pixels.headers.heif import read_avif, read_heic
from augd.pixels.headers.jpeg import read_jpeg
from augd.pixels.headers.jxl import read_jxl
from augd.pixels.headers.png import read_png
from augd.pixels.headers.size_limits import MAX_PIXELS, MOST_PIXELS
from augd.pixels.headers.size_limits import max_pixels as allowed_pixels
from augd.pixels.headers.webp import read_webp

__all__ = ["MAX_PIXELS", "MAX_SCANS", "MAX_SEGMENTS", "BadImage", "Header", "read_header"]


_READERS: Final[dict[Format, Callable[[bytes | bytearray], Header]]] = {
    "jpeg": read_jpeg,
    "png": read_png,
    "webp": read_webp,
    "bmp": read_bmp,
    "tiff": read_tiff,
    "gif": read_gif,
    "avif": read_avif,
    "heic": read_heic,
    "jxl": read_jxl,
}
_EXPECTED: Final = ", ".join(NAMES[kind] for kind in _READERS)


def read_header(data: bytes | bytearray, *, max_pixels: int | None = None) -> Header:
    """Read the header of an image and check its size and its end.

    Raises:
        BadImage: another format, truncated, false lengths, a size of zero, or more than
            `max_pixels`. With None this process's own limit counts.
    """
    if data.startswith(b"\xff\xd8"):  # nearly all
        header = read_jpeg(data)
    else:
        kind = recognise(data[:HEAD_BYTES])
        if kind is None:
            raise _no_image(data)
        header = _READERS[kind](data)
    width, height = header.width, header.height
    if not width or not height:
        raise BadImage(f"expected a size of at least 1x1, got {width}x{height}")
    most = allowed_pixels() if max_pixels is None else max_pixels
    if width * height > most:
        hint = f"; allow more: --max-pixels {width * height}"
        raise BadImage(
            f"too large: expected at most {most:,} pixels, got {width}x{height} "
            f"({width * height:,}){hint if width * height <= MOST_PIXELS else ''}"
        )
    return header


def _no_image(data: bytes | bytearray) -> BadImage:
    if not data:
        return BadImage(f"the file is empty: expected one of {_EXPECTED}, got 0 bytes")
    return BadImage(f"not an image: expected one of {_EXPECTED}, got {describe(data[:HEAD_BYTES])}")
