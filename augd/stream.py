"""A stream of batches as NumPy arrays: views into the slots that its connection maps.

Copies no pixel. What a batch is and when its slot goes back is said in `Batch`; the socket and
the protocol are the business of `augd/line.py`.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augd.broker.reader import Deliver, PassEnded
from augd.errors import BatchesHeld, OptionError, SpecMismatch, StreamClosed
from augd.line import Line
from augd.wire import cut
from augd.wire import messages as msg

Array = NDArray[Any]
Labels = NDArray[np.int64] | NDArray[np.float32]


class Batch:
    """One batch: views into a slot of shared memory, valid until released.

    Attributes:
        images: uint8 (B, H, W, 3), RGB.
        labels: int64 (B,); -1 for samples without a class, -100 where `valid` is false. Of a
            multi-label data set float32 (B, K).
        ids: int64 (B,): positions in the data set's index; -1 for padding.
        valid: bool (B,): false for bad samples (zeros) and for padding.
        epoch, number: which batch it is.
        position: where the global batch begins in the epoch, counted in samples.

    The slot is given back when the batch and every view of its arrays are gone, or by
    `release()`, after which the arrays must not be read. Copy what must live longer.
    """

    __slots__ = (
        "__weakref__",
        "_finalizer",
        "epoch",
        "ids",
        "images",
        "labels",
        "number",
        "position",
        "valid",
    )

    def __init__(
        self,
        arrays: Mapping[str, Array],
        ready: msg.BatchReady,
        finalizer: weakref.finalize[..., Any],
    ) -> None:
        """Made by `Stream`."""
        self.images: NDArray[np.uint8] = arrays["images"]
        self.labels: Labels = arrays["labels"]
        self.ids: NDArray[np.int64] = arrays["ids"]
        self.valid: NDArray[np.bool_] = arrays["valid"]
        self.epoch = ready.epoch
        self.number = ready.number
        self.position = ready.position
        self._finalizer = finalizer

    def release(self) -> None:
        """Give the slot back now; the arrays must not be read any more."""
        self._finalizer()

    def __len__(self) -> int:
        """Rows of this batch."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Name the batch and its shape."""
        return f"<Batch {self.number} of epoch {self.epoch}, images {self.images.shape}>"


class Stream:
    """A stream of batches. Iterate `epoch(n)` for batches, or the stream itself for pairs.

    For one thread at a time. `close()` it, or use it in `with`; a stream that is dropped
    closes itself, and so does the process's end, however it ends.
    """

    def __init__(self, line: Line) -> None:
        """Made by `connect`."""
        self._line = line
        opened = line.reader.opened
        assert opened is not None
        self._opened = opened
        self._layout = line.reader.spec.layout
        self._cursor: tuple[int, int] | None = (0, 0)  # what the daemon sends next
        self._yielded = (0, 0)  # what the caller gets next
        self._next_pass = 0
        self._resume: dict[int, int] = {}  # epoch -> position, of a state that was loaded
        self._active_pass: object = None
        self._num_batches = 0
        self._num_samples = 0
        self._wait_s = 0.0
        self._closer = weakref.finalize(self, line.close)

    @property
    def num_samples(self) -> int:
        """Samples per epoch that this rank gets, padding not counted."""
        return cut.samples_of_rank(self._layout, self._opened.num_positions, 0)

    @property
    def classes(self) -> list[str]:
        """Names of the classes by label; empty for a data set without labels."""
        return list(self._line.classes)

    @property
    def content(self) -> str:
        """Digest of everything that decides a sample's pixels and their order."""
        return self._opened.content

    @property
    def dataset(self) -> str:
        """The data set's name at the daemon."""
        return self._opened.dataset

    @property
    def arena(self) -> memoryview:
        """All slots as one mapped piece of memory, to register with a device; empty once closed.

        Who keeps it keeps the mapping, also after `close`.
        """
        return self._line.arena

    def is_ready(self) -> bool:
        """Say whether the next batch, or the epoch's end, is here already; never waits."""
        return self._line.is_ready()

    def __len__(self) -> int:
        """Batches per epoch."""
        return cut.batches_left(self._layout, self._opened.num_positions)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, in order; asked again, it yields the same again.

        The batches of the epoch after it are already being made while this one ends. A new
        pass ends an unfinished one.

        Raises:
            BatchesHeld: the caller holds every slot of the stream.
            ConnectError: the daemon ended, or nothing came within `timeout_s`.
            SampleFailed, ProducersUnhealthy: as their names say.
        """
        if epoch < 0:
            raise OptionError(f"epoch: expected 0 or more, got {epoch}")
        return self._pass(epoch)

    def _pass(self, epoch: int) -> Iterator[Batch]:
        token = self._active_pass = object()
        position = self._resume.pop(epoch, 0)
        self._yielded = (epoch, position)
        if self._cursor != (epoch, position):
            self._line.seek(epoch, position)
        while True:
            if self._active_pass is not token:
                raise StreamClosed(
                    f"this pass over epoch {epoch} ended when a newer one began: "
                    "connect a second stream to read two at once"
                )
            self._cursor = None  # where the daemon stands if this raises, nobody knows
            outcome = self._next_outcome(position)
            if isinstance(outcome, PassEnded):
                self._cursor = self._yielded = (epoch + 1, 0)
                return
            position = outcome.batch.position + cut.global_batch(self._layout)
            self._cursor = self._yielded = (epoch, position)
            yield self._batch(outcome.batch)

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], Labels]]:
        """Yield (images, labels) of the next epoch: the first pass is epoch 0."""
        epoch = self._next_pass
        self._next_pass += 1
        for batch in self.epoch(epoch):
            pair = batch.images, batch.labels
            del batch  # only the arrays hold the slot
            yield pair

    def _next_outcome(self, position: int) -> Deliver | PassEnded:
        if cut.batches_left(self._layout, self._opened.num_positions, position):
            self._check_held()  # the end of an epoch needs no slot
        before = time.perf_counter()
        outcome = self._line.next()
        self._wait_s += time.perf_counter() - before
        return outcome

    def _check_held(self) -> None:
        reader = self._line.reader
        if reader.num_held < reader.num_slots:
            return
        gc.collect()  # a batch in a reference cycle holds its slot for nothing
        self._line.release_pending()
        if reader.num_held == reader.num_slots:
            raise BatchesHeld(
                f"all {reader.num_slots} batches that this stream can hand out are still held, so "
                "no other can come: copy what you keep (batch.images.copy()), call "
                f"batch.release(), or connect with prefetch > {reader.spec.prefetch}"
            )

    def _batch(self, ready: msg.BatchReady) -> Batch:
        root = np.frombuffer(self._line.slots[ready.slot], np.uint8)
        # Every array is a view of `root`, so it lives exactly as long as the last of them.
        finalizer = weakref.finalize(root, self._line.release, ready.slot, ready.generation)
        finalizer.atexit = False
        arrays = {spec.name: _rows_of(root, spec, ready.rows) for spec in self._opened.arrays}
        self._num_batches += 1
        self._num_samples += ready.rows
        return Batch(arrays, ready, finalizer)

    def stats(self) -> dict[str, float]:
        """Return what was delivered so far, and the seconds spent waiting for it."""
        return {
            "batches": self._num_batches,
            "samples": self._num_samples,
            "wait_s": self._wait_s,
        }

    def state_dict(self, after: tuple[int, int] | None = None) -> dict[str, Any]:
        """Return where the stream stands, as JSON data: a few integers and what they count.

        It counts batches that were handed out, the one in hand included. `after`, (epoch,
        position) of a batch, gives the state after that one instead.
        """
        epoch, position = self._yielded
        if after is not None:
            epoch, position = after[0], after[1] + cut.global_batch(self._layout)
        if not cut.batches_left(self._layout, self._opened.num_positions, position):
            epoch, position = epoch + 1, 0
        fields = dict(self._opened.content_fields)
        return {"version": 1, "epoch": epoch, "position": position, "content": fields}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken: the next pass over its epoch yields the rest of it.

        Batch size, rank and world may differ from the run that saved it: the global sequence
        of samples stays.

        Raises:
            SpecMismatch: the content differs; the message names each field and both values.
            OptionError: this is no state of a stream.
        """
        epoch, position, fields = _read_state(state)
        here = dict(self._opened.content_fields)
        if differing := sorted(n for n in fields.keys() | here if fields.get(n) != here.get(n)):
            named = "; ".join(
                f"{name}: {fields.get(name, 'absent')} when saved, {here.get(name, 'absent')} here"
                for name in differing
            )
            raise SpecMismatch(
                f"the saved state is of another stream: {named}. Connect as the run that saved it "
                "did, or start a new run."
            )
        self._active_pass = None
        self._resume = {epoch: position}
        self._yielded = (epoch, position)
        self._next_pass = epoch

    def close(self) -> None:
        """End the stream; batches that are held stay readable."""
        self._closer()

    def __enter__(self) -> Stream:
        """Return the stream itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def _read_state(state: Mapping[str, Any]) -> tuple[int, int, dict[str, str]]:
    try:
        saved = (state["version"], state["epoch"], state["position"])
        fields = dict(state["content"])
    except (KeyError, TypeError, ValueError):
        raise OptionError(f"state: expected what state_dict() returned, got {state!r}") from None
    if saved[0] != 1 or not all(isinstance(number, int) and number >= 0 for number in saved):
        raise OptionError(f"state: expected version 1 with epoch and position, got {saved}")
    return saved[1], saved[2], fields


def _rows_of(root: NDArray[np.uint8], spec: msg.ArraySpec, rows: int) -> Array:
    dtype = np.dtype(spec.dtype)
    shape = (rows, *spec.shape[1:])
    count = dtype.itemsize
    for length in shape:
        count *= length
    return root[spec.offset : spec.offset + count].view(dtype).reshape(shape)
