"""What a producer keeps of a stream: how its rows are drawn, planned, rendered and written.

The lease runner decides when a row is made; this module knows how. A stream renderer has views
of every slot of its arena, and the plan of a chunk as plain numbers. It reads no file and knows
neither leases nor links.

Invariants: an image is decoded once, however many views are made of it. A masked row is zeros,
whatever was written into it before.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

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
from augd.pixels.render import Renderer
from augd.pixels.render_views import ViewsOfSample, box_around, render_views
from augd.pixels.transparency import BLACK
from augd.plan.order.sample_sequence import Draw
from augd.plan.params_writer import describe
from augd.plan.plan import Plan
from augd.plan.planner.view_group_planner import ViewGroupPlanner
from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.plan.recipe.phases import Phase, Size, parse_stream_recipe
from augd.protocol import messages as msg
from augd.protocol.slot_layout import arrays_at, check_layout
from augd.server.producer.decoded_cache import CachedImages
from augd.server.producer.slot_rows import ChunkPlan, GroupPlan, Rows, SlotArrays

Buffer = bytearray | memoryview | mmap.mmap


@dataclass(slots=True)
class OpenDataset:
    """A dataset of a producer; opened once, shared by its streams."""

    index: IndexArrays
    source: SampleSource
    ahead: ReadAhead
    cache: CachedImages | None = None


class StreamRenderer:
    """A phase of a producer's stream: draw, planners, renderers, and views of every slot.

    Attributes:
        dataset: what it reads.
        layout: how its epochs are cut into batches.
        quarantine: the place from which on each of these samples is masked.
        draw: the samples by position.
        cache: of decoded images, None if the rows cannot be made from it.
        planner: of all view groups.
        size_of: returns an image's size as the recipe sees it.
    """

    def __init__(
        self,
        use: msg.StreamMessage,
        dataset: OpenDataset,
        slots: list[Rows],
        choice: ChoiceArrays | None,
        phase: Phase,
    ) -> None:
        """Make the planners and renderers of a phase, whose rows lie in `slots`.

        Raises:
            RecipeError: an own op rejects its parameters.
        """
        self.dataset = dataset
        self.layout = use.layout
        self.quarantine: dict[int, tuple[int, int]] = {}  # sample -> (epoch, position)
        chosen, offsets = (None, None) if choice is None else (choice.ids, choice.offsets)
        num_samples = dataset.index.num_samples
        self.draw = Draw(num_samples, use.seed, use.shuffle, chosen, offsets, use.repeats)
        # Of how many rows in a row an image may be decoded once.
        self.copies = use.repeats.count if use.repeats.spread == 1 else 1
        self._picked = None if choice is None else choice.picked
        self._renumbered = _renumber(self._picked, len(dataset.index.classes))
        recipe = phase.shared
        # An image that is decoded at another scale has other pixels than its whole image, reduced.
        # And cached images are composed on black.
        is_usual = recipe.scaled_decode == "off" and recipe.background_rgb == BLACK
        self.cache = dataset.cache if is_usual else None
        self._slots = slots
        sizes: list[Size] = [group.images.shape[2:4] for group in slots[0].groups]
        self._groups = phase.groups
        self._row_sizes = sizes
        self.planner = ViewGroupPlanner(phase, use.seed, tuple(sizes))
        self._is_single = phase.num_views == 1
        self.size_of, _ = reader_of(recipe.exif)
        self._is_upright = recipe.exif == "apply"
        self._origin_of = upright_origin if self._is_upright else stored_origin
        self._renderers = [
            Renderer.of(group.recipe, size) for group, size in zip(phase.groups, sizes, strict=True)
        ]
        self._renderer = self._renderers[0]

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

    def chunk_plan(
        self, plans: Sequence[Plan], sizes: NDArray[np.int32], first: int, end: int
    ) -> ChunkPlan:
        """Return the samples `first` to `end` of the plans of this stream's view groups."""
        groups = []
        for number, (plan, group) in enumerate(zip(plans, self._groups, strict=True)):
            params, num_views = None, group.recipe.num_views
            params_out = self._slots[0].groups[number].params
            if params_out is not None:
                size, num_params = self._row_sizes[number], params_out.shape[-1]
                params = describe(plan, num_views, size, group.first_view, num_params=num_params)
                params = params.reshape(-1, num_views, params.shape[1])
            groups.append(GroupPlan(plan, first, end, num_views, params))
        return ChunkPlan(groups, sizes, first, end)

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
        is_scaled = chunk_plan.groups[0].plan.scale is not None
        if not self._is_upright and not is_scaled and not chunk_plan.impossible:
            return [box for box, sample in zip(boxes, ids, strict=True) if sample >= 0]
        return [
            self._region(chunk_plan, at, sample, boxes[at])
            for at, sample in enumerate(ids)
            if sample >= 0
        ]

    def _boxes(self, chunk_plan: ChunkPlan) -> list[Region]:
        if self._is_single:
            group = chunk_plan.groups[0]
            return list(map(tuple, self._renderer.needed(group.plan, group.part).tolist()))
        return [self._box(chunk_plan, at) for at in range(len(chunk_plan.sizes))]

    @staticmethod
    def _box(chunk_plan: ChunkPlan, at: int) -> Region:
        """Return the region around all views of a sample."""
        crops: list[Region] = []
        for group in chunk_plan.groups:
            first = at * group.num_views
            crops += group.row_plans.crop[first : first + group.num_views]
        return box_around(crops)

    def _region(self, chunk_plan: ChunkPlan, at: int, sample: int, region: Region) -> Region | None:
        if at in chunk_plan.impossible:
            return None
        turn = int(self.dataset.index.orientations[sample]) if self._is_upright else 1
        group = chunk_plan.groups[0]
        scale = group.row_plans.scale[at * group.num_views]
        width, height = chunk_plan.sizes[at]
        if turn == 1:
            return region if scale == 1 else widened(region, scale, width, height)
        # In a turned image, scaled pixels are counted from an edge that a part may lack. And the
        # needed window is known for images that are stored upright only.
        if scale != 1:
            return None
        return stored_region(turn, (width, height), self._box(chunk_plan, at))

    def render(
        self,
        content: bytearray | JpegPart,
        header: Header,
        chunk_plan: ChunkPlan,
        at: int,
        rows: Rows,
        row: int,
        count: int = 1,
    ) -> None:
        """Write all views of the chunk plan's sample `at` to `row` of `rows`.

        With a `count` above 1 the rows that follow are of the same image, which is decoded once.
        `header` is that of the content, which may be a part of the image.

        Raises:
            BadImage: it cannot be decoded.
            OwnOpError: an own op failed on the finished row.
        """
        data: bytearray
        origin: tuple[int, int] | None
        if isinstance(content, JpegPart):
            data, origin = content.data, self._origin_of(content)
        else:
            data, origin = content, None
        if len(chunk_plan.groups) == 1 and count == 1:
            group, target = chunk_plan.groups[0], rows.groups[0]
            colour = None if target.colour is None else target.colour[row]
            self._renderer.render_sample(
                data,
                header,
                group.row_plans,
                at * group.num_views,
                target.images[row],
                colour,
                origin,
            )
        else:
            views = [
                one
                for copy in range(count)
                for one in self._views_of_sample(chunk_plan, at + copy, rows, row + copy)
            ]
            render_views(data, header, views, origin)
        for copy in range(count):
            self._finish(chunk_plan, at + copy, rows, row + copy)

    def _views_of_sample(
        self, chunk_plan: ChunkPlan, at: int, rows: Rows, row: int
    ) -> list[ViewsOfSample]:
        return [
            ViewsOfSample(
                renderer,
                group.row_plans,
                at * group.num_views,
                target.images[row],
                None if target.colour is None else target.colour[row],
            )
            for renderer, group, target in zip(
                self._renderers, chunk_plan.groups, rows.groups, strict=True
            )
        ]

    def can_render_cuts(self, chunk_plan: ChunkPlan) -> bool:
        """Return whether the rows of a chunk plan can be made from cuts as they are."""
        return (
            self._is_single
            and not chunk_plan.impossible
            and self._renderer.can_render_cuts(chunk_plan.groups[0].plan)
        )

    def render_cut(self, cut: Cut, chunk_plan: ChunkPlan, at: int, rows: Rows, row: int) -> bool:
        """Write the chunk plan's sample `at` to `row` of `rows`; False if it does not decode so.

        Raises:
            OwnOpError: an own op failed on the finished row.
        """
        group, target = chunk_plan.groups[0], rows.groups[0]
        colour = None if target.colour is None else target.colour[row, 0]
        out = target.images[row, 0]
        if not self._renderer.render_cut(cut, group.row_plans, at, out, colour):
            return False
        if group.edits is not None or target.params is not None:
            self._finish(chunk_plan, at, rows, row)
        return True

    def find_cached(self, ids: NDArray[np.int64]) -> list[int]:
        """Return a number per sample that is not 0 if its image is in the cache."""
        return [0] * len(ids) if self.cache is None else self.cache.find(ids)

    def render_cached(self, ids: NDArray[np.int64], chunk_plan: ChunkPlan, rows: Rows) -> bool:
        """Make all rows of a chunk from the cache in one call; returns whether that was possible.

        It is possible if each row has one view of a whole image of the planned size, on the exact
        path. That is the usual case; other chunks are made row by row.
        """
        group, target = chunk_plan.groups[0], rows.groups[0]
        if self.cache is None or self.quarantine or chunk_plan.impossible:
            return False
        if group.edits is not None or not self._is_single:
            return False
        if not self._renderer.can_render_rows(group.plan):
            return False
        places = self.cache.places(ids)
        if places is None or not np.array_equal(places["size"], chunk_plan.sizes):
            return False
        self._renderer.render_rows(
            self.cache.pixels,
            places["offset"].copy(),
            places["size"].copy(),
            group.plan,
            group.part,
            group.row_plans,
            target.images[:, 0],
            None if target.colour is None else target.colour[:, 0],
        )
        if target.params is not None:
            target.params[:] = group.params
        return True

    def render_decoded(
        self, image: DecodedRegion, chunk_plan: ChunkPlan, at: int, rows: Rows, row: int
    ) -> None:
        """Write all views of the chunk plan's sample `at` from its whole image; see `render`."""
        for renderer, group, target in zip(
            self._renderers, chunk_plan.groups, rows.groups, strict=True
        ):
            colour = None if target.colour is None else target.colour[row]
            first = at * group.num_views
            renderer.render_decoded(image, group.row_plans, first, target.images[row], colour)
        self._finish(chunk_plan, at, rows, row)

    @staticmethod
    def _finish(chunk_plan: ChunkPlan, at: int, rows: Rows, row: int) -> None:
        """Let own ops edit the finished views, and write the drawn parameters."""
        for group, target in zip(chunk_plan.groups, rows.groups, strict=True):
            if group.edits is not None:
                for number, finished in enumerate(target.images[row], at * group.num_views):
                    for edit in group.edits[number]:
                        edit.apply(finished)
            if target.params is not None and group.params is not None:
                target.params[row] = group.params[at]


class StreamRenderers:
    """A producer's stream: the renderers of its phases, and views of every slot."""

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
        recipe = parse_stream_recipe(use.recipe, catalogue)
        memory = np.frombuffer(arena, np.uint8, use.slot_bytes * use.num_slots)
        self._of: list[StreamRenderer] = []
        self._recipe = recipe
        for phase in recipe.phases:
            specs = arrays_at(use.arrays, use.phases, phase.from_epoch)
            check_layout(specs, use.slot_bytes)
            arrays = SlotArrays(specs, phase)
            slots = [arrays.rows(memory, at * use.slot_bytes) for at in range(use.num_slots)]
            self._of.append(StreamRenderer(use, dataset, slots, choice, phase))

    def at(self, epoch: int) -> StreamRenderer:
        """Return the renderer of an epoch."""
        return self._of[self._recipe.number_at(epoch)]

    def mask(self, quarantine: dict[int, tuple[int, int]]) -> None:
        """Set the quarantine, for every row that is made from now on."""
        for renderer in self._of:
            renderer.quarantine = quarantine

    def leave_cache(self) -> None:
        """Make all rows from files from now on."""
        for renderer in self._of:
            renderer.cache = None


def _renumber(picked: NDArray[np.int64] | None, num_classes: int) -> NDArray[np.int64] | None:
    """Return a table from old class numbers to new ones; its last entry is for label -1."""
    if picked is None:
        return None
    table = np.full(num_classes + 1, -1, np.int64)
    table[picked] = np.arange(len(picked))
    return table
