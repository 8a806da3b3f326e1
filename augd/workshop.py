"""The workshop of a producer: leases in, finished rows in their slots out.

Order, source, plan, decode and render, in that sequence, chunk by chunk. It knows no link and no
process, so benchmarks run the same code into private memory; and it keeps nothing that matters:
every row can be made again from its lease.

Theory of operation. A lease's ids are drawn when it is accepted, and its files are given to the
read-ahead. Planning waits until the rows are needed, and then covers as many queued chunks of the
stream as have known image sizes, because it costs per call and not per row. Sizes are hints that
all producers share through a mapped file: each row's header is read when it is decoded, and a row
whose size differs is planned again by itself.
"""

from __future__ import annotations

import mmap
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from augd.dataset.arrays import IndexArrays
from augd.pixels.decode import decode
from augd.pixels.header import BadImage, read_header
from augd.pixels.render import Renderer
from augd.pixels.source import FolderSource, ReadAhead, Reading
from augd.plan.order import Order
from augd.plan.planner import Plan, Planner
from augd.plan.recipe import parse_recipe
from augd.wire import messages as msg
from augd.wire.slot import check_layout

Buffer = bytearray | memoryview | mmap.mmap

_BAD_ROWS_NAMED = 8  # per chunk; all are counted
_LABEL_OF_NO_SAMPLE = -100  # what torch's losses ignore by default


@dataclass(slots=True)
class Dataset:
    """A data set as a producer holds it; opened once, shared by its streams."""

    index: IndexArrays
    source: FolderSource
    ahead: ReadAhead


class Production:
    """What a producer keeps per stream: order, planner, renderer, and views of every slot."""

    def __init__(self, use: msg.UseStream, dataset: Dataset, arena: Buffer) -> None:
        """Make views of every slot of `arena`, which must have the announced size."""
        check_layout(use.arrays, use.slot_bytes)
        self.dataset = dataset
        self.layout = use.layout
        self.order = Order(dataset.index.num_samples, use.seed, use.shuffle)
        recipe = parse_recipe(use.recipe)
        memory = np.frombuffer(arena, np.uint8, use.slot_bytes * use.num_slots)
        self.slots = [
            {spec.name: _view(memory, index * use.slot_bytes, spec) for spec in use.arrays}
            for index in range(use.num_slots)
        ]
        height, width = self.slots[0]["images"].shape[1:3]
        self.planner = Planner(recipe, use.seed, (height, width))
        self.renderer = Renderer(recipe.filter, (height, width))


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
    rows: Iterator[bytearray | BadImage]
    reading: Reading
    outline: _Outline | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A finished lease: how many rows are masked, and the first of them by name."""

    lease: int
    num_bad: int
    bad: tuple[msg.BadRow, ...]


class LeaseFailed(Exception):
    """A lease could not be made; the cause is attached, `lease` names it."""

    def __init__(self, lease: int) -> None:
        """Name the lease."""
        super().__init__(f"lease {lease} failed")
        self.lease = lease


class Workshop:
    """Accepts leases into a queue and makes the rows of its front."""

    def __init__(self, on_row: Callable[[msg.Lease], None]) -> None:
        """Start empty. `on_row` is called after every row that was decoded."""
        self._on_row = on_row
        self._datasets: dict[str, Dataset] = {}
        self._productions: dict[int, Production] = {}
        self._tasks: deque[Task] = deque()
        self.plan_ns = 0  # time spent on order and plan; whoever reports it sets it to 0

    def __len__(self) -> int:
        """Return the number of leases in the queue."""
        return len(self._tasks)

    def use_dataset(self, name: str, root: str, index_fd: int, dims_fd: int) -> None:
        """Open a data set; the fds stay the caller's."""
        index = IndexArrays(index_fd, dims_fd)
        source = FolderSource(root, index)
        self._datasets[name] = Dataset(index, source, ReadAhead(source))

    def use_stream(self, use: msg.UseStream, arena: Buffer) -> None:
        """Prepare a stream whose slots lie in `arena`."""
        self._productions[use.stream] = Production(use, self._datasets[use.dataset], arena)

    def drop_stream(self, stream: int) -> None:
        """Forget a stream, whose leases were revoked before; its arena goes with the last view."""
        self._productions.pop(stream, None)

    def accept(self, lease: msg.Lease) -> None:
        """Queue a lease and begin to read its files."""
        before_ns = time.monotonic_ns()
        production = self._productions[lease.stream]
        layout = production.layout
        first = lease.position + layout.rank * layout.batch_size + lease.first_row
        positions = np.arange(first, first + lease.rows, dtype=np.int64)
        ids = production.order.ids(lease.epoch, positions)
        self.plan_ns += time.monotonic_ns() - before_ns
        reading = production.dataset.ahead.submit(
            [sample for sample in ids.tolist() if sample >= 0]
        )
        self._tasks.append(Task(lease, production, ids, iter(reading), reading))

    def revoke(self, leases: set[int]) -> list[int]:
        """Take these leases out of the queue; returns the ones that were still in it."""
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
        task = self._tasks.popleft()
        try:
            num_bad, named = self._make_rows(task)
        except Exception as error:
            task.reading.cancel()
            raise LeaseFailed(task.lease.lease) from error
        return Made(task.lease.lease, num_bad, named)

    def _make_rows(self, task: Task) -> tuple[int, tuple[msg.BadRow, ...]]:
        if task.outline is None:
            self._plan(task)
        lease, index = task.lease, task.production.dataset.index
        slot = task.production.slots[lease.slot]
        rows = slice(lease.first_row, lease.first_row + lease.rows)
        images, labels, valid = slot["images"][rows], slot["labels"][rows], slot["valid"][rows]
        slot["ids"][rows] = task.ids
        np.greater_equal(task.ids, 0, out=valid)
        labels[:] = index.labels[task.ids]
        num_bad = 0
        named: list[msg.BadRow] = []
        for row, sample in enumerate(task.ids.tolist()):
            reason = self._make_row(task, row, sample, images[row]) if sample >= 0 else ""
            if reason is None:
                continue
            images[row] = 0
            labels[row] = _LABEL_OF_NO_SAMPLE
            valid[row] = False
            if reason:
                num_bad += 1
                if len(named) < _BAD_ROWS_NAMED:
                    named.append(msg.BadRow(sample, index.path(sample), reason))
        return num_bad, tuple(named)

    def _make_row(self, task: Task, row: int, sample: int, out: NDArray[np.uint8]) -> str | None:
        """Fill one row; returns None, or why the sample is bad."""
        content = next(task.rows)
        if isinstance(content, BadImage):
            return str(content)
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
        before_ns = time.monotonic_ns()
        group = [task]
        for other in self._tasks:
            if other.production is not task.production or not dims[other.ids].all():
                break
            group.append(other)
        ids = np.concatenate([member.ids for member in group])
        epochs = np.repeat([m.lease.epoch for m in group], [m.lease.rows for m in group])
        sizes = dims[ids]
        plan = task.production.planner.plan(ids, epochs, sizes[:, 0], sizes[:, 1])
        row = 0
        for member in group:
            member.outline = _Outline(plan, sizes, row, row + member.lease.rows)
            row += member.lease.rows
        self.plan_ns += time.monotonic_ns() - before_ns

    def _learn_sizes(self, task: Task) -> None:
        """Read the headers of a chunk whose images were never opened; once per data set."""
        dims = task.production.dataset.index.dims
        contents = list(task.rows)
        task.rows = iter(contents)
        for sample, content in zip(task.ids[task.ids >= 0].tolist(), contents, strict=True):
            if not dims[sample, 0] and not isinstance(content, BadImage):
                try:
                    header = read_header(content)
                except BadImage:
                    continue  # named when its row is made
                dims[sample] = header.width, header.height

    def _plan_again(self, task: Task, row: int, width: int, height: int) -> _Outline:
        """Plan one row whose file says another size than the hint did."""
        size = np.array([[width, height]], np.int32)
        ids, epochs = task.ids[row : row + 1], np.array([task.lease.epoch])
        plan = task.production.planner.plan(ids, epochs, size[:, 0], size[:, 1])
        return _Outline(plan, size, 0, 1)
