"""The memory of a client's slots: the daemon's arena, or memory of its own that frames fill.

Runs in the training process, below `augd/client/connection.py`. Both kinds have the same methods.
`open` returns the memory of a stream's slots, `fetch` waits until a batch's bytes are in its slot,
and `has_ended` says whether the daemon is gone.

Invariant: no method waits beyond the deadline that it is given.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import Protocol

from augd.errors import ConnectError, ConnectionLost, ProtocolError
from augd.process.awake_clock import Awake
from augd.protocol import messages as msg
from augd.protocol.codec import decode_over_attach, encode
from augd.protocol.limits import PIECE_BYTES
from augd.transport.address import Address, TcpAddress
from augd.transport.arena import map_arena
from augd.transport.lifeline import ArenaUnavailable, Lifeline
from augd.transport.zmq_sockets import Curve, Dealer, Poller


class Slots(Protocol):
    """The memory of a client's slots."""

    def watch(self, poller: Poller, tag: str) -> None:
        """Have the poller return `tag` when `has_ended` may have changed."""

    def has_ended(self) -> bool:
        """Say whether the daemon is gone; never blocks."""

    def open(self, opened: msg.Opened) -> memoryview:
        """Return the memory of a new stream's slots."""

    def fetch(self, batch: msg.BatchMessage, deadline: float) -> None:
        """Return when the batch's bytes are in its slot."""

    def close(self) -> None:
        """Close the link to the daemon; the memory stays mapped while it is used."""


@dataclass(slots=True)
class SharedSlots:
    """The daemon's arena, mapped: a batch is complete when its BATCH arrives."""

    lifeline: Lifeline
    _poller: Poller | None = None

    def watch(self, poller: Poller, tag: str) -> None:
        self._poller = poller
        poller.register(self.lifeline.fileno(), tag)

    def has_ended(self) -> bool:
        """Say whether the daemon closed its end."""
        return not self.lifeline.is_alive()

    def open(self, opened: msg.Opened) -> memoryview:
        """Map the arena that the daemon pushed over the lifeline before OPENED.

        Raises:
            ArenaUnavailable: none came, or it cannot be mapped here.
        """
        fd, size_bytes = self.lifeline.receive_arena(opened.stream)
        try:
            if size_bytes != opened.slot_bytes * opened.num_slots:
                raise ProtocolError(f"arena of {size_bytes} bytes for {opened.num_slots} slots")
            return memoryview(map_arena(fd, size_bytes, is_read_only=opened.is_shared))
        except OSError as error:
            raise ArenaUnavailable(f"the arena cannot be mapped: {error.strerror}") from None
        finally:
            os.close(fd)

    def fetch(self, batch: msg.BatchMessage, deadline: float) -> None:
        """Do nothing: producers wrote the bytes into the shared memory."""

    def close(self) -> None:
        """End the session."""
        if self._poller is not None:
            self._poller.unregister(self.lifeline.fileno())
        self.lifeline.close()


class FramedSlots:
    """Memory of this process, filled from PIECE frames of the bulk socket."""

    def __init__(
        self,
        address: Address | TcpAddress,
        session: int,
        token: str,
        curve: Curve | None = None,
        clock: Awake | None = None,
    ) -> None:
        """Connect to the daemon's bulk socket and attach the session there.

        `clock` measures the deadlines given to `fetch`.
        """
        self._dealer = Dealer(address, curve)
        self._disconnects = self._dealer.watch_disconnects()
        self._poller = Poller(clock)
        self._poller.register(self._dealer, "bulk")
        self._poller.register(self._disconnects, "ended")
        self._address = address
        self._slots: list[memoryview] = []
        self._scrap = memoryview(bytearray(0))
        self._dealer.send(encode(msg.AttachMessage(session, token)))

    def watch(self, poller: Poller, tag: str) -> None:
        """Watch for the end of the bulk connection."""
        poller.register(self._disconnects, tag)

    def has_ended(self) -> bool:
        """Say whether the bulk connection ever ended: ZeroMQ reconnects, but a session can't."""
        return self._disconnects.has_told()

    def open(self, opened: msg.Opened) -> memoryview:
        """Allocate the slots; pages become present when they are first filled."""
        size_bytes = opened.slot_bytes
        whole = memoryview(mmap.mmap(-1, size_bytes * opened.num_slots))
        self._slots = [whole[at : at + size_bytes] for at in range(0, len(whole), size_bytes)]
        return whole

    def fetch(self, batch: msg.BatchMessage, deadline: float) -> None:
        """Receive the batch's pieces into its slot; older ones of a voided opening are dropped.

        Raises:
            ConnectError: the connection ended, or a piece didn't come in time.
            ProtocolError: a piece isn't the one that must come next.
        """
        slot, filled = self._slots[batch.slot], 0
        while filled < len(slot):
            piece = self._next_piece(deadline)
            if (piece.opening, piece.sequence) < (batch.opening, batch.sequence):
                self._receive(piece, self._scrap_of(piece.size_bytes))
                continue
            expected = (batch.opening, batch.sequence, filled)
            found = (piece.opening, piece.sequence, piece.offset)
            if found != expected or not piece.size_bytes:
                raise ProtocolError(
                    f"PIECE out of order: expected bytes at (opening, sequence, offset) "
                    f"{expected}, got {piece.size_bytes} at {found}"
                )
            self._receive(piece, slot[filled : filled + piece.size_bytes])
            filled += piece.size_bytes

    def _next_piece(self, deadline: float) -> msg.Piece:
        is_last = False
        while (header := self._dealer.receive_header()) is None:
            if is_last:
                raise ConnectionLost(f"the daemon at {self._address} ended while it sent a batch")
            left_s = deadline - self._poller.clock.now()
            if left_s <= 0:
                raise ConnectError(
                    f"a batch's pixels did not come from {self._address} in time: the network may "
                    "be slow or the daemon overloaded; connect with a larger timeout_s"
                )
            # Receive once more, for what arrived before the end.
            is_last = "ended" in self._poller.wait(left_s) and self.has_ended()
        piece = decode_over_attach(header)
        if not isinstance(piece, msg.Piece) or piece.size_bytes > PIECE_BYTES:
            raise ProtocolError(f"expected a PIECE of at most {PIECE_BYTES} bytes, got {piece}")
        return piece

    def _receive(self, piece: msg.Piece, target: memoryview) -> None:
        size = self._dealer.receive_into(target)
        if not size == piece.size_bytes == len(target):
            raise ProtocolError(
                f"PIECE of {size} bytes, its header says {piece.size_bytes} and {len(target)} fit"
            )

    def _scrap_of(self, size_bytes: int) -> memoryview:
        if len(self._scrap) < size_bytes:
            self._scrap = memoryview(bytearray(PIECE_BYTES))
        return self._scrap[:size_bytes]

    def close(self) -> None:
        """Close the bulk connection."""
        self._disconnects.close()
        self._dealer.close()
        self._slots = []
