"""A trainer: reads a stream as augd/client/stream.py does, and knows what it must get.

`yielded` and `quarantine` are what the client's code knows and reconnects with. `due` is kept
apart, from what was really handed out, and is what the next batch must be. Every batch is compared
row by row with the plan, and again after every step while it is held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from augd.client.session import BatchesLost, Deliver, PassEnded, SessionDetached
from augd.errors import AugdError, ReceiptMismatch
from augd.protocol import epoch_layout
from augd.protocol import messages as msg
from augd.protocol.quarantine import as_entries
from tests.simulation.line import Line
from tests.simulation.rows import (
    DIGEST_MODULUS,
    IDS_MODULUS,
    Place,
    Row,
    Violation,
    batch_at,
    digest,
    following,
    ids_digest,
)
from tests.simulation.worker import Arena


@dataclass(slots=True)
class Held:
    """A batch in the trainer's hands. `arena` is None for bytes of its own."""

    line: Line
    ready: msg.BatchMessage
    rows: list[Row]
    arena: Arena | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`state_dict`, and beside it what the truth was."""

    place: Place
    quarantine: msg.Quarantine
    spec: msg.Spec
    due: Place


class Trainer:
    """One reading program. `connect` is told of every connection that it makes."""

    def __init__(
        self,
        name: str,
        spec: msg.Spec,
        num_samples: int,
        transport: Literal["memfd", "frames"],
        share: msg.Share | None,
        connect: Callable[[Line], None],
        *,
        is_stingy: bool,
        is_slow: bool,
    ) -> None:
        self.name = name
        self.spec = spec
        self.layout = spec.layout
        self.num_samples = num_samples
        self.transport = transport
        self.share = share
        self.connect = connect
        self.is_stingy = is_stingy  # grants one batch at a time
        self.is_slow = is_slow  # holds what it got for long
        self.lines: list[Line] = []  # all that are not done with; the last one is read
        self.num_lines = 0
        self.held: list[Held] = []
        self.yielded: Place = (0, 0)
        self.due: Place | None = None  # None: wherever the shared stream is joined
        self.is_end_due = False
        self.ids = 0
        self.num_delivered = 0
        self.num_lost = 0
        self.num_detached = 0
        self.errors: list[str] = []

    # connections

    def begin(self, place: Place, due: Place | None, quarantine: msg.Quarantine = ()) -> None:
        """Connect for the first time."""
        self.yielded, self.due = place, due
        self.dial(quarantine, self.share)

    def dial(self, quarantine: msg.Quarantine, share: msg.Share | None) -> None:
        """Open another connection where the client stands."""
        self.num_lines += 1
        place = following(self.layout, self.num_samples, self.yielded)
        name = f"{self.name}.{self.num_lines}"
        line = Line(
            name, self.spec, self.transport, place, quarantine, share, is_stingy=self.is_stingy
        )
        self.lines = [one for one in self.lines if not one.is_closed] + [line]
        self.connect(line)
        self.is_end_due = False  # all that was missing was the word that it is the end
        self.ids = 0
        if self.due is not None:
            self.due = following(self.layout, self.num_samples, self.due)

    @property
    def line(self) -> Line:
        """The connection that is read."""
        return self.lines[-1]

    def connect_again(self) -> None:
        """Make the connection again, at the place where the caller stands."""
        self.num_lost += 1
        if self.due is None:
            self.leave_for(self.share)
        else:
            share = self.share
            self.leave_for(share and msg.Share("here", 1, 0.0, share.max_lag))

    def leave_for(self, share: msg.Share | None) -> None:
        """Change to another production; what is held of this one stays as it is."""
        quarantine = as_entries(self.line.reader.quarantine)
        self.line.leave()
        self.dial(quarantine, share)

    def seek(self, place: Place) -> None:
        """Begin a pass at another place."""
        self.yielded = self.due = place
        self.is_end_due = False
        if self.share is not None:
            self.leave_for(msg.Share("here", *msgspec.structs.astuple(self.share)[1:]))
        elif self.line.reader.state in ("opening", "open"):
            self.ids = 0
            self.line.perform(self.line.reader.seek(*place))
        else:
            self.leave_for(None)

    def die(self) -> None:
        """End without a word."""
        self.drop_all()
        for line in self.lines:
            line.is_cut = True
            line.hang_up()

    def close(self) -> None:
        """End as one should."""
        self.drop_all()
        for line in self.lines:
            line.close()

    # batches

    def take(self) -> None:
        """Handle one message, as `Stream._next_ready` does."""
        is_error = isinstance(self.line.down[0], msg.Error)
        try:
            outcome = self.line.take()
        except BatchesLost:
            self.connect_again()
        except AugdError as error:
            if not is_error:
                raise  # the reader itself found a promise broken
            self.fail(error)
        else:
            if isinstance(outcome, Deliver):
                self.receive(outcome.batch)
            elif isinstance(outcome, PassEnded):
                self.end_pass(outcome.end)
            elif isinstance(outcome, SessionDetached):
                self.num_detached += 1
                self.share = None
                self.leave_for(None)

    def fail(self, error: AugdError) -> None:
        """Take what the stream raised; the program tries again where it stood."""
        self.errors.append(error.code)
        if self.line.reader.state == "open" and self.share is None:
            self.seek(following(self.layout, self.num_samples, self.due or self.yielded))
        else:
            self.leave_for(self.share and msg.Share("here", 1, 0.0, self.share.max_lag))

    def receive(self, ready: msg.BatchMessage) -> None:
        """Hand a batch out, and compare it with what must come."""
        line, opened = self.line, self.line.reader.opened
        assert opened is not None
        if self.due is None:
            self.due = self.yielded = opened.epoch, opened.position
        if (ready.epoch, ready.position) != self.due or self.is_end_due:
            raise Violation(f"{self.name}: {ready} came, expected {self.due}")
        rows = list(line.rows_of(ready))
        expected = batch_at(self.layout, self.num_samples, *self.due, line.reader.quarantine)
        if rows != expected:
            raise Violation(f"{self.name}: {ready} holds {rows}, expected {expected}")
        if sum(map(digest, rows)) % DIGEST_MODULUS != int.from_bytes(ready.digest, "little"):
            raise ReceiptMismatch(f"{self.name}: {ready} is not what its producers made")
        arena = line.arena if line.reader.transport == "memfd" else None
        self.held.append(Held(line, ready, rows, arena))
        if arena is not None:
            arena.num_reading[ready.slot] += 1
        self.ids = (self.ids + sum(map(ids_digest, rows))) % IDS_MODULUS
        self.num_delivered += 1
        after = ready.position + epoch_layout.global_batch(self.layout)
        self.yielded = self.due = ready.epoch, after
        self.is_end_due = epoch_layout.batches_left(self.layout, self.num_samples, after) == 0

    def end_pass(self, end: msg.EpochEnd) -> None:
        """Compare the receipts of both sides at the end of an epoch."""
        if not self.is_end_due or end.epoch != self.yielded[0]:
            raise Violation(f"{self.name}: {end} came at {self.yielded}")
        if self.ids != int.from_bytes(end.ids_digest, "little"):
            raise ReceiptMismatch(f"{self.name}: {end}, counted ids {self.ids:x}")
        self.ids = 0
        self.is_end_due = False
        self.yielded = self.due = end.epoch + 1, 0

    def check_held(self) -> None:
        """What is held must not change, whatever happens elsewhere."""
        for one in self.held:
            if one.arena is not None:
                found = one.arena.slots[one.ready.slot][: one.ready.rows]
                if found != one.rows:
                    raise Violation(f"{self.name}: {one.ready} changed in its hands: {found}")

    def release(self, place: int) -> None:
        """Give a batch back."""
        one = self.held.pop(place)
        if one.arena is not None:
            one.arena.num_reading[one.ready.slot] -= 1
        one.line.release(one.ready.slot, one.ready.generation)

    def drop_all(self) -> None:
        """Hold nothing any more, and say so to nobody."""
        for one in self.held:
            if one.arena is not None:
                one.arena.num_reading[one.ready.slot] -= 1
        self.held.clear()

    # states

    def checkpoint(self) -> Checkpoint | None:
        """Return the state; None while it is not known where a shared stream begins."""
        if self.due is None:
            return None
        place = following(self.layout, self.num_samples, self.state_place())
        due = following(self.layout, self.num_samples, self.due)
        return Checkpoint(place, as_entries(self.line.reader.quarantine), self.spec, due)

    def state_place(self) -> Place:
        """Where a state says that it stands: after what was yielded."""
        return self.yielded

    def load(self, state: Checkpoint) -> None:
        """Go back to a state in the same program."""
        reader = self.line.reader
        reader.quarantine = merged(reader.quarantine, state.quarantine)
        self.seek(following(self.layout, self.num_samples, state.place))
        self.due = following(self.layout, self.num_samples, state.due)


def merged(known: dict[int, Place], entries: msg.Quarantine) -> dict[int, Place]:
    """Unite what a reader knows with what a state names."""
    found = dict(known)
    for sample, epoch, position in entries:
        found[sample] = min(found.get(sample, (epoch, position)), (epoch, position))
    return found
