"""The schedule of copies to a device: when a batch is copied, and when its slot goes back.

Runs in the training process, between `augd.Stream` and a `DeviceCopier`
(`trainer.data.cuda_feed.CudaCopier`, or a test's fake), which issues the copies. Imports no torch.

Invariants: touches no pixel and no device; never waits for a batch while another one could be
handed out.

Theory of operation. A copy reads the slot itself and runs beside the CPU, so two things outlive the
call that started it:

- The slot. It is released once the copy's event has happened. Events are queried without waiting
  whenever a batch is taken. They are awaited in two cases only. Either as many slots are in flight
  as the stream can spare, or no batch is ready: waiting then costs nothing, and frees slots for
  producers.
- The device buffer that it fills. There are two: while a batch is handed out of the first, the copy
  of the next one fills the second. A buffer is taken when a copy is staged, and given back when the
  batch was handed out (finished) or dropped. The copier orders the next copy into a buffer behind
  its last reader on the device.

One batch is staged ahead, if it is ready. First the batch in hand is finished, then the next one's
copy is issued. Then the one in hand is yielded. Staging crosses the end of an epoch, since nearly
always the next epoch follows. If another epoch is asked for, or the pass broke off, the staged
batch is dropped and its slot released like any other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import augd

Copied = TypeVar("Copied")  # what a copier makes of a batch while its copy runs
Done = TypeVar("Done", covariant=True)  # what the consumer gets

NUM_BUFFERS = 2


class Event(Protocol):
    """A point in a device's work, as `torch.cuda.Event`."""

    def query(self) -> bool:
        """Say whether it was reached."""

    def synchronize(self) -> None:
        """Wait until it is reached."""


class DeviceCopier(Protocol[Copied, Done]):
    """Copies batches to a device."""

    def copy(self, batch: augd.Batch, buffer: int) -> tuple[Copied, Event]:
        """Start to copy the slot; the event happens when the slot is no longer needed.

        If it raises, no copy out of the slot is running.
        """

    def finish(self, copied: Copied, buffer: int) -> Done:
        """Return what the consumer gets, ordered with the consumer's own work on the device."""


@dataclass(frozen=True, slots=True)
class Staged(Generic[Copied]):
    """A batch whose copy was issued, and that was not handed out yet."""

    copied: Copied
    buffer: int


class CopySchedule(Generic[Copied, Done]):
    """Slots in flight and device buffers of one stream."""

    def __init__(self, copier: DeviceCopier[Copied, Done], max_in_flight: int) -> None:
        """Spare at most `max_in_flight` slots for copies that have not happened yet."""
        self.waited_s = 0.0
        self._copier = copier
        self._max_in_flight = max_in_flight
        self._free = deque(range(NUM_BUFFERS))
        self._in_flight: deque[tuple[Event, augd.Batch]] = deque()

    @property
    def num_in_flight(self) -> int:
        """Slots whose copies are not known to be complete."""
        return len(self._in_flight)

    def has_room(self) -> bool:
        """Say whether a batch can be staged without waiting."""
        self.collect()
        return bool(self._free) and len(self._in_flight) < self._max_in_flight

    def make_room(self) -> None:
        """Wait until a slot can be spared."""
        self.collect()
        while len(self._in_flight) >= self._max_in_flight:
            self._wait_for_oldest()

    def stage(self, batch: augd.Batch) -> Staged[Copied]:
        """Issue the copy of a batch; its slot is released when the copy is done."""
        buffer = self._free.popleft()
        try:
            copied, event = self._copier.copy(batch, buffer)
        except BaseException:
            self._free.append(buffer)
            raise
        self._in_flight.append((event, batch))
        return Staged(copied, buffer)

    def finish(self, staged: Staged[Copied]) -> Done:
        """Hand a staged batch out."""
        try:
            return self._copier.finish(staged.copied, staged.buffer)
        finally:
            self._free.append(staged.buffer)

    def drop(self, staged: Staged[Copied]) -> None:
        """Forget a staged batch; its copy runs to its end, then its slot is released."""
        self._free.append(staged.buffer)

    def collect(self) -> None:
        """Release the slots whose copies are done; never waits."""
        while self._in_flight and self._in_flight[0][0].query():
            self._in_flight.popleft()[1].release()

    def drain(self) -> None:
        """Wait for all copies and release their slots."""
        self.collect()
        while self._in_flight:
            self._wait_for_oldest()

    def _wait_for_oldest(self) -> None:
        event, batch = self._in_flight[0]
        before = time.perf_counter()
        event.synchronize()
        self.waited_s += time.perf_counter() - before
        self._in_flight.popleft()
        batch.release()


class Feed(Generic[Copied, Done]):
    """The passes over a stream whose batches are copied to a device."""

    def __init__(self, stream: augd.Stream, schedule: CopySchedule[Copied, Done]) -> None:
        self._stream = stream
        self._schedule = schedule
        self._ahead: deque[Staged[Copied] | None] = deque()  # None is an epoch's end
        self._source: Iterator[augd.Batch] = iter(())
        self._source_epoch = 0
        self._at: tuple[int, int] | None = None  # epoch and number of what comes next
        self._active_pass: object = None

    @property
    def transfer_s(self) -> float:
        """Seconds that this process waited for copies."""
        return self._schedule.waited_s

    def epoch(self, epoch: int) -> Iterator[Done]:
        """Yield one epoch from its start; a newer pass ends it."""
        source = self._stream.epoch(epoch)  # refuses a bad number now, does nothing else yet
        return self._pass(epoch, source)

    def _pass(self, epoch: int, source: Iterator[augd.Batch]) -> Iterator[Done]:
        token = self._active_pass = object()
        if self._at != (epoch, 0):
            self.drop()
            self._source, self._source_epoch = source, epoch
        number = 0
        while True:
            if self._active_pass is not token:
                raise augd.StreamClosed(
                    f"this pass over epoch {epoch} ended when a newer one began: "
                    "connect a second stream to read two at once"
                )
            self._at = None  # if this raises, the source's place is unknown
            staged = self._ahead.popleft() if self._ahead else self._pull()
            if staged is None:
                self._at = (epoch + 1, 0)
                return
            number += 1
            done = self._schedule.finish(staged)
            self._look_ahead()
            self._at = (epoch, number)
            yield done
            del done  # while the next one is made, only the consumer holds it

    def _pull(self) -> Staged[Copied] | None:
        """Take the next batch and issue its copy; None at the end of its epoch."""
        if self._stream.is_ready():
            self._schedule.make_room()
        else:
            self._schedule.drain()
        batch = next(self._source, None)
        if batch is None:
            self._source_epoch += 1
            self._source = self._stream.epoch(self._source_epoch)
            return None
        return self._schedule.stage(batch)

    def _look_ahead(self) -> None:
        """Stage the next batch, if it is ready; an epoch's end may come before it."""
        for _ in range(2):
            if not (self._schedule.has_room() and self._stream.is_ready()):
                return
            self._ahead.append(self._pull())
            if self._ahead[-1] is not None:
                return

    def drop(self) -> None:
        """Drop what was staged ahead."""
        while self._ahead:
            staged = self._ahead.popleft()
            if staged is not None:
                self._schedule.drop(staged)

    def forget(self) -> None:
        """Drop what was staged and take the next pass from its source, wherever that begins."""
        self._at = None
        self._active_pass = None
        self.drop()

    def close(self) -> None:
        """Release every slot, once its copy is done."""
        self._at = None
        self.drop()
        self._schedule.drain()
