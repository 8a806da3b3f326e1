"""Reads the epochs of a stream: passes in order, receipts, and the state to resume from.

Runs in the training process, behind `augd/client/stream.py`, whose methods say what users get.

Theory of operation. Three places, each (epoch, position), tell where a stream stands. The *cursor*
is what the daemon sends next; None when that is not known. `yielded` is what the caller gets next.
`resume` is where the next pass over its epoch begins, with the sums counted up to there. The first
batch of a pass uses it up. A pass whose place is not the cursor seeks first.

Invariant: no batch is handed out twice or left out in a pass.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from augd.client.batch import Batch, open_batch
from augd.client.mix_images import RowMixer
from augd.client.receipts import EpochDigest, Receipts
from augd.client.session import Deliver, SessionDetached
from augd.client.state_format import read_state, write_state
from augd.client.stream_connection import Place, StreamConnection
from augd.errors import ConnectionLost, ReceiptMismatch, SpecMismatch, StreamClosed
from augd.plan.content import Content, differences
from augd.plan.recipe.mix import Mix
from augd.plan.recipe.phases import plain_at
from augd.protocol import epoch_layout
from augd.protocol import messages as msg
from augd.protocol.digest_sums import IDS_MODULUS, read_sum
from augd.protocol.quarantine import as_entries, united
from augd.protocol.row_digest import ids_digest
from augd.protocol.slot_layout import arrays_at

_log = logging.getLogger("augd")


class EpochReader:
    """The passes of one stream, one at a time.

    Attributes:
        yielded: the place of what the caller gets next.
        next_pass: the epoch after the last one that was begun.
        receipts: of every epoch that was begun.
        num_batches, num_samples: what was handed out.
        wait_s: seconds that the caller waited for it.
    """

    def __init__(
        self, connection: StreamConnection, *, is_verified: bool, is_mixed: bool = True
    ) -> None:
        """Stand where the stream was opened.

        With `is_verified`, recompute every digest; with `is_mixed`, images are mixed where the
        recipe says so.
        """
        self._connection = connection
        self._is_verified = is_verified
        self._is_mixed = is_mixed
        self._mixers: dict[int, RowMixer | None] = {}  # by the epoch from which they mix
        self._layout = connection.spec.layout
        self._ids_digest = 0  # of what came since the connection or the epoch began
        opened = connection.opened
        begin = opened.epoch, opened.position  # not 0 where a shared stream is joined
        self._cursor: Place | None = begin  # what the daemon sends next
        self.yielded = begin  # what the caller gets next
        self.next_pass = begin[0]
        # Where the next pass over this place's epoch begins, and what was counted before it.
        self._resume: tuple[Place, EpochDigest] | None = (
            begin,
            EpochDigest(is_whole=begin[1] == 0),
        )
        self.receipts = Receipts()
        self._active_pass: object = None
        self.num_batches = 0
        self.num_samples = 0
        self.wait_s = 0.0

    @property
    def _num_positions(self) -> int:
        """Positions of an epoch, over all ranks, padding not counted."""
        return self._connection.opened.num_positions

    def batches_left(self, position: int) -> int:
        """Count the batches of an epoch from a position on."""
        return epoch_layout.batches_left(self._layout, self._num_positions, position)

    def batches_of(self, epoch: int) -> int:
        """Count the batches of the next pass over an epoch."""
        place, _ = self._resume or ((epoch, 0), None)
        position = place[1] if place[0] == epoch else 0
        return self.batches_left(position)

    def batches(self, epoch: int) -> Generator[Batch, None, None]:
        """Yield the batches of one pass; a newer pass ends it."""
        token = self._active_pass = object()
        if self._resume is None or self._resume[0][0] != epoch:
            self._resume = (epoch, 0), EpochDigest()
        (_, position), so_far = self._resume
        self.next_pass = epoch
        self.yielded = (epoch, position)
        self.receipts.begin(epoch, replace(so_far))
        if position and not self.batches_left(position):
            self.yielded = (epoch + 1, 0)  # loaded with a layout that drops the rest
            self._resume, self.next_pass = None, epoch + 1
            return
        if self._cursor != (epoch, position):
            self._seek((epoch, position))
        while True:
            if self._active_pass is not token:
                raise StreamClosed(
                    f"this pass over epoch {epoch} ended when a newer one began: "
                    "connect a second stream to read two at once"
                )
            self._cursor = None  # if this raises, the daemon's place is unknown
            ready = self._next_ready(position)
            # An error until here leaves the place as it is, so that a retry begins there.
            self._resume, self.next_pass = None, epoch + 1
            if ready is None:
                self._cursor = self.yielded = (epoch + 1, 0)
                self.receipts.end(epoch)
                return
            batch = self._open(ready)
            position = ready.position + epoch_layout.global_batch(self._layout)
            self._cursor = self.yielded = (epoch, position)
            yield batch
            del batch  # while the next one is awaited, only the caller holds it

    def _next_ready(self, position: int) -> msg.BatchMessage | None:
        """Wait for the next batch; None at the end of the epoch."""
        self._connection.current.check_usable()
        is_end_due = not self.batches_left(position)
        if not is_end_due:
            self._connection.current.check_slots()  # the end of an epoch needs no slot
        before = time.perf_counter()
        try:
            while True:
                try:
                    outcome = self._connection.current.next()
                except ConnectionLost as lost:
                    self._after(self._connection.reconnect(lost, self.yielded))
                    if is_end_due:
                        return None  # only the EPOCH_END was missing
                    continue
                if isinstance(outcome, Deliver):
                    return outcome.batch
                if not isinstance(outcome, SessionDetached):
                    self._compare_ids(outcome.end)
                    return None
                self._after(self._connection.detach(self.yielded))
                if is_end_due:
                    return None
        finally:
            self.wait_s += time.perf_counter() - before

    def _seek(self, place: Place) -> None:
        """Have the next batch come from another place."""
        self._ids_digest = 0
        self._after(self._connection.seek(place))

    def _after(self, have_files_changed: bool) -> None:
        """Count anew after a seek or a new connection."""
        self._ids_digest = 0
        if have_files_changed:
            self.receipts.note_change(self.yielded[0])

    def _compare_ids(self, end: msg.EpochEnd) -> None:
        here, self._ids_digest = self._ids_digest, 0
        if here != read_sum(end.ids_digest):
            raise ReceiptMismatch(
                f"epoch {end.epoch}: the samples that came have the digest {here:016x}, the "
                f"producers made {end.ids_digest[::-1].hex()}"
            )

    def _open(self, ready: msg.BatchMessage) -> Batch:
        connection = self._connection
        arrays = arrays_at(connection.opened.arrays, connection.opened.phases, ready.epoch)
        batch = open_batch(connection.current, arrays, ready, is_verified=self._is_verified)
        self._count(ready, batch.ids)
        mixer = self._mixer_at(ready.epoch, arrays)
        if mixer is not None:
            mixer.mix(batch, epoch_layout.first_position(self._layout, ready.position))
        return batch

    def _mixer_at(self, epoch: int, arrays: Sequence[msg.ArraySpec]) -> RowMixer | None:
        """Return what mixes the rows of an epoch, whose slots have these arrays."""
        recipe = plain_at(self._connection.spec.recipe, epoch)
        begins = recipe.get("from_epoch", 0)
        if begins not in self._mixers:
            self._mixers[begins] = _mixer_of(self._connection, recipe, arrays, self._is_mixed)
        return self._mixers[begins]

    def _count(self, ready: msg.BatchMessage, ids: NDArray[np.int64]) -> None:
        layout = self._layout
        self.num_batches += 1
        self.num_samples += ready.rows
        digest = ids_digest(epoch_layout.first_position(layout, ready.position), ids)
        self._ids_digest = (self._ids_digest + digest) % IDS_MODULUS
        real = epoch_layout.real_rows(layout, self._num_positions, ready.position)
        self.receipts.add(ready, real, digest, ready.position + epoch_layout.global_batch(layout))

    def state_dict(self, after: Place | None) -> dict[str, Any]:
        """Return where the stream stands, or stood after a batch, as JSON data."""
        epoch, position = self.yielded
        if after is not None:
            epoch, position = after[0], after[1] + epoch_layout.global_batch(self._layout)
        so_far = self._counted_to(epoch, position)
        if not self.batches_left(position):
            epoch, position, so_far = epoch + 1, 0, None
        opened, session = self._connection.opened, self._connection.current.session
        return write_state(
            (epoch, position), self._layout, opened, as_entries(session.quarantine), so_far
        )

    def _counted_to(self, epoch: int, position: int) -> EpochDigest | None:
        """Return the sums of an epoch's batches up to a place, as far as they are known."""
        if position and self._resume is not None and self._resume[0] == (epoch, position):
            return self._resume[1]
        return self.receipts.at((epoch, position))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken.

        Raises:
            SpecMismatch: the content differs.
            OptionError: this is no state of a stream.
        """
        loaded = read_state(state)
        epoch, position = loaded.epoch, loaded.position
        stamp = str(state.get("stamp", ""))
        self._check_content(Content(loaded.content), stamp)
        so_far = loaded.sums_here(self._layout)
        if (changed := self._connection.changed_since(stamp)) is not None:
            self._connection.note_change(changed)
            so_far.files_changed = so_far.files_changed or bool(position)
        if position:
            self.receipts.keep((epoch, position), so_far)
        session = self._connection.current.session
        session.quarantine = united(as_entries(session.quarantine), loaded.quarantine)
        self._active_pass = None
        self._cursor = None  # batches made ahead may lack the state's quarantine
        self._resume = (epoch, position), so_far
        self.yielded = (epoch, position)
        self.next_pass = epoch

    def _check_content(self, saved: Content, stamp: str) -> None:
        """Refuse a state of other content; open all splits where only that choice differs."""
        connection = self._connection
        here = Content(connection.opened.content_fields)
        if saved != here and connection.is_split_open and saved == _of_all_splits(here):
            self._take_all_splits()
            here = Content(connection.opened.content_fields)
        if saved == here:
            return
        named = "; ".join(differences(saved, here, "{name}: {a} when saved, {b} here"))
        changed = connection.changed_since(stamp)
        named += f" ({changed})" if changed and "dataset:" in named else ""
        raise SpecMismatch(
            f"the saved state is of another stream: {named}. Connect as the run that saved it "
            "did, or start a new run."
        )

    def _take_all_splits(self) -> None:
        """Open again with all samples: the state was saved without a choice of split."""
        self._after(self._connection.take_all_splits())
        _log.warning(
            "dataset %r: the loaded state covers all its splits, so all splits are read; pass "
            'split="all" to connect',
            self._connection.opened.dataset,
        )


def _mixer_of(
    connection: StreamConnection,
    recipe: Mapping[str, Any],
    arrays: Sequence[msg.ArraySpec],
    is_applied: bool,
) -> RowMixer | None:
    spec = connection.spec
    if "mix" not in recipe:
        return None
    mix = msgspec.convert(recipe["mix"], Mix)
    shapes = {array.name: array.shape for array in arrays}
    height, width = shapes["images"][-3:-1]
    targets = shapes["labels"][1:]
    num_classes = targets[0] if targets else len(connection.current.classes)
    return RowMixer(mix, spec.seed, (height, width), num_classes, is_applied=is_applied)


def _of_all_splits(here: Content) -> Content:
    """Return the content that this would be if no split had been chosen."""
    prefix = "policy.selection."
    others = {f"{prefix}{name}" for name in ("classes", "limit", "balance")}
    dropped = (f"{prefix}split",) if others & here.fields.keys() else (prefix,)
    return Content({k: v for k, v in here.fields.items() if not k.startswith(dropped)})
