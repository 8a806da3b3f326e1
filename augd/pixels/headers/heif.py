"""The headers of AVIF and HEIC: nested boxes with the properties of the primary image.

Both are files of one kind (HEIF). Their decoders treat rotations and mirrors differently: Pillow
does not apply those of an AVIF, libheif turns a HEIC by itself.
Source: ISO/IEC 14496-12, 4.2 and 8.11; ISO/IEC 23008-12, 6.5 and 9.3; AV1 Image File Format 1.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from augd.pixels.headers.formats import NAMES, Format
from augd.pixels.headers.header import MAX_SEGMENTS, BadImage, Header

_MAX_DEPTH_BYTES: Final = 1 << 24
"""Of the box that describes the file; that of an image of many tiles takes some kilobytes."""
_MAX_ITEMS: Final = 1 << 16
_LARGE, _TO_THE_END = 1, 0

TRACKS: Final = b"moov"
"""The box of what moves: a sequence's images, beside the still one."""

# (angle in quarters against the clock, axis of the mirror or None): EXIF's number. Source:
# libavif, avifImageIrotImirToExifOrientation; a mirror comes after the rotation.
_ORIENTATIONS: Final[dict[tuple[int, int | None], int]] = {
    (0, None): 1, (0, 0): 4, (0, 1): 2,
    (1, None): 8, (1, 0): 5, (1, 1): 7,
    (2, None): 3, (2, 0): 2, (2, 1): 4,
    (3, None): 6, (3, 0): 7, (3, 1): 5,
}  # fmt: skip


class _Box(NamedTuple):
    kind: bytes
    start: int
    end: int


def read_avif(data: bytes | bytearray) -> Header:
    """Find the primary image's size, and how it is turned."""
    found = _primary(data, "avif")
    width, height = found.size
    orientation = _ORIENTATIONS[found.angle, found.axis]
    return Header("avif", width, height, orientation, is_plain=not found.has_tracks)


def read_heic(data: bytes | bytearray) -> Header:
    """Find the primary image's size as its decoder returns it: cut and turned."""
    found = _primary(data, "heic")
    width, height = found.cut or found.size
    if found.angle in (1, 3):
        width, height = height, width
    return Header("heic", width, height, is_plain=not found.has_tracks)


class _Primary:
    """The properties of the primary image."""

    def __init__(self) -> None:
        self.size = (0, 0)
        self.angle = 0
        self.axis: int | None = None
        self.cut: tuple[int, int] | None = None
        self.has_tracks = False

    def take(self, data: bytes | bytearray, box: _Box) -> None:
        """Add one of its properties."""
        if box.kind == b"ispe":
            width, height = _unpack(data, ">II", box, 4)
            self.size = width, height
        elif box.kind == b"irot":
            self.angle = _unpack(data, "B", box)[0] & 3
        elif box.kind == b"imir":
            self.axis = _unpack(data, "B", box)[0] & 1
        elif box.kind == b"clap":
            numbers = _unpack(data, ">4I", box)
            if not numbers[1] or not numbers[3]:
                raise BadImage("image's aperture: expected a fraction, got one over 0")
            self.cut = numbers[0] // numbers[1], numbers[2] // numbers[3]


def _primary(data: bytes | bytearray, kind: Format) -> _Primary:
    """Read the boxes of a file."""
    name = NAMES[kind]
    meta, found = None, _Primary()
    for box in _boxes(data, 0, len(data), name):
        if box.kind == b"meta" and meta is None:
            meta = box
        found.has_tracks = found.has_tracks or box.kind == TRACKS
    if meta is None:
        raise BadImage(f"{name} without a still image: it has no box `meta`")
    if meta.end - meta.start > _MAX_DEPTH_BYTES:
        raise BadImage(f"{name} box `meta`: expected at most {_MAX_DEPTH_BYTES} bytes, got more")
    inner = {box.kind: box for box in _boxes(data, meta.start + 4, meta.end, name)}
    if b"pitm" not in inner or b"iprp" not in inner:
        raise BadImage(f"{name} without a still image: it names no primary one")
    is_wide = _unpack(data, "B", inner[b"pitm"])[0]
    (item,) = _unpack(data, ">I" if is_wide else ">H", inner[b"pitm"], 4)
    of_items = list(_boxes(data, inner[b"iprp"].start, inner[b"iprp"].end, name))
    stored = [box for box in of_items if box.kind == b"ipco"]
    properties = list(_boxes(data, stored[0].start, stored[0].end, name)) if stored else []
    for box in of_items:
        if box.kind == b"ipma":
            for number in _properties_of(data, box, item):
                if 1 <= number <= len(properties):
                    found.take(data, properties[number - 1])
    if found.size == (0, 0):
        raise BadImage(f"{name} without a size: its primary image has no property `ispe`")
    return found


def box_starts(data: bytes | bytearray, kind: bytes, name: str) -> list[int]:
    """Return where the types of a file's boxes of a kind stand."""
    found = []
    for box in _boxes(data, 0, len(data), name):
        if box.kind == kind:
            found.append(data.rindex(kind, 0, box.start))
    return found


def _properties_of(data: bytes | bytearray, box: _Box, wanted: int) -> list[int]:
    """Read which properties an item has: numbers from 1 on."""
    version, flags = _unpack(data, "B", box)[0], _unpack(data, "B", box, 3)[0]
    (num_items,) = _unpack(data, ">I", box, 4)
    at = 8
    for _ in range(min(num_items, _MAX_ITEMS)):
        (item,) = _unpack(data, ">I" if version else ">H", box, at)
        at += 4 if version else 2
        (count,) = _unpack(data, "B", box, at)
        at += 1
        step = 2 if flags & 1 else 1
        if item == wanted:
            form, mask = (">H", 0x7FFF) if flags & 1 else ("B", 0x7F)
            return [
                _unpack(data, form, box, at + step * number)[0] & mask for number in range(count)
            ]
        at += step * count
    return []


def _boxes(data: bytes | bytearray, at: int, end: int, name: str) -> Iterator[_Box]:
    """Yield the boxes from `at` to `end`, which must hold them whole."""
    for _ in range(MAX_SEGMENTS):
        if at + 8 > end:
            return
        (length,) = struct.unpack_from(">I", data, at)
        kind = bytes(data[at + 4 : at + 8])
        start = at + 8
        if length == _LARGE and at + 16 <= end:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        elif length == _TO_THE_END:
            length = end - at
        if length < start - at or at + length > end:
            raise BadImage(
                f"{name} box {kind!r} at byte {at}: expected a length of at most {end - at}, "
                f"got {length}"
            )
        yield _Box(kind, start, at + length)
        at += length
    raise BadImage(f"{name} boxes: expected at most {MAX_SEGMENTS} in a row, got more")


def _unpack(data: bytes | bytearray, form: str, box: _Box, offset: int = 0) -> tuple[int, ...]:
    if box.start + offset + struct.calcsize(form) > box.end:
        raise BadImage(f"box {box.kind!r} at byte {box.start - 8} is cut off")
    return struct.unpack_from(form, data, box.start + offset)
