"""One caller's connection: how long it may say nothing, and who makes room for the next.

Under the routes. A connection on which no request is under way is idle: it has so many seconds to
send the header of its next one, a byte at a time or all at once; and when there are too many
connections the one that is idle for longest is closed, so that idle ones never keep anybody out.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS_MAX = 128
# Beyond them, for who asks whether the daemon lives while all of those are busy.
RESERVE = 32
HEADER_S = 5.0


class Caller(H11Protocol):
    """A connection of the page's server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Made by uvicorn."""
        super().__init__(*arguments, **options)
        self._idle_since = time.monotonic()
        self._silence: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is under way."""
        # uvicorn's type leaves out that there is none before the first request.
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a caller on, in place of an idle one if need be."""
        if len(self.connections) >= CONNECTIONS_MAX:
            self._make_room()
        super().connection_made(transport)
        self._await_header()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        super().data_received(data)
        if not self.is_idle:
            self._stop_waiting()
        elif self._silence is None:  # the first piece of a request on a connection that was kept
            self._await_header()

    def on_response_complete(self) -> None:
        """Wait for the next request, as long as uvicorn keeps connections."""
        super().on_response_complete()
        self._idle_since = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the caller."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_header(self) -> None:
        self._silence = self.loop.call_later(HEADER_S, self._hang_up)

    def _stop_waiting(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _make_room(self) -> None:
        idle = [one for one in self.connections if isinstance(one, Caller) and one.is_idle]
        if idle:
            min(idle, key=lambda one: one._idle_since)._hang_up()

    def _hang_up(self) -> None:
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()
