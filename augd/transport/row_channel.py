"""The daemon's rows socket: messages of producers on other hosts, and the rows that they made.

A third ROUTER, apart from the clients' two, because its frames may be large. With keys it accepts
only clients that may produce. One connection is one producer. Its messages arrive in order, so the
rows of a lease are there before its DONE. Rows go from ZeroMQ straight into their slots.

Invariant: a peer that sends more than its leases allow is disconnected.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from augd.errors import ProtocolError
from augd.protocol import messages as msg
from augd.protocol.codec import encode
from augd.protocol.limits import PIECE_BYTES
from augd.transport.address import rows_address
from augd.transport.router_pair import RouterPair, SideChannel
from augd.transport.zmq_sockets import Curve, Router

# No high-water mark. At one, libzmq stops reading. If the peer then closes before reading resumes
# (a relay, whose daemon was stopped for longer than its heartbeats) and a heartbeat comes between,
# an assertion ends the process. Source: stream_engine_base.cpp of libzmq 4.3.5, libzmq issue 4364.
# What can be unread is bounded by what a peer may send: an admitted producer the rows of its leases
# and some messages, an unknown peer a few messages. A peer that sends more is disconnected.
_UNREAD_MAX = 0
_STRANGE_MAX = 64  # messages of an unknown peer, each of which is answered with PART
_UNLEASED_MAX = 16  # DONEs in a row that answer no lease, of which a producer has eight at most
_WORDS_MAX = 256  # other messages at once, and so many more per second: ALIVE and BEAT take seconds
_WORDS_PER_S = 8.0
# CURVE wraps each frame: a nonce, a name, a box. Source: RFC 26, "MESSAGE command".
_ENVELOPE_BYTES = 64
_STRANGERS_MAX = 4_096  # unknown peers whose messages are counted
# A REVOKE of nothing: only sent to learn whether a connection stands.
_PROBE = (encode(msg.Revoke(())),)


class RowChannel(SideChannel):
    """Talks to the producers that attached here, each known by its number."""

    def __init__(self, curve: Curve | None = None) -> None:
        """Make the socket, or two with keys; `bind` it for every address of the daemon."""
        super().__init__(RouterPair(curve, _make_router), rows_address, _PROBE)
        self._numbers: dict[bytes, int] = {}
        self._patience: dict[bytes, _Patience] = {}  # of admitted producers
        self._strangers: dict[bytes, _Patience] = {}
        self._ended: set[bytes] = set()  # that were disconnected

    def admit(self, number: int, peer: bytes) -> None:
        """Take the messages of this peer, from now on, as the producer's."""
        super().admit(number, peer)
        self._numbers[peer] = number
        self._patience[peer] = _Patience(_WORDS_MAX, _UNLEASED_MAX)
        self._strangers.pop(peer, None)

    def number_of(self, peer: bytes) -> int | None:
        """Return the number of the producer behind a connection; None if it did not attach."""
        return self._numbers.get(peer)

    def forget(self, number: int) -> None:
        """Take the messages of its connection, from now on, as those of an unknown peer."""
        peer = self._peers.get(number)
        if peer is not None:
            del self._numbers[peer]
            self._patience.pop(peer, None)
        super().forget(number)

    def receive(self, router_index: int) -> tuple[bytes, bytes, str | None] | None:
        """Return (peer, header, user) of one message, as `RouterPair.receive` does; None without
        one.

        Its rows are still in the socket: take them by `receive_rows`, or drop them by `drop_rows`.
        """
        received = self.router_pair.routers[router_index].receive_header()
        if received is None:
            return None
        peer, header, user = received
        return bytes((router_index,)) + peer, header, (user or "") if router_index else None

    def count_message(
        self, router_index: int, peer: bytes, *, is_done: bool = False, is_leased: bool
    ) -> None:
        """Count the message in hand; disconnect a peer that sends more than it may.

        Raises:
            ProtocolError: it sent too much; its connection ends.
        """
        if peer in self._ended:
            raise ProtocolError("it was disconnected before")
        patience = self._patience.get(peer)
        if patience is None:
            if len(self._strangers) >= _STRANGERS_MAX:
                self._strangers.clear()  # most of them have left
                self._ended.clear()
            patience = self._strangers.setdefault(peer, _Patience(_STRANGE_MAX, 0))
            is_done = self.router_pair.routers[
                router_index
            ].has_more()  # rows, from a peer without a lease
        if patience.is_over(is_done=is_done, is_leased=is_leased):
            self._ended.add(peer)  # what it sent before still arrives
            self.router_pair.routers[router_index].hang_up()
            raise ProtocolError("it sends more than its leases allow: disconnected")

    def receive_rows(self, router_index: int, places: Sequence[memoryview]) -> bool:
        """Receive the frames that follow a header into these places, each of just its size.

        False if their number or sizes differ. What was written then is wrong, and belongs to a
        lease that is not done.
        """
        router = self.router_pair.routers[router_index]
        are_whole = all(router.receive_into(place) for place in places)
        return router.drop_rest() == 0 and are_whole

    def drop_rows(self, router_index: int) -> int:
        """Drop the frames that follow a header; return their number."""
        return self.router_pair.routers[router_index].drop_rest()

    def send(self, producer: int, message: msg.ToRelay) -> bool:
        """Send to a producer; False if it is gone or its queue is full."""
        peer = self._peers.get(producer)
        return peer is not None and self.router_pair.send(peer, [encode(message)])

    def reject(self, peer: bytes, why: str) -> None:
        """Send PART to a peer that is not admitted."""
        self.router_pair.send(peer, [encode(msg.Part(why))])


@dataclass(slots=True)
class _Patience:
    """How many more messages a peer may send before it answers a lease."""

    words_max: int
    unleased_max: int
    words: float = 0.0
    unleased: int = 0
    heard_at: float = 0.0

    def is_over(self, *, is_done: bool, is_leased: bool) -> bool:
        """Count a message; say whether it is one too many."""
        now = time.monotonic()
        if is_leased:
            self.words = self.unleased = 0
        elif is_done:
            self.unleased += 1
        else:
            self.words = 1 + max(0.0, self.words - _WORDS_PER_S * (now - self.heard_at))
        self.heard_at = now
        return self.words > self.words_max or self.unleased > self.unleased_max


def _make_router(curve: Curve | None) -> Router:
    return Router(curve, PIECE_BYTES + _ENVELOPE_BYTES, _UNREAD_MAX)
