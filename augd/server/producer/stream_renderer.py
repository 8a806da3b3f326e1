"""What a producer keeps of a stream: how its rows are drawn, planned, rendered and written.

The lease runner decides when a row is made; this module knows how. A stream renderer has views
of every slot of its arena, and the plan of a chunk as plain numbers. It reads no file and knows
neither leases nor links.

Invariants: an image is decoded once, however many views are made of it. A masked row is zeros,
whatever was written into it before.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augd.dataset.index_arrays import ChoiceArrays, IndexArrays
from augd.dataset.readers.read_ahead import ReadAhead
from augd.dataset.readers.source import SampleSource
from augd.pixels.exif_orientation import (
    DecodedRegion,
    Region,
    reader_of,
    stored_origin,
    stored_region,
    upright_origin,
)
from augd.pixels.headers.read_header import Header
from augd.pixels.jpeg_segments import Cut, JpegPart, widened
from augd.pixels.render import Renderer, box_around
from augd.pixels.row_plan import RowPlans
from augd.pixels.transparency import BLACK
from augd.plan.order.sample_sequence import Draw
from augd.plan.params_writer import describe
from augd.plan.plan import Plan
from augd.plan.planner.planner import Planner
from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.plan.recipe.recipe import parse_recipe
from augd.protocol import messages as msg
from augd.protocol.slot_layout import check_layout
from augd.server.producer.decoded_cache import CachedImages

Buffer = bytearray | memoryview | mmap.mmap

LABEL_OF_NO_SAMPLE = -100  # what torch's losses ignore by default
_UNTINTED = np.eye(3, 4, dtype=np.float32)


@dataclass(slots=True)
class OpenDataset:
    """A dataset of a producer; opened once, shared by its streams."""

    index: IndexArrays
    source: SampleSource
    ahead: ReadAhead
    cache: CachedImages | None = None


@dataclass(slots=True)
class Rows:
    """A range of a slot's rows; the arrays are views into it. See `augd.protocol.slot_layout`."""

    images: NDArray[np.uint8]
    labels: NDArray[np.generic]
    ids: NDArray[np.int64]
    valid: NDArray[np.bool_]
    colour: NDArray[np.float32] | None = None
    params: NDArray[np.float64] | None = None

    def part(self, rows: slice) -> Rows:
        """Return the views of some of these rows."""
        arrays = (self.images, self.labels, self.ids, self.valid, self.colour, self.params)
        return Rows(*(None if array is None else array[rows] for array in arrays))  # type: ignore[arg-type]

    def mask(self, row: int) -> None:
        """Turn a row into one without a sample."""
        self.images[row] = 0
        self.labels[row] = LABEL_OF_NO_SAMPLE
        self.valid[row] = False
        if self.colour is not None:
            self.colour[row] = _UNTINTED
        if self.params is not None:
            self.params[row] = 0.0


class ChunkPlan:
    """One chunk's part of a plan, as plain Python numbers that are read once per row."""

    __slots__ = ("edits", "impossible", "params", "part", "plan", "row_plans", "sizes")

    def __init__(
        self,
        plan: Plan,
        sizes: NDArray[np.int32],
        first: int,
        end: int,
        num_views: int,
        params: NDArray[np.float64] | None,
    ) -> None:
        self.plan, self.part = plan, slice(first * num_views, end * num_views)
        self.sizes: list[list[int]] = sizes[first:end].tolist()
        self.row_plans = RowPlans(plan, first * num_views, end * num_views)
        self.impossible = {sample - first: why for sample, why in plan.impossible.items()}
        self.params = None if params is None else params[first:end]
        self.edits = None
        if plan.edits is not None:
            self.edits = plan.edits[first * num_views : end * num_views]


class StreamRenderer:
    """A stream of a producer: draw, planner, renderer, and views of every slot."""

    def __init__(
        self,
        use: msg.StreamMessage,
        dataset: OpenDataset,
        arena: Buffer,
        choice: ChoiceArrays | None,
        catalogue: Catalogue = BUILT_IN,
    ) -> None:
        """Make views of every slot of `arena`, which must have the announced size.

        Raises:
            RecipeError: an own op rejects its parameters.
        """
        check_layout(use.arrays, use.slot_bytes)
        self.dataset = dataset
        self.layout = use.layout
        self.quarantine: dict[int, tuple[int, int]] = {}  # sample -> (epoch, position)
        chosen, offsets = (None, None) if choice is None else (choice.ids, choice.offsets)
        self.draw = Draw(dataset.index.num_samples, use.seed, use.shuffle, chosen, offsets)
        self._picked = None if choice is None else choice.picked
        self._renumbered = _renumber(self._picked, len(dataset.index.classes))
        recipe = parse_recipe(use.recipe, catalogue)
        # An image that is decoded at another scale has other pixels than its whole image, reduced.
        # And cached images are composed on black.
        is_usual = recipe.scaled_decode == "off" and recipe.background_rgb == BLACK
        self.cache = dataset.cache if is_usual else None
        memory = np.frombuffer(arena, np.uint8, use.slot_bytes * use.num_slots)
        self._slots = [
            Rows(**{spec.name: _view(memory, at * use.slot_bytes, spec) for spec in use.arrays})
            for at in range(use.num_slots)
        ]
        height, width = self._slots[0].images.shape[-3:-1]
        self._out_width = width
        self.planner = Planner(recipe, use.seed, (height, width))
        self._num_views = self.planner.num_views
        self.size_of, _ = reader_of(recipe.exif)
        self._is_upright = recipe.exif == "apply"
        self._origin_of = upright_origin if self._is_upright else stored_origin
        self._renderer = Renderer.of(recipe, (height, width))

    def rows(self, slot: int, first: int, count: int) -> Rows:
        """Return the views of a range of a slot's rows."""
        return self._slots[slot].part(slice(first, first + count))

    def write_labels(self, ids: NDArray[np.int64], out: NDArray[np.generic]) -> None:
        """Write the labels of these samples; those of id -1 are arbitrary."""
        index = self.dataset.index
        if index.targets is not None:
            out[:] = (
                index.targets[ids]
                if self._picked is None
                else index.targets[np.ix_(ids, self._picked)]
            )
        elif self._renumbered is not None:
            out[:] = self._renumbered[index.labels[ids]]
        else:
            out[:] = index.labels[ids]

    def chunk_plan(self, plan: Plan, sizes: NDArray[np.int32], first: int, end: int) -> ChunkPlan:
        params = None
        if self._slots[0].params is not None:
            shape = self._slots[0].params.shape[1:]
            described = describe(plan, self._num_views, self._out_width)
            params = described.reshape(-1, *shape)
        return ChunkPlan(plan, sizes, first, end, self._num_views, params)

    def sizes(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the sizes of these samples as the recipe sees them, int32 (n, 2), 0 if unknown."""
        index = self.dataset.index
        sizes = index.dims[ids]
        if self._is_upright and len(index.orientations):
            is_transposed = index.orientations[ids] > 4
            sizes[is_transposed] = sizes[is_transposed, ::-1]
        return sizes

    def regions(self, chunk_plan: ChunkPlan, ids: list[int]) -> list[Region | None]:
        """Return the region of each stored image that its views need; None if it is all of it."""
        boxes = self._boxes(chunk_plan)
        if not self._is_upright and chunk_plan.plan.scale is None and not chunk_plan.impossible:
            return [box for box, sample in zip(boxes, ids, strict=True) if sample >= 0]
        return [
            self._region(chunk_plan, at, sample, boxes[at])
            for at, sample in enumerate(ids)
            if sample >= 0
        ]

    def _boxes(self, chunk_plan: ChunkPlan) -> list[Region]:
        if self._num_views == 1:
            return list(
                map(tuple, self._renderer.needed(chunk_plan.plan, chunk_plan.part).tolist())
            )
        crops, step = chunk_plan.row_plans.crop, self._num_views
        return [box_around(crops[first : first + step]) for first in range(0, len(crops), step)]

    def _region(self, chunk_plan: ChunkPlan, at: int, sample: int, region: Region) -> Region | None:
        if at in chunk_plan.impossible:
            return None
        first = at * self._num_views
        turn = int(self.dataset.index.orientations[sample]) if self._is_upright else 1
        scale = chunk_plan.row_plans.scale[first]
        width, height = chunk_plan.sizes[at]
        if turn == 1:
            return region if scale == 1 else widened(region, scale, width, height)
        # In a turned image, scaled pixels are counted from an edge that a part may lack. And the
        # needed window is known for images that are stored upright only.
        if scale != 1:
            return None
        crops = chunk_plan.row_plans.crop[first : first + self._num_views]
        return stored_region(turn, (width, height), box_around(crops))

    def render(
        self,
        content: bytearray | JpegPart,
        header: Header,
        chunk_plan: ChunkPlan,
        at: int,
        rows: Rows,
        row: int,
    ) -> None:
        """Write all views of the chunk plan's sample `at` to `row` of `rows`.

        `header` is that of the content, which may be a part of the image.

        Raises:
            BadImage: it cannot be decoded.
            OwnOpError: an own op failed on the finished row.
        """
        first = at * self._num_views
        out = self._views_of(rows.images[row])
        colour = None if rows.colour is None else self._views_of(rows.colour[row])
        data: bytearray
        origin: tuple[int, int] | None
        if isinstance(content, JpegPart):
            data, origin = content.data, self._origin_of(content)
        else:
            data, origin = content, None
        self._renderer.render_sample(data, header, chunk_plan.row_plans, first, out, colour, origin)
        self._finish(out, chunk_plan, at, rows, row)

    def can_render_cuts(self, chunk_plan: ChunkPlan) -> bool:
        """Return whether the rows of a chunk plan can be made from cuts as they are."""
        return (
            self._num_views == 1
            and not chunk_plan.impossible
            and self._renderer.can_render_cuts(chunk_plan.plan)
        )

    def render_cut(self, cut: Cut, chunk_plan: ChunkPlan, at: int, rows: Rows, row: int) -> bool:
        """Write the chunk plan's sample `at` to `row` of `rows`; False if it does not decode so.

        Raises:
            OwnOpError: an own op failed on the finished row.
        """
        colour = None if rows.colour is None else rows.colour[row]
        out = rows.images[row]
        if not self._renderer.render_cut(cut, chunk_plan.row_plans, at, out, colour):
            return False
        if chunk_plan.edits is not None or rows.params is not None:
            self._finish(out[None], chunk_plan, at, rows, row)
        return True

    def find_cached(self, ids: NDArray[np.int64]) -> list[int]:
        """Return a number per sample that is not 0 if its image is in the cache."""
        return [0] * len(ids) if self.cache is None else self.cache.find(ids)

    def render_cached(self, ids: NDArray[np.int64], chunk_plan: ChunkPlan, rows: Rows) -> bool:
        """Make all rows of a chunk from the cache in one call; returns whether that was possible.

        It is possible if each row has one view of a whole image of the planned size, on the exact
        path. That is the usual case; other chunks are made row by row.
        """
        if (
            self.cache is None
            or self.quarantine
            or chunk_plan.impossible
            or chunk_plan.edits is not None
        ):
            return False
        if self._num_views > 1 or not self._renderer.can_render_rows(chunk_plan.plan):
            return False
        places = self.cache.places(ids)
        if places is None or not np.array_equal(places["size"], chunk_plan.sizes):
            return False
        self._renderer.render_rows(
            self.cache.pixels,
            places["offset"].copy(),
            places["size"].copy(),
            chunk_plan.plan,
            chunk_plan.part,
            chunk_plan.row_plans,
            rows.images,
            rows.colour,
        )
        if rows.params is not None:
            rows.params[:] = chunk_plan.params
        return True

    def render_decoded(
        self, image: DecodedRegion, chunk_plan: ChunkPlan, at: int, rows: Rows, row: int
    ) -> None:
        """Write all views of the chunk plan's sample `at` from its whole image; see `render`."""
        out = self._views_of(rows.images[row])
        colour = None if rows.colour is None else self._views_of(rows.colour[row])
        self._renderer.render_decoded(
            image, chunk_plan.row_plans, at * self._num_views, out, colour
        )
        self._finish(out, chunk_plan, at, rows, row)

    def _finish(
        self, out: NDArray[np.uint8], chunk_plan: ChunkPlan, at: int, rows: Rows, row: int
    ) -> None:
        """Let own ops edit the finished views, and write the drawn parameters."""
        if chunk_plan.edits is not None:
            for number, finished in enumerate(out, at * self._num_views):
                for edit in chunk_plan.edits[number]:
                    edit.apply(finished)
        if rows.params is not None and chunk_plan.params is not None:
            rows.params[row] = chunk_plan.params[at]

    def _views_of(self, array: NDArray[Any]) -> NDArray[Any]:
        """Add the axis of views to a row's array, which lacks it if there is one view."""
        return array if self._num_views > 1 else array[None]


def _renumber(picked: NDArray[np.int64] | None, num_classes: int) -> NDArray[np.int64] | None:
    """Return a table from old class numbers to new ones; its last entry is for label -1."""
    if picked is None:
        return None
    table = np.full(num_classes + 1, -1, np.int64)
    table[picked] = np.arange(len(picked))
    return table


def _view(arena: NDArray[np.uint8], start: int, spec: msg.ArraySpec) -> NDArray[Any]:
    count = int(np.prod(spec.shape, dtype=object))
    dtype = np.dtype(spec.dtype)
    first = start + spec.offset
    return arena[first : first + count * dtype.itemsize].view(dtype).reshape(spec.shape)
