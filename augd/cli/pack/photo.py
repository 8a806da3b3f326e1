"""Transcode one image of a packed dataset: from a file's bytes to those in the shard.

A JPEG is transcoded without loss. Its quantised coefficients are written again, with restart
markers at an interval that divides its rows of MCUs; a progressive JPEG becomes sequential. The
result is decoded whole, and a part of it from its segments alone; both must give the source's
pixels. An image that cannot be transcoded keeps its bytes. Images that are shrunk are encoded again
first: other pixels, hence another dataset.

Invariants: the EXIF orientation stays, as do all other blocks where nothing is encoded again. An
image whose pixels would differ keeps its bytes.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final, Literal

import msgspec
import numpy as np

from augd.dataset.scan_result import ShardPlace
from augd.errors import OptionError
from augd.pixels import native
from augd.pixels.decode import decode, decode_cut, prepared
from augd.pixels.headers.read_header import BadImage, Header, read_header
from augd.pixels.jpeg_segments import Cut, Table, choose_interval, find_segments

# Finer segments fit a crop better, coarser ones take less room: 192 bytes took 3 to 5 % off the
# time that a crop took with 256, and 128 took 4 to 7 %, at 1.045 and 1.057 times the size of
# ImageNet's photos. In class folders labels take another hundredth.
SEGMENT_BYTES: Final = 192
_SPARE_BYTES: Final = 1 << 16
_ORIENTATION_TAG: Final = 0x0112


class Shrink(msgspec.Struct, frozen=True):
    """How photos are made smaller: down to a short side, as JPEGs of a quality."""

    short_side_px: int
    quality: int


class Packed(msgspec.Struct):
    """The bytes for the shard, and what was done; `reason` says why a photo was kept as it is."""

    data: bytes | bytearray
    header: Header | None
    table: Table | None
    how: Literal["packed", "kept"]
    reason: str = ""
    is_shrunk: bool = False

    def place(self, shard: int, offset: int) -> ShardPlace:
        """Say what the index says of it."""
        return place_of(self.header, self.table, shard, offset)


def place_of(header: Header | None, table: Table | None, shard: int, offset: int) -> ShardPlace:
    """Say what the index says of a sample of this header and table, at its place."""
    if header is None:
        return ShardPlace(shard, offset)
    width, height, turn = header.width, header.height, header.orientation
    if table is None:
        return ShardPlace(shard, offset, width, height, turn)
    mcu = (table.mcu_width // 8) << 4 | table.mcu_height // 8
    lengths = table.lengths.tobytes()
    return ShardPlace(
        shard, offset, width, height, turn, mcu, table.interval, table.scan_offset, lengths
    )


def require_kernels() -> None:
    """Reject packing without the native kernels, which transcode."""
    if native.kernels is None:
        raise OptionError(
            f"augd pack needs the native kernels, which are not active here "
            f"({native.trouble or 'augd doctor says why'}). Install a C compiler and "
            "libjpeg-turbo's headers, and augd again."
        )


def pack_photo(data: bytes | bytearray, shrink: Shrink | None = None) -> Packed:
    """Transcode a file's bytes for a shard. A file that does not decode stays as it is."""
    header = None
    try:
        header = read_header(data)
        whole = decode(data, header, (0, 0, header.width, header.height))
        is_shrunk = shrink is not None and min(header.width, header.height) > shrink.short_side_px
        if shrink is not None and is_shrunk:
            data = _shrunk(data, header, whole, shrink)
            header = read_header(data)
            whole = decode(data, header, (0, 0, header.width, header.height))
        if header.format != "jpeg" or header.num_components == 4:
            name = "CMYK JPEG" if header.format == "jpeg" else header.format.upper()
            return Packed(data, header, None, "kept", f"{name}: only RGB and grey JPEGs are cut")
        made, table = _transcoded(prepared(data, header), header)
        found = read_header(made)
        _compare(made, found, table, header, whole)
    except BadImage as bad:
        return Packed(data, header, None, "kept", str(bad))
    return Packed(made, found, table, "packed", is_shrunk=is_shrunk)


def _transcoded(data: bytes | bytearray, header: Header) -> tuple[bytes, Table]:
    out = bytearray(2 * len(data) + _SPARE_BYTES)
    # A long row of one segment may be more than an index can say; single MCUs never are.
    for interval in (choose_interval(header, len(data) - header.sos_offset, SEGMENT_BYTES), 1):
        try:
            size = native.kernels.transcode_jpeg(data, out, header.width, header.height, interval)
        except native.kernels.DecodeError as error:
            raise BadImage(f"not transcoded: {error}") from None
        made = bytes(memoryview(out)[:size])
        if (table := find_segments(made, read_header(made))) is not None:
            return made, table
    raise BadImage("not transcoded: its scan can't be cut into segments")


def _compare(
    made: bytes, found: Header, table: Table, header: Header, whole: np.ndarray[Any, Any]
) -> None:
    """Reject a result whose pixels differ, decoded whole or from segments alone."""
    width, height = header.width, header.height
    if (found.width, found.height, found.orientation) != (width, height, header.orientation):
        raise BadImage("not transcoded: its header would change")
    if not np.array_equal(decode(made, found, (0, 0, width, height)), whole):
        raise BadImage("not transcoded: its pixels would change")
    region = width // 3, height // 3, -(-width // 3), -(-height // 3)
    cells = table.around(region)
    span = table.span(cells)
    head, body = made[: table.scan_offset], made[span.first : span.first + span.size]
    x, y, w, h = region
    cut = decode_cut(Cut(bytearray(head + body), table, cells), region)
    if not np.array_equal(cut, whole[y : y + h, x : x + w]):
        raise BadImage("not transcoded: the pixels of its segments would change")


def _shrunk(
    data: bytes | bytearray, header: Header, whole: np.ndarray[Any, Any], shrink: Shrink
) -> bytes:
    """Resize to the short side, with a Lanczos filter, and encode as a JPEG, 4:2:0."""
    from PIL import Image

    factor = shrink.short_side_px / min(header.width, header.height)
    size = [
        max(shrink.short_side_px, round(side * factor)) for side in (header.width, header.height)
    ]
    image = Image.fromarray(whole).resize((size[0], size[1]), Image.Resampling.LANCZOS)
    exif = Image.Exif()
    if header.orientation != 1:
        exif[_ORIENTATION_TAG] = header.orientation
    with Image.open(BytesIO(data)) as opened:
        profile = opened.info.get("icc_profile") if header.num_components == 3 else None
    out = BytesIO()
    image.save(
        out, "JPEG", quality=shrink.quality, subsampling="4:2:0", exif=exif, icc_profile=profile
    )
    return out.getvalue()
