"""The actions of the broker: collected while it handles an event, carried out by the daemon.

All parts of the broker share one outbox. It also has the time of the event, and the counter that
numbers sessions, streams and leases. Pure: no I/O, no clock of its own.
"""

from __future__ import annotations

from collections import Counter

from augd.protocol import messages as msg
from augd.server.daemon.broker import events as ev

INFO, WARNING, ERROR = 20, 30, 40
ERROR_TEXT_MAX = 8_000  # characters; far below what a header may have, whatever they encode to


class Outbox:
    """Actions in the order in which they must be done."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stale: Counter[str] = Counter()  # stale messages, by what they named
        self._actions: list[ev.Action] = []
        self._last_number = 0

    def number(self) -> int:
        """Return a new number: sessions, streams and leases share one counter, so none is
        mistaken."""
        self._last_number += 1
        return self._last_number

    def add(self, action: ev.Action) -> None:
        self._actions.append(action)

    def send(
        self, peer: bytes, message: msg.ToClient, classes: str | tuple[str, ...] | None = None
    ) -> None:
        self._actions.append(ev.SendToClient(peer, message, classes))

    def tell(self, producer: int, message: msg.ToProducer | msg.ToRelay) -> None:
        self._actions.append(ev.SendToProducer(producer, message))

    def log(self, level: int, text: str) -> None:
        """Write a line for the operator."""
        self._actions.append(ev.Log(level, text))

    def take(self) -> list[ev.Action]:
        """Return the collected actions, and start empty."""
        actions, self._actions = self._actions, []
        return actions
