"""EXIF orientation: images as they are stored, or upright as a viewer shows them.

Used between the header and the plan, for recipes with `exif="apply"`. The plan then gets the
upright size, and a region of the upright image is decoded from the stored one. By default
orientations are ignored, as PIL, torchvision and the ImageNet weights do.

Invariants: exact, no pixel is changed; only the region is decoded and turned.
Source: Exif 2.32, §4.6.4 (tag 0x0112).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np

from augd.pixels.box_reduce import reduce
from augd.pixels.decode import Pixels, decode
from augd.pixels.headers.read_header import Header
from augd.pixels.jpeg_segments import JpegPart
from augd.pixels.transparency import BLACK, Background

Region = tuple[int, int, int, int]
Exif = Literal["ignore", "apply"]
Decode = Callable[[bytes | bytearray, Header, Region, int], Pixels]


class DecodeStored(Protocol):
    """The type of `augd.pixels.decode.decode`."""

    def __call__(
        self,
        data: bytes | bytearray,
        header: Header,
        region: Region,
        scale: int = 1,
        background: Background = BLACK,
    ) -> Pixels: ...


# Orientation: is the stored image transposed, and then flipped left-right, top-bottom?
_TURNS: Final[dict[int, tuple[bool, bool, bool]]] = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


class Stored(Protocol):
    """The orientation and size of a stored image: its header, or its decoded pixels."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def orientation(self) -> int: ...


class DecodedRegion(NamedTuple):
    """A whole image, decoded as it is stored: RGB uint8 (height, width, 3), for reading."""

    pixels: Pixels
    width: int
    height: int
    orientation: int


def stored_size(header: Stored) -> tuple[int, int]:
    """Return (width, height) as stored."""
    return header.width, header.height


def upright_size(header: Stored) -> tuple[int, int]:
    """Return (width, height) of the upright image."""
    is_transposed = _TURNS[header.orientation][0]
    return (header.height, header.width) if is_transposed else (header.width, header.height)


def stored_region(orientation: int, upright: tuple[int, int], region: Region) -> Region:
    """Return where a region of the upright image, of such a size, lies in the stored one."""
    is_transposed, is_mirrored, is_flipped = _TURNS[orientation]
    x, y, w, h = region
    if is_mirrored:
        x = upright[0] - x - w
    if is_flipped:
        y = upright[1] - y - h
    return (y, x, h, w) if is_transposed else (x, y, w, h)


def upright_origin(part: JpegPart) -> tuple[int, int]:
    """Return x, y of a part in the upright image."""
    is_transposed, is_mirrored, is_flipped = _TURNS[part.header.orientation]
    x, y = (part.y, part.x) if is_transposed else (part.x, part.y)
    width, height = upright_size(part.image)
    part_width, part_height = upright_size(part.header)
    return (
        width - x - part_width if is_mirrored else x,
        height - y - part_height if is_flipped else y,
    )


def stored_origin(part: JpegPart) -> tuple[int, int]:
    """Return x, y of a part in the stored image."""
    return part.x, part.y


def decode_upright(
    data: bytes | bytearray,
    header: Header,
    region: Region,
    scale: int = 1,
    background: Background = BLACK,
    decode: DecodeStored = decode,
) -> Pixels:
    """Decode a region (x, y, w, h) of the upright image. See `decode`; raises as it does.

    Scaled pixels are those of the upright image. If a flipped side is no multiple of the scale,
    they differ from the decoder's: then the region is decoded at full size and reduced.
    """
    _, is_mirrored, is_flipped = _TURNS[header.orientation]
    width, height = upright_size(header)
    if (is_mirrored and width % scale) or (is_flipped and height % scale):
        return reduce(decode_upright(data, header, region, 1, background, decode), scale)
    region = stored_region(header.orientation, (width, height), region)
    pixels = decode(data, header, region, scale, background)
    return pixels if header.orientation == 1 else np.ascontiguousarray(turn(pixels, header))


def turn(pixels: Pixels, stored: Stored) -> Pixels:
    """Return stored pixels as the upright image shows them: a view."""
    is_transposed, is_mirrored, is_flipped = _TURNS[stored.orientation]
    if is_transposed:
        pixels = pixels.transpose(1, 0, 2)
    if is_mirrored:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if is_flipped else pixels


def reader_of(
    exif: Exif, background: Background = BLACK, decode: DecodeStored = decode
) -> tuple[Callable[[Stored], tuple[int, int]], Decode]:
    """Return how a recipe finds an image's size, and how it decodes a region of it.

    `decode` decodes regions as they are stored: in this process, or in another.
    """
    if exif == "apply":
        return upright_size, partial(decode_upright, background=background, decode=decode)
    return stored_size, partial(decode, background=background)
