"""The header of a JPEG XL: a codestream, bare or in boxes.

Its decoder turns images upright, except for a JPEG that was packed without loss: that is restored
as it was.
Source: ISO/IEC 18181-1, annex A (D.2 and D.3 of the first edition); 18181-2, clause 9.
"""

from __future__ import annotations

import struct
from typing import Final

from augd.pixels.headers.header import MAX_SEGMENTS, BadImage, Header

CODESTREAM: Final = b"\xff\x0a"
_BOX: Final = b"\0\0\0\x0cJXL \r\n\x87\n"
_HEAD_BYTES: Final = 32  # more than size and orientation take
_SIZES: Final = (9, 13, 18, 30)
_RATIOS: Final = ((0, 0), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_TURNED: Final = 5


def read_jxl(data: bytes | bytearray) -> Header:
    """Read the size and the orientation from the codestream's first bits."""
    head, is_jpeg = bytes(data[:_HEAD_BYTES]), False
    if data.startswith(_BOX):
        head, is_jpeg = _in_boxes(data)
    if not head.startswith(CODESTREAM):
        raise BadImage("JPEG XL without a codestream: expected ff 0a at its begin")
    bits = _Bits(head[len(CODESTREAM) :])
    width, height = _size(bits)
    orientation = 1
    is_default = bits.take(1)
    if not is_default and bits.take(1):
        orientation = bits.take(3) + 1
    if is_jpeg:
        return Header("jxl", width, height, orientation)
    if orientation >= _TURNED:
        width, height = height, width
    return Header("jxl", width, height)


def _size(bits: _Bits) -> tuple[int, int]:
    is_small = bits.take(1)
    height = _side(bits, is_small)
    ratio = bits.take(3)
    if ratio:
        times, over = _RATIOS[ratio]
        return height * times // over, height
    return _side(bits, is_small), height


def _side(bits: _Bits, is_small: int) -> int:
    if is_small:
        return (bits.take(5) + 1) * 8
    return bits.take(_SIZES[bits.take(2)]) + 1


class _Bits:
    """The bits of some bytes, the lowest first; zeros behind."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        taken = self._bits & ((1 << count) - 1)
        self._bits >>= count
        return taken


def _in_boxes(data: bytes | bytearray) -> tuple[bytes, bool]:
    """Return the codestream's first bytes, and whether it packs a JPEG.

    Raises:
        BadImage: a box that reaches beyond the file.
    """
    head, is_jpeg, at, size = b"", False, 0, len(data)
    for _ in range(MAX_SEGMENTS):
        if at + 8 > size:
            return head, is_jpeg
        (length,) = struct.unpack_from(">I", data, at)
        kind, start = bytes(data[at + 4 : at + 8]), at + 8
        if length == 1 and at + 16 <= size:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        elif length == 0:
            length = size - at
        if length < start - at or at + length > size:
            raise BadImage(
                f"JPEG XL box {kind!r} at byte {at}: expected a length of at most {size - at}, "
                f"got {length}"
            )
        end = at + length
        if kind in (b"jxlc", b"jxlp") and len(head) < _HEAD_BYTES:
            head += bytes(data[start + (4 if kind == b"jxlp" else 0) : end])[:_HEAD_BYTES]
        is_jpeg = is_jpeg or kind == b"jbrd"
        at = end
    raise BadImage(f"JPEG XL boxes: expected at most {MAX_SEGMENTS}, got more")
