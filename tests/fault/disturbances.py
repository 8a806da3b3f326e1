"""What may be done to a daemon and all that belongs to it: killed, stopped, told to end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeAlias

from tests.fault.deployments import Deployment

Disturbance: TypeAlias = "tuple[str, float, Callable[[], bool]]"
"""What it is called, the seconds in which it is not done again, and what says if it was done."""

# A second SIGSEGV on the sample that the first one hit would condemn it: as it should.
_SIGNALS = (
    ("producer", signal.SIGKILL, 0.5),
    ("producer", signal.SIGSEGV, 10.0),
    ("lent producer", signal.SIGKILL, 2.0),
    ("page", signal.SIGKILL, 5.0),
    ("fetcher", signal.SIGKILL, 1.0),
    ("janitor", signal.SIGKILL, 10.0),
)
# Who is stopped, for how long, and how long not again.
_STOPS = (
    ("producer", 5.0, 8.0),
    ("relay", 3.0, 15.0),
    ("daemon", 2.0, 12.0),
    ("daemon", 12.0, 90.0),
)


class Due:
    """What is to be undone later, by the caller's own loop."""

    def __init__(self) -> None:
        self._acts: list[tuple[float, Callable[[], None]]] = []

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self._acts.append((time.monotonic() + seconds, act))

    def run(self, *, everything: bool = False) -> None:
        """Do what is due, or all of it."""
        now = time.monotonic()
        ready = [one for one in self._acts if everything or one[0] <= now]
        self._acts = [one for one in self._acts if one not in ready]
        for _, act in ready:
            act()


class Disturbances:
    """What may be done to one deployment. `attempt` is given what may fail."""

    def __init__(
        self,
        deployment: Deployment,
        chance: random.Random,
        due: Due,
        attempt: Callable[[Callable[[], None]], None],
    ) -> None:
        self._deployment = deployment
        self._chance = chance
        self._due = due
        self._attempt = attempt
        self._stopped: set[int] = set()

    def choices(self) -> list[Disturbance]:
        """Name all that may be done."""
        name = self._deployment.name
        found: list[Disturbance] = []
        for kind, number, gap_s in _SIGNALS:
            deed = partial(self._signal, kind, number)
            found.append((f"{name}: {kind} {number.name}", gap_s, deed))
        for kind, seconds, gap_s in _STOPS:
            deed = partial(self._stop, kind, seconds)
            found.append((f"{name}: {kind} SIGSTOP {seconds:g} s", gap_s, deed))
        for number in (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV):
            deed = partial(self._end, self._deployment.end_daemon, "daemon", number)
            found.append((f"{name}: daemon {number.name}", 12.0, deed))
        for number in (signal.SIGKILL, signal.SIGTERM):
            deed = partial(self._end, self._deployment.end_supervisor, "supervisor", number)
            found.append((f"{name}: supervisor {number.name}", 25.0, deed))
            deed = partial(self._end, self._deployment.end_relay, "relay", number)
            found.append((f"{name}: relay {number.name}", 8.0, deed))
        return found

    def _is_still(self) -> bool:
        """Say whether the daemon is stopped: whoever dies meanwhile dies in a row with others."""
        return not self._stopped.isdisjoint(self._deployment.victims("daemon"))

    def _signal(self, kind: str, number: int) -> bool:
        if self._is_still() or not (pids := self._deployment.victims(kind)):
            return False
        return send(self._chance.choice(pids), number)

    def _stop(self, kind: str, seconds: float) -> bool:
        if self._is_still() or not (pids := self._deployment.victims(kind)):
            return False
        pid = self._chance.choice(pids)
        if not send(pid, signal.SIGSTOP):
            return False
        self._stopped.add(pid)
        self._due.after(seconds, partial(self._go_on, pid))
        return True

    def _go_on(self, pid: int) -> None:
        wake(pid)
        self._stopped.discard(pid)

    def _end(self, act: Callable[[int], None], kind: str, number: int) -> bool:
        if not self._deployment.victims(kind):
            return False
        if kind == "supervisor":
            # A start waits for the store, and for nobody who is stopped: all is well meanwhile.
            self._due.run(everything=True)
        self._attempt(lambda: act(number))
        return True


def send(pid: int, number: int) -> bool:
    """Send a signal; say whether the process was there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def wake(pid: int) -> None:
    """Have a process go on that was stopped, if it still is there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
