"""One connection of a trainer: a real reader, and the ways between it and the daemon.

There are three: control messages, the lifeline, and the bytes of batches for those that get
them over a socket. Each keeps its own order and none keeps one with the others. When the
connection breaks, all that is on the way is gone, in both directions.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Literal

import msgspec

from augd.client.session import Attach, ClientSession, Deliver, Outcome, PassEnded, SessionDetached
from augd.protocol import messages as msg
from augd.protocol.quarantine import united
from tests.simulation.rows import Place, Row, Violation
from tests.simulation.worker import Arena

HANGUP = object()  # on the lifeline: the client closed it, or is dead


class Line:
    """A connection. `up`, `lifeline`, `down` and `bulk` are what is on the way."""

    def __init__(
        self,
        name: str,
        spec: msg.Spec,
        transport: Literal["memfd", "frames"],
        place: Place,
        quarantine: msg.Quarantine,
        share: msg.Share | None,
        *,
        is_stingy: bool = False,
    ) -> None:
        self.peer = name.encode()
        self.reader = ClientSession(spec, name, transport, share)
        self.reader.quarantine = united(quarantine)
        self.reader.seek(*place)
        self.slack = self.reader.num_slots - 1 if is_stingy else 0  # credit that it keeps back
        self.up: deque[msg.FromClient] = deque()
        self.lifeline: deque[Any] = deque()
        self.down: deque[msg.ToClient] = deque()
        self.bulk: deque[tuple[tuple[int, int], list[Row]]] = deque()  # (opening, sequence)
        self.arenas: dict[int, Arena] = {}  # by stream, as they came over the lifeline
        self.is_attached = False  # the daemon knows its lifeline
        self.has_ended = False  # its client can see that the connection is over
        self.is_cut = False  # nothing goes through any more
        self.is_lossy = False  # something was lost on it: its client will find that nothing comes
        self.is_leaving = False
        self.is_closed = False
        self.perform(self.reader.start("simulation"))

    def perform(self, outcomes: list[Outcome]) -> None:
        """Send what the reader wants sent."""
        for outcome in outcomes:
            if isinstance(outcome, Attach):
                self.lifeline.append(outcome)
                self.perform(self.reader.attached())
            elif isinstance(outcome, msg.Open | msg.Flow):
                credit = outcome.credit - self.slack
                self.send(self.up, msgspec.structs.replace(outcome, credit=credit))
            elif isinstance(outcome, msg.Message):
                self.send(self.up, outcome)

    def send(self, way: deque[Any], message: Any) -> None:
        """Put a message on a way; over a cut one it is lost."""
        if not self.is_cut:
            way.append(message)

    def take(self) -> Deliver | PassEnded | SessionDetached | None:
        """Handle the next message from the daemon."""
        message = self.down.popleft()
        if isinstance(message, msg.Opened):
            self.check_memory(message)
        for outcome in (outcomes := self.reader.handle(message)):
            if isinstance(outcome, Deliver | PassEnded | SessionDetached):
                return outcome
        self.perform(outcomes)
        return None

    def check_memory(self, opened: msg.Opened) -> None:
        """The memory must be here before anything in it is announced."""
        if self.reader.transport == "memfd" and opened.stream not in self.arenas:
            raise Violation(f"{opened} came before its arena")

    def can_take(self) -> bool:
        """Whether a message is here, and the bytes that it may need."""
        if self.is_closed or self.is_leaving or not self.down:
            return False
        message = self.down[0]
        if self.reader.transport == "memfd" or not isinstance(message, msg.BatchMessage):
            return True
        reader, name = self.reader, (message.opening, message.sequence)
        if name < (reader.opening, reader._sequence):
            return True  # it will be dropped, and its bytes with it
        while self.bulk and self.bulk[0][0] < name:
            self.bulk.popleft()
        return bool(self.bulk)

    def rows_of(self, ready: msg.BatchMessage) -> list[Row]:
        """Return the rows of a delivered batch: of the slot itself, or of the bytes sent."""
        if self.reader.transport == "frames":
            name, rows = self.bulk.popleft()
            assert name == (ready.opening, ready.sequence), (name, ready)
            return rows[: ready.rows]
        return self.arena.slots[ready.slot][: ready.rows]

    @property
    def arena(self) -> Arena:
        """The memory of the stream that is open."""
        assert self.reader.opened is not None
        return self.arenas[self.reader.opened.stream]

    def release(self, slot: int, generation: int) -> None:
        """Give a slot back; a line that was left closes after the last one."""
        if self.is_closed:
            return
        self.perform(self.reader.release(slot, generation))
        if self.is_leaving and not self.reader.num_held:
            self.close()

    def leave(self) -> None:
        """Read on no more; of a shared stream, stay until what is held was released."""
        if self.reader.share is None or self.is_closed:
            self.close()
            return
        self.perform(self.reader.leave())
        self.is_leaving = True
        if not self.reader.num_held:
            self.close()

    def close(self) -> None:
        """Say BYE and hang up."""
        if not self.is_closed:
            self.is_closed = True
            self.perform(self.reader.close())
            self.hang_up()

    def hang_up(self) -> None:
        """End the lifeline: the daemon is told by the kernel, sooner or later."""
        self.is_closed = True
        self.lifeline.append(HANGUP)

    def lose_everything(self) -> None:
        """Lose all control messages and bytes that are on the way."""
        self.up.clear()
        self.down.clear()
        self.bulk.clear()
