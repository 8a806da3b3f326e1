"""The workshop of a producer: leases in, finished rows in their slots out.

Order, source, plan, decode and render, in that sequence, chunk by chunk. It knows no link and no
process, so benchmarks run the same code into private memory; and it keeps nothing that matters:
every row can be made again from its lease.

Theory of operation. The ids of all leases that came together are drawn together, and their files
are given to the read-ahead. Planning waits until the rows are needed, and then covers as many
queued chunks of the stream as have known image sizes, because it costs per call and not per row.
Sizes are hints that all producers share through a mapped file: each row's header is read when it
is decoded, and a row whose size differs is planned again by itself.
"""

from __future__ import annotations

import mmap
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from augd.dataset.arrays import ChoiceArrays, IndexArrays
from augd.pixels.decode import decode
from augd.pixels.header import BadImage, read_header
from augd.pixels.render import Renderer
from augd.pixels.source import FolderSource, ReadAhead, Reading
from augd.plan.draw import Draw
from augd.plan.planner import Plan, Planner
from augd.plan.recipe import parse_recipe
from augd.transport.crumb import Crumb
from augd.wire import messages as msg
from augd.wire.receipt import DIGEST_MODULUS, ids_digest, row_digest
from augd.wire.slot import check_layout

Buffer = bytearray | memoryview | mmap.mmap

# Read and not yet decoded: a second's work, far below what a producer may take in all.
_READ_AHEAD_BYTES = 16 << 20
# Largest chunk whose files are all held at once, so that its rows can be planned together: 32 files
# of 2 MB. The rows of larger ones are planned one by one.
_LEARN_BYTES = 64 << 20
_BAD_ROWS_NAMED = 8  # per chunk; all are counted
_LABEL_OF_NO_SAMPLE = -100  # what torch's losses ignore by default


@dataclass(slots=True)
class Dataset:
    """A data set as a producer holds it; opened once, shared by its streams."""

    index: IndexArrays
    source: FolderSource
    ahead: ReadAhead


class Production:
    """What a producer keeps per stream: draw, planner, renderer, and views of every slot."""

    def __init__(
        self, use: msg.UseStream, dataset: Dataset, arena: Buffer, choice: ChoiceArrays | None
    ) -> None:
        """Make views of every slot of `arena`, which must have the announced size."""
        check_layout(use.arrays, use.slot_bytes)
        self.dataset = dataset
        self.layout = use.layout
        self.quarantine: dict[int, tuple[int, int]] = {}  # sample -> (epoch, position)
        chosen, offsets = (None, None) if choice is None else (choice.ids, choice.offsets)
        self.draw = Draw(dataset.index.num_samples, use.seed, use.shuffle, chosen, offsets)
        self._picked = None if choice is None else choice.picked
        self._renumbered = _renumber(self._picked, len(dataset.index.classes))
        recipe = parse_recipe(use.recipe)
        memory = np.frombuffer(arena, np.uint8, use.slot_bytes * use.num_slots)
        self.slots = [
            {spec.name: _view(memory, index * use.slot_bytes, spec) for spec in use.arrays}
            for index in range(use.num_slots)
        ]
        height, width = self.slots[0]["images"].shape[1:3]
        self.planner = Planner(recipe, use.seed, (height, width))
        self.renderer = Renderer(recipe.filter, (height, width))

    def write_labels(self, ids: NDArray[np.int64], out: NDArray[np.generic]) -> None:
        """Write the labels of these samples; those of id -1 mean nothing."""
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


def _renumber(picked: NDArray[np.int64] | None, num_classes: int) -> NDArray[np.int64] | None:
    """Make a table from old class numbers to new ones; its last entry is that of label -1."""
    if picked is None:
        return None
    table = np.full(num_classes + 1, -1, np.int64)
    table[picked] = np.arange(len(picked))
    return table


def _view(arena: NDArray[np.uint8], start: int, spec: msg.ArraySpec) -> NDArray[np.generic]:
    count = int(np.prod(spec.shape, dtype=object))
    dtype = np.dtype(spec.dtype)
    first = start + spec.offset
    return arena[first : first + count * dtype.itemsize].view(dtype).reshape(spec.shape)


class _Outline:
    """The part of a plan that is one chunk's, as plain Python numbers: read once per row."""

    __slots__ = ("colour", "crop", "impossible", "mirror", "scaled", "sizes", "window")

    def __init__(self, plan: Plan, sizes: NDArray[np.int32], first: int, end: int) -> None:
        rows = slice(first, end)
        self.sizes: list[list[int]] = sizes[rows].tolist()
        self.crop: list[tuple[int, int, int, int]] = plan.crop[rows].tolist()
        self.scaled: list[tuple[int, int]] = plan.scaled[rows].tolist()
        self.window: list[tuple[int, int]] = plan.window[rows].tolist()
        self.mirror: list[bool] = plan.mirror[rows].tolist()
        self.colour = None if plan.colour is None else plan.colour[rows]
        self.impossible = {row - first: why for row, why in plan.impossible.items()}


@dataclass(slots=True, eq=False)
class Task:
    """A lease with what is known of it so far."""

    lease: msg.Lease
    production: Production
    ids: NDArray[np.int64]
    epochs: NDArray[np.int64]
    rows: Iterator[bytearray | BadImage]
    reading: Reading
    outline: _Outline | None = None


@dataclass(slots=True)
class Made:
    """A finished lease: how many rows are masked, the first of them by name, and its receipt."""

    lease: int
    num_bad: int = 0
    bad: tuple[msg.BadRow, ...] = ()
    digest: int = 0
    ids_digest: int = 0


def _first_position(task: Task) -> int:
    """Return where the task's rows begin in the order of the epoch."""
    layout = task.production.layout
    return task.lease.position + layout.rank * layout.batch_size + task.lease.first_row


def _is_quarantined(task: Task, row: int, sample: int) -> bool:
    place = task.lease.epoch, _first_position(task) + row
    return place >= task.production.quarantine[sample]


class LeaseFailed(Exception):
    """A lease could not be made; the cause is attached, `lease` names it."""

    def __init__(self, lease: int) -> None:
        """Name the lease."""
        super().__init__(f"lease {lease} failed")
        self.lease = lease


class Workshop:
    """Accepts leases into a queue and makes the rows of its front."""

    def __init__(self, on_row: Callable[[msg.Lease], None], crumb: Crumb | None = None) -> None:
        """Start empty. `on_row` is called after every row that was decoded.

        `crumb` names the row in hand to whoever finds this process dead.
        """
        self._on_row = on_row
        self._crumb = crumb or Crumb.private()
        self._datasets: dict[str, Dataset] = {}
        self._productions: dict[int, Production] = {}
        self._accepted: list[msg.Lease] = []
        self._tasks: deque[Task] = deque()
        # CPU time of this thread for order and plan; whoever reports it sets it to 0. By the wall
        # clock it would count what other processes do on a busy core.
        self.plan_ns = 0

    def __len__(self) -> int:
        """Return the number of leases in the queue."""
        return len(self._tasks) + len(self._accepted)

    def use_dataset(self, name: str, root: str, index_fd: int, dims_fd: int) -> None:
        """Open a data set; the fds stay the caller's."""
        index = IndexArrays(index_fd, dims_fd)
        source = FolderSource(root, index)
        self._datasets[name] = Dataset(
            index, source, ReadAhead(source, max_bytes=_READ_AHEAD_BYTES)
        )

    def use_stream(
        self, use: msg.UseStream, arena: Buffer, choice: ChoiceArrays | None = None
    ) -> None:
        """Prepare a stream whose slots lie in `arena`; without `choice` it has all samples."""
        dataset = self._datasets[use.dataset]
        self._productions[use.stream] = Production(use, dataset, arena, choice)

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
        for (stream, epoch), group in groupby(accepted, key=lambda it: (it.stream, it.epoch)):
            self._begin(self._productions[stream], epoch, list(group))

    def _begin(self, production: Production, epoch: int, leases: list[msg.Lease]) -> None:
        before_ns = time.thread_time_ns()
        offset = production.layout.rank * production.layout.batch_size
        firsts = [lease.position + offset + lease.first_row for lease in leases]
        spans = [
            np.arange(first, first + lease.rows)
            for first, lease in zip(firsts, leases, strict=True)
        ]
        ids, epochs = production.draw.rows(epoch, np.concatenate(spans))
        self.plan_ns += time.thread_time_ns() - before_ns
        row = 0
        for lease in leases:
            part = slice(row, row + lease.rows)
            drawn, row = ids[part], part.stop
            samples = [sample for sample in drawn.tolist() if sample >= 0]
            reading = production.dataset.ahead.submit(samples)
            task = Task(lease, production, drawn, epochs[part], iter(reading), reading)
            self._tasks.append(task)

    def revoke(self, leases: set[int]) -> list[int]:
        """Take these leases out of the queue; returns the ones that were still in it."""
        self.begin()
        revoked = [task for task in self._tasks if task.lease.lease in leases]
        for task in revoked:
            task.reading.cancel()
            self._tasks.remove(task)
        return [task.lease.lease for task in revoked]

    def make_next(self) -> Made:
        """Make the rows of the oldest lease.

        Raises:
            LeaseFailed: by an error that is no sample's fault.
        """
        self.begin()
        task = self._tasks.popleft()
        try:
            return self._make_rows(task)
        except Exception as error:
            task.reading.cancel()
            raise LeaseFailed(task.lease.lease) from error

    def _make_rows(self, task: Task) -> Made:
        if task.outline is None:
            self._plan(task)
        lease, index = task.lease, task.production.dataset.index
        slot = task.production.slots[lease.slot]
        rows = slice(lease.first_row, lease.first_row + lease.rows)
        images, labels, valid = slot["images"][rows], slot["labels"][rows], slot["valid"][rows]
        slot["ids"][rows] = task.ids
        np.greater_equal(task.ids, 0, out=valid)
        task.production.write_labels(task.ids, labels)
        first = _first_position(task)
        made = Made(lease.lease, ids_digest=ids_digest(first, task.ids))
        for row, sample in enumerate(task.ids.tolist()):
            reason = self._make_row(task, row, sample, images[row]) if sample >= 0 else ""
            if reason is not None:
                images[row] = 0
                labels[row] = _LABEL_OF_NO_SAMPLE
                valid[row] = False
            if reason:
                made.num_bad += 1
                if len(made.bad) < _BAD_ROWS_NAMED:
                    made.bad += (msg.BadRow(sample, index.path(sample), reason),)
            if sample >= 0:
                made.digest += row_digest(task.ids, labels, images, row)
        made.digest %= DIGEST_MODULUS
        return made

    def _make_row(self, task: Task, row: int, sample: int, out: NDArray[np.uint8]) -> str | None:
        """Fill one row; returns None, or why the sample is bad."""
        content = next(task.rows)
        if isinstance(content, BadImage):
            return str(content)
        if sample in task.production.quarantine and _is_quarantined(task, row, sample):
            return "quarantined: it ended its producer twice"
        # From here on it is this sample's fault; waiting for its file was not.
        self._crumb.set(task.lease.lease, row, sample)
        try:
            return self._render_row(task, row, sample, content, out)
        finally:
            self._crumb.clear()

    def _render_row(
        self, task: Task, row: int, sample: int, content: bytearray, out: NDArray[np.uint8]
    ) -> str | None:
        outline = task.outline
        assert outline is not None
        try:
            header = read_header(content)
            if [header.width, header.height] != outline.sizes[row]:
                task.production.dataset.index.dims[sample] = header.width, header.height
                outline, row = self._plan_again(task, row, header.width, header.height), 0
            if row in outline.impossible:
                return outline.impossible[row]
            region = decode(content, header, outline.crop[row])
        except BadImage as bad:
            return str(bad)
        colour = None if outline.colour is None else outline.colour[row]
        task.production.renderer.render(
            region, outline.scaled[row], outline.window[row], outline.mirror[row], colour, out
        )
        self._on_row(task.lease)
        return None

    # planning

    def _plan(self, task: Task) -> None:
        """Plan this task, and with it the following ones of its stream that need no reading."""
        dims = task.production.dataset.index.dims
        if not dims[task.ids].all():
            self._learn_sizes(task)
        before_ns = time.thread_time_ns()
        group = [task]
        for other in self._tasks:
            if other.production is not task.production or not dims[other.ids].all():
                break
            group.append(other)
        ids = np.concatenate([member.ids for member in group])
        epochs = np.concatenate([member.epochs for member in group])
        sizes = dims[ids]
        plan = task.production.planner.plan(ids, epochs, sizes[:, 0], sizes[:, 1])
        row = 0
        for member in group:
            member.outline = _Outline(plan, sizes, row, row + member.lease.rows)
            row += member.lease.rows
        self.plan_ns += time.thread_time_ns() - before_ns

    def _learn_sizes(self, task: Task) -> None:
        """Read the headers of a chunk whose images were never opened; once per data set.

        A size that stays unknown is found to differ when its row is made.
        """
        index = task.production.dataset.index
        dims = index.dims
        rows = np.flatnonzero(task.ids >= 0).tolist()
        if index.sizes_bytes[task.ids[rows]].sum() > _LEARN_BYTES:
            return
        contents = list(task.rows)
        task.rows = iter(contents)
        for row, sample, content in zip(rows, task.ids[rows].tolist(), contents, strict=True):
            if not dims[sample, 0] and not isinstance(content, BadImage):
                self._crumb.set(task.lease.lease, row, sample)
                try:
                    header = read_header(content)
                except BadImage:
                    continue  # named when its row is made
                finally:
                    self._crumb.clear()
                dims[sample] = header.width, header.height

    def _plan_again(self, task: Task, row: int, width: int, height: int) -> _Outline:
        """Plan one row whose file says another size than the hint did."""
        size = np.array([[width, height]], np.int32)
        ids, epochs = task.ids[row : row + 1], task.epochs[row : row + 1]
        plan = task.production.planner.plan(ids, epochs, size[:, 0], size[:, 1])
        return _Outline(plan, size, 0, 1)
