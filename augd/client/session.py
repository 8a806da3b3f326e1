"""The client's half of the protocol, as a pure state machine.

Messages, attachments and releases go in; messages to send and batches to deliver come out.
`augd/client/connection.py` carries them over a socket, the protocol tests and the simulation over
lists. No I/O, no clock, no NumPy.

Theory of operation. A client sends HELLO, attaches its lifeline, then sends OPEN. Every OPEN has a
new `opening` number. What arrives under an older one is void and dropped: the daemon has taken
those slots back, except the ones named in `held`. Within an opening, batches must arrive in
sequence, and epochs with the counts and digests that EPOCH_END names; anything else raises. Credit
is absolute: released + slots.

A client on a shared stream never seeks. It leaves, and keeps what it holds until that is released;
a second session goes on elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct, structs

from augd.errors import (
    ConnectionLost,
    OptionError,
    ProtocolError,
    ReceiptMismatch,
    error_from_code,
)
from augd.protocol import epoch_layout
from augd.protocol import messages as msg
from augd.protocol.digest_sums import Sums, read_sum
from augd.protocol.quarantine import as_entries, united
from augd.protocol.slot_layout import check_layout


class Attach(Struct, frozen=True):
    """Attach the session with its token: at the UNIX socket `path`, or by the bulk socket."""

    path: str
    session: int
    token: str
    bulk_port: int = 0


class Deliver(Struct, frozen=True):
    """The next batch of the pass, in order."""

    batch: msg.BatchMessage


class PassEnded(Struct, frozen=True):
    """All batches of the epoch were delivered and both sides count the same."""

    end: msg.EpochEnd


class SessionDetached(Struct, frozen=True):
    """The daemon sends nothing more on this session: the client opens another one, alone."""

    text: str


Outcome = msg.Message | Attach | Deliver | PassEnded | SessionDetached


class BatchesLost(ConnectionLost):
    """A message never arrived: reconnect at the cursor."""


@dataclass(slots=True)
class DeliveredCount(Sums):
    """What was delivered of the current epoch, to be compared with EPOCH_END."""

    epoch: int = -1


@dataclass(slots=True)
class ClientSession:
    """State of one client stream: `spec` is what it asks for, `share` with whom it shares."""

    spec: msg.Spec
    nonce: str
    transport: Literal["memfd", "frames"] = "memfd"
    share: msg.Share | None = None
    is_split_open: bool = False  # no split was chosen: train, if the dataset records splits
    state: str = "new"  # new -> greeting -> attaching -> opening -> open -> leaving -> closed
    session: int = 0
    opening: int = 0
    opened: msg.Opened | None = None
    quarantine: dict[int, tuple[int, int]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    splits: dict[str, int] = field(
        default_factory=dict
    )  # as recorded, if train was chosen by default
    waited_us: int = 0  # time spent waiting for batches, since the last OPEN
    transfer_us: int = 0  # time spent moving batches to a device, since the last OPEN
    fetch_us: int = 0  # the part of waited_us with a finished batch on its way
    _target: tuple[int, int] = (0, 0)
    _sequence: int = 0
    _released: int = 0
    _held: dict[int, int] = field(default_factory=dict)  # slot -> generation
    _voided: set[int] = field(default_factory=set)  # held slots of an older opening
    _counted: DeliveredCount = field(default_factory=DeliveredCount)

    def start(self, software: str) -> list[Outcome]:
        """Send HELLO."""
        self.state = "greeting"
        return [msg.Hello(self.nonce, software, self.transport, self.spec.dataset)]

    def attached(self) -> list[Outcome]:
        """Send OPEN for the target, now that the lifeline is attached."""
        assert self.state == "attaching", self.state
        return self._open()

    def seek(self, epoch: int, position: int) -> list[Outcome]:
        """Go to (epoch, position): a new OPEN, or the first one's target when not yet open."""
        assert self.share is None or self.state in ("new", "greeting", "attaching"), "it is shared"
        self._target = (epoch, position)
        return self._open() if self.state in ("opening", "open") else []

    def _open(self) -> list[Outcome]:
        self.state = "opening"
        self.opening += 1
        self._sequence = self._released = 0
        self.waited_us = self.transfer_us = self.fetch_us = 0
        self._voided = set(self._held)
        self._counted = DeliveredCount()
        epoch, position = self._target
        held = tuple(self._held.items())
        return [
            msg.Open(
                session=self.session,
                opening=self.opening,
                spec=self.spec,
                epoch=epoch,
                position=position,
                credit=self.num_slots,
                held=held,
                quarantine=as_entries(self.quarantine),
                share=self.share,
            )
        ]

    @property
    def num_slots(self) -> int:
        """Slots that it may have at a time: the batch in hand and `prefetch` ahead of it.

        With `max_lag`, so many that a sharer can get that far ahead: it has released max_lag + 1
        more batches, and holds another one.
        """
        if self.share is not None and self.share.max_lag is not None:
            return self.share.max_lag + 2
        return self.spec.prefetch + 1

    @property
    def num_held(self) -> int:
        """Batches that the caller still holds."""
        return len(self._held)

    def handle(self, message: msg.ToClient) -> list[Outcome]:
        """Handle one message; raises what an ERROR says, or `ProtocolError`."""
        match message:
            case msg.Welcome() if self.state == "greeting" and message.nonce == self.nonce:
                self.state = "attaching"
                self.session = message.session
                if self.is_split_open and message.splits:
                    self.splits = message.splits
                    self.spec = _train_of(self.spec, message.splits)
                return [Attach(message.attach, message.session, message.token, message.bulk_port)]
            case msg.Opened() if self._is_current(message):
                return self._opened(message)
            case msg.BatchMessage() if self._is_current(message):
                return self._batch(message)
            case msg.EpochEnd() if self._is_current(message):
                return self._end(message)
            case msg.Error():
                return self._error(message)
            case msg.QuarantinedMessage() if message.session == self.session:
                self.quarantine = united(as_entries(self.quarantine), message.entries)
                self.notices.append(message.text)
            case msg.Detached() if message.session == self.session:
                self.notices.append(message.text)
                return [SessionDetached(message.text)]
            case msg.Notice():
                self.notices.append(message.text)
        return []

    def _is_current(self, message: msg.Opened | msg.BatchMessage | msg.EpochEnd) -> bool:
        return message.session == self.session and message.opening == self.opening

    def _opened(self, message: msg.Opened) -> list[Outcome]:
        for arrays in (message.arrays, *(phase.arrays for phase in message.phases)):
            check_layout(arrays, message.slot_bytes)
        self.state = "open"
        self.opened = message
        self.quarantine = united(as_entries(self.quarantine), message.quarantine)
        return []

    def _batch(self, batch: msg.BatchMessage) -> list[Outcome]:
        opened = self.opened
        if self.state != "open" or opened is None:
            raise BatchesLost(f"BATCH {batch.sequence} arrived before OPENED, which was lost")
        if batch.sequence < self._sequence:
            return []  # sent twice: it was delivered before
        if batch.sequence > self._sequence:
            raise BatchesLost(
                f"BATCH {batch.sequence} of epoch {batch.epoch} arrived, expected "
                f"{self._sequence}: batches were lost on the way"
            )
        if self._counted.batches and batch.epoch != self._counted.epoch:
            raise BatchesLost(
                f"BATCH {batch.sequence} of epoch {batch.epoch} arrived before the EPOCH_END of "
                f"{self._counted.epoch}, which was lost on the way"
            )
        if batch.slot >= opened.num_slots or batch.rows > self.spec.layout.batch_size:
            raise ProtocolError(f"BATCH names slot {batch.slot} with {batch.rows} rows")
        if batch.slot in self._held:
            raise ProtocolError(f"BATCH names slot {batch.slot}, which is still held")
        self._sequence += 1
        self._held[batch.slot] = batch.generation
        self._counted.epoch = batch.epoch
        samples = epoch_layout.real_rows(self.spec.layout, opened.num_positions, batch.position)
        self._counted.add(Sums(1, samples, batch.num_bad, read_sum(batch.digest)))
        return [Deliver(batch)]

    def _end(self, end: msg.EpochEnd) -> list[Outcome]:
        counted = self._counted
        if end.epoch < counted.epoch or (end.epoch == counted.epoch and not counted.batches):
            return []  # sent twice: it was delivered before
        self._counted = DeliveredCount(epoch=end.epoch)
        if (end.batches, end.samples) != (counted.batches, counted.samples):
            raise ProtocolError(
                f"epoch {end.epoch} ended after {counted.batches} batches with "
                f"{counted.samples} samples here, the daemon sent {end.batches} with {end.samples}"
            )
        if read_sum(end.digest) != counted.digest:
            raise ReceiptMismatch(
                f"epoch {end.epoch}: the digests of its {counted.batches} batches add up to "
                f"{counted.digest:032x} here, and to {end.digest[::-1].hex()} at the daemon"
            )
        return [PassEnded(end)]

    def _error(self, error: msg.Error) -> list[Outcome]:
        if error.session not in (0, self.session) or error.opening not in (0, self.opening):
            return []
        raise error_from_code(error.code, error.text)

    def release(self, slot: int, generation: int) -> list[Outcome]:
        """Give a slot back; a second call for the same does nothing."""
        if self._held.get(slot) != generation:
            return []
        del self._held[slot]
        release = msg.Release(self.session, slot, generation)
        if slot in self._voided:
            self._voided.discard(slot)
            return [release]
        if self.state == "leaving":
            return [release]
        self._released += 1
        credit = self._released + self.num_slots
        spent = self.waited_us, self.transfer_us, self.fetch_us
        return [release, msg.Flow(self.session, self.opening, credit, *spent)]

    def leave(self) -> list[Outcome]:
        """Send BYE and keep what is held: slots of a shared stream are not overwritten."""
        if self.state not in ("opening", "open"):
            return []
        self.state = "leaving"
        return [msg.Bye(self.session, tuple(self._held.items()))]

    def close(self) -> list[Outcome]:
        """Send BYE, once."""
        was_known = self.state not in ("new", "greeting", "closed")
        self.state = "closed"
        return [msg.Bye(self.session)] if was_known else []


def _train_of(spec: msg.Spec, splits: dict[str, int]) -> msg.Spec:
    """Choose the training split, so that validation data is never trained on by default."""
    if "train" not in splits:
        found = " and ".join(f"{name!r} ({count} samples)" for name, count in splits.items())
        raise OptionError(
            f"split: the dataset records {found} and no 'train', which is the default. "
            f'Pass split="{next(iter(splits))}", or split="all" for everything.'
        )
    return structs.replace(spec, selection=structs.replace(spec.selection, split="train"))
