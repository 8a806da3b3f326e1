"""Transparency: what is visible through an image's transparent parts.

Runs behind the decoder, for files that have any: an alpha channel, a palette's or a key colour's
(tRNS). One rule holds for all of them. With a colour as background, each pixel is round((colour x
alpha + background x (255 - alpha)) / 255). With none, the stored colours are used, as Pillow's
`convert("RGB")` does.

Invariants: whole numbers; alpha and colours of 16 bits count by their upper bytes.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Background = tuple[int, int, int] | None
"""Grey levels of red, green and blue; None for the stored colours."""
BLACK: Final[Background] = (0, 0, 0)

_STRIP_PIXELS: Final = 1 << 16


def compose(
    found: NDArray[Any], region: tuple[int, int, int, int], background: Background, *, is_bgr: bool
) -> NDArray[np.uint8]:
    """Return the region of an image with alpha, (h, w, 4) uint8 or uint16, as uint8 RGB."""
    x, y, w, h = region
    channels = slice(2, None, -1) if is_bgr else slice(0, 3)
    out = np.empty((h, w, 3), np.uint8)
    behind = np.array(background, np.uint16) if background is not None and any(background) else None
    # In strips, so that a large image needs little extra memory.
    num_rows = max(1, _STRIP_PIXELS // w)
    for top in range(0, h, num_rows):
        strip = found[y + top : min(y + top + num_rows, y + h), x : x + w]
        if strip.dtype == np.uint16:
            strip = (strip >> 8).astype(np.uint8)
        if background is None:
            out[top : top + num_rows] = strip[..., channels]
            continue
        colour, alpha = strip[..., channels].astype(np.uint16), strip[..., 3:]
        colour *= alpha
        if behind is not None:
            colour += behind * (255 - alpha)
        colour += 127
        colour //= 255
        out[top : top + num_rows] = colour
    return out


def keyed(grey: NDArray[Any], key: int, depth: int) -> NDArray[Any]:
    """Give grey values, uint8 or uint16 (h, w), four channels: those of the key are transparent.

    `key` is a value of `depth` bits; values of less than 8 were spread over 8.
    """
    most = (1 << depth) - 1
    key &= most
    if depth < 8:
        key = key * 255 // most
    found = np.empty((*grey.shape, 4), grey.dtype)
    found[..., :3] = grey[..., None]
    found[..., 3] = np.where(grey == key, 0, np.iinfo(grey.dtype).max)
    return found


def on_canvas(found: NDArray[Any], x: int, y: int, width: int, height: int) -> NDArray[Any]:
    """Put an image of 3 or 4 channels on a canvas that is transparent elsewhere."""
    canvas = np.zeros((height, width, 4), found.dtype)
    part = canvas[y : y + found.shape[0], x : x + found.shape[1]]
    part[..., : found.shape[2]] = found
    if found.shape[2] == 3:
        part[..., 3] = np.iinfo(found.dtype).max
    return canvas
