"""Restart segments of a JPEG: a region's part of the file in, a small valid JPEG out.

Restart markers cut a scan into segments that can be decoded separately. If a whole number of them
makes a row of MCUs, a region needs only the segments under it. They are joined behind the image's
own header, which gets their size, and their markers are numbered anew. A decoder of this part gets
the pixels of the whole image. One pixel more on each side where chroma is upsampled keeps its
smoothing as in the whole image.

`find_segments` makes the table when a dataset is indexed. `Table.span` tells which bytes a region
needs, before anything is read; a `Cut` holds them. The native entropy decoder finds the segments in
a `Cut` where they lie. Without it, `cut_part` makes a small JPEG of them.

Invariants: a table is never trusted: each marker that it points to must be there, with its number,
and the header must be that of the image that was indexed. Reads no file and decodes nothing.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

import msgspec
import numpy as np

from augd.pixels import native
from augd.pixels.headers.jpeg import find_scan_end
from augd.pixels.headers.read_header import BadImage, Header, read_header

Region = tuple[int, int, int, int]
Buffer = bytes | bytearray | memoryview

LENGTH_MAX: Final = 0xFFFF
"""Of a segment with the marker behind it, which a table stores in 16 bits."""

_DRI, _EOI, _RST0 = 0xDD, 0xD9, 0xD0
_BLOCK_PX: Final = 8
_SIDE_MAX: Final = 65535
_MCU_MAX: Final = 32
_END_OF_IMAGE: Final = b"\xff\xd9"
_RESTART: Final = re.compile(rb"\xff[\xd0-\xd7]")


class JpegPart(NamedTuple):
    """A small JPEG that stands for a region of an image, and where it lies there."""

    data: bytearray
    header: Header
    x: int
    y: int
    image: Header
    """That of the whole image."""


class Span(NamedTuple):
    """Which bytes of an image hold some of its segments, and how many of them are theirs."""

    first: int
    size: int
    kept: int


class Table(NamedTuple):
    """How an image is cut into segments, and where these lie.

    Its size and that of its MCUs in pixels, `interval` MCUs to a segment, `columns` segments to
    each of `rows` rows of MCUs. `lengths` are those of the segments, uint16, row by row, with the
    marker behind each.
    """

    width: int
    height: int
    mcu_width: int
    mcu_height: int
    interval: int
    columns: int
    rows: int
    scan_offset: int
    lengths: memoryview

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        mcu: tuple[int, int],
        interval: int,
        scan_offset: int,
        lengths: memoryview,
    ) -> Self:
        """Make the table of an image of `size` with MCUs of size `mcu`, width first.

        Raises:
            BadImage: an image of this size has another number of segments.
        """
        num_mcus = -(-size[0] // mcu[0])
        # No JPEG exceeds these, and the kernels would reject it as an error of augd's.
        if max(size) > _SIDE_MAX or max(mcu) > _MCU_MAX or num_mcus % interval:
            raise BadImage(
                f"its index has segments of {interval} MCUs of {mcu[0]}x{mcu[1]} px for "
                f"{size[0]}x{size[1]} px: no JPEG is cut so. Index the set again."
            )
        columns, rows = num_mcus // interval, -(-size[1] // mcu[1])
        if len(lengths) != columns * rows:
            raise BadImage(
                f"its index lists {len(lengths)} segments: expected {columns} x {rows}. "
                f"Index the set again."
            )
        return cls(*size, *mcu, interval, columns, rows, scan_offset, lengths)

    def holds(self, region: Region) -> bool:
        """Return whether a region is a part of such an image."""
        x, y, width, height = region
        return 0 <= x < x + width <= self.width and 0 <= y < y + height <= self.height

    def around(self, region: Region) -> Region:
        """Return the segments that a region needs: first column and row, and how many.

        A region that is decoded at 1/scale needs those of one `widened` by the scale.
        """
        x, y, width, height = region
        # Chroma as fine as luma is not upsampled, and needs no neighbour.
        beside = 1 if self.mcu_width > _BLOCK_PX else 0
        below = 1 if self.mcu_height > _BLOCK_PX else 0
        step = self.mcu_width * self.interval
        # Chroma of less than three columns would be upsampled in another way.
        start = min(x - beside, self.width - _BLOCK_PX) if beside else x
        left, top = max(0, start) // step, max(0, y - below) // self.mcu_height
        right = min(self.columns, -(-(x + width + beside) // step))
        bottom = min(self.rows, -(-(y + height + below) // self.mcu_height))
        return left, top, right - left, bottom - top

    def span(self, cells: Region) -> Span:
        """Return where these segments begin and end. The bytes between them are read as well."""
        before, size, kept = _measure(self.lengths, self.columns, self.rows, *cells)
        return Span(self.scan_offset + before, size, kept)


class Cut(NamedTuple):
    """The bytes that were read of an image for a region: its head, then `table.span(cells)`.

    None of them has been checked.
    """

    data: bytearray
    table: Table
    cells: Region

    def part(self) -> JpegPart:
        """Make a JPEG of it, for decoders of whole JPEGs.

        Raises:
            BadImage: the bytes are not what the table says.
        """
        head, body = self.data[: self.table.scan_offset], self.data[self.table.scan_offset :]
        image = read_header(head + _END_OF_IMAGE)
        kept = self.table.span(self.cells).kept
        return cut_part(head, body, image, self.table, self.cells, kept)


def widened(region: Region, by: int, width: int, height: int) -> Region:
    """Return a region of an image of this size, widened by this many pixels on each side."""
    left, top = max(0, region[0] - by), max(0, region[1] - by)
    right = min(width, region[0] + region[2] + by)
    bottom = min(height, region[1] + region[3] + by)
    return left, top, right - left, bottom - top


def cut_part(
    head: Buffer, body: Buffer, image: Header, table: Table, cells: Region, kept: int
) -> JpegPart:
    """Join an image's header and the bytes of `table.span(cells)` to a small JPEG.

    `image` was read from `head`, which ends where the scan's data begins; `kept` is of the span.

    Raises:
        BadImage: the bytes are not what the table says.
    """
    _check_head(head, image, table)
    start = len(head)
    data = bytearray(start + kept)
    data[:start] = head
    if not _cut(table.lengths, body, data, table.columns, table.rows, *cells, start):
        raise BadImage(
            "broken scan: restart markers are not where its index says. Index the set again."
        )
    left, top, columns, rows = cells
    x, y = left * table.mcu_width * table.interval, top * table.mcu_height
    width = min(table.width - x, columns * table.mcu_width * table.interval)
    height = min(table.height - y, rows * table.mcu_height)
    at = image.sof_height_offset
    data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return JpegPart(data, msgspec.structs.replace(image, width=width, height=height), x, y, image)


def _measure(
    lengths: memoryview,
    columns: int,
    rows: int,
    left: int,
    top: int,
    width: int,
    height: int,
) -> tuple[int, int, int]:
    """Sum the lengths before a rectangle of segments, from its first to its last, and inside it."""
    if native.kernels is not None:
        sums: tuple[int, int, int] = native.kernels.measure_segments(
            lengths, columns, rows, left, top, width, height
        )
        return sums
    first = top * columns + left
    end = (top + height - 1) * columns + left + width
    found = np.frombuffer(lengths, np.uint16)
    inside = found.reshape(rows, columns)[top : top + height, left : left + width]
    parts = found[:first], found[first:end], inside
    before, between, kept = (int(part.sum(dtype=np.int64)) for part in parts)
    return before, between, kept


def _cut(
    lengths: memoryview,
    body: Buffer,
    out: bytearray,
    columns: int,
    rows: int,
    left: int,
    top: int,
    width: int,
    height: int,
    start: int,
) -> bool:
    """Copy a rectangle of segments to `out[start:]`; False if they don't have these lengths."""
    if native.kernels is not None:
        is_done: bool = native.kernels.cut_segments(
            lengths, body, out, columns, rows, left, top, width, height, start
        )
        return is_done
    first = top * columns + left
    found = lengths[first : (top + height - 1) * columns + left + width].tolist()
    at, to, number = 0, start, 0
    for place, length in enumerate(found, first):
        end = at + length
        if left <= place % columns < left + width:
            code = _EOI if place == columns * rows - 1 else _RST0 + (place & 7)
            if length < 2 or body[end - 2 : end] != bytes((0xFF, code)):
                return False
            out[to : to + length] = body[at:end]
            to += length
            out[to - 1] = _RST0 + (number & 7)
            number += 1
        at = end
    out[to - 1] = _EOI
    return at == len(body)


def _check_head(head: Buffer, image: Header, table: Table) -> None:
    """Reject a header that is not that of the image that was indexed."""
    at = image.sos_offset
    # A head that is too short ends in the header of its scan.
    end = at + 2 + (head[at + 2] << 8 | head[at + 3]) if at + 4 <= len(head) else 0
    found = image.width, image.height, *_mcu_of(image), end
    expected = (*table[:4], table.scan_offset)
    if found != expected or end != len(head) or not _has_segments(image):
        raise BadImage(
            f"its header is not the one that was indexed: expected width, height, MCU and bytes "
            f"before the scan {expected}, got {found}. Index the set again."
        )


def find_segments(data: bytes | bytearray, header: Header) -> Table | None:
    """Find the segments of a JPEG; None if it has none that make whole rows of MCUs."""
    if not _has_segments(header):
        return None
    at = header.sos_offset
    scan = at + 2 + (data[at + 2] << 8 | data[at + 3])
    mcu = _mcu_of(header)
    interval = _interval(data, scan)
    num_mcus = -(-header.width // mcu[0])
    if not interval or num_mcus % interval:
        return None
    found = np.frombuffer(data, np.uint8)
    marks = np.flatnonzero(found[scan:-1] == 0xFF) + scan
    codes = found[marks + 1]
    is_marker = codes != 0
    marks, codes = marks[is_marker], codes[is_marker]
    num_segments = num_mcus // interval * -(-header.height // mcu[1])
    expected = _RST0 + (np.arange(num_segments) & 7)
    expected[-1] = _EOI
    if len(codes) < num_segments or (codes[:num_segments] != expected).any():
        return None
    lengths = np.diff(marks[:num_segments] + 2, prepend=scan)
    if lengths.max() > LENGTH_MAX:
        return None
    stored = memoryview(lengths.astype(np.uint16).tobytes()).cast("H")
    return Table.of((header.width, header.height), mcu, interval, scan, stored)


def has_all_restarts(data: bytes | bytearray, header: Header) -> bool:
    """Return whether a scan has one restart marker less than its image has intervals."""
    scan = header.sos_offset + 2 + int.from_bytes(data[header.sos_offset + 2 :][:2], "big")
    width, height = _mcu_of(header)
    num_mcus = -(-header.width // width) * -(-header.height // height)
    interval = _interval(data, scan)
    found = _RESTART.findall(data, scan, find_scan_end(data, header.sos_offset))
    return interval > 0 and len(found) == -(-num_mcus // interval) - 1


def choose_interval(header: Header, scan_bytes: int, segment_bytes: int) -> int:
    """Return the number of MCUs that divides a row of them and is nearest to `segment_bytes`."""
    mcu_width, mcu_height = _mcu_of(header)
    num_mcus = -(-header.width // mcu_width)
    wanted = segment_bytes * num_mcus * -(-header.height // mcu_height) / scan_bytes
    divisors = [number for number in range(1, num_mcus + 1) if num_mcus % number == 0]
    return min(divisors, key=lambda number: max(number / wanted, wanted / number))


def _has_segments(header: Header) -> bool:
    return (
        header.format == "jpeg"
        and header.is_single_scan
        and header.has_restarts
        and header.num_components != 4
    )


def _mcu_of(header: Header) -> tuple[int, int]:
    """Return width and height of an MCU.

    A scan of one component is of single blocks, whatever its sampling factors are: T.81, A.2.2.
    """
    if header.num_components == 1:
        return _BLOCK_PX, _BLOCK_PX
    return header.mcu_width, header.mcu_height


def _interval(data: bytes | bytearray, end: int) -> int:
    """Read how many MCUs lie between restart markers; `read_header` has walked these bytes."""
    interval, at = 0, 2
    while at < end:
        at = data.index(b"\xff", at)
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
        else:
            if marker == _DRI:
                interval = data[at + 4] << 8 | data[at + 5]
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    return interval
