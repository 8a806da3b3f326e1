"""A clock of the time in which this process ran: deadlines of peers go by it.

Beside the way of a batch. A paused machine, a stopped process group and a sleeping laptop stop all
processes at once. When they go on, the kernel's clock is ahead by the whole pause, and every
deadline that was pending has passed, though nobody had the time to answer. A process notices a
pause by its own waits: one that returns seconds after its end was not asleep, it was stopped.

Waits are cut into slices of `SLICE_S`, so that a pause costs a deadline that much at most. What
a slice takes beyond its end counts for nothing, if it is more than `LATE_S`: a busy machine is late
by milliseconds. A loop may also stand still between two waits: `of_loop` counts no more than
`TURN_S` from one look at the clock to the next.

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
_NOTHING_S = 1e-6  # what is left of a wait by rounding alone


class Awake:
    """Monotonic seconds, without those in which this process stood still."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, turn_s: float = math.inf
    ) -> None:
        """Begin with the time of `clock`; more than `turn_s` between two looks does not count."""
        self._clock = clock
        self._turn_s = turn_s
        self._lost_s = 0.0
        self._seen = clock()

    @classmethod
    def of_loop(cls) -> Awake:
        """Make the clock of a loop that looks at it with everything that it does."""
        return cls(turn_s=TURN_S)

    def now(self) -> float:
        """Return the time; two of one clock can be compared, and no others."""
        raw = self._clock()
        surplus_s = raw - self._seen - self._turn_s
        if surplus_s > 0:
            self._lost_s += surplus_s
        self._seen = raw
        return raw - self._lost_s

    def wait(self, poll: Callable[[float | None], T], timeout_s: float | None) -> T:
        """Call `poll` with seconds to wait until it returns something, or the time is over.

        Returns what it returned last. With None it is called once, and waits as long as it likes.
        """
        if timeout_s is None or timeout_s == math.inf:
            found = poll(None)
            self._seen = self._clock()  # as long as it liked
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
        """Sleep so long, a pause of the whole process not counted."""
        self.wait(lambda left_s: time.sleep(left_s or 0.0), seconds)
