"""Image headers: what kind of image some bytes hold, how large it is, and where decoding may stop.

First step of a producer after the read: bytes in, `Header` out, before a decoder sees them, so
that limits and broken files are named from the bytes alone. The dataset room reads the size of
the first image with it, too. Formats go by magic bytes, never by the file's name.

Invariants: never decodes, never copies the payload, imports neither NumPy nor OpenCV, raises
nothing but `BadImage`, whatever the bytes are, and takes at most `MAX_SEGMENTS` steps to do so.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

MAX_PIXELS = 64_000_000
"""Largest image that is decoded unless the operator says otherwise: 64 megapixels (192 MB RGB)."""
MAX_SEGMENTS = 4096
"""Segments, chunks or fill bytes before the picture: hundreds of times what cameras write."""
MAX_SCANS = 200
"""Scans of a JPEG, each of which costs a pass over the whole picture. Encoders write about ten."""

_MAX_EXIF_ENTRIES = 512

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# What to do at each JPEG marker: most segments are stepped over, these are looked at.
_SKIP, _FRAME, _EXIF, _RESTARTS, _SCAN, _STUFF, _NO_LENGTH, _END, _UNSUPPORTED = range(9)
_JPEG_STEPS = bytearray(256)
for _marker in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
    _JPEG_STEPS[_marker] = _FRAME
for _marker in (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF):
    _JPEG_STEPS[_marker] = _UNSUPPORTED
for _marker in (0x00, 0x01, *range(0xD0, 0xD9)):
    _JPEG_STEPS[_marker] = _NO_LENGTH
_JPEG_STEPS[0xD9], _JPEG_STEPS[0xDA], _JPEG_STEPS[0xE1] = _END, _SCAN, _EXIF
_JPEG_STEPS[0xDD], _JPEG_STEPS[0xFF] = _RESTARTS, _STUFF

_sof = struct.Struct(">BHHB").unpack_from
_u32 = struct.Struct(">I").unpack_from
_u32_le = struct.Struct("<I").unpack_from


class BadImage(Exception):
    """Say why one sample cannot be used. Becomes a masked row or a failed run, by policy."""


class Header(msgspec.Struct, frozen=True, gc=False):
    """What the bytes say about an image before it is decoded. Sizes in pixels as stored.

    `orientation` is the EXIF value 1..8 (1 when absent); it is reported, never applied here.
    `can_stop_early` holds for sequential single-scan JPEGs without restart markers:
    `sof_height_offset` is then the position of the two big-endian bytes with the image's height.
    """

    format: Literal["jpeg", "png", "webp"]
    width: int
    height: int
    orientation: int = 1
    num_components: int = 3
    has_alpha: bool = False
    progressive: bool = False
    is_single_scan: bool = True
    has_restarts: bool = False
    can_stop_early: bool = False
    mcu_width: int = 1
    mcu_height: int = 1
    max_v_sampling: int = 1
    sof_height_offset: int = 0
    sos_offset: int = 0


def read_header(data: bytes | bytearray, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the header of a JPEG, PNG or WebP and check that its end is there.

    Raises:
        BadImage: unknown magic, truncated, lying lengths, a size of zero, more than `max_pixels`.
    """
    if data.startswith(b"\xff\xd8"):
        header = _read_jpeg(data)
    elif data.startswith(_PNG_MAGIC):
        header = _read_png(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        header = _read_webp(data)
    elif not data:
        raise BadImage("the file is empty: expected a JPEG, PNG or WebP, got 0 bytes")
    else:
        start = bytes(data[:8]).hex(" ")
        raise BadImage(f"not an image: expected JPEG, PNG or WebP, got bytes {start}")
    width, height = header.width, header.height
    if not width or not height:
        raise BadImage(f"expected a size of at least 1x1, got {width}x{height}")
    if width * height > max_pixels:
        raise BadImage(
            f"too large: expected at most {max_pixels:,} pixels, got {width}x{height} "
            f"({width * height:,})"
        )
    return header


def _read_jpeg(data: bytes | bytearray) -> Header:
    """Walk the segments up to the first scan. Source: ITU T.81, B.1 and B.2."""
    size = len(data)
    at = 2
    frame_at = 0
    orientation = 1
    has_restarts = False
    steps = _JPEG_STEPS
    try:
        for _ in range(MAX_SEGMENTS):
            if data[at] != 0xFF:
                # libjpeg skips stray bytes between segments with a warning; files have them.
                at = data.index(b"\xff", at)
            step = steps[data[at + 1]]
            if step < _STUFF:
                length = data[at + 2] << 8 | data[at + 3]
                end = at + 2 + length
                if length < 2 or end > size:
                    raise _lying_segment(data, at, length)
                if step:
                    if step == _SCAN:
                        break
                    if step == _FRAME:
                        frame_at = at
                    elif step == _RESTARTS:
                        has_restarts = any(data[at + 4 : end])
                    elif orientation == 1:
                        orientation = _exif_orientation(data, at + 4, end)
                at = end
            elif step == _STUFF:
                at += 1
            elif step == _NO_LENGTH:
                at += 2
            elif step == _END:
                raise BadImage(f"JPEG without a picture: its end marker comes at byte {at}")
            else:
                raise BadImage(
                    f"JPEG process FF{data[at + 1]:02X}: expected baseline, extended or progressive"
                )
        else:
            raise _too_many_segments("JPEG", at)
    except (IndexError, ValueError):
        raise BadImage(f"JPEG header is cut off: the file ends after {size} bytes") from None
    if not frame_at:
        raise BadImage(f"JPEG without a frame header before its first scan at byte {at}")
    if data[-2:] != b"\xff\xd9" and data.rfind(b"\xff\xd9", at) < 0:
        raise BadImage(f"JPEG ends after {size} bytes without an end marker")
    return _jpeg_frame(data, frame_at, at, orientation, has_restarts)


def _too_many_segments(kind: str, at: int) -> BadImage:
    return BadImage(
        f"{kind} header: expected at most {MAX_SEGMENTS} segments before the picture, and at byte "
        f"{at} it has not begun"
    )


def _lying_segment(data: bytes | bytearray, at: int, length: int) -> BadImage:
    return BadImage(
        f"JPEG segment FF{data[at + 1]:02X} at byte {at}: expected a length of "
        f"2..{len(data) - at - 2}, got {length}"
    )


def _jpeg_frame(
    data: bytes | bytearray, at: int, sos_at: int, orientation: int, has_restarts: bool
) -> Header:
    marker = data[at + 1]
    length = data[at + 2] << 8 | data[at + 3]
    if length < 8:
        raise BadImage(f"JPEG frame header: expected at least 8 bytes, got {length}")
    precision, height, width, num_components = _sof(data, at + 4)
    if precision != 8:
        raise BadImage(f"JPEG precision: expected 8 bits, got {precision}")
    if num_components not in (1, 3, 4):
        raise BadImage(f"JPEG components: expected 1, 3 or 4, got {num_components}")
    if length != 8 + 3 * num_components:
        raise BadImage(
            f"JPEG frame header: expected {8 + 3 * num_components} bytes for {num_components} "
            f"components, got {length}"
        )
    max_h = max_v = 1
    for factors in data[at + 11 : at + 2 + length : 3]:
        # Most are 1x1.
        if factors != 0x11:
            h, v = factors >> 4, factors & 15
            if not 1 <= h <= 4 or not 1 <= v <= 4:
                raise BadImage(f"JPEG sampling factors: expected 1..4, got {h}x{v}")
            max_h = max(max_h, h)
            max_v = max(max_v, v)
    # A scan of fewer components is followed by others, each of the full height.
    is_progressive = marker in (0xC2, 0xCA)
    is_single_scan = not is_progressive and data[sos_at + 4] == num_components
    if not is_single_scan:
        # Between scans stand markers only, and inside them no byte after FF is one.
        if (num_scans := data.count(b"\xff\xda", sos_at)) > MAX_SCANS:
            raise BadImage(f"JPEG scans: expected at most {MAX_SCANS}, got {num_scans}")
        has_restarts = has_restarts or data.find(b"\xff\xdd", sos_at) >= 0
    return Header(
        "jpeg",
        width,
        height,
        orientation,
        num_components,
        False,
        is_progressive,
        is_single_scan,
        has_restarts,
        # CMYK goes another way; in arithmetic coding the end is not where it seems; and what
        # libjpeg says of bytes that it skips before a restart marker could be the early stop's.
        is_single_scan and marker <= 0xC1 and num_components < 4 and not has_restarts,
        8 * max_h,
        8 * max_v,
        max_v,
        at + 5,
        sos_at,
    )


def _exif_orientation(data: bytes | bytearray, start: int, end: int) -> int:
    """Find tag 0x0112 in the first directory of an EXIF block; 1 when absent or broken.

    Source: Exif 2.32 §4.6.4, TIFF 6.0 §2.
    """
    if data[start : start + 6] == b"Exif\0\0":
        start += 6
    order = bytes(data[start : start + 2])
    if order not in (b"II", b"MM"):
        return 1
    mark = "<" if order == b"II" else ">"
    try:
        (first,) = struct.unpack_from(mark + "I", data, start + 4)
        (count,) = struct.unpack_from(mark + "H", data, start + first)
        # A lying count ends at `end`, or where no writer of a first directory has ever come.
        last = start + first + 2 + 12 * min(count, _MAX_EXIF_ENTRIES)
        for entry in range(start + first + 2, min(last, end - 11), 12):
            tag, kind = struct.unpack_from(mark + "HH", data, entry)
            if tag == 0x0112 and kind == 3:
                (value,) = struct.unpack_from(mark + "H", data, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _read_png(data: bytes | bytearray) -> Header:
    """Walk the chunks up to the first IDAT. Source: PNG, third edition, §5 and §11."""
    size = len(data)
    if size < 33:
        raise BadImage(f"PNG header is cut off: expected at least 33 bytes, got {size}")
    (length,) = _u32(data, 8)
    if length != 13 or data[12:16] != b"IHDR":
        raise BadImage(f"PNG: expected an IHDR of 13 bytes first, got {length} bytes")
    width, height = _u32(data, 16)[0], _u32(data, 20)[0]
    colour_type = data[25]
    if colour_type not in _PNG_CHANNELS:
        raise BadImage(f"PNG colour type: expected 0, 2, 3, 4 or 6, got {colour_type}")
    has_alpha = colour_type in (4, 6)
    orientation = 1
    at = 33
    for _ in range(MAX_SEGMENTS):
        if at + 8 > size:
            raise BadImage(f"PNG without picture data: it ends after {size} bytes")
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
            raise BadImage(f"PNG without picture data: its IEND comes at byte {at}")
        if kind == b"tRNS":
            has_alpha = True
        elif kind == b"eXIf":
            orientation = _exif_orientation(data, at + 8, at + 8 + length)
        at += 12 + length
    else:
        raise _too_many_segments("PNG", at)
    if data.rfind(b"IEND\xaeB`\x82", at) < 0:
        raise BadImage(f"PNG ends after {size} bytes without its IEND chunk")
    return Header("png", width, height, orientation, _PNG_CHANNELS[colour_type], has_alpha)


def _read_webp(data: bytes | bytearray) -> Header:
    """Read the first chunk of a WebP. Source: RFC 9649, §2."""
    size = len(data)
    if size < 30:
        raise BadImage(f"WebP header is cut off: expected at least 30 bytes, got {size}")
    (riff,) = _u32_le(data, 4)
    if riff + 8 > size:
        raise BadImage(f"WebP is cut off: expected {riff + 8} bytes, got {size}")
    kind = bytes(data[12:16])
    (length,) = _u32_le(data, 16)
    if length + 20 > riff + 8:
        raise BadImage(f"WebP chunk {kind!r}: expected at most {riff - 12} bytes, got {length}")
    if kind == b"VP8 ":
        return _webp_lossy(data)
    if kind == b"VP8L":
        return _webp_lossless(data)
    if kind == b"VP8X":
        return _webp_extended(data, riff + 8)
    raise BadImage(f"WebP chunk: expected VP8, VP8L or VP8X, got {kind!r}")


def _webp_lossy(data: bytes | bytearray) -> Header:
    if data[23:26] != b"\x9d\x01\x2a":
        raise BadImage(f"WebP key frame: expected 9d 01 2a, got {bytes(data[23:26]).hex(' ')}")
    width, height = struct.unpack_from("<HH", data, 26)
    return Header("webp", width & 0x3FFF, height & 0x3FFF)


def _webp_lossless(data: bytes | bytearray) -> Header:
    if data[20] != 0x2F:
        raise BadImage(f"WebP lossless signature: expected 2f, got {data[20]:02x}")
    (bits,) = _u32_le(data, 21)
    return Header(
        "webp",
        (bits & 0x3FFF) + 1,
        (bits >> 14 & 0x3FFF) + 1,
        has_alpha=bool(bits >> 28 & 1),
    )


def _webp_extended(data: bytes | bytearray, end: int) -> Header:
    flags = data[20]
    if flags & 0x02:
        raise BadImage("WebP is an animation: expected a still picture")
    width = int.from_bytes(data[24:27], "little") + 1
    height = int.from_bytes(data[27:30], "little") + 1
    orientation = 1
    at = 20 + _u32_le(data, 16)[0]
    for _ in range(MAX_SEGMENTS if flags & 0x08 else 0):
        if at + 8 > end:
            break
        (length,) = _u32_le(data, at + 4)
        if data[at : at + 4] == b"EXIF":
            orientation = _exif_orientation(data, at + 8, min(end, at + 8 + length))
        at += 8 + length + (length & 1)
    return Header("webp", width, height, orientation, has_alpha=bool(flags & 0x10))
