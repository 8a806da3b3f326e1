"""A stream of batches as NumPy arrays: views into the slots that its connection maps.

Copies no pixel. What a batch is and when its slot goes back is said in `Batch`; the socket and
the protocol are the business of `augd/client/connection.py`.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import operator
import os
import random
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from augd.client import argument_checks
from augd.client.connection import Connection, Start
from augd.client.epoch_pass import EpochPass
from augd.client.receipts import EpochDigest, Receipts
from augd.client.saved_state import EPOCH_MAX, read_state
from augd.client.session import Deliver, Parted
from augd.client.wait_notice import Waiting, sentence
from augd.errors import (
    BatchesHeld,
    ConnectError,
    ConnectionLost,
    OptionError,
    ReceiptMismatch,
    SpecMismatch,
    StreamClosed,
    counted,
)
from augd.plan.content import Content, differences
from augd.plan.params_layout import PARAMS
from augd.process.awake_clock import Awake
from augd.protocol import epoch_layout
from augd.protocol import messages as msg
from augd.protocol.digest_sums import IDS_MODULUS, read_sum
from augd.protocol.quarantine import as_entries, united
from augd.protocol.row_digest import ids_digest, rows_digest

_log = logging.getLogger("augd")

Array = NDArray[Any]
Labels = NDArray[np.int64] | NDArray[np.float32]
Place = tuple[int, int]  # (epoch, position)
# Opens a connection within so many seconds of a clock; asks what it calls meanwhile when to call it
# again.
Dial = Callable[[msg.Spec, Start, float, Callable[[], float], Awake], Connection]

_PAUSE_S = 0.05  # before a lost connection is first tried again
# A daemon that died is there again within a second: until then trying costs little, later it would
# be many trainers knocking for nothing.
_SOON_S = 3.0
_PAUSE_SOON_S = 0.1
_PAUSE_MAX_S = 2.0


class Batch:
    """One batch: views into a slot of shared memory, valid until released.

    Attributes:
        images: uint8 (B, H, W, 3), RGB; with V > 1 views (B, V, H, W, 3).
        labels: int64 (B,); -1 for samples without a class, -100 where `valid` is false. Of a
            multi-label data set float32 (B, K).
        ids: int64 (B,): positions in the data set's index; -1 for padding.
        valid: bool (B,): false for bad samples (zeros) and for padding.
        epoch, number: which batch it is.
        position: where the global batch begins in the epoch, counted in samples.
        colour: float32 (B, 3, 4) where the recipe leaves colours to the device: what (R, G, B, 1)
            is multiplied by, in grey levels; else None. With views (B, V, 3, 4).
        params: with `params=True`, what was drawn for each row, by name
            (`augd.plan.params_layout`): float64 (B, ...), with views (B, V, ...); else None.
        digest: of its rows, 32 hexadecimal digits; `augd replay` makes them again and compares.

    The slot is given back when the batch and every view of its arrays are gone, or by
    `release()`, after which the arrays must not be read. Copy what must live longer.
    """

    __slots__ = (
        "__weakref__",
        "_finalizer",
        "colour",
        "digest",
        "epoch",
        "ids",
        "images",
        "labels",
        "number",
        "params",
        "position",
        "valid",
    )

    def __init__(
        self,
        arrays: Mapping[str, Array],
        ready: msg.BatchMessage,
        finalizer: weakref.finalize[..., Any],
    ) -> None:
        """Made by `Stream`."""
        self.images: NDArray[np.uint8] = arrays["images"]
        self.labels: Labels = arrays["labels"]
        self.ids: NDArray[np.int64] = arrays["ids"]
        self.valid: NDArray[np.bool_] = arrays["valid"]
        self.colour: NDArray[np.float32] | None = arrays.get("colour")
        self.params = _named(arrays["params"]) if "params" in arrays else None
        self.epoch = ready.epoch
        self.number = ready.number
        self.position = ready.position
        self.digest = ready.digest[::-1].hex()
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

    def __init__(
        self, line: Connection, dial: Dial, timeout_s: float, *, is_verified: bool
    ) -> None:
        """Made by `connect`; `dial` connects again."""
        self._dial = dial
        self._clock = Awake()  # that of its connections, one after another
        self._timeout_s = timeout_s
        self._is_verified = is_verified
        self._layout = line.reader.spec.layout
        self._share = line.reader.share
        self._spec = line.reader.spec  # as it was settled: the same at each connection
        self._was_split_open = line.reader.is_split_open
        self._closer: weakref.finalize[..., Any] | None = None
        self._adopt(line)
        begin = self._opened.epoch, self._opened.position  # not 0 where a shared stream is joined
        self._cursor: tuple[int, int] | None = begin  # what the daemon sends next
        self._yielded = begin  # what the caller gets next
        self._next_pass = begin[0]
        # Where the next pass over this place's epoch begins, and what was counted before it.
        self._resume: tuple[Place, EpochDigest] | None = (
            begin,
            EpochDigest(is_whole=begin[1] == 0),
        )
        self._receipts = Receipts()
        self._notices: list[str] = []
        self._num_lost = 0
        self._num_detached = 0
        self._active_pass: object = None
        self._num_batches = 0
        self._num_samples = 0
        self._wait_s = 0.0

    def _adopt(self, line: Connection) -> None:
        """Go on with this connection."""
        assert line.reader.opened is not None
        if self._closer is not None:
            self._closer.detach()
            line.fetch_s = self._line.fetch_s  # counted over all connections
        was = self._opened.stamp if self._closer is not None else ""
        self._line: Connection = line
        self._opened: msg.Opened = line.reader.opened
        if (changed := self._changed_since(was)) is not None:
            self._note_change(changed)
            self._receipts.note_change(self._yielded[0])
        self._ids_digest = 0  # of what came since the connection or the epoch began
        self._closer = weakref.finalize(self, line.leave)

    @property
    def num_samples(self) -> int:
        """Samples per epoch that this rank gets, padding not counted."""
        return epoch_layout.samples_of_rank(self._layout, self._opened.num_positions, 0)

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
    def num_unlabelled(self) -> int:
        """Samples of an epoch, over all ranks, that have no class: their label is -1."""
        return self._opened.num_unlabelled

    @property
    def num_targets(self) -> int:
        """Numbers per sample in `labels`, which are targets then; 0 where a label is a class."""
        labels = next(array for array in self._opened.arrays if array.name == "labels")
        return labels.shape[1] if len(labels.shape) > 1 else 0

    @property
    def has_colour(self) -> bool:
        """Whether colours are left to the device: batches then carry their matrices."""
        return any(array.name == "colour" for array in self._opened.arrays)

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
        return epoch_layout.batches_left(self._layout, self._opened.num_positions)

    def batches_of(self, epoch: int) -> int:
        """Count the batches of the next pass over an epoch: the rest, where a state was loaded."""
        place, _ = self._resume or ((epoch, 0), None)
        position = place[1] if place[0] == epoch else 0
        return epoch_layout.batches_left(self._layout, self._opened.num_positions, position)

    def __repr__(self) -> str:
        """Say what it streams, from where, and where it stands."""
        epoch, position = self._yielded
        where = "closed" if self._line.is_closed else f"at {self._line.address}"
        classes = counted(len(self.classes), "class", "classes") if self._line.classes else ""
        samples = counted(self.num_samples, "sample") + (classes and f", {classes}")
        batches = counted(len(self), "batch", "batches")
        return (
            f"<Stream of {self.dataset!r} {where}: {samples}, "
            f"{batches} of {self._layout.batch_size}; epoch {epoch}, position "
            f"{position:,}>"
        )

    def epoch(self, epoch: int) -> EpochPass[Batch]:
        """Yield the batches of one epoch, in order; asked again, it yields the same again.

        `len` of it is how many there are. The first pass after `load_state_dict`, or after a shared
        stream was joined, begins at that place if it is over its epoch. Every other pass begins
        where its epoch does. The batches of the epoch after it are already being made while this
        one ends. A new pass ends an unfinished one. A daemon that goes away is waited for, and the
        pass goes on where it stood.

        Raises:
            BatchesHeld: the caller holds every slot of the stream.
            ConnectError: nothing came within `timeout_s`, or no daemon is back by then.
            SpecMismatch: the daemon that is back serves other content.
            ReceiptMismatch: what came is not what was made.
            SampleFailed, ProducersUnhealthy: as their names say.
        """
        epoch = argument_checks.whole("epoch", epoch, 0, EPOCH_MAX)
        return EpochPass(self._pass(epoch), epoch, self.batches_of(epoch))

    def _pass(self, epoch: int) -> Generator[Batch, None, None]:
        token = self._active_pass = object()
        if self._resume is None or self._resume[0][0] != epoch:
            self._resume = (epoch, 0), EpochDigest()
        (_, position), tally = self._resume
        self._next_pass = epoch
        self._yielded = (epoch, position)
        self._receipts.begin(epoch, replace(tally))
        if position and not epoch_layout.batches_left(
            self._layout, self._opened.num_positions, position
        ):
            self._yielded = (epoch + 1, 0)  # loaded with a layout that drops the rest
            self._resume, self._next_pass = None, epoch + 1
            return
        if self._cursor != (epoch, position):
            self._seek(epoch, position)
        while True:
            if self._active_pass is not token:
                raise StreamClosed(
                    f"this pass over epoch {epoch} ended when a newer one began: "
                    "connect a second stream to read two at once"
                )
            self._cursor = None  # where the daemon stands if this raises, nobody knows
            ready = self._next_ready(position)
            # Until here, whoever tries again begins at the same place.
            self._resume, self._next_pass = None, epoch + 1
            if ready is None:
                self._cursor = self._yielded = (epoch + 1, 0)
                self._receipts.end(epoch)
                return
            batch = self._batch(ready)
            position = ready.position + epoch_layout.global_batch(self._layout)
            self._cursor = self._yielded = (epoch, position)
            yield batch
            del batch  # the caller's alone while the next one is waited for

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], Labels]]:
        """Yield (images, labels) of the epoch after the last one that was begun, at first of 0."""
        return EpochPass(self._pairs(), self._next_pass, self.batches_of(self._next_pass))

    def _pairs(self) -> Generator[tuple[NDArray[np.uint8], Labels], None, None]:
        for batch in self.epoch(self._next_pass):
            pair = batch.images, batch.labels
            del batch  # only the arrays hold the slot
            yield pair

    def _next_ready(self, position: int) -> msg.BatchMessage | None:
        """Wait for the next batch; None at the end of the epoch."""
        self._line.check_usable()
        is_end_due = not epoch_layout.batches_left(
            self._layout, self._opened.num_positions, position
        )
        if not is_end_due:
            self._check_held()  # the end of an epoch needs no slot
        before = time.perf_counter()
        try:
            while True:
                try:
                    outcome = self._line.next()
                except ConnectionLost as lost:
                    self._connect_again(lost)
                    if is_end_due:
                        return None  # all that was missing is the word that it is the end
                    continue
                if isinstance(outcome, Deliver):
                    return outcome.batch
                if not isinstance(outcome, Parted):
                    self._compare_ids(outcome.end)
                    return None
                self._go_on_alone()
                if is_end_due:
                    return None
        finally:
            self._wait_s += time.perf_counter() - before

    def _compare_ids(self, end: msg.EpochEnd) -> None:
        here, self._ids_digest = self._ids_digest, 0
        if here != read_sum(end.ids_digest):
            raise ReceiptMismatch(
                f"epoch {end.epoch}: the samples that came have the digest {here:016x}, the "
                f"producers made {end.ids_digest[::-1].hex()}"
            )

    # connections

    def _seek(self, epoch: int, position: int) -> None:
        """Have the next batch come from another place."""
        self._line.check_usable()
        if self._share is not None:
            share = msg.Share("here", *msgspec.structs.astuple(self._share)[1:])
            self._leave_for((epoch, position), share)
            return
        try:
            self._ids_digest = 0
            self._line.seek(epoch, position)
        except ConnectionLost as lost:
            self._connect_again(lost)

    def _leave_for(self, place: tuple[int, int], share: msg.Share | None) -> None:
        """Change to another production; what is held of this one stays as it is."""
        self._line.leave()
        deadline = self._clock.now() + self._timeout_s
        why = f"a shared stream was left for epoch {place[0]}, position {place[1]}."
        self._adopt(self._dial_until(self._start(place, share), deadline, why))

    def _go_on_alone(self) -> None:
        """Leave sharers that did not wait, at the place that the caller stands at."""
        self._num_detached += 1
        self._share = None
        self._leave_for(self._yielded, None)

    def _start(self, place: tuple[int, int], share: msg.Share | None) -> Start:
        if not epoch_layout.batches_left(self._layout, self._opened.num_positions, place[1]):
            place = place[0] + 1, 0
        return Start(*place, as_entries(self._line.reader.quarantine), share)

    def _connect_again(self, lost: ConnectionLost) -> None:
        """Wait for a daemon to be there again, and go on where the caller stands.

        Raises:
            ConnectError: there is none within `timeout_s`.
            SpecMismatch: it serves other content.
        """
        self._num_lost += 1
        share = self._share
        if share is not None:
            share = msg.Share("here", 1, 0.0, share.max_lag)
        start = self._start(self._yielded, share)
        self._line.leave()  # where its memory is shared and the daemon lives, held batches stay
        line = self._dial_until(start, self._clock.now() + self._timeout_s, str(lost))
        assert line.reader.opened is not None
        was, now = (Content(one.content_fields) for one in (self._opened, line.reader.opened))
        if now != was:
            line.close()
            named = "; ".join(differences(was, now, "{name}: {a} before, {b} now"))
            changes = dict(line.reader.opened.changes)
            if "dataset:" in named and self._opened.stamp in changes:
                named += f" ({changes[self._opened.stamp]})"
            raise SpecMismatch(
                f"the daemon at {line.address} came back with other content: {named}. Start it as "
                "it was, or connect anew."
            )
        self._adopt(line)

    def _changed_since(self, stamp: str) -> str | None:
        """Say which files have other times than under a stamp; None where none, or nobody knows."""
        changes = dict(self._opened.changes)
        if not stamp or stamp == self._opened.stamp or stamp not in changes:
            return None
        return f"files of data set {self.dataset!r} have changed: {changes[stamp]}"

    def _note_change(self, text: str) -> None:
        said = f"{text}. Rows of changed files differ from those before"
        self._notices.append(said)
        _log.warning("%s", said)

    def _dial_until(self, start: Start, deadline: float, why: str) -> Connection:
        chance = random.Random()  # many trainers that lost one daemon must not come all at once
        clock = self._clock
        pause_s, soon = _PAUSE_S, clock.now() + _SOON_S
        why = sentence(why)  # a daemon's last word need not be one
        then = f"the stream goes on at position {start.position} of epoch {start.epoch}"
        waiting = Waiting(why, then, deadline - clock.now(), clock.now)
        while True:
            try:
                within_s = max(deadline - clock.now(), _PAUSE_S)
                line = self._dial(self._spec, start, within_s, waiting.tell, clock)
                waiting.end()
                return line
            except ConnectError as error:
                left_s = deadline - clock.now()
                if left_s <= 0:
                    raise ConnectError(
                        f"{why} No daemon was back within {self._timeout_s:g} s: {error}"
                    ) from error
                pause_s = min(pause_s, waiting.tell())
                clock.sleep(min(left_s, pause_s * chance.uniform(0.5, 1.0)))
                is_soon = clock.now() < soon
                pause_s = min(2 * pause_s, _PAUSE_SOON_S if is_soon else _PAUSE_MAX_S)

    # batches

    def _check_held(self) -> None:
        reader = self._line.reader
        if reader.num_held < reader.num_slots:
            return
        gc.collect()  # a batch in a reference cycle holds its slot for nothing
        self._line.release_pending()
        if reader.num_held == reader.num_slots:
            limit, name = reader.spec.prefetch, "prefetch"
            if reader.share is not None and reader.share.max_lag is not None:
                limit, name = reader.share.max_lag, "max_lag"
            raise BatchesHeld(
                f"all {reader.num_slots} batches that this stream can hand out are still held, so "
                "no other can come: copy what you keep (batch.images.copy()), call "
                f"batch.release(), or connect with {name} > {limit}"
            )

    def _batch(self, ready: msg.BatchMessage) -> Batch:
        root = np.frombuffer(self._line.slots[ready.slot], np.uint8)
        # Every array is a view of `root`, so it lives exactly as long as the last of them.
        finalizer = weakref.finalize(root, self._line.release, ready.slot, ready.generation)
        finalizer.atexit = False
        arrays = {spec.name: _rows_of(root, spec, ready.rows) for spec in self._opened.arrays}
        if self._is_verified:
            _verify(ready, arrays)
        self._count(ready, arrays["ids"])
        return Batch(arrays, ready, finalizer)

    def _count(self, ready: msg.BatchMessage, ids: NDArray[np.int64]) -> None:
        layout = self._layout
        self._num_batches += 1
        self._num_samples += ready.rows
        digest = ids_digest(ready.position + layout.rank * layout.batch_size, ids)
        self._ids_digest = (self._ids_digest + digest) % IDS_MODULUS
        real = epoch_layout.real_rows(layout, self._opened.num_positions, ready.position)
        self._receipts.add(ready, real, digest, ready.position + epoch_layout.global_batch(layout))

    def paths(self, ids: Iterable[int]) -> list[str]:
        """Say where samples lie: their paths below the data set's root, in this order.

        `ids` are those of a batch (`batch.ids`); -1, which is no sample, has no path: "". Names
        that are no UTF-8 are as `os.fsdecode` has them. Asks the daemon, over a connection of its
        own, which other threads may do meanwhile; not for each batch of a training.

        Raises:
            ConnectError: the daemon doesn't answer within `timeout_s`.
            SpecMismatch: it serves another data set by that name now.
            OptionError: an id is none of the data set's.
        """
        self._line.check_usable()
        try:
            wanted = [operator.index(sample) for sample in ids]
        except TypeError:
            raise OptionError(f"ids: expected whole numbers, got {str(ids)[:80]!r}") from None
        known = sorted({sample for sample in wanted if sample >= 0})
        digest = json.loads(self._opened.content_fields["dataset"])
        found = self._line.paths(self.dataset, digest, known) if known else []
        named = dict(zip(known, map(os.fsdecode, found), strict=True))
        return [named.get(sample, "") for sample in wanted]

    def note_transfer(self, seconds: float) -> None:
        """Tell the daemon, with the next batch given back, what handing one to a device took.

        For `augd status` and the page: time in which the caller was held up between two batches,
        and did not work on one. `augd.torch.connect` does it.
        """
        self._line.reader.transfer_us += max(0, round(1e6 * seconds))

    def stats(self) -> dict[str, float]:
        """Return what was delivered so far, and the seconds spent waiting for it.

        fetch_s: of wait_s, for batches that were made and on their way (0 in shared memory).
        lost: connections that ended and were made again. detached: 1 when this stream lagged
        too far behind its sharers and went on alone. quarantined: samples masked for good.
        """
        return {
            "batches": self._num_batches,
            "samples": self._num_samples,
            "wait_s": self._wait_s,
            "fetch_s": self._line.fetch_s,
            "lost": self._num_lost,
            "detached": self._num_detached,
            "quarantined": len(self._line.reader.quarantine),
        }

    @property
    def notices(self) -> list[str]:
        """What there was to say that stops nothing; by the daemon, on this connection.

        Files that were replaced under a stream, or since its state was saved, are named here.
        """
        return [*self._line.reader.notices, *self._notices]

    def receipt(self, epoch: int) -> dict[str, Any]:
        """Return what was handed out of an epoch, as JSON data.

        `batches`, `samples` and `num_bad` are counts, `ids` a digest of which sample stood where,
        `bytes` one of all ids, labels and pixels; `is_complete` says that the epoch was counted
        from its start to its end, resumes included. Digests are sums over rows: they are equal
        for equal content whatever the batch size, and those of all ranks add up, modulo 2**64 and
        2**128, to those of a single trainer. `files_changed` says that the data set's files were
        replaced, under another daemon, between batches of this epoch: they are named in `notices`.

        Raises:
            OptionError: nothing of this epoch was handed out.
        """
        return self._receipts.receipt(epoch)

    def state_dict(self, after: tuple[int, int] | None = None) -> dict[str, Any]:
        """Return where the stream stands, as JSON data: a few integers and what they count.

        It counts batches that were handed out, the one in hand included. `after`, (epoch,
        position) of a batch, gives the state after that one instead.
        """
        epoch, position = self._yielded
        if after is not None:
            epoch, position = after[0], after[1] + epoch_layout.global_batch(self._layout)
        tally = self._tally_at(epoch, position)
        if not epoch_layout.batches_left(self._layout, self._opened.num_positions, position):
            epoch, position, tally = epoch + 1, 0, None
        state = {
            "version": 1,
            "epoch": epoch,
            "position": position,
            "rank": self._layout.rank,
            "world": self._layout.world,
            "content": dict(self._opened.content_fields),
            "stamp": self._opened.stamp,
            "quarantine": [list(entry) for entry in as_entries(self._line.reader.quarantine)],
        }
        return state if tally is None else {**state, "receipt": tally.as_data()}

    def _tally_at(self, epoch: int, position: int) -> EpochDigest | None:
        """Return what an epoch's batches up to a place add up to, as far as that is known."""
        if position and self._resume is not None and self._resume[0] == (epoch, position):
            return self._resume[1]
        return self._receipts.at((epoch, position))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken: the next pass, if over its epoch, yields the rest of it.

        Batch size, rank and world may differ from the run that saved it: the global sequence
        of samples stays. With another rank or world the epoch's receipt is not complete: what this
        rank would have had of the part before is not known.

        Raises:
            SpecMismatch: the content differs; the message names each field and both values.
            OptionError: this is no state of a stream.
        """
        loaded = read_state(state)
        epoch, position = loaded.epoch, loaded.position
        saved, here = Content(loaded.content), Content(self._opened.content_fields)
        if saved != here and self._was_split_open and saved == _of_all_splits(here):
            self._take_all_splits()
            here = Content(self._opened.content_fields)
        if saved != here:
            named = "; ".join(differences(saved, here, "{name}: {a} when saved, {b} here"))
            changed = self._changed_since(str(state.get("stamp", "")))
            named += f" ({changed})" if changed and "dataset:" in named else ""
            raise SpecMismatch(
                f"the saved state is of another stream: {named}. Connect as the run that saved it "
                "did, or start a new run."
            )
        tally = loaded.tally_here(self._layout)
        if (changed := self._changed_since(str(state.get("stamp", "")))) is not None:
            self._note_change(changed)
            tally.files_changed = tally.files_changed or bool(position)
        if position:
            self._receipts.keep((epoch, position), tally)
        reader = self._line.reader
        reader.quarantine = united(as_entries(reader.quarantine), loaded.quarantine)
        self._active_pass = None
        self._cursor = None  # what was made ahead may lack the state's quarantine
        self._resume = (epoch, position), tally
        self._yielded = (epoch, position)
        self._next_pass = epoch

    def _take_all_splits(self) -> None:
        """Open anew with all samples, as a state has them that was saved where nobody chose."""
        selection = msgspec.structs.replace(self._spec.selection, split=None)
        self._spec = msgspec.structs.replace(self._spec, selection=selection)
        self._was_split_open = False
        self._leave_for((0, 0), self._share)
        _log.warning(
            "data set %r: the state that is loaded is of all its splits, so that all are read; say "
            'split="all" at connect',
            self.dataset,
        )

    def close(self) -> None:
        """End the stream; batches that are held stay readable."""
        if self._closer is not None:
            self._closer()

    def __enter__(self) -> Stream:
        """Return the stream itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def _of_all_splits(here: Content) -> Content:
    """Return the content that this would be if no split had been chosen."""
    prefix = "policy.selection."
    others = {f"{prefix}{name}" for name in ("classes", "limit", "balance")}
    dropped = (f"{prefix}split",) if others & here.fields.keys() else (prefix,)
    return Content({k: v for k, v in here.fields.items() if not k.startswith(dropped)})


def _named(params: Array) -> dict[str, Array]:
    """Split the numbers of rows by name; views, like everything else."""
    return {
        name: params[..., first]
        if not shape
        else params[..., first : first + math.prod(shape)].reshape(*params.shape[:-1], *shape)
        for name, first, shape in PARAMS
    }


def _verify(ready: msg.BatchMessage, arrays: Mapping[str, Array]) -> None:
    rows = (arrays["ids"], arrays["labels"], arrays["images"])
    found = rows_digest(*rows, colour=arrays.get("colour"))
    if found != read_sum(ready.digest):
        raise ReceiptMismatch(
            f"batch {ready.number} of epoch {ready.epoch}: the digest of its bytes is {found:032x} "
            f"here, its producers made {ready.digest[::-1].hex()}: memory was overwritten, or the "
            "transport changed it"
        )


def _rows_of(root: NDArray[np.uint8], spec: msg.ArraySpec, rows: int) -> Array:
    dtype = np.dtype(spec.dtype)
    shape = (rows, *spec.shape[1:])
    count = dtype.itemsize
    for length in shape:
        count *= length
    return root[spec.offset : spec.offset + count].view(dtype).reshape(shape)
