"""Renders single samples outside any stream: the same order, plan, decode and render.

Used by `augd preview`, `augd explain` and the dashboard's sample viewer. It runs the code of
producers, so its rows equal those of a stream with the same recipe and seed, byte for byte. A
stream with `classes`, `limit` or `balance` has another order, but without `balance` the same
pixels. Files are decoded in a separate process, which a file may kill.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_group
from functools import partial
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
from augd.diagnostics.drawn_pixel_steps import list_steps
from augd.diagnostics.progress_bar import ProgressBar
from augd.diagnostics.split_samples import ids_of_split
from augd.errors import DatasetError, OptionError, PluginFailed
from augd.pixels.decode import Pixels, configure, decode, silence_library_noise
from augd.pixels.exif_orientation import Decode, DecodeStored, reader_of
from augd.pixels.headers.read_header import BadImage, Header, read_header
from augd.pixels.render import Renderer
from augd.pixels.render_views import ViewsOfSample, render_views
from augd.pixels.row_plan import RowPlans
from augd.plan.ops.all_ops import CoarseDropout, Cutout, Erase, Mirror, VerticalFlip
from augd.plan.ops.base import BaseOp
from augd.plan.ops.plugin import Edit, OwnOpError
from augd.plan.order.sample_sequence import Draw
from augd.plan.params_writer import describe
from augd.plan.plan import Plan
from augd.plan.planner.view_group_planner import ViewGroupPlanner
from augd.plan.recipe.phases import Phase, Size, StreamRecipe, ViewGroup, as_stream_recipe
from augd.plan.recipe.recipe import Recipe
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
    name: str
    """Of its array and its place there, for a recipe with view groups: `local 3`; else empty."""
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
    program: Sequence[Mapping[str, Any]] | None
    """The steps in place of both, where an op of the recipe is no matrix."""
    steps: Sequence[DrawnStep]
    colour_order: Sequence[str]
    filter: str
    """The filter that was drawn; empty where the recipe's is not "random"."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The parameters drawn for one sample in one epoch, by view.

    `outlines` are the row plans of each view group. `edits` are the changes by own ops to the
    finished rows, by view; empty if there are none. `impossible` says why the rows cannot be made;
    it is empty if they can.
    """

    epoch: int
    views: Sequence[View]
    outlines: Sequence[RowPlans]
    edits: Sequence[Sequence[Edit]]
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


class PhaseTools:
    """What renders the rows of one phase: for each view group its size, draws and renderer."""

    def __init__(
        self,
        phase: Phase,
        seed: int,
        first_size_px: tuple[int, int] | None,
        decoding: DecodeStored,
    ) -> None:
        self.phase = phase
        self.sizes = phase.sizes(first_size_px)
        pairs = list(zip(phase.groups, self.sizes, strict=True))
        # What own ops drew, by group, then by their place and the row.
        self.own_drawn: list[dict[tuple[int, int], Any]] = [{} for _ in pairs]
        notes = [partial(_note_own_draw, drawn) for drawn in self.own_drawn]
        self.planner = ViewGroupPlanner(phase, seed, self.sizes, notes)
        groups = tuple(replace_group(g, recipe=_without_warps(g.recipe)) for g in phase.groups)
        exact = replace_group(phase, groups=groups)
        self.exact_planner = ViewGroupPlanner(exact, seed, self.sizes)
        self.draws = [Draws(g.recipe, seed, size, g.first_view) for g, size in pairs]
        self.renderers = [Renderer.of(group.recipe, size, decoding) for group, size in pairs]


def _note_own_draw(drawn: dict[tuple[int, int], Any], place: int, row: int, params: Any) -> None:
    drawn[place, row] = params


class SampleRenderer:
    """Makes rows of one dataset, recipe and seed, one at a time. Use it in a `with`."""

    def __init__(
        self,
        path: str | IndexFile,
        recipe: Recipe | StreamRecipe,
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
        self.recipe = as_stream_recipe(recipe) if isinstance(recipe, Recipe) else recipe
        self.seed = seed
        self._is_own = isinstance(path, str)
        if isinstance(path, str):
            with ProgressBar("indexing") as progress:
                path = load_or_build(path, progress=progress)
        self.index = path
        try:
            self.arrays = IndexArrays(self.index.fd, self.index.dims_fd)
            first = self.arrays.first_size_px
            self._tools = [PhaseTools(phase, seed, first, decoding) for phase in self.recipe.phases]
            self._ids = ids_of_split(self.index, split)
            self._source = _open_source(self.arrays)
        except BaseException:
            if self._is_own:
                self.index.close()
            raise
        shared = self.recipe.phases[0].shared
        self._size_of, self._decode = reader_of(shared.exif, shared.background_rgb, decoding)
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
        tools = self.tools_at(epoch)
        for own_drawn in tools.own_drawn:
            own_drawn.clear()
        try:
            plans, exacts = tools.planner.plan(*asked), tools.exact_planner.plan(*asked)
        except OwnOpError as error:
            raise PluginFailed(tell(name_failure(error, self.arrays))) from None
        views = list[View]()
        for number, (plan, exact) in enumerate(zip(plans, exacts, strict=True)):
            views += self._views(tools, number, plan, exact, (sample, epoch))
        counts = [group.recipe.num_views for group in tools.phase.groups]
        return Drawn(
            epoch,
            views,
            [RowPlans(plan, 0, count) for plan, count in zip(plans, counts, strict=True)],
            [edits for plan in plans for edits in plan.edits or [()] * len(plan.crop)],
            next((plan.impossible[0] for plan in plans if plan.impossible), ""),
        )

    def tools_at(self, epoch: int) -> PhaseTools:
        """Return what renders the rows of an epoch."""
        return self._tools[self.recipe.number_at(epoch)]

    @staticmethod
    def _views(
        tools: PhaseTools, number: int, plan: Plan, exact: Plan, drawn: tuple[int, int]
    ) -> Iterator[View]:
        """Yield the views of one group, of what was drawn for (sample, epoch)."""
        group, draws = tools.phase.groups[number], tools.draws[number]
        steps = draws.of(*drawn, tools.own_drawn[number])
        for row in range(group.recipe.num_views):
            # The views of a view op share one draw.
            order = draws.colour_order(*drawn, row % group.recipe.views)
            yield _view(group, tools.sizes[number], (plan, exact), row, steps[row], order)

    def rows(self, encoded: EncodedSample, drawn: Drawn) -> list[Pixels]:
        """Make all views of a sample: each uint8 (height, width, 3), RGB, the caller's own.

        If the recipe leaves colours to the device, they are applied here, clipped and rounded.

        Raises:
            BadImage: they cannot be made.
            PluginFailed: an own op failed.
        """
        if drawn.impossible:
            raise BadImage(drawn.impossible)
        tools, groups = self.tools_at(drawn.epoch), list[ViewsOfSample]()
        for group, size, renderer, row_plans in zip(
            tools.phase.groups, tools.sizes, tools.renderers, drawn.outlines, strict=True
        ):
            num_views = group.recipe.num_views
            colour = None
            if group.recipe.colour_on == "device":
                colour = np.empty((num_views, 3, 4), np.float32)
            out = np.empty((num_views, *size, 3), np.uint8)
            groups.append(ViewsOfSample(renderer, row_plans, 0, out, colour))
        if len(groups) == 1:
            one = groups[0]
            one.renderer.render_sample(
                encoded.content, encoded.header, one.row_plans, 0, one.out, one.colour_out
            )
        else:
            render_views(encoded.content, encoded.header, groups)
        for one in groups:
            if one.colour_out is not None:
                for row, matrix in zip(one.out, one.colour_out, strict=True):
                    row[...] = recoloured(row, matrix)
        rows = [row for one in groups for row in one.out]
        self._edit(drawn, rows)
        return rows

    def _edit(self, drawn: Drawn, rows: list[Pixels]) -> None:
        """Let own ops edit the finished views."""
        try:
            for edits, row in zip(drawn.edits, rows, strict=True):
                for edit in edits:
                    edit.apply(row)
        except OwnOpError as error:
            raise PluginFailed(tell(name_failure(error, self.arrays))) from None


def _view(
    group: ViewGroup,
    size: Size,
    plans: tuple[Plan, Plan],
    row: int,
    steps: Sequence[DrawnStep],
    order: Sequence[str],
) -> View:
    """Read one view from its plan and from that of its exact path."""
    (height, width), (plan, exact) = size, plans
    matrix, exact_matrix = (
        describe(one, group.recipe.num_views, size)[row, 6:12].reshape(2, 3) for one in plans
    )
    lens = 0.0 if plan.lens is None else float(plan.lens[row])
    corners = np.array(_seen(exact_matrix, 0.0, width, height))
    left, top = corners.min(axis=0).tolist()
    right, bottom = corners.max(axis=0).tolist()
    return View(
        number=group.first_view + row,
        name=f"{group.name} {group.place + row}" if group.name else "",
        crop=tuple(exact.crop[row].tolist()),
        scaled=tuple(exact.scaled[row].tolist()),
        window=tuple(exact.window[row].tolist()),
        mirror=bool(exact.mirror[row]),
        frame=(left, top, right - left, bottom - top),
        seen=_seen(matrix, lens, width, height),
        is_bent=plan.bent is not None and bool(plan.bent[row]),
        region=tuple(plan.crop[row].tolist()),
        matrix=matrix,
        halvings=0 if plan.halvings is None else int(plan.halvings[row]),
        scale=1 if plan.scale is None else int(plan.scale[row]),
        colour=None if plan.colour is None else plan.colour[row],
        pivot=None if plan.pivot is None else plan.pivot[row],
        program=None if plan.program is None else list_steps(plan.program, row),
        steps=steps,
        colour_order=order,
        filter=_drawn_filter(plan, row),
    )


_ON_THE_EXACT_PATH = (Mirror, VerticalFlip, Erase, CoarseDropout, Cutout)


def _without_warps(recipe: Recipe) -> Recipe:
    """Return the recipe with every op disabled that leaves the exact path."""
    return replace(recipe, ops=tuple(map(_without_bend, recipe.ops)))


def _without_bend(op: BaseOp) -> Any:
    if op.inner:
        return replace(op, ops=tuple(map(_without_bend, op.inner)))
    is_exact = op.is_sizing or op.is_colour or isinstance(op, _ON_THE_EXACT_PATH)
    return op if is_exact else replace(op, p=0.0)


def _drawn_filter(plan: Plan, row: int) -> str:
    if plan.is_bicubic is None:
        return ""
    return "bicubic" if plan.is_bicubic[row] else "antialias"


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
