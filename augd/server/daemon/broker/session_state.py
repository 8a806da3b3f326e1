"""The record of one session, and the errors that it is sent.

The session table (augd/server/daemon/broker/sessions.py) owns the sessions; opening and delivery
change the ones that they are handed. Pure: no I/O, no clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from augd.protocol import messages as msg
from augd.protocol.permissions import Rights
from augd.server.daemon.broker.outbox import ERROR_TEXT_MAX, Outbox
from augd.server.daemon.broker.stream import StreamState


@dataclass(slots=True, eq=False)
class Session:
    """One client: HELLO begins it, and it has at most one stream."""

    number: int
    peer: bytes
    token: str
    state: str = "new"
    opening: int = 0
    stream: StreamState | None = None
    is_announced: bool = False  # OPENED of the current opening was sent
    is_framed: bool = False  # bytes are sent over the bulk socket, which is its lifeline
    attach_by: float = math.inf
    # An OPEN that came before its ATTACH, as two sockets keep no common order; or one whose samples
    # are being selected.
    waiting: msg.Open | None = None
    selecting: int = 0  # number of the stream to be, while its samples are selected
    rights: Rights | None = None  # None: it came over a socket that needs no key
    has_notices: bool = False  # it was sent the notices about its dataset

    @property
    def is_streaming(self) -> bool:
        """Whether it reads a stream, or one is being made for it."""
        return self.state != "leaving" and (self.stream is not None or self.selecting > 0)

    @property
    def arena(self) -> tuple[int, int]:
        """Its stream, which others may share, and the bytes of the arena; zeros without one."""
        return (0, 0) if self.stream is None else (self.stream.number, self.stream.arena_bytes)


def send_error(outbox: Outbox, session: Session, code: str, text: str) -> None:
    """Send a session an ERROR of its current opening."""
    error = msg.Error(code, text[:ERROR_TEXT_MAX], session.number, session.opening)
    outbox.send(session.peer, error)
