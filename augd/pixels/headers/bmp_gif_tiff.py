"""The headers of BMP, GIF and TIFF: of a GIF its first frame, of a TIFF its first page.

Source: Microsoft, "Bitmap Storage"; GIF89a, sections 18 to 26; TIFF 6.0, sections 2 and 8.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from augd.pixels.headers.header import MAX_SEGMENTS, BadImage, Header, too_many_segments

_BMP_CORE_BYTES: Final = 12
_BMP_BITS: Final = (1, 2, 4, 8, 16, 24, 32)

_GIF_IMAGE, _GIF_EXTENSION, _GIF_END = 0x2C, 0x21, 0x3B
_GIF_HEAD_BYTES: Final = 13
_MAX_BLOCKS: Final = 1 << 19
"""Of 255 bytes, that a GIF's frame has: more than 64 megapixels take without compression."""

_MAX_ENTRIES: Final = 512
_WIDTH, _HEIGHT, _BITS, _ORIENTATION, _KIND = 256, 257, 258, 274, 339
_TIFF_TAGS: Final = frozenset((_WIDTH, _HEIGHT, _BITS, _ORIENTATION, _KIND))
_TIFF_NUMBERS: Final = {1: "B", 3: "H", 4: "I"}
_TIFF_BITS: Final = (1, 2, 4, 8, 16)
_UNSIGNED: Final = 1
_TURNED: Final = (5, 6, 7, 8)


def read_bmp(data: bytes | bytearray) -> Header:
    """Read the two headers of a BMP. A negative height means that it is stored upright."""
    if len(data) < 30:
        raise BadImage(f"BMP header is cut off: expected at least 30 bytes, got {len(data)}")
    (head_bytes,) = struct.unpack_from("<I", data, 14)
    if head_bytes == _BMP_CORE_BYTES:
        width, height, _, bits = struct.unpack_from("<4H", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<2i2H", data, 18)
    if bits not in _BMP_BITS:
        raise BadImage(f"BMP: expected {', '.join(map(str, _BMP_BITS))} bits, got {bits}")
    return Header("bmp", max(0, width), abs(height))


class GifFrame(NamedTuple):
    """A GIF's first frame: where its descriptor stands, and where its data begin."""

    at: int
    data_at: int


def read_gif(data: bytes | bytearray) -> Header:
    """Read the screen's size and that of the first frame, which may be larger."""
    frame = find_gif_frame(data)
    screen = struct.unpack_from("<2H", data, 6)
    x, y, width, height = struct.unpack_from("<4H", data, frame.at + 1)
    if not width or not height:
        raise BadImage(f"GIF frame: expected at least 1x1, got {width}x{height}")
    size = max(screen[0], x + width), max(screen[1], y + height)
    return Header("gif", *size, is_plain=False)


def find_gif_frame(data: bytes | bytearray) -> GifFrame:
    """Walk to the first frame.

    Raises:
        BadImage: there is none.
    """
    size = len(data)
    if size < _GIF_HEAD_BYTES:
        raise BadImage(f"GIF header is cut off: expected at least 13 bytes, got {size}")
    at = _GIF_HEAD_BYTES + _table_bytes(data[10])
    for _ in range(MAX_SEGMENTS):
        if at + 10 > size:
            raise BadImage(f"GIF without an image: it ends after {size} bytes")
        if data[at] == _GIF_IMAGE:
            data_at = at + 10 + _table_bytes(data[at + 9])
            if data_at + 1 >= size:
                raise BadImage(f"GIF without an image: it ends after {size} bytes")
            return GifFrame(at, data_at)
        if data[at] != _GIF_EXTENSION:
            what = "its end" if data[at] == _GIF_END else f"a block {data[at]:02x}"
            raise BadImage(f"GIF without an image: {what} comes at byte {at}")
        at = skip_blocks(data, at + 2)
    raise too_many_segments("GIF", at)


def skip_blocks(data: bytes | bytearray, at: int) -> int:
    """Return where a row of sub-blocks ends, behind its terminator; the file's end at most."""
    for _ in range(_MAX_BLOCKS):
        if at >= len(data):
            return len(data)
        length = data[at]
        at += 1 + length
        if not length:
            return at
    raise BadImage(f"GIF blocks: expected at most {_MAX_BLOCKS} in a row, got more")


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


class _Directory:
    """The first directory of a TIFF: the relevant tags, by their first numbers."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.mark = "<" if data[:2] == b"II" else ">"
        self.tags: dict[int, tuple[int, ...]] = {}
        try:
            (self.at,) = struct.unpack_from(self.mark + "I", data, 4)
            (self.count,) = struct.unpack_from(self.mark + "H", data, self.at)
            if self.count > _MAX_ENTRIES:
                raise BadImage(
                    f"TIFF directory: expected at most {_MAX_ENTRIES} tags, got {self.count}"
                )
            for entry in range(self.at + 2, self.at + 2 + 12 * self.count, 12):
                self._take(data, entry)
        except struct.error:
            raise BadImage(
                f"TIFF header is cut off: the file ends after {len(data)} bytes"
            ) from None

    def _take(self, data: bytes | bytearray, entry: int) -> None:
        tag, kind, count = struct.unpack_from(self.mark + "HHI", data, entry)
        if tag not in _TIFF_TAGS or kind not in _TIFF_NUMBERS or not count:
            return
        form = f"{self.mark}{min(count, 8)}{_TIFF_NUMBERS[kind]}"
        place = entry + 8
        if count * struct.calcsize(self.mark + _TIFF_NUMBERS[kind]) > 4:
            (place,) = struct.unpack_from(self.mark + "I", data, place)
        self.tags[tag] = struct.unpack_from(form, data, place)

    def first(self, tag: int, default: int) -> int:
        return self.tags.get(tag, (default,))[0]

    @property
    def next_at(self) -> int:
        """Where the position of the next directory is stored."""
        at: int = self.at + 2 + 12 * self.count
        return at


def read_tiff(data: bytes | bytearray) -> Header:
    """Read the first directory. Its decoder turns images upright, so the size is the upright
    one."""
    if len(data) < 8:
        raise BadImage(f"TIFF header is cut off: expected at least 8 bytes, got {len(data)}")
    found = _Directory(data)
    width, height = found.first(_WIDTH, 0), found.first(_HEIGHT, 0)
    bits = found.tags.get(_BITS, (1,))
    if any(one not in _TIFF_BITS for one in bits):
        raise BadImage(f"TIFF: expected 1, 2, 4, 8 or 16 bits per sample, got {list(bits)}")
    kinds = found.tags.get(_KIND, (_UNSIGNED,))
    if any(kind != _UNSIGNED for kind in kinds):
        raise BadImage(
            f"TIFF: expected unsigned whole numbers as samples, got format {list(kinds)}"
        )
    if found.first(_ORIENTATION, 1) in _TURNED:
        width, height = height, width
    return Header("tiff", width, height, is_plain=False)


def next_directory_at(data: bytes | bytearray) -> int:
    """Return where a TIFF says where its second page is."""
    return _Directory(data).next_at
