"""The workshop of a producer: leases in, finished rows in their slots out.

Order, source, plan, decode and render, in that sequence, chunk by chunk. It knows no link and no
process, so benchmarks run the same code into private memory; and it keeps nothing that matters:
every row can be made again from its lease.

Theory of operation. The ids of all leases that came together are drawn together, and their files
are given to the read-ahead. Planning waits until the rows are needed, and then covers as many
queued chunks of the stream as have known image sizes, because it costs per call and not per row.
Sizes are hints that all producers share through a mapped file: each row's header is read when it
is decoded, and a row whose size differs is planned again by itself. A data set whose index knows
where in its files which pixels are is planned before it is read: its plan says what is to be read.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from augd.dataset.index_arrays import ChoiceArrays, IndexArrays
from augd.dataset.readers.object_store import RemoteSource
from augd.dataset.readers.open_source import open_source
from augd.dataset.readers.read_ahead import ReadAhead, Reading
from augd.dataset.readers.source import Row, SampleSource
from augd.dataset.readers.transient_errors import Retries, does_pass
from augd.dataset.stores.address import is_address
from augd.errors import AugdError, DatasetError, PluginFailed, StoreError
from augd.pixels.exif_orientation import DecodedRegion, Stored
from augd.pixels.headers.read_header import BadImage, read_header
from augd.pixels.jpeg_segments import Cut, JpegPart
from augd.plan.ops.plugin import OwnOpError
from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.plugins.ops import name_failure
from augd.protocol import messages as msg
from augd.protocol.row_digest import ids_digest, rows_digest
from augd.server.producer.decoded_cache import CachedPictures, PixelCache
from augd.server.producer.stream_renderer import (
    Buffer,
    ChunkPlan,
    OpenDataset,
    Rows,
    StreamRenderer,
)
from augd.transport.current_sample import CurrentSample
from augd.transport.fetch_client import FetchClient

# Read and not yet decoded: a second's work, far below what a producer may take in all.
_READ_AHEAD_BYTES = 16 << 20
# Nobody can be told meanwhile that this producer lives: well below a daemon's patience.
_OPEN_S = 10.0
# Of an object store whole leases are read together, so that what lies close is one request; and all
# leases that a producer holds, since a request takes as long as many rows.
_REMOTE: Final[dict[str, int]] = {"max_bytes": 64 << 20, "num_threads": 4, "rows_per_slice": 32}
# Largest chunk whose files are all held at once, so that its rows can be planned together: 32 files
# of 2 MB. The rows of larger ones are planned one by one.
_LEARN_BYTES = 64 << 20
OpenOwn = Callable[[str, IndexArrays], SampleSource]

_BAD_ROWS_NAMED = 8  # per chunk; all are counted


@dataclass(slots=True, eq=False)
class LeaseTask:
    """A lease with what is known of it so far."""

    lease: msg.Lease
    production: StreamRenderer
    ids: NDArray[np.int64]
    epochs: NDArray[np.int64]
    rows: Iterator[Row]
    reading: Reading
    cached: list[int]  # for each row: whether its picture was in the cache, and no file is read
    chunk_plan: ChunkPlan | None = None
    has_cuts: bool = False  # rows are made of the segments that were read, if nothing is odd
    hits: int = 0


@dataclass(slots=True)
class FinishedLease:
    """A finished lease: how many rows are masked, the first of them by name, and its receipt."""

    lease: int
    num_bad: int = 0
    bad: tuple[msg.BadRow, ...] = ()
    digest: int = 0
    ids_digest: int = 0
    hits: int = 0
    misses: int = 0


def _first_position(task: LeaseTask) -> int:
    """Return where the task's rows begin in the order of the epoch."""
    layout = task.production.layout
    return task.lease.position + layout.rank * layout.batch_size + task.lease.first_row


def _is_quarantined(task: LeaseTask, row: int, sample: int) -> bool:
    place = task.lease.epoch, _first_position(task) + row
    return place >= task.production.quarantine[sample]


class LeaseFailed(Exception):
    """A lease could not be made; the cause is attached, `lease` names it."""

    def __init__(self, lease: int) -> None:
        """Name the lease."""
        super().__init__(f"lease {lease} failed")
        self.lease = lease


def _open_local(root: str, index: IndexArrays) -> SampleSource:
    """Open a data set of files; a file system that fails for a moment is waited for.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        return open_source(index.root, index)  # the bytes of the path; `root` is for people
    except OSError as error:
        if not does_pass(error):
            raise
        return Retries().again(
            error, root, lambda: open_source(index.root, index), patience_s=_OPEN_S
        )


class LeaseRunner:
    """Accepts leases into a queue and makes the rows of its front."""

    def __init__(
        self,
        on_row: Callable[[msg.Lease], None],
        current_sample: CurrentSample | None = None,
        catalogue: Catalogue = BUILT_IN,
        open_own: OpenOwn | None = None,
    ) -> None:
        """Start empty. `on_row` is called after every row that was decoded.

        `crumb` names the row in hand to whoever finds this process dead; `catalogue` are the ops
        of recipes; `open_own` gives the source of a data set that is not made of files.
        """
        self._open_own = open_own
        self._on_row = on_row
        self._current_sample = current_sample or CurrentSample.private()
        self._catalogue = catalogue
        self._datasets: dict[str, OpenDataset] = {}
        self._lost: dict[str, AugdError] = {}  # data sets that cannot be opened, and why
        self._cache: PixelCache | None = None
        self._productions: dict[int, StreamRenderer] = {}
        self._accepted: list[msg.Lease] = []
        self._fetch_channel: FetchClient | None = None
        self._in_hand: msg.Lease | None = None
        self._tasks: deque[LeaseTask] = deque()
        # CPU time of this thread for order and plan; whoever reports it sets it to 0. By the wall
        # clock it would count what other processes do on a busy core.
        self.plan_ns = 0
        self.readers_added = 0  # to those that read a data set's files, at most

    def __len__(self) -> int:
        """Return the number of leases in the queue."""
        return len(self._tasks) + len(self._accepted)

    def stay_alive(self) -> None:
        """Call `on_row` for the lease in hand: the store is waited for."""
        if self._in_hand is not None:
            self._on_row(self._in_hand)

    def use_fetch_channel(self, fetch_channel: FetchClient) -> None:
        """Read data sets that lie in object stores through a hatch."""
        self._fetch_channel = fetch_channel

    def use_cache(self, cache: PixelCache) -> None:
        """Keep decoded pictures in a cache, of the data sets that are opened from now on."""
        self._cache = cache

    def use_dataset(
        self, name: str, root: str, index_fd: int, dims_fd: int, table_fd: int = -1
    ) -> None:
        """Open a data set, with the table of its cached pictures; the fds stay the caller's.

        One that cannot be opened has no stream: `use_stream` says why.
        """
        if name in self._datasets:
            return  # a relay's producer outlives its daemon, and is told again by the next one
        self._lost.pop(name, None)
        index = IndexArrays(index_fd, dims_fd)
        try:
            source, ahead = self._open(name, root, index)
        except (PluginFailed, DatasetError) as failure:
            self._lost[name] = failure
            return
        cached = None
        if self._cache is not None and table_fd >= 0:
            with suppress(ValueError):  # somebody cut it off
                cached = CachedPictures(self._cache, name, table_fd, index.num_samples)
        self._datasets[name] = OpenDataset(index, source, ahead, cached)

    def _open(self, name: str, root: str, index: IndexArrays) -> tuple[SampleSource, ReadAhead]:
        """Open what a data set is read from. Raises PluginFailed, and DatasetError."""
        source: SampleSource
        if index.own:
            assert self._open_own is not None
            source = self._open_own(name, index)
            return source, ReadAhead(source, num_threads=0)
        if is_address(index.root):
            assert self._fetch_channel is not None
            source = RemoteSource(index, self._fetch_channel.reader(name))
            rows = source.read_rows
            return source, ReadAhead(source, read_rows=rows, on_wait=self.stay_alive, **_REMOTE)
        try:
            source = _open_local(root, index)
        except StoreError as error:
            raise DatasetError(f"data set {name}: {error}") from None
        except OSError as error:
            raise DatasetError(
                f"data set {name}: {root} cannot be opened: {error.strerror}. Put it back and "
                "start the daemon again"
            ) from None
        wait = self.stay_alive
        return source, ReadAhead(source, max_bytes=_READ_AHEAD_BYTES, on_wait=wait)

    def cache_news(self) -> Iterator[msg.Cached]:
        """Yield what the daemon must hear of the cache, once."""
        for dataset in self._datasets.values():
            news = None if dataset.cache is None else dataset.cache.take_news()
            if news is not None:
                yield news

    def use_stream(
        self, use: msg.StreamMessage, arena: Buffer, choice: ChoiceArrays | None = None
    ) -> None:
        """Prepare a stream whose slots lie in `arena`; without `choice` it has all samples.

        Raises:
            RecipeError: an own op refuses its parameters.
            PluginFailed: the own source of its data set cannot be used.
            DatasetError: its data set's root cannot be opened any more.
        """
        if use.dataset in self._lost:
            raise self._lost[use.dataset]
        dataset = self._datasets[use.dataset]
        self._productions[use.stream] = StreamRenderer(use, dataset, arena, choice, self._catalogue)

    def mask(self, mask: msg.Mask) -> None:
        """Take a stream's quarantine: it holds for every row that is made from now on."""
        self._productions[mask.stream].quarantine = {
            sample: (epoch, position) for sample, epoch, position in mask.quarantine
        }

    def drop_stream(self, stream: int) -> None:
        """Forget a stream, whose leases were revoked before; its arena goes with the last view."""
        self._productions.pop(stream, None)

    def accept(self, lease: msg.Lease) -> None:
        """Take a lease; `begin` goes on with all that were taken since it was last called."""
        self._accepted.append(lease)

    def begin(self) -> None:
        """Draw the ids of the accepted leases and let their files be read ahead."""
        accepted, self._accepted = self._accepted, []
        if accepted:
            self._leave_cut_cache()
        for (stream, epoch), group in groupby(accepted, key=lambda it: (it.stream, it.epoch)):
            self._begin(self._productions[stream], epoch, list(group))

    def _begin(self, production: StreamRenderer, epoch: int, leases: list[msg.Lease]) -> None:
        before_ns = time.thread_time_ns()
        offset = production.layout.rank * production.layout.batch_size
        firsts = [lease.position + offset + lease.first_row for lease in leases]
        spans = [
            np.arange(first, first + lease.rows)
            for first, lease in zip(firsts, leases, strict=True)
        ]
        ids, epochs = production.draw.rows(epoch, np.concatenate(spans))
        plan, sizes = None, None
        cache = production.cache
        # A picture that is to be cached is needed whole.
        if production.dataset.index.has_segments and (cache is None or cache.is_full):
            # What of a file is read follows from its plan. An unknown size is found to differ.
            sizes = np.maximum(production.sizes(ids), 1)
            # An own op that fails does so again when its rows are made, and is told of then.
            with suppress(OwnOpError):
                plan = production.planner.plan(ids, epochs, sizes[:, 0], sizes[:, 1])
        self.plan_ns += time.thread_time_ns() - before_ns
        row = 0
        for lease in leases:
            part = slice(row, row + lease.rows)
            drawn, row = ids[part], part.stop
            cached = production.find_cached(drawn)
            wanted = [
                -1 if is_cached else sample
                for sample, is_cached in zip(drawn.tolist(), cached, strict=True)
            ]
            samples = [sample for sample in wanted if sample >= 0]
            chunk_plan, regions = None, None
            if plan is not None and sizes is not None:
                chunk_plan = production.chunk_plan(plan, sizes, part.start, part.stop)
                regions = production.regions(chunk_plan, wanted)
            reading = production.dataset.ahead.submit(samples, regions)
            rows = iter(reading)
            task = LeaseTask(
                lease, production, drawn, epochs[part], rows, reading, cached, chunk_plan
            )
            task.has_cuts = chunk_plan is not None and production.can_render_cuts(chunk_plan)
            self._tasks.append(task)

    def revoke(self, leases: set[int]) -> list[int]:
        """Take these leases out of the queue; returns the ones that were still in it."""
        self.begin()
        revoked = [task for task in self._tasks if task.lease.lease in leases]
        for task in revoked:
            task.reading.cancel()
            self._tasks.remove(task)
        return [task.lease.lease for task in revoked]

    def make_next(self) -> FinishedLease:
        """Make the rows of the oldest lease.

        Raises:
            LeaseFailed: by an error that is no sample's fault.
        """
        self.begin()
        task = self._tasks.popleft()
        self._in_hand = task.lease
        try:
            self._leave_cut_cache()
            made = self._make_rows(task)
            if self._leave_cut_cache():
                # Cut off meanwhile: what was read of it may have been zeros.
                task.cached, task.hits = [1] * len(task.ids), 0
                made = self._make_rows(task)
        except Exception as error:
            task.reading.cancel()
            if isinstance(error, OwnOpError):
                failure = name_failure(error, task.production.dataset.index)
                raise LeaseFailed(task.lease.lease) from failure
            raise LeaseFailed(task.lease.lease) from error
        finally:
            self._in_hand = None
        self.readers_added = max(self.readers_added, task.production.dataset.ahead.num_added)
        return made

    def _leave_cut_cache(self) -> bool:
        """Use a cache no more whose files somebody cut off; say whether that was noticed now.

        Rows that count as cached are then made of their files.
        """
        caches = [one.cache for one in self._datasets.values() if one.cache is not None]
        if all(cache.is_whole() for cache in caches):
            return False
        self._cache = None
        for dataset in self._datasets.values():
            dataset.cache = None
        for production in self._productions.values():
            production.cache = None
        with suppress(OSError, ValueError):
            print(
                f"augd: producer (pid {os.getpid()}): somebody cut off the files of --cache: rows "
                "are made without it until the daemon is started again",
                file=sys.stderr,
                flush=True,
            )
        return True

    def _make_rows(self, task: LeaseTask) -> FinishedLease:
        if task.chunk_plan is None:
            self._plan(task)
        lease, production = task.lease, task.production
        index = production.dataset.index
        rows = production.rows(lease.slot, lease.first_row, lease.rows)
        rows.ids[:] = task.ids
        np.greater_equal(task.ids, 0, out=rows.valid)
        production.write_labels(task.ids, rows.labels)
        made = FinishedLease(lease.lease, ids_digest=ids_digest(_first_position(task), task.ids))
        if (
            all(task.cached)
            and task.chunk_plan
            and production.render_cached(task.ids, task.chunk_plan, rows)
        ):
            self._on_row(lease)
            made.hits = lease.rows
            made.digest = rows_digest(rows.ids, rows.labels, rows.images, rows.colour)
            return made
        for row, sample in enumerate(task.ids.tolist()):
            reason = self._make_row(task, row, sample, rows) if sample >= 0 else ""
            if reason is not None:
                rows.mask(row)
            if reason:
                made.num_bad += 1
                if len(made.bad) < _BAD_ROWS_NAMED:
                    made.bad += (msg.BadRow(sample, index.path(sample), reason),)
        made.digest = rows_digest(rows.ids, rows.labels, rows.images, rows.colour)
        if production.cache is not None:
            made.hits, made.misses = task.hits, int((task.ids >= 0).sum()) - task.hits
        return made

    def _make_row(self, task: LeaseTask, row: int, sample: int, rows: Rows) -> str | None:
        """Fill one row; returns None, or why the sample is bad."""
        content = None if task.cached[row] else next(task.rows)
        if isinstance(content, BadImage):
            return str(content)
        if sample in task.production.quarantine and _is_quarantined(task, row, sample):
            return "quarantined: it ended its producer twice"
        # From here on it is this sample's fault; waiting for its file was not.
        self._current_sample.set(task.lease.lease, row, sample)
        try:
            if content is None:
                return self._render_cached(task, row, sample, rows)
            return self._render_row(task, row, sample, content, rows)
        finally:
            self._current_sample.clear()

    def _render_cached(self, task: LeaseTask, row: int, sample: int, rows: Rows) -> str | None:
        """Fill a row from the cache; from its file, should the cache be damaged there."""
        production, photo = task.production, None
        if production.cache is not None:
            photo = production.cache.picture(sample)
        if photo is None:
            try:
                content = production.dataset.source.read(sample)
            except BadImage as bad:
                return str(bad)
            return self._render_row(task, row, sample, content, rows)
        task.hits += 1
        return self._render_photo(task, row, sample, photo, rows)

    def _render_row(
        self, task: LeaseTask, row: int, sample: int, content: bytearray | Cut, rows: Rows
    ) -> str | None:
        production = task.production
        if isinstance(content, Cut) and self._render_cut(task, row, content, rows):
            self._on_row(task.lease)
            return None
        try:
            made: bytearray | JpegPart
            if isinstance(content, Cut):
                made = content.part()
                header, stored = made.header, made.photo
            else:
                made = content
                header = stored = read_header(content)
                if production.cache is not None:
                    photo = production.cache.add(sample, content, header)
                    if photo is not None:
                        return self._render_photo(task, row, sample, photo, rows)
            chunk_plan, at = self._chunk_plan_of(task, row, sample, stored)
            if isinstance(made, JpegPart) and chunk_plan is not task.chunk_plan:  # of another plan
                made, header = production.dataset.source.read(sample), stored
            if at in chunk_plan.impossible:
                return chunk_plan.impossible[at]
            production.render(made, header, chunk_plan, at, rows, row)
        except BadImage as bad:
            return str(bad)
        self._on_row(task.lease)
        return None

    def _render_cut(self, task: LeaseTask, row: int, cut: Cut, rows: Rows) -> bool:
        """Fill a row from the segments that were read of its photo, without looking at them before.

        Says no where something is not as the index says, or is out of the ordinary: whoever looks
        at them then finds out what, and says it.
        """
        chunk_plan = task.chunk_plan
        if not task.has_cuts or chunk_plan is None:
            return False
        if chunk_plan.sizes[row] != [cut.table.width, cut.table.height]:
            return False
        return task.production.render_cut(cut, chunk_plan, row, rows, row)

    def _render_photo(
        self, task: LeaseTask, row: int, sample: int, photo: DecodedRegion, rows: Rows
    ) -> str | None:
        chunk_plan, at = self._chunk_plan_of(task, row, sample, photo)
        if at in chunk_plan.impossible:
            return chunk_plan.impossible[at]
        try:
            task.production.render_decoded(photo, chunk_plan, at, rows, row)
        except BadImage as bad:
            return str(bad)
        self._on_row(task.lease)
        return None

    def _chunk_plan_of(
        self, task: LeaseTask, row: int, sample: int, stored: Stored
    ) -> tuple[ChunkPlan, int]:
        """Return the sketch in which a row is planned, and where: with the size that it has."""
        assert task.chunk_plan is not None
        size = task.production.size_of(stored)
        if list(size) == task.chunk_plan.sizes[row]:
            return task.chunk_plan, row
        task.production.dataset.index.dims[sample] = stored.width, stored.height
        return self._plan_again(task, row, *size), 0

    # planning

    def _plan(self, task: LeaseTask) -> None:
        """Plan this task, and with it the following ones of its stream that need no reading."""
        dims = task.production.dataset.index.dims
        if not dims[task.ids].all():
            self._learn_sizes(task)
        before_ns = time.thread_time_ns()
        group = [task]
        for other in self._tasks:
            # Whose task it is comes first: ids of another data set are no places in these sizes.
            if other.production is not task.production or other.chunk_plan is not None:
                break
            if not dims[other.ids].all():
                break
            group.append(other)
        ids = np.concatenate([member.ids for member in group])
        epochs = np.concatenate([member.epochs for member in group])
        sizes = task.production.sizes(ids)
        plan = task.production.planner.plan(ids, epochs, sizes[:, 0], sizes[:, 1])
        row = 0
        for member in group:
            member.chunk_plan = task.production.chunk_plan(
                plan, sizes, row, row + member.lease.rows
            )
            row += member.lease.rows
        self.plan_ns += time.thread_time_ns() - before_ns

    def _learn_sizes(self, task: LeaseTask) -> None:
        """Read the headers of a chunk whose images were never opened; once per data set.

        A size that stays unknown is found to differ when its row is made.
        """
        index = task.production.dataset.index
        dims = index.dims
        rows = [row for row in np.flatnonzero(task.ids >= 0).tolist() if not task.cached[row]]
        if index.sizes_bytes[task.ids[rows]].sum() > _LEARN_BYTES:
            return
        contents = []
        for content in task.rows:
            contents.append(content)
            self._on_row(task.lease)
        task.rows = iter(contents)
        for row, sample, content in zip(rows, task.ids[rows].tolist(), contents, strict=True):
            if not dims[sample, 0] and isinstance(content, bytearray):
                self._current_sample.set(task.lease.lease, row, sample)
                try:
                    header = read_header(content)
                except BadImage:
                    continue  # named when its row is made
                finally:
                    self._current_sample.clear()
                dims[sample] = header.width, header.height

    def _plan_again(self, task: LeaseTask, row: int, width: int, height: int) -> ChunkPlan:
        """Plan one row whose file says another size than the hint did."""
        size = np.array([[width, height]], np.int32)
        ids, epochs = task.ids[row : row + 1], task.epochs[row : row + 1]
        plan = task.production.planner.plan(ids, epochs, size[:, 0], size[:, 1])
        return task.production.chunk_plan(plan, size, 0, 1)
