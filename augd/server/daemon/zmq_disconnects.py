"""Finds out which peer of a side channel disconnected.

Runs in the daemon's loop, for the batch channel and for the row channel. ZeroMQ reports that a
connection ended, and only a little later which peer cannot be reached any more. So the watch looks
twice: at once, and again after `_LOOK_AGAIN_S`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from augd.transport.router_pair import SideChannel
from augd.transport.zmq_sockets import Poller

_LOOK_AGAIN_S = 0.1


class DisconnectWatch:
    """Calls `on_gone` with the number of each peer whose connection ended.

    Attributes:
        look_again_at: when `look_if_due` has to be called next, by `time.monotonic`; None if never.
    """

    def __init__(
        self, channel: SideChannel, poller: Poller, on_gone: Callable[[int], None]
    ) -> None:
        self.look_again_at: float | None = None
        self._channel = channel
        self._on_gone = on_gone
        for number, disconnects in enumerate(channel.disconnects):
            poller.register(disconnects, partial(self._read, number))

    def _read(self, number: int) -> None:
        self._channel.disconnects[number].forget()
        self._look()
        self.look_again_at = time.monotonic() + _LOOK_AGAIN_S

    def look_if_due(self, now: float) -> None:
        """Look for peers that are gone, if a connection ended a moment ago."""
        if self.look_again_at is not None and now >= self.look_again_at:
            self.look_again_at = None
            self._look()

    def _look(self) -> None:
        for peer in self._channel.unreachable():
            self._on_gone(peer)
