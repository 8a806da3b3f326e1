"""Fills one row of a lease: from the cache, from parts of its file, or from the whole file.

Runs in a producer, between the lease runner and the stream renderer. The lease runner decides which
row is made and when. The stream renderer knows how a stream's images are planned and rendered.

Invariants: the current sample is set before a file's bytes are parsed and until the row is done,
so a crash names its sample. An image whose size differs from the planned one is planned again by
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from augd.dataset.readers.read_ahead import Reading
from augd.dataset.readers.source import Row
from augd.pixels.exif_orientation import DecodedRegion, Stored
from augd.pixels.headers.read_header import BadImage, Header, read_header
from augd.pixels.jpeg_segments import Cut, JpegPart
from augd.protocol import epoch_layout
from augd.protocol import messages as msg
from augd.server.producer.slot_rows import ChunkPlan, Rows
from augd.server.producer.stream_renderer import StreamRenderer
from augd.transport.current_sample import CurrentSample


@dataclass(slots=True, eq=False)
class LeaseTask:
    """A lease, with what is known of its rows so far."""

    lease: msg.Lease
    renderer: StreamRenderer
    ids: NDArray[np.int64]
    epochs: NDArray[np.int64]
    rows: Iterator[Row]
    reading: Reading
    cached: list[int]  # for each row: not 0 if no file is read for it: its image was in the cache
    chunk_plan: ChunkPlan | None = None
    has_cuts: bool = False  # rows are made from the segments that were read, in the usual case
    hits: int = 0
    # Rows of the sample before them, whose file is not read again.
    is_copy: list[bool] | None = None
    content: Row | None = None  # of the sample in hand, where copies follow
    num_made: int = 0  # rows up to here are made: copies are made with the first of them


def first_position(task: LeaseTask) -> int:
    """Return where the task's rows begin in the order of the epoch."""
    layout = task.renderer.layout
    return epoch_layout.first_position(layout, task.lease.position) + task.lease.first_row


def _is_quarantined(task: LeaseTask, row: int, sample: int) -> bool:
    place = task.lease.epoch, first_position(task) + row
    return place >= task.renderer.quarantine[sample]


def _num_copies(task: LeaseTask, row: int) -> int:
    """Return how many rows from this one on are of its sample, and can be made with it."""
    is_copy, chunk_plan = task.is_copy, task.chunk_plan
    if is_copy is None or chunk_plan is None:
        return 1
    end = row + 1
    while end < len(is_copy) and is_copy[end]:
        end += 1
    is_usual = not chunk_plan.impossible and not task.renderer.quarantine
    return end - row if is_usual and chunk_plan.has_one_scale(row, end) else 1


def _render_copies(
    renderer: StreamRenderer,
    content: bytearray | JpegPart,
    header: Header,
    chunk_plan: ChunkPlan,
    row: int,
    rows: Rows,
    count: int,
) -> bool:
    """Make rows of one sample of one decode; False if what all of them need does not decode.

    Then each is made by itself, as it would be in another chunk: only its own part counts.
    """
    try:
        renderer.render(content, header, chunk_plan, row, rows, row, count)
    except BadImage:
        return False
    return True


class RowMaker:
    """Makes rows, and calls `on_row` after each that was decoded."""

    def __init__(self, on_row: Callable[[msg.Lease], None], current_sample: CurrentSample) -> None:
        self._on_row = on_row
        self._current_sample = current_sample

    def make_row(self, task: LeaseTask, row: int, sample: int, rows: Rows) -> str | None:
        """Fill one row; returns None, or the reason why the sample is bad."""
        if task.is_copy is not None:
            if row < task.num_made:
                return None
            if not task.is_copy[row]:
                task.content = None if task.cached[row] else next(task.rows)
            content = task.content
        else:
            content = None if task.cached[row] else next(task.rows)
        if isinstance(content, BadImage):
            return str(content)
        if sample in task.renderer.quarantine and _is_quarantined(task, row, sample):
            return "quarantined: it ended its producer twice"
        # A crash from here on is due to this sample; while its file was waited for it was not.
        self._current_sample.set(task.lease.lease, row, sample)
        try:
            if content is None:
                return self._render_cached(task, row, sample, rows)
            return self._render_row(task, row, sample, content, rows)
        finally:
            self._current_sample.clear()

    def _render_cached(self, task: LeaseTask, row: int, sample: int, rows: Rows) -> str | None:
        """Fill a row from the cache, or from its file if the cache is damaged there."""
        renderer, image = task.renderer, None
        if renderer.cache is not None:
            image = renderer.cache.image(sample)
        if image is None:
            try:
                content = renderer.dataset.source.read(sample)
            except BadImage as bad:
                return str(bad)
            return self._render_row(task, row, sample, content, rows)
        task.hits += 1
        return self._render_decoded(task, row, sample, image, rows)

    def _render_row(
        self, task: LeaseTask, row: int, sample: int, content: bytearray | Cut, rows: Rows
    ) -> str | None:
        renderer = task.renderer
        if isinstance(content, Cut) and self._render_cut(task, row, content, rows):
            self._on_row(task.lease)
            return None
        try:
            made: bytearray | JpegPart
            if isinstance(content, Cut):
                made = content.part()
                header, stored = made.header, made.image
            else:
                made = content
                header = stored = read_header(content)
                if renderer.cache is not None:
                    image = renderer.cache.add(sample, content, header)
                    if image is not None:
                        return self._render_decoded(task, row, sample, image, rows)
            chunk_plan, at = self._chunk_plan_of(task, row, sample, stored)
            if isinstance(made, JpegPart) and chunk_plan is not task.chunk_plan:  # of another plan
                made, header = renderer.dataset.source.read(sample), stored
            if at in chunk_plan.impossible:
                return chunk_plan.impossible[at]
            count = _num_copies(task, row) if chunk_plan is task.chunk_plan else 1
            if count > 1 and _render_copies(renderer, made, header, chunk_plan, row, rows, count):
                task.num_made = row + count
            else:
                renderer.render(made, header, chunk_plan, at, rows, row)
        except BadImage as bad:
            return str(bad)
        self._on_row(task.lease)
        return None

    def _render_cut(self, task: LeaseTask, row: int, cut: Cut, rows: Rows) -> bool:
        """Fill a row from the segments that were read of its image, without parsing them before.

        Returns False if something differs from the index or is unusual. The caller then parses the
        segments and reports what it finds.
        """
        chunk_plan = task.chunk_plan
        if not task.has_cuts or chunk_plan is None:
            return False
        if chunk_plan.sizes[row] != [cut.table.width, cut.table.height]:
            return False
        return task.renderer.render_cut(cut, chunk_plan, row, rows, row)

    def _render_decoded(
        self, task: LeaseTask, row: int, sample: int, image: DecodedRegion, rows: Rows
    ) -> str | None:
        chunk_plan, at = self._chunk_plan_of(task, row, sample, image)
        if at in chunk_plan.impossible:
            return chunk_plan.impossible[at]
        try:
            task.renderer.render_decoded(image, chunk_plan, at, rows, row)
        except BadImage as bad:
            return str(bad)
        self._on_row(task.lease)
        return None

    def _chunk_plan_of(
        self, task: LeaseTask, row: int, sample: int, stored: Stored
    ) -> tuple[ChunkPlan, int]:
        """Return the chunk plan with a row's true size, and the row's position in it."""
        assert task.chunk_plan is not None
        size = task.renderer.size_of(stored)
        if list(size) == task.chunk_plan.sizes[row]:
            return task.chunk_plan, row
        task.renderer.dataset.index.dims[sample] = stored.width, stored.height
        return self._plan_again(task, row, *size), 0

    def _plan_again(self, task: LeaseTask, row: int, width: int, height: int) -> ChunkPlan:
        """Plan one row whose size in its file differs from the hint."""
        size = np.array([[width, height]], np.int32)
        ids, epochs = task.ids[row : row + 1], task.epochs[row : row + 1]
        plans = task.renderer.planner.plan(ids, epochs, size[:, 0], size[:, 1])
        return task.renderer.chunk_plan(plans, size, 0, 1)
