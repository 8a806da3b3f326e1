"""What the schedules reached: every transition of the broker's tables, counted.

The scheduler is only worth something if it gets everywhere; `test_schedules` asserts that it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import pytest

from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker import states

TABLES = {"slot": states.SLOT, "chunk": states.CHUNK, "session": states.SESSION}
TABLES["producer"] = states.PRODUCER
USERS = (
    "sessions",
    "opening",
    "producers",
    "stream",
    "batch_state",
    "chunk_queue",
)  # modules that make transitions

FAULTS = {
    "a gap was found",
    "a ghost spoke",
    "a host falls silent",
    "a host is cut off",
    "rows came late",
    "checkpoint",
    "connected again",
    "connection cut",
    "continued",
    "doubled to a trainer",
    "doubled to the daemon",
    "drain",
    "hangs",
    "killed between two actions",
    "loaded a state",
    "messages lost",
    "one message lost",
    "repeated late",
    "restored a state",
    "seek",
    "started without its quarantine",
    "stopped",
    "the same epoch again",
    "trainer killed",
    "trainer left",
} | {
    f"poison {ending} {current_sample} crumb"
    for ending in (ExitReason.SIGNAL, ExitReason.MEMORY, ExitReason.KILLED)
    for current_sample in ("with", "without")
}
ENDINGS = {f"reaped {ending}" for ending in ExitReason if ending != ExitReason.LOST}
ENDINGS |= {f"reaped {e} elsewhere" for e in ("signal", "memory", "killed", "drained", "outside")}
STALE = {
    f"stale {kind}"
    for kind in ("attach", "generation", "lease", "opening", "producer", "ready", "session")
}
ERRORS = {
    f"error {code}"
    for code in ("BAD_OPTION", "CONNECTION_LOST", "INTERNAL", "OVER_LIMIT", "PRODUCERS_UNHEALTHY")
} | {"error SAMPLE_FAILED"}


def expected() -> set[str]:
    """Name everything that must have happened."""
    kinds = (ev.Event, ev.Action, msg.FromClient, msg.ToClient, msg.FromProducer, msg.ToProducer)
    kinds = (*kinds, msg.FromRelay)
    names = {one.__name__ for union in kinds for one in get_args(union)}
    # Asked without a session, and answered from a snapshot or at once: no part of the protocol.
    names -= {"Status", "Ping", "Pong", "StatusReply"}
    # Of keys and of sockets that refuse a message: tried with real ones (tests/e2e, tests/fault).
    names -= {"RightsChanged", "PeerUnreachable"}
    # Of paths and of what is told to people: no batch hangs on them (tests/unit, tests/e2e).
    names -= {"Paths", "PathsReply", "SendPaths", "Trouble"}
    # Of a cache, which decides neither bytes nor who gets them: its allocator has tests of their
    # own (tests/unit/server/broker/test_cache_allocator.py), and real deaths
    # (tests/fault/test_cache_kills.py).
    names -= {"CacheFull", "Cached", "Room", "ClearCache", "PutCached", "CacheMessage"}
    names -= {"AttachMessage"}  # an event of its own
    moves = {name_of(table, s, v) for table in TABLES for s, v in verbs_of(TABLES[table])}
    return names | moves | FAULTS | ENDINGS | STALE | ERRORS


def verbs_of(table: states.Table) -> Iterator[tuple[str, str]]:
    """List the transitions of a table."""
    for state, verbs in table.items():
        for verb in verbs:
            yield state, verb


def name_of(table: str, state: str, verb: str) -> str:
    """Name a transition."""
    return f"{table} {state}: {verb}"


@contextmanager
def transitions_counted(seen: Counter[str]) -> Iterator[None]:
    """Count every transition that the broker makes."""
    names = {id(table): name for name, table in TABLES.items()}

    def step(table: Any, state: str, verb: str) -> str:
        seen[name_of(names[id(table)], state, verb)] += 1
        return states.step(table, state, verb)

    with pytest.MonkeyPatch.context() as patch:
        for module in USERS:
            patch.setattr(f"augd.server.daemon.broker.{module}.step", step)
        yield
