"""Drives the broker: events in, one at a time, and its actions out.

Runs in the daemon's process. Every part of the loop (client_connections, remote_rows_endpoint,
local_producers, stream_memory, dashboard_process) holds the one `BrokerDriver`. It reports what it
received by `handle`, asks the pure broker by `broker`, and registers its sources with `poller`.

Invariants: an event is handled completely before the next one, also when one of its actions
causes another event. What the poller gives for a source is a function without arguments that
reads it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, get_args

from augd.process.awake_clock import Awake
from augd.protocol.permissions import Rights
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.broker import Broker
from augd.transport.zmq_sockets import Poller

# A client that floods its socket must not keep lifelines and producers waiting.
MESSAGES_PER_TURN = 64

# Returns the rights of a ZeroMQ user id, None where no key is needed; raises `Forbidden`.
RightsOf = Callable[[str | None], Rights | None]
Actions = dict[type[ev.Action], Callable[[Any], None]]


class BrokerDriver:
    """The broker with its clock, its queue of events and the functions that do its actions.

    Attributes:
        clock: the time by which the broker decides. What concerns no peer goes by another.
        poller: waits for all sources of the daemon.
        broker: the state machine, from `connect` on.
    """

    broker: Broker

    def __init__(self) -> None:
        self.clock = Awake.of_loop()
        self.poller = Poller(self.clock)
        self._events: deque[ev.Event] = deque()
        self._actions: Mapping[type[ev.Action], Callable[[Any], None]] = {}

    def connect(self, broker: Broker, actions: Actions) -> None:
        """Take the broker and a function for every kind of action."""
        missing = set(get_args(ev.Action)) - actions.keys()
        assert not missing, missing
        self.broker, self._actions = broker, actions

    def handle(self, event: ev.Event) -> None:
        """Give an event to the broker and do its actions; events that these cause come after."""
        self._events.append(event)
        if len(self._events) > 1:
            return  # called by an action of the current event, whose other actions come first
        while self._events:
            for action in self.broker.handle(self._events[0], self.clock.now()):
                self._actions[type(action)](action)
            self._events.popleft()
