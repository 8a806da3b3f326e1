"""Contact sheets: each photo with outlines of its crops, beside the rows made from it.

A row is shown as it is, or with each pixel repeated when it is small. Only photos are scaled. The
module reads no file and draws no random number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from augd.pixels.decode import Pixels

Outline = Sequence[tuple[float, float]]
"""Corners x, y in pixels of the photo; they may lie outside."""
Colour = tuple[int, int, int]

_PAPER: Colour = (22, 23, 26)
_HOLE: Colour = (36, 38, 43)
_INK: Colour = (232, 233, 237)
_PALE: Colour = (150, 153, 161)
# One colour for each column, in the photo and on its row: apart from each other, and from a photo.
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
_EDGE_PX = 2.0
_FINER = 4
_LINE_PX = 17
_HEAD_PX = 62
_CELL_SIDE_MIN_PX = 168  # what a line of words needs
_THIN_FROM = 6  # outlines on one photo, of which thick ones would hide it
_SHADE = 0.4
# Where words may be broken into lines: after " · " between ops, and between the ops of a policy.
_ENDS = re.compile(r"(?<= · )|(?<=, )")
CELLS_PER_ROW = 10  # the views of ten_crop, and of each scale of multi_scale


@dataclass(frozen=True, slots=True)
class Cell:
    """One made row with words under it; `image` is None where none could be made.

    `first` takes one line; `second` is wrapped into the sheet's number of lines.
    """

    image: Pixels | None
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Strip:
    """One photo and what was made of it: an outline in the photo and a cell for each row.

    `photo` is None where it cannot be decoded.
    """

    photo: Pixels | None
    outlines: Sequence[Outline]
    first: str
    second: str
    cells: Sequence[Cell]


class Sheet:
    """Lays out strips of one size below each other.

    `row_px` is (height, width) of the largest made row, `photo_px` (width, height) of the place for
    a photo; None gives it the height of a row. With `is_shaded` a photo is darkened outside of its
    outlines. `num_lines` is the number of lines for the second text of a cell. Each line of the
    sheet holds at most `cells_per_row` cells.
    """

    def __init__(
        self,
        row_px: tuple[int, int],
        num_cells: int,
        photo_px: tuple[int, int] | None = None,
        is_shaded: bool = False,
        num_lines: int = 1,
        cells_per_row: int = CELLS_PER_ROW,
    ) -> None:
        height, width = row_px
        self.times = -(-_CELL_SIDE_MIN_PX // min(height, width)) if min(row_px) < 112 else 1
        self._image_px = width * self.times, height * self.times
        self._cell_width = max(self._image_px[0], _CELL_SIDE_MIN_PX)
        self._photo_px = photo_px or (round(self._image_px[1] * 1.4), self._image_px[1])
        self._num_lines = num_lines
        self._num_columns = min(num_cells, cells_per_row)
        under_px = _BAR_PX + (1 + num_lines) * _LINE_PX + 2 * _GAP_PX
        self._step_px = self._image_px[1] + under_px
        num_steps = -(-num_cells // cells_per_row)
        self._height = max(num_steps * self._step_px, self._photo_px[1] + under_px)
        self._is_shaded = is_shaded
        self._fonts = {size: ImageFont.load_default(size) for size in (12, 13, 18)}

    @property
    def width(self) -> int:
        """Width of the whole sheet in pixels."""
        cells = self._num_columns * (self._cell_width + _GAP_PX)
        return 2 * _MARGIN_PX + self._photo_px[0] + cells

    def corner(self, strip: int, cell: int) -> tuple[int, int]:
        """Return x, y of the first pixel of a made row on the sheet."""
        x = self._left(cell) + (self._cell_width - self._image_px[0]) // 2
        return x, self._top(strip) + cell // self._num_columns * self._step_px

    def _top(self, strip: int) -> int:
        return _HEAD_PX + _BAR_PX + strip * self._height

    def draw(self, title: str, columns: Sequence[str], strips: Sequence[Strip]) -> Image.Image:
        """Draw the sheet: a title, a heading for each column of cells, and the strips."""
        size = self.width, self._top(len(strips)) - _GAP_PX + _MARGIN_PX // 2
        sheet = Image.new("RGB", size, _PAPER)
        pen = ImageDraw.Draw(sheet)
        self._write(pen, (_MARGIN_PX, 12), title, self.width - 2 * _MARGIN_PX, 18, _INK)
        for number, heading in enumerate(columns[: self._num_columns]):
            at = self._left(number), _HEAD_PX - 20
            self._write(pen, at, heading, self._cell_width, 13, _mark(number))
        for number, strip in enumerate(strips):
            self._draw_photo(sheet, pen, number, strip)
            for place, cell in enumerate(strip.cells):
                self._draw_cell(sheet, pen, (number, place), cell)
        return sheet

    def _left(self, cell: int) -> int:
        column = cell % self._num_columns
        return _MARGIN_PX + self._photo_px[0] + _GAP_PX + column * (self._cell_width + _GAP_PX)

    def _draw_photo(
        self, sheet: Image.Image, pen: ImageDraw.ImageDraw, number: int, strip: Strip
    ) -> None:
        left, top = _MARGIN_PX, self._top(number)
        if strip.photo is None:
            self._draw_hole(pen, (left, top), self._photo_px, "no image")
        else:
            image = _fitted(strip.photo, self._photo_px)
            scale = image.width / strip.photo.shape[1], image.height / strip.photo.shape[0]
            outlines = [_scaled(outline, scale) for outline in strip.outlines]
            if self._is_shaded:
                image = _shaded(image, outlines)
            for place, outline in enumerate(outlines):
                _trace(image, outline, _mark(place), len(outlines) >= _THIN_FROM)
            sheet.paste(image, (left + (self._photo_px[0] - image.width) // 2, top))
        self._caption(pen, left, top + self._photo_px[1], self._photo_px[0], strip)

    def _draw_cell(
        self, sheet: Image.Image, pen: ImageDraw.ImageDraw, place: tuple[int, int], cell: Cell
    ) -> None:
        left, (x, y) = self._left(place[1]), self.corner(*place)
        width, height = self._image_px
        if cell.image is None:
            self._draw_hole(pen, (x, y), self._image_px, cell.first)
            return
        pen.rectangle((x, y - _BAR_PX, x + width - 1, y - 2), _mark(place[1] % self._num_columns))
        shown = Image.fromarray(cell.image)
        if self.times > 1:
            enlarged = shown.width * self.times, shown.height * self.times
            shown = shown.resize(enlarged, Image.Resampling.NEAREST)
        sheet.paste(shown, (x, y))
        self._caption(pen, left, y + height, self._cell_width, cell)

    def _caption(
        self, pen: ImageDraw.ImageDraw, left: int, bottom: int, width: int, of: Strip | Cell
    ) -> None:
        self._write(pen, (left, bottom + 6), of.first, width, 13, _INK)
        for number, line in enumerate(self._broken(of.second, width)):
            at = left, bottom + 6 + (1 + number) * _LINE_PX
            self._write(pen, at, line, width, 12, _PALE)

    def _broken(self, text: str, width_px: int) -> list[str]:
        """Wrap text at its separators into lines of a width; the last line takes the rest."""
        lines = [""]
        for part in _ENDS.split(text):
            longer = lines[-1] + part
            if (
                lines[-1]
                and len(lines) < self._num_lines
                and self._is_wider(longer.rstrip(" ·"), width_px)
            ):
                lines.append(part)
            else:
                lines[-1] = longer
        return [line.rstrip(" ·") for line in lines]

    def _is_wider(self, text: str, width_px: int) -> bool:
        return self._fonts[12].getlength(text) > width_px

    def _draw_hole(
        self, pen: ImageDraw.ImageDraw, at: tuple[int, int], size: tuple[int, int], why: str
    ) -> None:
        """Draw an empty frame and the reason for the missing image."""
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


def _scaled(outline: Outline, scale: tuple[float, float]) -> Outline:
    return [(x * scale[0], y * scale[1]) for x, y in outline]


def _shaded(image: Image.Image, outlines: Sequence[Outline]) -> Image.Image:
    """Darken the image outside of the outlines."""
    mask = Image.new("L", image.size, 0)
    for outline in outlines:
        ImageDraw.Draw(mask).polygon([(round(x), round(y)) for x, y in outline], 255)
    return Image.composite(image, image.point(lambda level: level * _SHADE), mask)


def _trace(image: Image.Image, outline: Outline, colour: Colour, is_thin: bool) -> None:
    """Draw an outline two pixels wide, or one, with a dark line on either side."""
    inside = _kept_inside(outline, image.size)
    for ink, width_px in (((0, 0, 0), 3 if is_thin else 4), (colour, 1 if is_thin else 2)):
        image.paste(ink, mask=_line_mask(image.size, inside, width_px))


def _line_mask(size: tuple[int, int], corners: Outline, width_px: int) -> Image.Image:
    """Draw an antialiased closed line: four times as large, then reduced."""
    mask = Image.new("L", (size[0] * _FINER, size[1] * _FINER), 0)
    pen = ImageDraw.Draw(mask)
    points = [(x * _FINER, y * _FINER) for x, y in (*corners, *corners[:2])]
    pen.line(points, 255, width_px * _FINER, joint="curve")
    return mask.reduce(_FINER)


def _kept_inside(outline: Outline, size: tuple[int, int]) -> list[tuple[float, float]]:
    """Move lines on the image's edge just inside it, where they are visible."""
    width, height = size
    return [(_off_the_edge(x, width), _off_the_edge(y, height)) for x, y in outline]


def _off_the_edge(place: float, side: int) -> float:
    if abs(place) < _EDGE_PX:
        return _EDGE_PX
    return side - 1 - _EDGE_PX if abs(place - side) < _EDGE_PX + 1 else place
