"""Put images on a contact sheet: what the network received, for a person to look at.

Stands after the way of a batch. Never changes a pixel of an image: no scaling, no gamma.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_GAP_PX = 10
_CAPTION_PX = 20
_FONT_PX = 12
_PAPER = (24, 25, 28)
_INK = (205, 207, 212)


def contact_sheet(
    images: NDArray[np.uint8], labels: Sequence[str], path: str | Path, columns: int = 8
) -> None:
    """Write `images`, uint8 (N, H, W, 3) RGB, as a PNG with a caption under each.

    Raises ValueError when there are no images, or another number of labels than of images.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images: expected uint8 (N, H, W, 3), got {images.dtype} {images.shape}.")
    if not 0 < len(images) == len(labels):
        raise ValueError(
            f"labels: expected one for each of 1 or more images, got {len(labels)} "
            f"for {len(images)}."
        )
    columns = min(columns, len(images))
    height, width = images.shape[1:3]
    rows = -(-len(images) // columns)
    step_x, step_y = width + _GAP_PX, height + _CAPTION_PX + _GAP_PX
    sheet = Image.new("RGB", (columns * step_x + _GAP_PX, rows * step_y + _GAP_PX), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_PX)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = _GAP_PX + i % columns * step_x, _GAP_PX + i // columns * step_y
        sheet.paste(Image.fromarray(image), (x, y))
        caption = _fit(label, width, font)
        draw.text((x + width / 2, y + height + 4), caption, _INK, font, anchor="ma")
    sheet.save(path)


def _fit(text: str, width_px: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Shorten `text` with an ellipsis until it is no wider than `width_px`."""
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text + "…"
