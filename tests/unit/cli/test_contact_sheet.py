"""Contact sheets: cells stand where the sheet says, outlines where the photo was cut."""

from __future__ import annotations

import numpy as np

from augd.cli.contact_sheet import CELLS_PER_ROW, Cell, Sheet, Strip

GREY = np.full((100, 150, 3), 128, np.uint8)


def cells(count: int) -> list[Cell]:
    return [Cell(np.full((120, 120, 3), 10 * place, np.uint8), "", "") for place in range(count)]


def test_more_cells_than_a_row_holds_go_on_below() -> None:
    count = CELLS_PER_ROW + 3
    sheet = Sheet((120, 120), count)
    strips = [Strip(GREY, (), "", "", cells(count)) for _ in range(2)]
    drawn = np.asarray(sheet.draw("title", ["epoch 0"], strips))
    assert drawn.shape[1] == sheet.width
    for strip in range(2):
        for place in range(count):
            x, y = sheet.corner(strip, place)
            assert (drawn[y : y + 120, x : x + 120] == 10 * place).all(), (strip, place)
    assert sheet.corner(0, CELLS_PER_ROW)[0] == sheet.corner(0, 0)[0]


def test_an_outline_is_drawn_where_it_lies_and_cut_at_the_photo() -> None:
    diamond = [(75.0, 20.0), (105.0, 50.0), (75.0, 80.0), (45.0, 50.0)]
    beyond = [(-400.0, -400.0), (900.0, -400.0), (900.0, 900.0), (-400.0, 900.0)]
    sheet = Sheet((120, 120), 2, photo_px=(150, 100))
    plain = np.asarray(sheet.draw("", [], [Strip(GREY, (), "", "", cells(2))]))
    drawn = np.asarray(sheet.draw("", [], [Strip(GREY, [diamond, beyond], "", "", cells(2))]))
    rows, columns = np.nonzero((drawn != plain).any(axis=2))
    left, top = 24, sheet.corner(0, 0)[1]
    across, down = columns - left - 75, rows - top - 50
    from_edge = np.abs(np.abs(across) + np.abs(down) - 30) / 2**0.5
    assert from_edge.max() < 3.5, "nothing is drawn but the diamond"
    for x, y in ((-15, -15), (15, -15), (15, 15), (-15, 15)):
        assert ((across == x) & (down == y)).any(), "each side is drawn"


def test_many_outlines_are_thin() -> None:
    box = [(30.0, 30.0), (120.0, 30.0), (120.0, 70.0), (30.0, 70.0)]
    sheet = Sheet((120, 120), 1, photo_px=(150, 100))
    changed = []
    plain = np.asarray(sheet.draw("", [], [Strip(GREY, (), "", "", cells(1))]))
    for count in (1, 10):
        drawn = np.asarray(sheet.draw("", [], [Strip(GREY, [box] * count, "", "", cells(1))]))
        changed.append(int((drawn != plain).any(axis=2).sum()))
    assert changed[1] < changed[0]


def test_words_break_into_as_many_lines_as_there_are() -> None:
    words = " · ".join(f"some words {number}" for number in range(8))
    cell = Cell(np.zeros((120, 120, 3), np.uint8), "first", words)
    heights = []
    for num_lines in (1, 3):
        sheet = Sheet((120, 120), 1, num_lines=num_lines)
        drawn = np.asarray(sheet.draw("", [], [Strip(GREY, (), "", "", [cell])]))
        x, y = sheet.corner(0, 0)
        below = drawn[y + 120 :, x - 20 : x + 150].max(axis=(1, 2))
        heights.append(int((below > 100).sum()))
    assert heights[1] > 1.6 * heights[0]
