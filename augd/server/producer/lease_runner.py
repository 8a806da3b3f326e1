"""Runs the leases of a producer: it writes their finished rows to their slots.

Order, source, plan, decode and render, in that sequence, chunk by chunk. The lease runner knows no
link and no process, so benchmarks run the same code into private memory. It keeps nothing that
matters: every row can be recomputed from its lease.

Theory of operation. The ids of all leases that arrived together are drawn together, and their files
are given to the read-ahead. Planning waits until the rows are needed. It then covers as many
queued chunks of the stream as have known image sizes, because it costs per call and not per row.
Sizes are hints that all producers share through a mapped file. Each row's header is read when it
is decoded, and a row whose size differs is planned again by itself. Some indexes know where in a
file which pixels are. Such a dataset is planned before it is read: the plan tells what to read.
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
from augd.dataset.readers.read_ahead import ReadAhead
from augd.dataset.readers.source import SampleSource
from augd.dataset.readers.transient_errors import Retries, does_pass
from augd.dataset.stores.address import is_address
from augd.errors import AugdError, DatasetError, PluginFailed, StoreError
from augd.pixels.headers.read_header import BadImage, read_header
from augd.plan.ops.plugin import OwnOpError
from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.plugins.ops import name_failure
from augd.protocol import epoch_layout
from augd.protocol import messages as msg
from augd.protocol.row_digest import ids_digest
from augd.server.producer.decoded_cache import CachedImages, PixelCache
from augd.server.producer.row_maker import LeaseTask, RowMaker, first_position
from augd.server.producer.stream_renderer import (
    Buffer,
    OpenDataset,
    StreamRenderer,
    StreamRenderers,
)
from augd.transport.current_sample import CurrentSample
from augd.transport.fetch_client import FetchClient

# Read and not yet decoded: a second's work, far below what a producer may take in all.
_READ_AHEAD_BYTES = 16 << 20
# This producer cannot send ALIVE meanwhile, so this is well below a daemon's patience.
_OPEN_S = 10.0
# From an object store whole leases are read together, so that neighbouring ranges are one request.
# All leases of a producer are read at once, since a request takes as long as many rows.
_REMOTE: Final[dict[str, int]] = {"max_bytes": 64 << 20, "num_threads": 4, "rows_per_slice": 32}
# Largest chunk whose files are all held at once, so that its rows can be planned together: 32 files
# of 2 MB. The rows of larger ones are planned one by one.
_LEARN_BYTES = 64 << 20
OpenOwn = Callable[[str, IndexArrays], SampleSource]

_BAD_ROWS_NAMED = 8  # per chunk; all are counted


@dataclass(slots=True)
class FinishedLease:
    """A finished lease: the number of masked rows, the first of them by name, and its receipt."""

    lease: int
    num_bad: int = 0
    bad: tuple[msg.BadRow, ...] = ()
    digest: int = 0
    ids_digest: int = 0
    hits: int = 0
    misses: int = 0


class LeaseFailed(Exception):
    """A lease could not be made. `lease` is its number, and the cause is attached."""

    def __init__(self, lease: int) -> None:
        super().__init__(f"lease {lease} failed")
        self.lease = lease


def _open_local(root: str, index: IndexArrays) -> SampleSource:
    """Open a dataset of files; transient errors of the file system are retried.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        return open_source(index.root, index)  # the bytes of the path; `root` is for messages
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
        """Start without leases.

        Args:
            on_row: called after every row that was decoded.
            current_sample: names the row in work, for the case that this process crashes.
            catalogue: the ops of recipes.
            open_own: opens a dataset that is not made of files.
        """
        self._open_own = open_own
        self._on_row = on_row
        self._current_sample = current_sample or CurrentSample.private()
        self._row_maker = RowMaker(on_row, self._current_sample)
        self._catalogue = catalogue
        self._datasets: dict[str, OpenDataset] = {}
        self._lost: dict[str, AugdError] = {}  # datasets that cannot be opened, and why
        self._cache: PixelCache | None = None
        self._renderers: dict[int, StreamRenderers] = {}
        self._accepted: list[msg.Lease] = []
        self._fetch_channel: FetchClient | None = None
        self._in_hand: msg.Lease | None = None
        self._tasks: deque[LeaseTask] = deque()
        # CPU time of this thread for order and plan; the loop reports it and sets it to 0. Wall
        # time would count what other processes do on a busy core.
        self.plan_ns = 0
        self.readers_added = 0  # the most threads that were added to read a dataset's files

    def __len__(self) -> int:
        return len(self._tasks) + len(self._accepted)

    def stay_alive(self) -> None:
        """Call `on_row` for the current lease, while its files are waited for."""
        if self._in_hand is not None:
            self._on_row(self._in_hand)

    def use_fetch_channel(self, fetch_channel: FetchClient) -> None:
        """Read datasets that lie in object stores through a fetch channel."""
        self._fetch_channel = fetch_channel

    def use_cache(self, cache: PixelCache) -> None:
        """Keep decoded images in a cache, for the datasets that are opened from now on."""
        self._cache = cache

    def use_dataset(
        self, name: str, root: str, index_fd: int, dims_fd: int, table_fd: int = -1
    ) -> None:
        """Open a dataset, with the table of its cached images; the fds stay the caller's.

        If it cannot be opened, `use_stream` raises the reason for each of its streams.
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
            with suppress(ValueError):  # the table was truncated
                cached = CachedImages(self._cache, name, table_fd, index.num_samples)
        self._datasets[name] = OpenDataset(index, source, ahead, cached)

    def _open(self, name: str, root: str, index: IndexArrays) -> tuple[SampleSource, ReadAhead]:
        """Open the source of a dataset. Raises PluginFailed or DatasetError."""
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
            raise DatasetError(f"dataset {name}: {error}") from None
        except OSError as error:
            raise DatasetError(
                f"dataset {name}: {root} cannot be opened: {error.strerror}. Put it back and "
                "start the daemon again"
            ) from None
        wait = self.stay_alive
        return source, ReadAhead(source, max_bytes=_READ_AHEAD_BYTES, on_wait=wait)

    def cache_news(self) -> Iterator[msg.Cached]:
        """Yield, once, what the daemon must know of new images in the cache."""
        for dataset in self._datasets.values():
            news = None if dataset.cache is None else dataset.cache.take_news()
            if news is not None:
                yield news

    def use_stream(
        self, use: msg.StreamMessage, arena: Buffer, choice: ChoiceArrays | None = None
    ) -> None:
        """Prepare a stream whose slots lie in `arena`; without `choice` it has all samples.

        Raises:
            RecipeError: an own op rejects its parameters.
            PluginFailed: the own source of its dataset cannot be used.
            DatasetError: its dataset's root cannot be opened any more.
        """
        if use.dataset in self._lost:
            raise self._lost[use.dataset]
        dataset = self._datasets[use.dataset]
        self._renderers[use.stream] = StreamRenderers(use, dataset, arena, choice, self._catalogue)

    def mask(self, mask: msg.Mask) -> None:
        """Set a stream's quarantine, for every row that is made from now on."""
        self._renderers[mask.stream].mask(
            {sample: (epoch, position) for sample, epoch, position in mask.quarantine}
        )

    def drop_stream(self, stream: int) -> None:
        """Forget a stream, whose leases were revoked before; the last view unmaps its arena."""
        self._renderers.pop(stream, None)

    def accept(self, lease: msg.Lease) -> None:
        """Queue a lease; the next `begin` draws the ids of all that were queued."""
        self._accepted.append(lease)

    def begin(self) -> None:
        """Draw the ids of the accepted leases and give their files to the read-ahead."""
        accepted, self._accepted = self._accepted, []
        if accepted:
            self._leave_cut_cache()
        for (stream, epoch), group in groupby(accepted, key=lambda it: (it.stream, it.epoch)):
            self._begin(self._renderers[stream].at(epoch), epoch, list(group))

    def _begin(self, renderer: StreamRenderer, epoch: int, leases: list[msg.Lease]) -> None:
        before_ns = time.thread_time_ns()
        offset = epoch_layout.first_position(renderer.layout, 0)
        firsts = [lease.position + offset + lease.first_row for lease in leases]
        spans = [
            np.arange(first, first + lease.rows)
            for first, lease in zip(firsts, leases, strict=True)
        ]
        ids, epochs = renderer.draw.rows(epoch, np.concatenate(spans))
        plans, sizes = None, None
        cache = renderer.cache
        # An image that is to be cached is needed whole.
        if renderer.dataset.index.has_segments and (cache is None or cache.is_full):
            # The plan tells what of a file is read. An unknown size is found to differ later.
            sizes = np.maximum(renderer.sizes(ids), 1)
            # An own op that fails here fails again when its rows are made, and is reported then.
            with suppress(OwnOpError):
                plans = renderer.planner.plan(ids, epochs, sizes[:, 0], sizes[:, 1])
        self.plan_ns += time.thread_time_ns() - before_ns
        row = 0
        for lease in leases:
            part = slice(row, row + lease.rows)
            drawn, row = ids[part], part.stop
            cached = renderer.find_cached(drawn)
            is_copy = None
            if renderer.copies > 1 and cache is None and plans is None:
                is_copy = _copies(drawn)
                cached = [int(one) for one in is_copy]
            wanted = [
                -1 if is_cached else sample
                for sample, is_cached in zip(drawn.tolist(), cached, strict=True)
            ]
            samples = [sample for sample in wanted if sample >= 0]
            chunk_plan, regions = None, None
            if plans is not None and sizes is not None:
                chunk_plan = renderer.chunk_plan(plans, sizes, part.start, part.stop)
                regions = renderer.regions(chunk_plan, wanted)
            reading = renderer.dataset.ahead.submit(samples, regions)
            rows = iter(reading)
            task = LeaseTask(
                lease, renderer, drawn, epochs[part], rows, reading, cached, chunk_plan
            )
            task.is_copy = is_copy
            task.has_cuts = chunk_plan is not None and renderer.can_render_cuts(chunk_plan)
            self._tasks.append(task)

    def revoke(self, leases: set[int]) -> list[int]:
        """Remove these leases from the queue; returns those that were still in it."""
        self.begin()
        revoked = [task for task in self._tasks if task.lease.lease in leases]
        for task in revoked:
            task.reading.cancel()
            self._tasks.remove(task)
        return [task.lease.lease for task in revoked]

    def make_next(self) -> FinishedLease:
        """Make the rows of the oldest lease.

        Raises:
            LeaseFailed: an error that is not due to a sample.
        """
        self.begin()
        task = self._tasks.popleft()
        self._in_hand = task.lease
        try:
            self._leave_cut_cache()
            made = self._make_rows(task)
            if self._leave_cut_cache():
                # Truncated meanwhile: what was read of it may have been zeros.
                task.cached, task.hits = [1] * len(task.ids), 0
                made = self._make_rows(task)
        except Exception as error:
            task.reading.cancel()
            if isinstance(error, OwnOpError):
                failure = name_failure(error, task.renderer.dataset.index)
                raise LeaseFailed(task.lease.lease) from failure
            raise LeaseFailed(task.lease.lease) from error
        finally:
            self._in_hand = None
        self.readers_added = max(self.readers_added, task.renderer.dataset.ahead.num_added)
        return made

    def _leave_cut_cache(self) -> bool:
        """Stop using a cache whose files were truncated; returns whether that was found now.

        Rows that count as cached are then made from their files.
        """
        caches = [one.cache for one in self._datasets.values() if one.cache is not None]
        if all(cache.is_whole() for cache in caches):
            return False
        self._cache = None
        for dataset in self._datasets.values():
            dataset.cache = None
        for renderers in self._renderers.values():
            renderers.leave_cache()
        with suppress(OSError, ValueError):
            print(
                f"augd: producer (pid {os.getpid()}): the files of --cache were truncated: rows "
                "are made without it until the daemon is restarted",
                file=sys.stderr,
                flush=True,
            )
        return True

    def _make_rows(self, task: LeaseTask) -> FinishedLease:
        if task.chunk_plan is None:
            self._plan(task)
        lease, renderer = task.lease, task.renderer
        index = renderer.dataset.index
        rows = renderer.rows(lease.slot, lease.first_row, lease.rows)
        rows.ids[:] = task.ids
        np.greater_equal(task.ids, 0, out=rows.valid)
        renderer.write_labels(task.ids, rows.labels)
        made = FinishedLease(lease.lease, ids_digest=ids_digest(first_position(task), task.ids))
        if (
            all(task.cached)
            and task.chunk_plan
            and renderer.render_cached(task.ids, task.chunk_plan, rows)
        ):
            self._on_row(lease)
            made.hits = lease.rows
            made.digest = rows.digest()
            return made
        for row, sample in enumerate(task.ids.tolist()):
            reason = self._row_maker.make_row(task, row, sample, rows) if sample >= 0 else ""
            if reason is not None:
                rows.mask(row)
            if reason:
                made.num_bad += 1
                if len(made.bad) < _BAD_ROWS_NAMED:
                    made.bad += (msg.BadRow(sample, index.path(sample), reason),)
        made.digest = rows.digest()
        if renderer.cache is not None:
            made.hits, made.misses = task.hits, int((task.ids >= 0).sum()) - task.hits
        return made

    # planning

    def _plan(self, task: LeaseTask) -> None:
        """Plan this task, together with the next ones of its stream whose sizes are known."""
        dims = task.renderer.dataset.index.dims
        if not dims[task.ids].all():
            self._learn_sizes(task)
        before_ns = time.thread_time_ns()
        group = [task]
        for other in self._tasks:
            # The stream is compared first: ids of another dataset are no positions in these sizes.
            if other.renderer is not task.renderer or other.chunk_plan is not None:
                break
            if not dims[other.ids].all():
                break
            group.append(other)
        ids = np.concatenate([member.ids for member in group])
        epochs = np.concatenate([member.epochs for member in group])
        sizes = task.renderer.sizes(ids)
        plans = task.renderer.planner.plan(ids, epochs, sizes[:, 0], sizes[:, 1])
        row = 0
        for member in group:
            member.chunk_plan = task.renderer.chunk_plan(plans, sizes, row, row + member.lease.rows)
            row += member.lease.rows
        self.plan_ns += time.thread_time_ns() - before_ns

    def _learn_sizes(self, task: LeaseTask) -> None:
        """Read the headers of a chunk whose images were never opened; once per dataset.

        A size that stays unknown is found to differ when its row is made.
        """
        index = task.renderer.dataset.index
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


def _copies(ids: NDArray[np.int64]) -> list[bool]:
    """Return for each row whether it is of the sample of the row before it."""
    is_copy = np.zeros(len(ids), np.bool_)
    is_copy[1:] = (ids[1:] == ids[:-1]) & (ids[1:] >= 0)
    found: list[bool] = is_copy.tolist()
    return found
