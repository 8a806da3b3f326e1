"""Orientation: how an image must be turned, from metadata of cameras and editors.

Used by the readers of headers. It stands in tag 0x0112 of an EXIF block, or, if that has no such
tag, in XMP (`tiff:Orientation`). PNGs may carry either as text. The rules are those of Pillow's
`ImageOps.exif_transpose`.

Invariants: raises nothing, whatever the bytes are. Anything broken, absent or out of range is 1,
upright. A block is read in a bounded number of steps. Source: Exif 2.32 §4.6.4, TIFF 6.0 §2, XMP
part 2 §3.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final

EXIF_MARK: Final = b"Exif\0\0"
XMP_MARK: Final = b"http://ns.adobe.com/xap/1.0/\0"
PROFILE_KEY: Final = b"Raw profile type exif"
XMP_KEY: Final = b"XML:com.adobe.xmp"

_TAG: Final = 0x0112
_MAX_ENTRIES: Final = 512
_MAX_TEXT_BYTES: Final = 1 << 20
_MAX_MARKS: Final = 2
# Types of numbers, any of which readers accept for one: TIFF 6.0 §2. The rest are fractions.
_NUMBERS: Final = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I"}
_INLINE_BYTES: Final = 4
_IN_XMP: Final = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def find_orientation(exif: bytes | bytearray | None, xmp: bytes | bytearray | None) -> int:
    """Return the orientation, 1..8, of an EXIF block or XMP; pass None for what is absent."""
    found = None if exif is None else _in_exif(exif)
    if found is None and xmp is not None and (match := _IN_XMP.search(xmp)):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else 1


def _in_exif(block: bytes | bytearray) -> int | None:
    """Find the tag in the first directory; None if it is not there, or is no number."""
    start = 0
    while start < _MAX_MARKS * len(EXIF_MARK) and block.startswith(EXIF_MARK, start):
        start += len(EXIF_MARK)
    order = bytes(block[start : start + 2])
    if order not in (b"II", b"MM"):
        return None
    mark = "<" if order == b"II" else ">"
    try:
        (first,) = struct.unpack_from(mark + "I", block, start + 4)
        (count,) = struct.unpack_from(mark + "H", block, start + first)
        # A false count ends with the block, or at a limit that no writer of a first directory
        # reaches.
        for entry in range(min(count, _MAX_ENTRIES)):
            at = start + first + 2 + 12 * entry
            tag, kind, size = struct.unpack_from(mark + "HHI", block, at)
            if tag != _TAG or kind not in _NUMBERS or not size:
                continue
            number = _NUMBERS[kind]
            place = at + 8
            if size * struct.calcsize(mark + number) > _INLINE_BYTES:
                place = start + struct.unpack_from(mark + "I", block, place)[0]
            value: int = struct.unpack_from(mark + number, block, place)[0]
            return value
    except struct.error:
        return None
    return None


def read_text(kind: bytes, rest: bytes) -> bytes | None:
    """Read a tEXt, zTXt or iTXt chunk of a PNG behind its keyword; None if it is broken.

    At most a mebibyte of a text is unpacked. Source: PNG, third edition, 11.3.3.
    """
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _unpacked(rest[1:]) if rest[:1] == b"\0" else None
    is_packed, method, rest = rest[:1] == b"\1", rest[1:2], rest[2:]
    if rest.count(b"\0") < 2:
        return None
    text = rest.split(b"\0", 2)[2]  # behind the language and the translated keyword
    if not is_packed:
        return text
    return _unpacked(text) if method == b"\0" else None


def _unpacked(packed: bytes) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(packed, _MAX_TEXT_BYTES)
    except zlib.error:
        return None


def profile_block(text: bytes) -> bytes | None:
    """Read the EXIF block of a raw profile: a name, a length, and hexadecimal lines behind."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None
