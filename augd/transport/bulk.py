"""The daemon's bulk socket: slots to clients that cannot map the arena, in pieces.

A second ROUTER, so that pixels never stand in the way of credit. Pieces are sent from the
slot itself, without a copy: the slot is not given to producers again before its client
released it, or is gone. After a seek a slot may be written while old pieces are still on
their way; those belong to a voided opening, and the client drops them unread.
"""

from __future__ import annotations

import msgspec

from augd.transport.address import Address, TcpAddress, bulk_address
from augd.transport.doors import Doors
from augd.transport.sockets import Curve
from augd.wire.codec import encode
from augd.wire.limits import PIECE_BYTES
from augd.wire.messages import Piece

# Belongs to no session: only sent to learn whether somebody is still there.
_KNOCK = encode(Piece(0, 0, 0, 0, 0))


class BulkSender:
    """Sends slots to the sessions that attached here."""

    def __init__(self, curve: Curve | None = None) -> None:
        """Make the socket, or two with keys; `bind` it for every address of the daemon."""
        self.doors = Doors(curve)
        self.disconnects = [router.watch_disconnects() for router in self.doors.routers]
        self.port = 0
        self._peers: dict[int, bytes] = {}

    def bind(self, address: Address | TcpAddress) -> None:
        """Listen beside a path, or at a free port of a host's address."""
        bound = self.doors.bind(bulk_address(address, 0))
        if isinstance(bound, TcpAddress):
            self.port = bound.port

    def admit(self, session: int, peer: bytes) -> None:
        """Remember where a session's bytes go, once it is known that the peer is its client."""
        self._peers[session] = peer

    def forget(self, session: int) -> None:
        """Send nothing more to a session."""
        self._peers.pop(session, None)

    def send(self, first: Piece, slot: memoryview) -> bool:
        """Queue a slot in pieces; `first` names whose it is. Say False when he is gone."""
        peer = self._peers.get(first.session)
        if peer is None:
            return False
        for offset in range(0, len(slot), PIECE_BYTES):
            part = slot[offset : offset + PIECE_BYTES]
            piece = msgspec.structs.replace(first, offset=offset, size_bytes=len(part))
            if not self.doors.send(peer, [encode(piece), part]):
                return False
        return True

    def unreachable(self) -> list[int]:
        """List the sessions whose connection ended."""
        return [session for session, peer in self._peers.items() if not self._knock(peer)]

    def _knock(self, peer: bytes) -> bool:
        return self.doors.can_reach(peer, [_KNOCK, b""])

    def close(self) -> None:
        """Close the socket."""
        for watched in self.disconnects:
            watched.close()
        self.doors.close()
