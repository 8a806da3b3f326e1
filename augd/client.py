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
import warnings
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from augd.broker.reader import Attach, Deliver, Outcome, PassEnded, Reader
from augd.errors import BatchesHeld, ConnectError, OptionError, SpecMismatch, StreamClosed
from augd.plan.recipe import expand, parse_recipe
from augd.transport.address import (
    Address,
    TcpAddress,
    bulk_address,
    no_daemon,
    parse_address,
    require_daemon,
)
from augd.transport.attach import ArenaUnavailable, Lifeline
from augd.transport.slots import FramedSlots, SharedSlots, Slots
from augd.transport.sockets import Dealer, Poller
from augd.version import __version__
from augd.wire import codec, cut
from augd.wire import messages as msg

Array = NDArray[Any]
Labels = NDArray[np.int64] | NDArray[np.float32]

_CLASSES_BYTES_MAX = 48_000  # of the 64 KiB that a request may have


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


class _Line:
    """The connection of one stream: socket, lifeline, and the protocol's state.

    Kept apart from `Stream` because batches that outlive their stream still release through it.
    Making one connects; it raises what the daemon says, or `ConnectError`.
    """

    def __init__(
        self,
        address: Address | TcpAddress,
        spec: msg.Spec,
        transport: Literal["memfd", "frames"],
        timeout_s: float,
    ) -> None:
        require_daemon(address)
        self.address = address
        self.timeout_s = timeout_s
        self.pid = os.getpid()
        self.reader = Reader(spec, secrets.token_hex(8), transport)
        self.classes: list[str] = []
        self.arena = memoryview(b"")
        self.slots: list[memoryview] = []
        self.is_closed = False
        self._mapped_stream = 0
        self._early: list[bytes] | None = None
        self._memory: Slots | None = None
        self._busy = threading.Lock()
        self._released: deque[tuple[int, int]] = deque()
        self._dealer = Dealer(address)
        self._poller = Poller()
        self._poller.register(self._dealer, "dealer")
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Shake hands until OPENED."""
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

    def is_ready(self) -> bool:
        """Look whether a batch or the epoch's end is here; `next` will handle what was read."""
        if self.is_closed or os.getpid() != self.pid:
            return False
        with self._busy:
            self._flush()
            self._early = self._early or self._dealer.receive()
            if self._early is None:
                return False
            first = codec.decode_to_client(self._early[0])
            return isinstance(first, msg.BatchReady | msg.EpochEnd)

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
        frames, self._early = self._early or self._dealer.receive(), None
        while frames is None:
            self._wait(deadline)
            frames = self._dealer.receive()
        message = codec.decode_to_client(frames[0])
        if isinstance(message, msg.Opened) and len(frames) > 1:
            self._on_opened(message, frames[1])
        outcomes = self.reader.handle(message)
        self._perform(outcomes, deadline)
        return outcomes

    def _wait(self, deadline: float) -> None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise ConnectError(self._late())
        if "memory" in self._poller.wait(left_s):
            assert self._memory is not None
            if self._memory.has_ended():
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

    def _perform(self, outcomes: list[Outcome], deadline: float = 0.0) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Attach):
                self._memory = self._attach(outcome)
                self._memory.watch(self._poller, "memory")
                self._perform(self.reader.attached())
            elif isinstance(outcome, Deliver):
                assert self._memory is not None
                self._memory.fetch(outcome.batch, deadline)
            elif isinstance(outcome, msg.Message):
                self._dealer.send(codec.encode(outcome))

    def _attach(self, attach: Attach) -> Slots:
        if self.reader.transport == "memfd":
            lifeline = Lifeline(attach.path, attach.session, attach.token, self.timeout_s)
            return SharedSlots(lifeline)
        bulk = bulk_address(self.address, attach.bulk_port)
        return FramedSlots(bulk, attach.session, attach.token)

    def _on_opened(self, opened: msg.Opened, classes: bytes) -> None:
        if opened.stream == self._mapped_stream or opened.opening != self.reader.opening:
            return
        assert self._memory is not None
        self.classes = codec.decode_names(classes)
        self.arena = whole = self._memory.open(opened)
        step = opened.slot_bytes
        self.slots = [whole[at : at + step] for at in range(0, len(whole), step)]
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
            if self._memory is not None:
                self._memory.close()
            self._dealer.close()
            self.slots = []
            self.arena = memoryview(b"")


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
    split: Literal["train", "val", "test"] | None = None,
    val_fraction: float = 0.1,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    balance: Literal["class"] | None = None,
    bad: Literal["mask", "fail"] = "mask",
    max_bad_fraction: float = 0.01,
    prefetch: int = 4,
    transport: Literal["auto", "memfd", "frames"] = "auto",
    timeout_s: float = 60.0,
) -> Stream:
    """Connect to a daemon and open a stream; production starts at once.

    Args:
        address: `ipc://PATH` or `tcp://HOST:PORT` as the daemon printed it; None finds the
            user's default daemon.
        dataset: a name that the daemon serves; not needed when it serves one.
        recipe: name of a preset, or plain data (see `augd.plan.recipe`).
        batch_size: samples per batch and rank.
        seed: decides order and augmentation, 0 <= seed < 2**63.
        shuffle: False gives the index's order.
        drop_last: leave out the last batch of an epoch when it is not full.
        rank: which rows of the global batch, 0 <= rank < world. With world > 1 the tail is
            padded (id -1, label -100, valid false), so that ranks see equal counts.
        world: number of trainers that share each epoch.
        split: "train", "val" or "test" as the data set's folders or manifest record it; None
            takes all samples. A data set that records no splits has "train" and "val" all the
            same: by a hash of each sample's path, so that a file never changes sides when others
            are added.
        val_fraction: the share that this hash puts into "val", in expectation; 0..1.
        classes: only samples of these classes, whose place in this list is their label. Of a
            multi-label data set: samples for which one of them is above 0, and these columns.
        limit: at most so many of the samples selected so far: the ones with the smallest hash of
            their path, whatever their class.
        balance: "class" draws classes in equal numbers and, within a class, samples at random
            with replacement: an epoch is as long as without, but a sample may come in it several
            times, augmented differently, or not at all.
        bad: what a bad sample does: "mask" gives zeros, label -100 and valid false; "fail"
            raises `SampleFailed`.
        max_bad_fraction: share of an epoch's samples (rounded up) that may be bad.
        prefetch: batches made ahead of the one in hand; each takes a slot of memory.
        transport: "memfd" maps the daemon's memory (same host and user, ipc address); "frames"
            receives the bytes over a socket; "auto" maps where that can be done.
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
        selection=_selection(split, val_fraction, classes, limit, balance),
    )
    _check_options(spec, timeout_s)
    return Stream(_open_line(parse_address(address), spec, transport, timeout_s))


def _open_line(
    address: Address | TcpAddress, spec: msg.Spec, transport: str, timeout_s: float
) -> _Line:
    """Open by shared memory where it may be possible, by frames where it must be."""
    if transport not in ("auto", "memfd", "frames"):
        raise OptionError(f'transport: expected "auto", "memfd" or "frames", got {transport!r}')
    if isinstance(address, TcpAddress):
        if transport == "memfd":
            raise OptionError(
                f'transport: memory cannot be shared through {address}: use "frames" or "auto", '
                "or an ipc:// address on the daemon's host"
            )
        transport = "frames"
    try:
        return _Line(address, spec, "frames" if transport == "frames" else "memfd", timeout_s)
    except ArenaUnavailable as error:
        if transport == "memfd":
            raise
        warnings.warn(
            f"augd: memory cannot be shared with the daemon at {address} ({error}); its batches "
            'come over a socket instead, at a cost. Say transport="frames" to hear no more of it.',
            RuntimeWarning,
            stacklevel=3,
        )
        return _Line(address, spec, "frames", timeout_s)


def _selection(
    split: Any, val_fraction: Any, classes: Any, limit: Any, balance: Any
) -> msg.Selection:
    """Check here what the wire would refuse anyway, with the argument's own name."""
    if split not in (None, "train", "val", "test"):
        raise OptionError(f'split: expected "train", "val", "test" or None, got {split!r}')
    if not isinstance(val_fraction, int | float) or not 0 <= val_fraction <= 1:
        raise OptionError(f"val_fraction: expected 0..1, got {val_fraction!r}")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise OptionError(f"limit: expected a whole number from 1 on or None, got {limit!r}")
    if balance not in (None, "class"):
        raise OptionError(f'balance: expected "class" or None, got {balance!r}')
    names = None if classes is None else _class_names(classes)
    return msg.Selection(split, float(val_fraction), names, limit, balance)


def _class_names(classes: Any) -> tuple[str, ...]:
    names = tuple(classes) if isinstance(classes, Sequence) else ()
    if isinstance(classes, str) or not names or not all(isinstance(n, str) for n in names):
        raise OptionError(f"classes: expected a list of class names or None, got {classes!r}")
    size_bytes = sum(len(name.encode("utf-8", "replace")) + 3 for name in names)
    if size_bytes > _CLASSES_BYTES_MAX:
        raise OptionError(
            f"classes: {len(names)} names take {size_bytes} bytes, more than the "
            f"{_CLASSES_BYTES_MAX} that a request can carry; serve a data set of these classes only"
        )
    return names


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
