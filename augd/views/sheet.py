"""Contact sheets: each photo with its crops drawn on it, beside the rows that were made of it.

After the way of a batch. A row is shown as it is, or with each pixel repeated when it is small;
only photos are scaled. Reads no file and draws no random number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from augd.pixels.decode import Pixels

Box = tuple[float, float, float, float]
Colour = tuple[int, int, int]

_PAPER: Colour = (22, 23, 26)
_HOLE: Colour = (36, 38, 43)
_INK: Colour = (232, 233, 237)
_PALE: Colour = (150, 153, 161)
# One colour for each epoch, on its crop and on its row: apart from each other, and from a photo.
_MARKS: tuple[Colour, ...] = (
    (255, 205, 80),
    (80, 175, 255),
    (255, 95, 130),
    (60, 215, 150),
    (190, 130, 255),
    (255, 140, 70),
    (245, 245, 245),
    (165, 220, 70),
)
_MARGIN_PX = 24
_GAP_PX = 14
_BAR_PX = 4
_LINE_PX = 17
_HEAD_PX = 62
_CELL_SIDE_MIN_PX = 168  # what two lines of words need
_SHADE = 0.4


@dataclass(frozen=True, slots=True)
class Cell:
    """One made row with two lines under it; `picture` is None where none could be made."""

    picture: Pixels | None
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Strip:
    """One photo and what was made of it; `boxes` are (x, y, width, height) in its pixels.

    `photo` is None where it cannot be decoded.
    """

    photo: Pixels | None
    boxes: Sequence[Box]
    first: str
    second: str
    cells: Sequence[Cell]


class Sheet:
    """Lays out strips of one size below each other.

    `row_px` is (height, width) of a made row, `photo_px` (width, height) of the place for a photo;
    None gives it the height of a row. With `is_shaded` what no crop holds of a photo is darkened.
    """

    def __init__(
        self,
        row_px: tuple[int, int],
        num_cells: int,
        photo_px: tuple[int, int] | None = None,
        is_shaded: bool = False,
    ) -> None:
        height, width = row_px
        self.times = -(-_CELL_SIDE_MIN_PX // min(height, width)) if min(row_px) < 112 else 1
        self._picture_px = width * self.times, height * self.times
        self._cell_width = max(self._picture_px[0], _CELL_SIDE_MIN_PX)
        self._photo_px = photo_px or (round(self._picture_px[1] * 1.4), self._picture_px[1])
        self._height = max(self._picture_px[1], self._photo_px[1])
        self._num_cells = num_cells
        self._is_shaded = is_shaded
        self._fonts = {size: ImageFont.load_default(size) for size in (12, 13, 18)}

    @property
    def width(self) -> int:
        """Width of the whole sheet in pixels."""
        cells = self._num_cells * (self._cell_width + _GAP_PX)
        return 2 * _MARGIN_PX + self._photo_px[0] + cells

    def corner(self, strip: int, cell: int) -> tuple[int, int]:
        """Return x, y of the first pixel of a made row on the sheet."""
        left = _MARGIN_PX + self._photo_px[0] + _GAP_PX + cell * (self._cell_width + _GAP_PX)
        return left + (self._cell_width - self._picture_px[0]) // 2, self._top(strip)

    def _top(self, strip: int) -> int:
        step = _BAR_PX + self._height + 2 * _LINE_PX + 2 * _GAP_PX
        return _HEAD_PX + _BAR_PX + strip * step

    def draw(self, title: str, columns: Sequence[str], strips: Sequence[Strip]) -> Image.Image:
        """Draw the sheet: a title, a heading for each column of cells, and the strips."""
        size = self.width, self._top(len(strips)) - _BAR_PX - _GAP_PX + _MARGIN_PX // 2
        sheet = Image.new("RGB", size, _PAPER)
        pen = ImageDraw.Draw(sheet)
        self._write(pen, (_MARGIN_PX, 12), title, self.width - 2 * _MARGIN_PX, 18, _INK)
        for number, heading in enumerate(columns):
            at = self._left(number), _HEAD_PX - 20
            self._write(pen, at, heading, self._cell_width, 13, _mark(number))
        for number, strip in enumerate(strips):
            self._draw_photo(sheet, pen, number, strip)
            for place, cell in enumerate(strip.cells):
                self._draw_cell(sheet, pen, (number, place), cell)
        return sheet

    def _left(self, cell: int) -> int:
        return _MARGIN_PX + self._photo_px[0] + _GAP_PX + cell * (self._cell_width + _GAP_PX)

    def _draw_photo(
        self, sheet: Image.Image, pen: ImageDraw.ImageDraw, number: int, strip: Strip
    ) -> None:
        left, top = _MARGIN_PX, self._top(number)
        if strip.photo is None:
            self._draw_hole(pen, (left, top), self._photo_px, "no picture")
        else:
            picture = _fitted(strip.photo, self._photo_px)
            scale = picture.width / strip.photo.shape[1], picture.height / strip.photo.shape[0]
            boxes = [_scaled(box, scale) for box in strip.boxes]
            if self._is_shaded:
                picture = _shaded(picture, boxes)
            for place, box in enumerate(boxes):
                _outline(picture, box, _mark(place))
            sheet.paste(picture, (left + (self._photo_px[0] - picture.width) // 2, top))
        self._caption(pen, left, top + self._photo_px[1], self._photo_px[0], strip)

    def _draw_cell(
        self, sheet: Image.Image, pen: ImageDraw.ImageDraw, place: tuple[int, int], cell: Cell
    ) -> None:
        left, (x, y) = self._left(place[1]), self.corner(*place)
        width, height = self._picture_px
        if cell.picture is None:
            self._draw_hole(pen, (x, y), self._picture_px, cell.first)
            return
        pen.rectangle((x, y - _BAR_PX, x + width - 1, y - 2), _mark(place[1]))
        shown = Image.fromarray(cell.picture)
        if self.times > 1:
            shown = shown.resize(self._picture_px, Image.Resampling.NEAREST)
        sheet.paste(shown, (x, y))
        self._caption(pen, left, y + height, self._cell_width, cell)

    def _caption(
        self, pen: ImageDraw.ImageDraw, left: int, bottom: int, width: int, of: Strip | Cell
    ) -> None:
        self._write(pen, (left, bottom + 6), of.first, width, 13, _INK)
        self._write(pen, (left, bottom + 6 + _LINE_PX), of.second, width, 12, _PALE)

    def _draw_hole(
        self, pen: ImageDraw.ImageDraw, at: tuple[int, int], size: tuple[int, int], why: str
    ) -> None:
        """Draw the place of a picture that there is none of, and why."""
        (x, y), (width, height) = at, size
        pen.rectangle((x, y, x + width - 1, y + height - 1), _HOLE)
        text = "\n".join(wrap(why, max(8, width // 8))[: max(1, height // _LINE_PX)])
        middle = x + width // 2, y + height // 2
        pen.text(middle, text, _PALE, self._fonts[12], anchor="mm", align="center")

    def _write(
        self,
        pen: ImageDraw.ImageDraw,
        at: tuple[int, int],
        text: str,
        width_px: int,
        size: int,
        ink: Colour,
    ) -> None:
        """Write one line, shortened with an ellipsis to the width."""
        font = self._fonts[size]
        if font.getlength(text) > width_px:
            while text and font.getlength(text + "…") > width_px:
                text = text[:-1]
            text += "…"
        pen.text(at, text, ink, font)


def _mark(number: int) -> Colour:
    return _MARKS[number % len(_MARKS)]


def _fitted(photo: Pixels, place_px: tuple[int, int]) -> Image.Image:
    """Scale a photo, up or down, so that it just fits."""
    height, width = photo.shape[:2]
    scale = min(place_px[0] / width, place_px[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(np.ascontiguousarray(photo)).resize(size, Image.Resampling.LANCZOS)


def _scaled(box: Box, scale: tuple[float, float]) -> Box:
    x, y, width, height = box
    return x * scale[0], y * scale[1], width * scale[0], height * scale[1]


def _corners(box: Box) -> tuple[int, int, int, int]:
    x, y, width, height = box
    return round(x), round(y), round(x + width), round(y + height)


def _shaded(picture: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """Darken what lies in no box."""
    dark = picture.point(lambda level: level * _SHADE)
    for box in boxes:
        corners = _corners(box)
        dark.paste(picture.crop(corners), corners[:2])
    return dark


def _outline(picture: Image.Image, box: Box, colour: Colour) -> None:
    """Draw a box two pixels wide, inside its edge, with a dark line on either side."""
    pen = ImageDraw.Draw(picture)
    left, top, right, bottom = _corners(box)
    right, bottom = max(right, left + 8) - 1, max(bottom, top + 8) - 1
    pen.rectangle((left, top, right, bottom), outline=(0, 0, 0), width=4)
    pen.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=colour, width=2)
