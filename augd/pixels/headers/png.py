"""The header of a PNG: its chunks, including those behind the image.

Editors write EXIF and text before the image or behind it. An animation (APNG) has chunks of its own
around a still image, which readers without animation show.
Source: PNG, third edition, §5, §11 and §13 (APNG).
"""

from __future__ import annotations

import struct
from typing import Final

from augd.pixels.headers.exif import (
    PROFILE_KEY,
    XMP_KEY,
    find_orientation,
    profile_block,
    read_text,
)
from augd.pixels.headers.header import MAX_SEGMENTS, BadImage, Header, too_many_segments

PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
ANIMATION_CHUNKS: Final = (b"acTL", b"fcTL", b"fdAT")
MAX_CHUNKS: Final = 1 << 16
"""Chunks that are looked at: four times what an image of 64 megapixels has at 8 kB each."""

_FIRST_CHUNK: Final = 33
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_END: Final = b"IEND\xaeB`\x82"
_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt")
_u32 = struct.Struct(">I").unpack_from


def read_png(data: bytes | bytearray) -> Header:
    """Walk the chunks up to the first IDAT, then those behind."""
    size = len(data)
    if size < _FIRST_CHUNK:
        raise BadImage(f"PNG header is cut off: expected at least 33 bytes, got {size}")
    (length,) = _u32(data, 8)
    if length != 13 or data[12:16] != b"IHDR":
        raise BadImage(f"PNG: expected an IHDR of 13 bytes first, got {length} bytes")
    width, height = _u32(data, 16)[0], _u32(data, 20)[0]
    colour_type = data[25]
    if colour_type not in _CHANNELS:
        raise BadImage(f"PNG colour type: expected 0, 2, 3, 4 or 6, got {colour_type}")
    beside = _Beside(has_alpha=colour_type in (4, 6))
    at = _FIRST_CHUNK
    for _ in range(MAX_SEGMENTS):
        if at + 8 > size:
            raise BadImage(f"PNG without image data: it ends after {size} bytes")
        (length,) = _u32(data, at)
        kind = bytes(data[at + 4 : at + 8])
        if at + 12 + length > size:
            raise BadImage(
                f"PNG chunk {kind!r} at byte {at}: expected a length of at most "
                f"{max(0, size - at - 12)}, got {length}"
            )
        if kind == b"IDAT":
            break
        if kind == b"IEND":
            raise BadImage(f"PNG without image data: its IEND comes at byte {at}")
        beside.take(kind, data, at + 8, length)
        at += 12 + length
    else:
        raise too_many_segments("PNG", at)
    if data.rfind(_END, at) < 0:
        raise BadImage(f"PNG ends after {size} bytes without its IEND chunk")
    _look_behind(data, at, beside)
    return Header(
        "png",
        width,
        height,
        beside.orientation,
        _CHANNELS[colour_type],
        beside.has_alpha,
        is_plain=not beside.is_animated,
    )


def _look_behind(data: bytes | bytearray, at: int, beside: _Beside) -> None:
    """Read what stands behind the image's first chunk; ends where the chunks do."""
    size = len(data)
    for _ in range(MAX_CHUNKS):
        if at + 12 > size:
            return
        (length,) = _u32(data, at)
        kind = data[at + 4 : at + 8]
        if kind == b"IEND" or at + 12 + length > size:
            return
        if kind != b"IDAT":
            beside.take(bytes(kind), data, at + 8, length)
        at += 12 + length


class _Beside:
    """The metadata beside the image. Of EXIF and texts that come twice the last one counts."""

    def __init__(self, has_alpha: bool) -> None:
        self.has_alpha = has_alpha
        self.is_animated = False
        self._exif: bytes | None = None
        self._texts: dict[bytes, tuple[bytes, bytes]] = {}

    def take(self, kind: bytes, data: bytes | bytearray, start: int, length: int) -> None:
        """Read a chunk, other than the image's."""
        if kind == b"tRNS":
            self.has_alpha = True
        elif kind == b"eXIf":
            self._exif = bytes(data[start : start + length])
        elif kind in ANIMATION_CHUNKS:
            self.is_animated = True
        elif kind in _TEXTS:
            for key in (PROFILE_KEY, XMP_KEY):
                if data.startswith(key + b"\0", start):
                    behind = start + len(key) + 1
                    self._texts[key] = kind, bytes(data[behind : start + length])

    @property
    def orientation(self) -> int:
        """The orientation of the EXIF chunk, else of a profile in a text, else of XMP."""
        exif, profile = self._exif, self._text(PROFILE_KEY)
        if exif is None and profile is not None:
            exif = profile_block(profile)
        xmp = self._text(XMP_KEY)
        return 1 if exif is None and xmp is None else find_orientation(exif, xmp)

    def _text(self, key: bytes) -> bytes | None:
        return read_text(*self._texts[key]) if key in self._texts else None
