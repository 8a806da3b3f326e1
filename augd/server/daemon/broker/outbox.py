"""What the broker wants done: collected while it handles an event, carried out by the daemon.

Shared by the broker's two halves (augd/server/daemon/broker/sessions.py,
augd/server/daemon/broker/scheduler.py), with the time of the event and the one counter that all
names come from. Pure: no I/O, no clock of its own.
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
        """Start empty, at time 0."""
        self.now = 0.0
        self.stale: Counter[str] = Counter()  # messages that came too late, by what they named
        self._actions: list[ev.Action] = []
        self._last_number = 0

    def number(self) -> int:
        """Sessions, streams and leases share one counter, so none is mistaken for another."""
        self._last_number += 1
        return self._last_number

    def add(self, action: ev.Action) -> None:
        """Have an action done."""
        self._actions.append(action)

    def send(
        self, peer: bytes, message: msg.ToClient, classes: str | tuple[str, ...] | None = None
    ) -> None:
        """Send to a client."""
        self._actions.append(ev.SendToClient(peer, message, classes))

    def tell(self, producer: int, message: msg.ToProducer | msg.ToRelay) -> None:
        """Send to a producer."""
        self._actions.append(ev.SendToProducer(producer, message))

    def log(self, level: int, text: str) -> None:
        """Write a line for the operator."""
        self._actions.append(ev.Log(level, text))

    def take(self) -> list[ev.Action]:
        """Return what is to be done, and begin anew."""
        actions, self._actions = self._actions, []
        return actions
