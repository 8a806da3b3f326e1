"""A clock of the time in which this process ran. Deadlines of peers use it.

A paused machine, a stopped process group and a sleeping laptop stop all processes at once. When
they continue, the kernel's clock is ahead by the whole pause. Every pending deadline has then
passed, although no process had the time to answer. A process detects a pause by its own waits: if
one returns seconds after its end, the process was stopped.

Waits are cut into slices of `SLICE_S`, so that a pause adds at most that much to a deadline. Time
beyond the end of a slice does not count if it is more than `LATE_S`: a busy machine is late by
milliseconds. A loop may also stand still between two waits: `of_loop` counts no more than `TURN_S`
between two readings of the clock.

One clock belongs to one thread's loop. Imports nothing slow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SLICE_S = 0.5
LATE_S = 0.5
TURN_S = 2.0
_NOTHING_S = 1e-6  # rest of a wait that is left by rounding alone


class Awake:
    """Monotonic seconds, without those in which this process stood still."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, turn_s: float = math.inf
    ) -> None:
        """Begin with the time of `clock`. More than `turn_s` between two readings does not
        count."""
        self._clock = clock
        self._turn_s = turn_s
        self._lost_s = 0.0
        self._seen = clock()

    @classmethod
    def of_loop(cls) -> Awake:
        """Make the clock of a loop that reads it in every turn."""
        return cls(turn_s=TURN_S)

    def now(self) -> float:
        """Return the time. It can be compared only with times of the same clock."""
        raw = self._clock()
        surplus_s = raw - self._seen - self._turn_s
        if surplus_s > 0:
            self._lost_s += surplus_s
        self._seen = raw
        return raw - self._lost_s

    def wait(self, poll: Callable[[float | None], T], timeout_s: float | None) -> T:
        """Call `poll` with seconds to wait until it returns something, or the time is over.

        Returns the last result. With None, `poll` is called once and may wait without limit.
        """
        if timeout_s is None or timeout_s == math.inf:
            found = poll(None)
            self._seen = self._clock()  # without limit
            return found
        ends_at = self.now() + timeout_s
        while True:
            slice_s = max(0.0, min(SLICE_S, ends_at - self.now()))
            began = self._clock()
            found = poll(slice_s)
            took_s = (raw := self._clock()) - began
            if took_s > slice_s + LATE_S:
                self._lost_s += took_s - slice_s
            self._seen = raw
            if found or ends_at - self.now() < _NOTHING_S:
                return found

    def sleep(self, seconds: float) -> None:
        """Sleep this long, without counting a pause of the whole process."""
        self.wait(lambda left_s: time.sleep(left_s or 0.0), seconds)
