"""`augd preview`: a contact sheet of photos beside what training will see of them.

The code that producers run makes the rows, from photos that a separate process decodes. The
command writes nothing but the file of `--out`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from PIL import Image

from augd.cli.contact_sheet import Cell, Sheet, Strip
from augd.cli.options import PreviewOptions
from augd.dataset.scan_result import shown
from augd.diagnostics.drawn_text import SEPARATOR, describe_crop, describe_rest
from augd.diagnostics.sample_renderer import Drawn, EncodedSample, SampleRenderer, check_epoch
from augd.errors import OptionError, counted
from augd.pixels.decode import Pixels
from augd.pixels.headers.read_header import BadImage
from augd.plan.recipe.phases import Phase, StreamRecipe

_ROWS_MAX = 100
_COLUMNS_MAX = 20
_SAID_IN_A_LINE = 2
_LINES_MAX = 4
_SIDE_MAX_PX = 30_000  # of the sheet; viewers and PNG readers refuse more


def run_preview(options: PreviewOptions, recipe: StreamRecipe) -> None:
    """Write the contact sheet and print its path.

    Raises:
        AugdError: an option is wrong, there is no dataset, or the file cannot be written.
    """
    _check(options)
    num_views = recipe.at(options.epoch).num_views
    num_epochs = 1 if num_views > 1 else options.columns
    epochs = range(options.epoch, options.epoch + num_epochs)
    with SampleRenderer(options.path, recipe, options.seed, split=options.split) as renderer:
        ids = renderer.first_ids(options.epoch, options.rows)
        sheet = make_sheet(renderer, epochs)
        _check_side(sheet, len(ids))
        strips = [make_strip(renderer, sample, epochs) for sample in ids]
        columns = [f"epoch {epoch}" for epoch in epochs]
        image = sheet.draw(_title(options, renderer), columns, strips)
    save(image, options.out)
    each = f"{num_views} views" if num_views > 1 else counted(num_epochs, "epoch")
    print(
        f"{options.out}: {counted(len(ids), 'photo')}, the first of epoch {options.epoch}, "
        f"each in {each} "
        f"({image.width}×{image.height})"
    )


def make_sheet(renderer: SampleRenderer, epochs: Sequence[int]) -> Sheet:
    """Make the sheet for rows of some epochs, with room for what their ops draw in words."""
    shown = [renderer.tools_at(epoch) for epoch in epochs]
    sizes = [size for tools in shown for size in tools.sizes]
    num_cells = sum(tools.phase.num_views for tools in shown)
    num_said = max(_num_said(tools.phase) for tools in shown)
    num_lines = min(_LINES_MAX, -(-max(1, num_said) // _SAID_IN_A_LINE))
    height, width = max(height for height, _ in sizes), max(width for _, width in sizes)
    return Sheet((height, width), num_cells, num_lines=num_lines)


def _num_said(phase: Phase) -> int:
    """Return how many ops of a row are put into words, and its view."""
    recipes = (group.recipe for group in phase.groups)
    ops = (sum(op.num_said for op in one.ops if not op.is_sizing) for one in recipes)
    return max(ops) + (phase.num_views > 1)


def make_strip(renderer: SampleRenderer, sample: int, epochs: Sequence[int]) -> Strip:
    """Read one sample, make its rows in each of these epochs, and describe them."""
    path = renderer.arrays.path(sample)
    label = renderer.label_of(sample) or f"sample {sample}"
    try:
        encoded = renderer.read(sample)
    except BadImage as bad:
        num_cells = sum(renderer.recipe.at(epoch).num_views for epoch in epochs)
        return Strip(None, (), label, path, [Cell(None, str(bad), "")] * num_cells)
    drawn = [renderer.drawn(sample, epoch, encoded.header) for epoch in epochs]
    cells = [cell for one in drawn for cell in _cells(renderer, encoded, one)]
    outlines = [view.seen for one in drawn for view in one.views if not one.impossible]
    size = "{}x{}".format(*encoded.size)
    return Strip(_photo(encoded), outlines, label, f"{size} · {os.path.basename(path)}", cells)


def _photo(encoded: EncodedSample) -> Pixels | None:
    try:
        return encoded.decode_all()
    except BadImage:
        return None  # its rows say why


def _cells(renderer: SampleRenderer, encoded: EncodedSample, drawn: Drawn) -> list[Cell]:
    try:
        rows = renderer.rows(encoded, drawn)
    except BadImage as bad:
        return [Cell(None, str(bad), "") for _ in drawn.views]
    names = [view.name or f"view {view.number}" for view in drawn.views]
    named = [f"{name}{SEPARATOR}" if len(rows) > 1 else "" for name in names]
    return [
        Cell(row, describe_crop(view), name + describe_rest(view))
        for row, name, view in zip(rows, named, drawn.views, strict=True)
    ]


def _title(options: PreviewOptions, renderer: SampleRenderer) -> str:
    name = shown(os.path.basename(renderer.index.header.source))
    tools = renderer.tools_at(options.epoch)
    groups = zip(tools.phase.groups, tools.sizes, strict=True)
    sizes = {f"{group.name} {width}x{height}".strip() for group, (height, width) in groups}
    size = f"{', '.join(sorted(sizes))}, {tools.phase.shared.filter}"
    return f"{name}  ·  recipe {options.recipe} ({size})  ·  seed {options.seed}"


def _check(options: PreviewOptions) -> None:
    for name, value, most in (
        ("--rows", options.rows, _ROWS_MAX),
        ("--columns", options.columns, _COLUMNS_MAX),
    ):
        if not 1 <= value <= most:
            raise OptionError(f"{name}: expected 1..{most}, got {value}")
    check_epoch(options.epoch)
    check_epoch(options.epoch + options.columns - 1)
    check_out(options.out)


def _check_side(sheet: Sheet, num_strips: int) -> None:
    if max(sheet.width, sheet.corner(num_strips, 0)[1]) > _SIDE_MAX_PX:
        raise OptionError(
            f"--rows, --columns: the sheet would be larger than {_SIDE_MAX_PX:,} pixels; "
            "ask for fewer"
        )


def check_out(out: str) -> None:
    """Reject a file name that no image can be written to, before any work is done.

    Raises:
        OptionError: the ending names no format, or there is no such folder.
    """
    Image.init()
    ending = os.path.splitext(out)[1].lower()
    if Image.EXTENSION.get(ending) not in ("PNG", "JPEG", "WEBP"):
        raise OptionError(f"--out: expected a name that ends in .png, .jpg or .webp, got {out!r}")
    folder = os.path.dirname(out) or "."
    if not os.path.isdir(folder):
        raise OptionError(f"--out: there is no folder {folder!r}; make it, or write elsewhere")


def save(image: Image.Image, out: str) -> None:
    """Write an image to a file.

    Raises:
        OptionError: it cannot be written.
    """
    try:
        image.save(out, quality=92)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OptionError(f"--out: {out} cannot be written ({reason}); write elsewhere") from None
