"""Reads rows ahead of their use, with as many threads as the storage is slow."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from augd.dataset.readers.source import Row, SampleSource
from augd.dataset.readers.transient_errors import Retries
from augd.errors import PluginFailed, StoreError
from augd.pixels.headers.read_header import BadImage
from augd.pixels.jpeg_segments import Region

ReadRows = Callable[[Sequence[int], Sequence[Region | None]], list[Row]]
"""Reads the regions of samples, None being all of one. Raises StoreError, for no sample's fault."""


_LOOK_S: Final = 1.0


# Share of the time that the taker waits: above it, more is read at once.
_WAIT_SHARE: Final = 0.2


# Time of a read without CPU that means a slow disk. Less may be a wait for a core or for the
# interpreter.
_FAR_S: Final = 0.002


_FAR_ROWS_PER_SLICE: Final = 2


class _Slice:
    """A few rows that one thread reads in one go. Claimed once, by a thread or by its taker."""

    __slots__ = ("is_claimed", "is_dropped", "regions", "rows", "samples", "size_bytes")

    def __init__(
        self, samples: Sequence[int], regions: Sequence[Region | None], size_bytes: int
    ) -> None:
        self.samples = samples
        self.regions = regions
        self.size_bytes = size_bytes
        self.is_claimed = False
        self.is_dropped = False
        self.rows: list[Row] | StoreError | None = None


class Reading:
    """The rows of one chunk, in order. Iterate once, or `cancel` to drop what is left."""

    def __init__(self, ahead: ReadAhead, slices: list[_Slice]) -> None:
        self._ahead = ahead
        self._slices: deque[_Slice] = deque(slices)

    def __iter__(self) -> Iterator[Row]:
        while self._slices:
            yield from self._ahead._take(self._slices.popleft())

    def cancel(self) -> None:
        """Drop the rows that were not taken. Their memory is free once no thread reads them."""
        self._ahead._drop(self._slices)
        self._slices.clear()


class ReadAhead:
    """Reads the files of coming chunks while others are decoded; `num_threads` 0 reads in the
    caller.

    At most `max_bytes` are read and not yet taken, by the sizes in the index. Slices start in the
    order in which they were submitted. If a slice has not started when its rows are needed, the
    taker's thread reads it. So a full budget or a large file delays but never blocks.

    A file in the page cache takes microseconds, one on a network disk 20 ms. While much of the time
    is spent waiting for reads that themselves wait, the number of threads doubles, with smaller
    slices. Threads are never removed: an idle one costs little.
    """

    def __init__(
        self,
        source: SampleSource,
        *,
        num_threads: int = 2,
        threads_max: int = 16,
        max_bytes: int = 48 << 20,
        rows_per_slice: int = 8,
        read_rows: ReadRows | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> None:
        """Start the threads.

        `on_wait` is called every second while a thread waits for rows that are being read.
        `read_rows` reads a slice in one call if the source can; then no threads are added. A source
        with `retries` retries failed reads.
        """
        self._source = source
        self._retries: Retries | None = getattr(source, "retries", None)
        if self._retries is not None and on_wait is not None:
            self._retries.attend(on_wait)
        self._read_rows = read_rows or self._read_each
        self._on_wait = on_wait
        self._max_bytes = max_bytes
        self._slicing = rows_per_slice, max_bytes // 4
        self._far = min(rows_per_slice, _FAR_ROWS_PER_SLICE), max_bytes // max(4, threads_max)
        self._held_bytes = 0
        self._waiting: deque[_Slice] = deque()
        lock = threading.Lock()
        self._changed = threading.Condition(lock)  # a slice was read
        self._can_work = threading.Condition(lock)  # a slice waits, and fits
        self._is_closed = False
        self._threads_max = threads_max if read_rows is None and num_threads else num_threads
        self._stalled_s = 0.0  # time that threads spent in reads without CPU, since the last check
        self._num_read = 0
        self._waited_s = 0.0
        self._looked_at = time.monotonic()
        self._threads: list[threading.Thread] = []
        self._num_first = num_threads
        self._start(num_threads)

    @property
    def num_added(self) -> int:
        """How many threads were added to the first ones."""
        return len(self._threads) - self._num_first

    def _start(self, count: int) -> None:
        for number in range(len(self._threads), len(self._threads) + count):
            thread = threading.Thread(target=self._work, name=f"read-ahead-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def submit(
        self, samples: Sequence[int], regions: Sequence[Region | None] | None = None
    ) -> Reading:
        """Queue the rows of a chunk. Returns at once.

        `regions` gives the region of each stored image that is needed, None for all of it.

        Raises:
            RuntimeError: after `close`.
        """
        slices = list(self._slices(samples, regions or [None] * len(samples)))
        with self._changed:
            if self._is_closed:
                raise RuntimeError("read-ahead is closed")
            if (
                slices and self._threads
            ):  # else they would wake up without work, and compete for the GIL
                self._waiting.extend(slices)
                self._can_work.notify()
        return Reading(self, slices)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Stop the threads, and return whether all of them ended in time. Rows left are dropped.

        A thread can outlast the time only inside a read that the file system does not answer.
        """
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._can_work.notify_all()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _slices(self, samples: Sequence[int], regions: Sequence[Region | None]) -> Iterator[_Slice]:
        """Cut into slices of a few rows, fewer if the files are large."""
        rows_max, bytes_max = self._slicing
        sizes = self._source.sizes_bytes[np.asarray(samples, np.int64)].tolist()
        start, held = 0, 0
        for at, size_bytes in enumerate(sizes):
            is_full = at - start >= rows_max or held + size_bytes > bytes_max
            if at > start and is_full:
                yield _Slice(samples[start:at], regions[start:at], held)
                start, held = at, 0
            held += size_bytes
        if sizes:
            yield _Slice(samples[start:], regions[start:], held)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            rows: list[Row] | StoreError
            began_s, cpu_began_s = time.monotonic(), time.thread_time()
            try:
                rows = self._read_rows(task.samples, task.regions)
            except StoreError as error:
                rows = error
            except Exception as error:
                # If this thread ended here, the taker would wait forever.
                rows = [BadImage(f"reading failed: {error!r}")] * len(task.samples)
            stalled_s = time.monotonic() - began_s - (time.thread_time() - cpu_began_s)
            with self._changed:
                self._stalled_s += stalled_s
                self._num_read += len(task.samples)
                if task.is_dropped:
                    self._give_back(task)
                else:
                    task.rows = rows
                    self._changed.notify_all()

    def _next(self) -> _Slice | None:
        """Wait for a slice that fits into the budget and claim it; None when closed."""
        with self._changed:
            while not self._is_closed:
                task = self._next_that_fits()
                if task is not None:
                    self._waiting.popleft()
                    task.is_claimed = True
                    self._held_bytes += task.size_bytes
                    if self._waiting:
                        self._can_work.notify()  # each wakes the next: often one is enough
                    return task
                self._can_work.wait()
        return None

    def _next_that_fits(self) -> _Slice | None:
        """Return the first unclaimed slice, if it fits into the budget."""
        while self._waiting and self._waiting[0].is_claimed:
            self._waiting.popleft()
        if self._waiting and self._held_bytes + self._waiting[0].size_bytes <= self._max_bytes:
            return self._waiting[0]
        return None

    def _give_back(self, task: _Slice) -> None:
        """Return a slice's share of the budget. The caller holds the lock."""
        self._held_bytes -= task.size_bytes
        self._can_work.notify()

    def _read_each(self, samples: Sequence[int], regions: Sequence[Region | None]) -> list[Row]:
        return list(map(self._read, samples, regions))

    def _read(self, sample: int, region: Region | None) -> Row:
        try:
            if region is None:
                return self._source.read(sample)
            return self._source.read_region(sample, region)
        except BadImage as bad:
            return bad
        except (PluginFailed, StoreError):
            raise  # of an own source, read by the taker, or of a store
        except Exception as error:
            # If this thread ended here, the taker would wait forever.
            return BadImage(f"reading failed: {error!r}")

    def _take(self, task: _Slice) -> Iterator[Row]:
        began_s = time.monotonic()
        if task.rows is not None or not self._claim_or_wait(task):
            self._note_wait(began_s)
            yield from self._handed_over(task)
        elif self._read_rows != self._read_each:
            yield from self._read_rows(task.samples, task.regions)
        else:
            for sample, region in zip(task.samples, task.regions, strict=True):
                began_s = time.monotonic()
                row = self._read(sample, region)
                self._note_wait(began_s)
                yield row

    def _note_wait(self, began_s: float) -> None:
        """Record how long the taker waited. Add threads if reads hold it up."""
        now = time.monotonic()
        self._waited_s += now - began_s
        passed_s = now - self._looked_at
        if passed_s < _LOOK_S or not self._threads:
            return
        has_waited = self._waited_s > _WAIT_SHARE * passed_s
        self._looked_at, self._waited_s = now, 0.0
        with self._changed:
            if not self._num_read:
                return
            stalled_s, self._stalled_s = self._stalled_s / self._num_read, 0.0
            self._num_read = 0
            is_short = self._next_that_fits() is not None
        if stalled_s > _FAR_S and has_waited:
            self._slicing = self._far
            if is_short:
                self._read_more()

    def _read_more(self) -> None:
        """Double the number of threads, if the system allows it."""
        try:
            self._start(min(len(self._threads), self._threads_max - len(self._threads)))
        except (RuntimeError, MemoryError):  # a limit of processes, or of memory
            self._threads_max = len(self._threads)

    def _claim_or_wait(self, task: _Slice) -> bool:
        """Return whether the caller must read the slice itself; else wait until it is read.

        A read that never returns is ended from outside, by the deadline of the chunk's lease, as it
        would be in the caller.
        """
        with self._changed:
            if not task.is_claimed:
                task.is_claimed = True
                self._can_work.notify()  # the next slice may fit
                return True
        look_s = None if self._on_wait is None else _LOOK_S
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: task.rows is not None, look_s):
                    return False
            if self._on_wait is not None and self._is_on_its_way():
                self._on_wait()

    def _is_on_its_way(self) -> bool:
        """Return whether a wait has a deadline of its own: a store's, or that of retries."""
        is_far = self._read_rows != self._read_each
        return is_far or (self._retries is not None and self._retries.is_waiting)

    def _handed_over(self, task: _Slice) -> Iterator[Row]:
        rows, task.rows = task.rows or [], None
        with self._changed:
            self._give_back(task)
        if isinstance(rows, StoreError):
            raise rows
        rows.reverse()
        while rows:
            yield rows.pop()

    def _drop(self, slices: deque[_Slice]) -> None:
        with self._changed:
            for task in slices:
                if not task.is_claimed:
                    task.is_claimed = True
                elif task.rows is not None:
                    task.rows = None
                    self._held_bytes -= task.size_bytes
                else:
                    task.is_dropped = True
            self._can_work.notify()
