"""The daemon's rows socket: what producers of other hosts say, and the pixels that they made.

A third ROUTER, apart from the clients' two, because its frames may be large: with keys it is
for those alone that may produce. One connection is one producer; what it says comes in the order
in which it was said, so that the rows of a lease are there when its DONE is. Rows go from ZeroMQ
straight to where they belong; nothing else here is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from augd.transport.address import rows_address
from augd.transport.doors import Annex, Doors
from augd.transport.sockets import Curve, Router
from augd.wire import messages as msg
from augd.wire.codec import encode
from augd.wire.limits import PIECE_BYTES

# Of each producer, while the daemon is busy; the others wait in their sender. A message is a chunk
# of about 5 MB.
_UNREAD_MAX = 2
# CURVE wraps each frame: a nonce, a name, a box. Source: RFC 26, "MESSAGE command".
_ENVELOPE_BYTES = 64
# A REVOKE of nothing: only sent to learn whether somebody is still there.
_KNOCK = (encode(msg.Revoke(())),)


class RowsSocket(Annex):
    """Talks to the producers that attached here, each known by the number that it joined as."""

    def __init__(self, curve: Curve | None = None) -> None:
        """Make the socket, or two with keys; `bind` it for every address of the daemon."""
        super().__init__(Doors(curve, _make_router), rows_address, _KNOCK)
        self._numbers: dict[bytes, int] = {}

    def admit(self, number: int, peer: bytes) -> None:
        """Take what this peer says from now on for the producer's."""
        super().admit(number, peer)
        self._numbers[peer] = number

    def number_of(self, peer: bytes) -> int | None:
        """Return whose connection this is, None for somebody who did not attach."""
        return self._numbers.get(peer)

    def forget(self, number: int) -> None:
        """Take what its connection says from now on for a stranger's."""
        peer = self._peers.get(number)
        if peer is not None:
            del self._numbers[peer]
        super().forget(number)

    def receive(self, door: int) -> tuple[bytes, bytes, str | None] | None:
        """Return (peer, header, user) of one message, as `Doors.receive` does; None without one.

        Its rows are still in the socket: take them by `receive_rows`, or drop them by `drop_rows`.
        """
        received = self.doors.routers[door].receive_header()
        if received is None:
            return None
        peer, header, user = received
        return bytes((door,)) + peer, header, (user or "") if door else None

    def receive_rows(self, door: int, places: Sequence[memoryview]) -> bool:
        """Receive the frames that follow a header into these places, each of just its size.

        Says False when there are fewer, more, or others. What was written then is wrong, and
        belongs to a lease that is not done.
        """
        router = self.doors.routers[door]
        are_whole = all(router.receive_into(place) for place in places)
        return router.drop_rest() == 0 and are_whole

    def drop_rows(self, door: int) -> int:
        """Drop the frames that follow a header; returns how many they were."""
        return self.doors.routers[door].drop_rest()

    def send(self, producer: int, message: msg.ToRelay) -> bool:
        """Send to a producer; say False when it is gone or takes nothing more."""
        peer = self._peers.get(producer)
        return peer is not None and self.doors.send(peer, [encode(message)])

    def part_with(self, peer: bytes, why: str) -> None:
        """Tell a stranger that nobody knows it here."""
        self.doors.send(peer, [encode(msg.Part(why))])


def _make_router(curve: Curve | None) -> Router:
    return Router(curve, PIECE_BYTES + _ENVELOPE_BYTES, _UNREAD_MAX)
