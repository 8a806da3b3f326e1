"""Log lines of a client that waits for a lost daemon: after two seconds, then every ten.

Runs in the training process. Without these lines a waiting training looks as if it hung; a short
loss needs none. Starts no thread: the waiting loop calls `log_if_due`, and wakes when it says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from augd.errors import counted, verb

_log = logging.getLogger("augd")

FIRST_S = 2.0
EVERY_S = 10.0


def sentence(text: str) -> str:
    """Return a text with a full stop, so that another sentence can follow."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def describe_standstill(status: Mapping[str, Any]) -> str:
    """Describe a daemon that sends nothing, from its status: producers ready, and deaths."""
    ready = sum(one.get("state") == "ready" for one in status["producers"])
    places = max(ready, status["num_places"])
    said = [f"{ready} of its {counted(places, 'producer')} {verb(places, 'is', 'are')} ready"]
    if status["last_death"]:
        said.append(f"{status['restarts']} died, the last: {status['last_death']}")
    if status["daemon_deaths"]:
        deaths, last = status["daemon_deaths"], status["last_daemon_death"]
        said.append(f"before it {counted(deaths, 'daemon')} died there, the last by {last}")
    if len(said) == 1:
        said.append("it may be overloaded or its storage slow" if ready else "no batch is made")
    return "; ".join(said)


class WaitNotice:
    """One wait for a daemon, from the loss of a connection on."""

    def __init__(
        self,
        why: str,
        then: str,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to wait.

        Args:
            why: what happened, as a sentence.
            then: what follows when a daemon is back.
            timeout_s: how long to wait at most.
            clock: returns seconds.
        """
        self._why, self._then = why, then
        self._clock = clock
        self._began = clock()
        self._timeout_s = timeout_s
        self._due = self._began + FIRST_S
        self._has_spoken = False

    def log_if_due(self) -> float:
        """Log the line that is due, if any; return the seconds until the next one."""
        now = self._clock()
        if now >= self._due:
            waited_s = now - self._began
            left_s = max(0.0, self._timeout_s - waited_s)
            _log.warning(
                "%s Waiting for a daemon at that address for %.0f s now, and %.0f s more: then %s",
                *(self._why, waited_s, left_s, self._then),
            )
            self._has_spoken = True
            # Keep to multiples of the interval, and skip those that have passed.
            self._due += EVERY_S * (1 + (now - self._due) // EVERY_S)
        return max(0.0, self._due - now)

    def end(self) -> None:
        """Log the end of the wait, if its beginning was logged."""
        if self._has_spoken:
            waited_s = self._clock() - self._began
            _log.warning("A daemon is back after %.0f s: %s", waited_s, self._then)
