"""The daemon's bulk socket: sends slots, in pieces, to clients that cannot map the arena.

A second ROUTER, so that pixels never delay credit. Pieces are sent from the slot itself, without a
copy: producers do not get the slot before its client has released it, or is gone. After a seek a
slot may be written while old pieces are being sent. Those belong to a voided opening, and the
client drops them unread.
"""

from __future__ import annotations

import msgspec

from augd.protocol.codec import encode
from augd.protocol.limits import PIECE_BYTES
from augd.protocol.messages import Piece
from augd.transport.address import bulk_address
from augd.transport.router_pair import RouterPair, SideChannel
from augd.transport.zmq_sockets import Curve

# Belongs to no session: only sent to learn whether a connection stands.
_PROBE = encode(Piece(0, 0, 0, 0, 0)), b""


class BatchChannel(SideChannel):
    """Sends slots to the sessions that attached here."""

    def __init__(self, curve: Curve | None = None) -> None:
        """Make the socket, or two with keys; `bind` it for every address of the daemon."""
        super().__init__(RouterPair(curve), bulk_address, _PROBE)

    def send(self, first: Piece, slot: memoryview) -> bool:
        """Queue a slot in pieces to the session that `first` names; False if its client is gone."""
        peer = self._peers.get(first.session)
        if peer is None:
            return False
        for offset in range(0, len(slot), PIECE_BYTES):
            part = slot[offset : offset + PIECE_BYTES]
            piece = msgspec.structs.replace(first, offset=offset, size_bytes=len(part))
            if not self.router_pair.send(peer, [encode(piece), part]):
                return False
        return True
