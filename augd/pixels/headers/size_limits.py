"""How large an image may be: 64 megapixels, unless the operator sets another limit.

Set once by the operator, on a command line or in `augd.serve`. It is kept in this process's
environment, so that all child processes share it. The limits that follow from it (the memory of a
process that decodes, the largest file) are computed here as well.

Invariants: the limit is one number per process, read once.
"""

from __future__ import annotations

import os
from typing import Final

from augd.errors import OptionError

MAX_PIXELS: Final = 64_000_000
"""Largest image that is decoded unless the operator says otherwise: 64 megapixels (192 MB RGB)."""
MOST_PIXELS: Final = 1 << 30
"""What can be allowed at most: OpenCV's own limit (CV_IO_MAX_IMAGE_PIXELS)."""
VARIABLE: Final = "AUGD_MAX_PIXELS"

_BYTES_PER_PIXEL: Final = 8  # 16-bit RGBA, uncompressed
# An image of 64 megapixels needs 200 MB decoded and as much again in a codec. A far larger file is
# hostile: its allocation shall fail in its process and not trigger the kernel's OOM killer.
_DATA_BYTES: Final = 2 << 30

_chosen: int | None = None


def max_pixels() -> int:
    """Return how many pixels an image may have at most.

    Raises:
        OptionError: the variable of the environment holds something else.
    """
    global _chosen
    if _chosen is None:
        _chosen = _read(VARIABLE, os.environ.get(VARIABLE) or str(MAX_PIXELS))
    return _chosen


def allow_pixels(pixels: int) -> None:
    """Let this process, and its children, decode images of up to this many pixels.

    Raises:
        OptionError: it is out of range.
    """
    global _chosen
    _chosen = _read("--max-pixels", str(pixels))
    os.environ[VARIABLE] = str(pixels)


def max_file_bytes() -> int:
    """Return the size of the largest file that is read: its pixels, uncompressed."""
    return max(512 << 20, _BYTES_PER_PIXEL * max_pixels())


def max_data_bytes() -> int:
    """Return how much memory a process that decodes may take."""
    return _DATA_BYTES * max(MAX_PIXELS, max_pixels()) // MAX_PIXELS


def _read(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_PIXELS):
        raise OptionError(f"{name}: expected a number of pixels, 1..{MOST_PIXELS}, got {text!r}")
    return int(text)
