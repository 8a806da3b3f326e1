"""Renders single samples outside any stream: the same order, plan, decode and render.

Used by `augd preview`, `augd explain` and the dashboard's sample viewer. It runs the code of
producers, so its rows equal those of a stream with the same recipe and seed, byte for byte. A
stream with `classes`, `limit` or `balance` has another order, but without `balance` the same
pixels. Files are decoded in a separate process, which a file may kill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from augd.dataset.index_arrays import IndexArrays
from augd.dataset.index_file import IndexFile
from augd.dataset.readers.open_source import open_source
from augd.dataset.readers.source import SampleSource
from augd.dataset.scan.build_index import load_or_build
from augd.diagnostics.decode_process import DecodeProcess
from augd.diagnostics.device_colour import recoloured
from augd.diagnostics.drawn_params import DrawnStep, Draws
from augd.diagnostics.progress_bar import ProgressBar
from augd.diagnostics.split_samples import ids_of_split
from augd.errors import DatasetError, OptionError, PluginFailed
from augd.pixels.decode import Pixels, configure, decode, silence_library_noise
from augd.pixels.exif_orientation import Decode, DecodeStored, reader_of
from augd.pixels.headers.read_header import BadImage, Header, read_header
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlans
from augd.plan.ops.base import BaseOp
from augd.plan.ops.plugin import Edit, OwnOpError
from augd.plan.ops.registry import CoarseDropout, Cutout, Erase, Mirror
from augd.plan.order.sample_sequence import Draw
from augd.plan.params_writer import describe
from augd.plan.plan import Plan
from augd.plan.planner.planner import Planner
from augd.plan.recipe.recipe import Recipe, output_size
from augd.plugins.ops import name_failure, tell

Box = tuple[int, int, int, int]
"""x, y, width, height."""
Corners = Sequence[tuple[float, float]]

_EPOCH_MAX = 2**32 - 1
_SEED_MAX = 2**63 - 1
_POSITIONS_AT_ONCE = 1 << 16
_POINTS_A_SIDE = 12  # of an outline under a lens


@dataclass(frozen=True, slots=True)
class View:
    """The parameters drawn for one row; sizes and places in pixels of the image by default.

    `crop`, `scaled`, `window` and `mirror` describe the exact path: what crops, resizes and mirrors
    alone would do. A warped row (`is_bent`) is read through `matrix` (2, 3) from `region`, halved
    `halvings` times. The image is decoded at 1/`scale`. `colour` is (3, 4) and `pivot` (3, 3), in
    grey levels, or None. `steps` are the ops other than crops; `colour_order` is the drawn order
    of the colour ops, if one was drawn.
    """

    number: int
    crop: Box
    scaled: tuple[int, int]
    window: tuple[int, int]
    mirror: bool
    frame: tuple[float, float, float, float]
    """x, y, width, height of the row in the image, by the exact path."""
    seen: Corners
    """Outline, in the image, of what the row shows: points x, y, clockwise in the row."""
    is_bent: bool
    region: Box
    matrix: NDArray[np.float64]
    halvings: int
    scale: int
    colour: NDArray[np.float64] | None
    pivot: NDArray[np.float64] | None
    steps: Sequence[DrawnStep]
    colour_order: Sequence[str]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The parameters drawn for one sample in one epoch, by view.

    `edits` are the changes by own ops to the finished rows, by view. `impossible` says why the rows
    cannot be made; it is empty if they can.
    """

    epoch: int
    views: Sequence[View]
    outlines: RowPlans
    edits: Sequence[Sequence[Edit]] | None
    impossible: str


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """A sample's file as read, with its header and its recipe's decoder."""

    content: bytearray
    header: Header
    size: tuple[int, int]
    decode: Decode

    def decode_all(self) -> Pixels:
        """Decode all of it. Raises BadImage."""
        return self.decode(self.content, self.header, (0, 0, *self.size), 1)


class SampleRenderer:
    """Makes rows of one dataset, recipe and seed, one at a time. Use it in a `with`."""

    def __init__(
        self,
        path: str | IndexFile,
        recipe: Recipe,
        seed: int,
        *,
        split: str | None = "all",
        is_confined: bool = False,
    ) -> None:
        """Open the dataset, and index it if necessary.

        Args:
            path: of the dataset, or its open index, which the caller still owns.
            recipe: of the rows.
            seed: of order and augmentation.
            split: as in `split_samples.ids_of_split`.
            is_confined: whether this process is confined. It then decodes by itself, and its
                standard error is taken over. Else a separate process decodes.

        Raises:
            DatasetError: there is no dataset at `path`.
            OptionError: `seed` is out of range, or there is no such split.
            RecipeError: the size of the rows follows from a first image that is bad.
        """
        _check_range("--seed", seed, _SEED_MAX)
        self._apart = None if is_confined else DecodeProcess()
        decoding: DecodeStored = decode
        if self._apart is not None:
            decoding = self._apart.decode
        else:
            configure()
            silence_library_noise()
        self.recipe = recipe
        self.seed = seed
        self._is_own = isinstance(path, str)
        if isinstance(path, str):
            with ProgressBar("indexing") as progress:
                path = load_or_build(path, progress=progress)
        self.index = path
        try:
            self.arrays = IndexArrays(self.index.fd, self.index.dims_fd)
            self.height, self.width = output_size(recipe, self.arrays.first_size_px)
            self._ids = ids_of_split(self.index, split)
            self._source = _open_source(self.arrays)
        except BaseException:
            if self._is_own:
                self.index.close()
            raise
        size = self.height, self.width
        self._own_drawn: dict[tuple[int, int], Any] = {}
        self._planner = Planner(recipe, seed, size, self._note_own_draw)
        self._exact_planner = Planner(_without_warps(recipe), seed, size)
        self._draws = Draws(recipe, seed, size)
        self._size_of, self._decode = reader_of(recipe.exif, recipe.background_rgb, decoding)
        self._renderer = Renderer.of(recipe, size, decoding)
        self._draw = Draw(self.index.num_samples, seed, True, self._ids)
        self._num_drawn = self.index.num_samples if self._ids is None else len(self._ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened here; the caller closes an index that it passed."""
        if self._apart is not None:
            self._apart.close()
        self._source.close()
        if self._is_own:
            self.index.close()

    def first_ids(self, epoch: int, count: int) -> list[int]:
        """Return the samples at the first positions of an epoch, at most `count`."""
        positions = np.arange(min(count, self._num_drawn))
        ids, _ = self._draw.rows(epoch, positions)
        found: list[int] = ids.tolist()
        return found

    def position_of(self, sample: int, epoch: int) -> int | None:
        """Return a sample's position in the shuffled order of an epoch; None if it has none."""
        for first in range(0, self._num_drawn, _POSITIONS_AT_ONCE):
            positions = np.arange(first, min(first + _POSITIONS_AT_ONCE, self._num_drawn))
            ids, _ = self._draw.rows(epoch, positions)
            if len(places := np.flatnonzero(ids == sample)):
                return first + int(places[0])
        return None

    def label_of(self, sample: int) -> str:
        """Return the class name of a sample; empty if it has none."""
        classes = self.arrays.classes
        if self.arrays.targets is not None:
            columns = np.flatnonzero(self.arrays.targets[sample] > 0).tolist()
            return ", ".join(classes[column] for column in columns)
        label = int(self.arrays.labels[sample])
        return classes[label] if label >= 0 else ""

    def read_file(self, sample: int) -> bytearray:
        """Read a sample's file, without checking its content. Raises BadImage."""
        return self._source.read(sample)

    def read(self, sample: int) -> EncodedSample:
        """Read a sample's file and its header. Raises BadImage."""
        content = self.read_file(sample)
        header = read_header(content)
        return EncodedSample(content, header, self._size_of(header), self._decode)

    def drawn(self, sample: int, epoch: int, header: Header) -> Drawn:
        """Draw the parameters of one sample in one epoch.

        Raises:
            PluginFailed: an own op failed.
        """
        width, height = (np.full(1, side, np.int32) for side in self._size_of(header))
        asked = np.array([sample], np.int64), np.array([epoch], np.int64), width, height
        self._own_drawn.clear()
        try:
            plan, exact = self._planner.plan(*asked), self._exact_planner.plan(*asked)
        except OwnOpError as error:
            raise PluginFailed(tell(name_failure(error, self.arrays))) from None
        num_views = self._planner.num_views
        steps = self._draws.of(sample, epoch, self._own_drawn)
        views = []
        for number in range(num_views):
            draw = number % self.recipe.views  # the views of a view op share one
            order = self._draws.colour_order(sample, epoch, draw)
            views.append(self._view(plan, exact, number, steps[number], order))
        impossible = plan.impossible.get(0, "")
        return Drawn(epoch, views, RowPlans(plan, 0, num_views), plan.edits, impossible)

    def _note_own_draw(self, place: int, row: int, params: Any) -> None:
        self._own_drawn[place, row] = params

    def _view(
        self, plan: Plan, exact: Plan, row: int, steps: Sequence[DrawnStep], order: Sequence[str]
    ) -> View:
        matrix, exact_matrix = (
            describe(one, self._planner.num_views, self.width)[row, 6:12].reshape(2, 3)
            for one in (plan, exact)
        )
        lens = 0.0 if plan.lens is None else float(plan.lens[row])
        corners = np.array(_seen(exact_matrix, 0.0, self.width, self.height))
        left, top = corners.min(axis=0).tolist()
        right, bottom = corners.max(axis=0).tolist()
        return View(
            number=row,
            crop=tuple(exact.crop[row].tolist()),
            scaled=tuple(exact.scaled[row].tolist()),
            window=tuple(exact.window[row].tolist()),
            mirror=bool(exact.mirror[row]),
            frame=(left, top, right - left, bottom - top),
            seen=_seen(matrix, lens, self.width, self.height),
            is_bent=plan.bent is not None and bool(plan.bent[row]),
            region=tuple(plan.crop[row].tolist()),
            matrix=matrix,
            halvings=0 if plan.halvings is None else int(plan.halvings[row]),
            scale=1 if plan.scale is None else int(plan.scale[row]),
            colour=None if plan.colour is None else plan.colour[row],
            pivot=None if plan.pivot is None else plan.pivot[row],
            steps=steps,
            colour_order=order,
        )

    def rows(self, encoded: EncodedSample, drawn: Drawn) -> Pixels:
        """Make all views of a sample: uint8 (views, height, width, 3), RGB, the caller's own.

        If the recipe leaves colours to the device, they are applied here, clipped and rounded.

        Raises:
            BadImage: they cannot be made.
            PluginFailed: an own op failed.
        """
        if drawn.impossible:
            raise BadImage(drawn.impossible)
        num_views = len(drawn.views)
        out = np.empty((num_views, self.height, self.width, 3), np.uint8)
        is_on_device = self.recipe.colour_on == "device"
        colour = np.empty((num_views, 3, 4), np.float32) if is_on_device else None
        self._renderer.render_sample(
            encoded.content, encoded.header, drawn.outlines, 0, out, colour
        )
        if colour is not None:
            for row, matrix in zip(out, colour, strict=True):
                row[...] = recoloured(row, matrix)
        self._edit(drawn, out)
        return out

    def _edit(self, drawn: Drawn, out: Pixels) -> None:
        """Let own ops edit the finished views."""
        try:
            for edits, row in zip(drawn.edits or (), out, strict=False):
                for edit in edits:
                    edit.apply(row)
        except OwnOpError as error:
            raise PluginFailed(tell(name_failure(error, self.arrays))) from None


_ON_THE_EXACT_PATH = (Mirror, Erase, CoarseDropout, Cutout)


def _without_warps(recipe: Recipe) -> Recipe:
    """Return the recipe with every op disabled that leaves the exact path."""
    return replace(recipe, ops=tuple(map(_without_bend, recipe.ops)))


def _without_bend(op: BaseOp) -> Any:
    if op.inner:
        return replace(op, ops=tuple(map(_without_bend, op.inner)))
    is_exact = op.is_sizing or op.is_colour or isinstance(op, _ON_THE_EXACT_PATH)
    return op if is_exact else replace(op, p=0.0)


def _seen(matrix: NDArray[np.float64], lens: float, width: int, height: int) -> Corners:
    """Map the row's outline into the image: its corners, and points between under a lens."""
    share = np.linspace(0.0, 1.0, _POINTS_A_SIDE if lens else 1, endpoint=False)
    zeros = np.zeros_like(share)
    x = np.concatenate([share, zeros + 1.0, 1.0 - share, zeros]) * width
    y = np.concatenate([zeros, share, zeros + 1.0, 1.0 - share]) * height
    if lens:
        from_x, from_y = x - width / 2, y - height / 2
        radius = (from_x**2 + from_y**2) / ((width**2 + height**2) / 4)
        x, y = width / 2 + from_x * (1 + lens * radius), height / 2 + from_y * (1 + lens * radius)
    places = matrix @ np.stack([x, y, np.ones_like(x)])
    return tuple((float(px), float(py)) for px, py in places.T)


def check_epoch(epoch: int) -> None:
    """Refuse an epoch that no stream has."""
    _check_range("--epoch", epoch, _EPOCH_MAX)


def _check_range(name: str, value: int, highest: int) -> None:
    if not 0 <= value <= highest:
        raise OptionError(f"{name}: expected 0..{highest}, got {value}; the first one is 0")


def _open_source(arrays: IndexArrays) -> SampleSource:
    try:
        return open_source(arrays.root, arrays)
    except OSError as error:
        raise DatasetError(
            f"the dataset's folder {arrays.root!r} cannot be opened ({error.strerror}). "
            "Check the path and its permissions."
        ) from None
