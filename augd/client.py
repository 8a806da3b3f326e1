"""The NumPy client: `augd.connect` and the stream of batches that it returns.

Receives descriptors over ZeroMQ and hands out views into the slots of the mapped arena; it
copies no pixel, starts no thread, and touches the socket only inside calls of its own and
when a batch is given back. What the protocol means is `augd.broker.reader`'s business.

A slot goes back to the daemon when the last view of it is gone, whichever thread or
garbage collection drops it: the release is queued, and sent at once if nobody else is
using the socket, else with the next call.
"""

from __future__ import annotations

import gc
import os
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from augd.broker.reader import Attach, Deliver, Outcome, PassEnded, Reader
from augd.errors import BatchesHeld, ConnectError, OptionError, ProtocolError, StreamClosed
from augd.plan.recipe import expand, parse_recipe
from augd.transport.address import Address, no_daemon, parse_address, require_daemon
from augd.transport.arena import map_arena
from augd.transport.attach import Lifeline
from augd.transport.sockets import Dealer, Poller
from augd.version import __version__
from augd.wire import codec, cut
from augd.wire import messages as msg

Array = NDArray[Any]


class Batch:
    """One batch: views into a slot of shared memory, valid until released.

    Attributes:
        images: uint8 (B, H, W, 3), RGB.
        labels: int64 (B,); -1 in a data set without classes, -100 where `valid` is false.
        ids: int64 (B,): positions in the data set's index; -1 for padding.
        valid: bool (B,): false for bad samples (zeros) and for padding.
        epoch, number: which batch it is.

    The slot is given back when the batch and every view of its arrays are gone, or by
    `release()`, after which the arrays must not be read. Copy what must live longer.
    """

    __slots__ = ("__weakref__", "_finalizer", "epoch", "ids", "images", "labels", "number", "valid")

    def __init__(
        self,
        arrays: Mapping[str, Array],
        ready: msg.BatchReady,
        finalizer: weakref.finalize[..., Any],
    ) -> None:
        """Made by `Stream`."""
        self.images: NDArray[np.uint8] = arrays["images"]
        self.labels: NDArray[np.int64] = arrays["labels"]
        self.ids: NDArray[np.int64] = arrays["ids"]
        self.valid: NDArray[np.bool_] = arrays["valid"]
        self.epoch = ready.epoch
        self.number = ready.number
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


class _Line:
    """The connection of one stream: socket, lifeline, and the protocol's state.

    Kept apart from `Stream` because batches that outlive their stream still release through it.
    """

    def __init__(self, address: Address, spec: msg.Spec, timeout_s: float) -> None:
        require_daemon(address)
        self.address = address
        self.timeout_s = timeout_s
        self.pid = os.getpid()
        self.reader = Reader(spec, secrets.token_hex(8))
        self.classes: list[str] = []
        self.slots: list[memoryview] = []
        self.is_closed = False
        self._mapped_stream = 0
        self._lifeline: Lifeline | None = None
        self._busy = threading.Lock()
        self._released: deque[tuple[int, int]] = deque()
        self._dealer = Dealer(address)
        self._poller = Poller()
        self._poller.register(self._dealer, "dealer")

    def open(self) -> None:
        """Shake hands until OPENED. Raises what the daemon says, or `ConnectError`."""
        deadline = time.monotonic() + self.timeout_s
        with self._busy:
            self._perform(self.reader.start(f"augd {__version__}"))
            while self.reader.state != "open":
                self._step(deadline)

    def seek(self, epoch: int, position: int) -> None:
        """Open again at another place."""
        self._check_usable()
        deadline = time.monotonic() + self.timeout_s
        with self._busy:
            self._perform(self.reader.seek(epoch, position))
            while self.reader.state != "open":
                self._step(deadline)

    def next(self) -> Deliver | PassEnded:
        """Wait for the next batch, or the end of the epoch."""
        self._check_usable()
        deadline = time.monotonic() + self.timeout_s
        with self._busy:
            self._flush()
            while True:
                for outcome in self._step(deadline):
                    if isinstance(outcome, Deliver | PassEnded):
                        return outcome

    def _check_usable(self) -> None:
        if self.is_closed:
            raise StreamClosed("the stream was closed; connect again")
        if os.getpid() != self.pid:
            raise ConnectError(
                f"this stream was connected in process {self.pid} and is used in process "
                f"{os.getpid()}: sockets do not cross a fork; connect in the process that reads"
            )

    def _step(self, deadline: float) -> list[Outcome]:
        """Handle one message; wait for it if need be."""
        frames = self._dealer.receive()
        while frames is None:
            self._wait(deadline)
            frames = self._dealer.receive()
        message = codec.decode_to_client(frames[0])
        if isinstance(message, msg.Opened) and len(frames) > 1:
            self._on_opened(message, frames[1])
        outcomes = self.reader.handle(message)
        self._perform(outcomes)
        return outcomes

    def _wait(self, deadline: float) -> None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise ConnectError(self._late())
        if "lifeline" in self._poller.wait(left_s):
            assert self._lifeline is not None
            if not self._lifeline.is_alive():
                raise ConnectError(
                    f"the daemon at {self.address} ended; start it again and connect. "
                    "Batches that you hold stay readable."
                )
            # An arena waits there for its OPENED: only the socket is of interest now.
            self._poller.wait_for(self._dealer, left_s)

    def _late(self) -> str:
        if self.reader.state == "greeting":
            return f"{no_daemon(self.address)} (nobody answered for {self.timeout_s:g} s)"
        return (
            f"nothing came from the daemon at {self.address} for {self.timeout_s:g} s in state "
            f"{self.reader.state!r}: it may be overloaded or its storage slow; see its output, "
            "or connect with a larger timeout_s"
        )

    def _perform(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Attach):
                self._lifeline = Lifeline(
                    outcome.path, outcome.session, outcome.token, self.timeout_s
                )
                self._poller.register(self._lifeline.fileno(), "lifeline")
                self._perform(self.reader.attached())
            elif isinstance(outcome, msg.Message):
                self._dealer.send(codec.encode(outcome))

    def _on_opened(self, opened: msg.Opened, classes: bytes) -> None:
        if opened.stream == self._mapped_stream or opened.opening != self.reader.opening:
            return
        assert self._lifeline is not None
        self.classes = codec.decode_names(classes)
        fd, size_bytes = self._lifeline.receive_arena(opened.stream)
        try:
            if size_bytes != opened.slot_bytes * opened.num_slots:
                raise ProtocolError(f"arena of {size_bytes} bytes for {opened.num_slots} slots")
            whole = memoryview(map_arena(fd, size_bytes))
        finally:
            os.close(fd)
        step = opened.slot_bytes
        self.slots = [whole[at : at + step] for at in range(0, size_bytes, step)]
        self._mapped_stream = opened.stream

    def release(self, slot: int, generation: int) -> None:
        """Give a slot back; safe in any thread, in finalizers and after `close`."""
        self._released.append((slot, generation))
        if self.is_closed or os.getpid() != self.pid:
            return
        if self._busy.acquire(blocking=False):
            try:
                self._flush()
            finally:
                self._busy.release()

    def release_pending(self) -> None:
        """Send what finalizers queued while the socket was in use."""
        with self._busy:
            self._flush()

    def _flush(self) -> None:
        while self._released:
            slot, generation = self._released.popleft()
            self._perform(self.reader.release(slot, generation))

    def close(self) -> None:
        """Say BYE and let go; the arena stays mapped while batches are held."""
        if self.is_closed:
            return
        self.is_closed = True
        if os.getpid() != self.pid:
            return
        with self._busy:
            self._perform(self.reader.close())
            if self._lifeline is not None:
                self._poller.unregister(self._lifeline.fileno())
                self._lifeline.close()
            self._dealer.close()
            self.slots = []


class Stream:
    """A stream of batches. Iterate `epoch(n)` for batches, or the stream itself for pairs.

    For one thread at a time. `close()` it, or use it in `with`; a stream that is dropped
    closes itself, and so does the process's end, however it ends.
    """

    def __init__(self, line: _Line) -> None:
        """Made by `connect`."""
        self._line = line
        opened = line.reader.opened
        assert opened is not None
        self._opened = opened
        self._layout = line.reader.spec.layout
        self._cursor = (0, 0)
        self._next_pass = 0
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
        if self._cursor != (epoch, 0):
            self._line.seek(epoch, 0)
            self._cursor = (epoch, 0)
        while True:
            if self._active_pass is not token:
                raise StreamClosed(
                    f"this pass over epoch {epoch} ended when a newer one began: "
                    "connect a second stream to read two at once"
                )
            outcome = self._next_outcome()
            if isinstance(outcome, PassEnded):
                self._cursor = (epoch + 1, 0)
                return
            self._cursor = (epoch, outcome.batch.position + cut.global_batch(self._layout))
            yield self._batch(outcome.batch)

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Yield (images, labels) of the next epoch: the first pass is epoch 0."""
        epoch = self._next_pass
        self._next_pass += 1
        for batch in self.epoch(epoch):
            pair = batch.images, batch.labels
            del batch  # only the arrays hold the slot
            yield pair

    def _next_outcome(self) -> Deliver | PassEnded:
        self._check_held()
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

    def close(self) -> None:
        """End the stream; batches that are held stay readable."""
        self._closer()

    def __enter__(self) -> Stream:
        """Return the stream itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def _rows_of(root: NDArray[np.uint8], spec: msg.ArraySpec, rows: int) -> Array:
    dtype = np.dtype(spec.dtype)
    shape = (rows, *spec.shape[1:])
    count = dtype.itemsize
    for length in shape:
        count *= length
    return root[spec.offset : spec.offset + count].view(dtype).reshape(shape)


def connect(
    address: str | None = None,
    *,
    dataset: str | None = None,
    recipe: str | Mapping[str, Any] = "imagenet",
    batch_size: int = 256,
    seed: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
    rank: int = 0,
    world: int = 1,
    bad: Literal["mask", "fail"] = "mask",
    max_bad_fraction: float = 0.01,
    prefetch: int = 4,
    timeout_s: float = 60.0,
) -> Stream:
    """Connect to a daemon and open a stream; production starts at once.

    Args:
        address: `ipc://PATH` as the daemon printed it; None finds the user's default daemon.
        dataset: a name that the daemon serves; not needed when it serves one.
        recipe: name of a preset, or plain data (see `augd.plan.recipe`).
        batch_size: samples per batch and rank.
        seed: decides order and augmentation, 0 <= seed < 2**63.
        shuffle: False gives the index's order.
        drop_last: leave out the last batch of an epoch when it is not full.
        rank: which rows of the global batch, 0 <= rank < world. With world > 1 the tail is
            padded (id -1, label -100, valid false), so that ranks see equal counts.
        world: number of trainers that share each epoch.
        bad: what a bad sample does: "mask" gives zeros, label -100 and valid false; "fail"
            raises `SampleFailed`.
        max_bad_fraction: share of an epoch's samples (rounded up) that may be bad.
        prefetch: batches made ahead of the one in hand; each takes a slot of memory.
        timeout_s: the longest wait for anything, the first batch included.

    Raises:
        ConnectError: no daemon answers.
        OptionError, RecipeError, DatasetError, OverLimit: the daemon or this side refuses.
    """
    spec = msg.Spec(
        dataset=dataset,
        recipe=expand(parse_recipe(recipe)),
        layout=msg.Layout(batch_size, rank, world, drop_last),
        seed=seed,
        shuffle=shuffle,
        bad=bad,
        max_bad_fraction=max_bad_fraction,
        prefetch=prefetch,
    )
    _check_options(spec, timeout_s)
    line = _Line(parse_address(address), spec, timeout_s)
    try:
        line.open()
    except BaseException:
        line.close()
        raise
    return Stream(line)


def _check_options(spec: msg.Spec, timeout_s: float) -> None:
    """Check here what the wire would refuse anyway, with the argument's own name."""
    layout = spec.layout
    bounds: tuple[tuple[str, Any, float, float], ...] = (
        ("batch_size", layout.batch_size, 1, 2**24),
        ("world", layout.world, 1, 2**20),
        ("rank", layout.rank, 0, layout.world - 1),
        ("seed", spec.seed, 0, 2**63 - 1),
        ("prefetch", spec.prefetch, 1, 1024),
    )
    for name, value, low, high in bounds:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise OptionError(f"{name}: expected a whole number in {low}..{high}, got {value!r}")
    if spec.bad not in ("mask", "fail"):
        raise OptionError(f'bad: expected "mask" or "fail", got {spec.bad!r}')
    if not 0 <= spec.max_bad_fraction <= 1:
        raise OptionError(f"max_bad_fraction: expected 0..1, got {spec.max_bad_fraction!r}")
    if not timeout_s > 0:
        raise OptionError(f"timeout_s: expected a positive number of seconds, got {timeout_s!r}")
