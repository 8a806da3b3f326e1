"""The result of a header's reader, and the error for a bad image.

Shared by the readers of the formats, which `read_header.py` calls. Imports neither NumPy nor
OpenCV.
"""

from __future__ import annotations

from typing import Final

import msgspec

from augd.pixels.headers.formats import Format

MAX_SEGMENTS: Final = 4096
"""Segments, chunks or fill bytes before the image: hundreds of times what cameras write."""
MAX_SCANS: Final = 200
"""Scans of a JPEG, each of which costs a pass over the whole image. Encoders write about ten."""


class BadImage(Exception):
    """One sample cannot be used, and why. It becomes a masked row or a failed run, by policy."""


class Header(msgspec.Struct, frozen=True, gc=False):
    """What the bytes tell about an image before it is decoded. Sizes in pixels as stored.

    `orientation` is the EXIF value 1..8 (1 if absent); it is reported, never applied here. If a
    format's decoder turns images upright, it is 1, and the size is the upright one.
    `can_stop_early` holds for sequential single-scan JPEGs without restart markers:
    `sof_height_offset` is then the position of the two big-endian bytes with the image's height.
    `is_plain` means that decoders may get the file as it is. Of others they get what
    `still_image.py` extracts: one image of an animation, a JPEG with an end marker.
    """

    format: Format
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
    is_plain: bool = True


def too_many_segments(kind: str, at: int) -> BadImage:
    """Return the error for more parts before the image than any encoder writes."""
    return BadImage(
        f"{kind} header: expected at most {MAX_SEGMENTS} segments before the image, and at byte "
        f"{at} it has not begun"
    )
