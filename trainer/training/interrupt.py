"""Ctrl-C, and SIGTERM where asked, that take effect between two steps, and never within one.

Used around the loop of `trainer fit`, and around every change of what a checkpoint holds. While the
loop waits for a batch, a signal interrupts at once; inside `deferred` it takes effect at the end.
After the first one, no other interrupts the save that follows. Leaves no signal handler behind.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupt:
    """The process's Ctrl-C while in `with`; for the main thread, as signals are.

    Attributes:
        signal: the one that ended the run; None before.
    """

    def __init__(self, *others: int) -> None:
        """Install nothing yet; `others` are signals that do the same as Ctrl-C."""
        self.signal: int | None = None
        self._numbers = (signal.SIGINT, *others)
        self._previous: dict[int, Any] = {}
        self._is_deferred = False
        self._is_pending = False

    def __enter__(self) -> Interrupt:
        for number in self._numbers:
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        if not self._is_deferred:
            self._raise()
        self._is_pending = True

    def _raise(self) -> None:
        self._is_deferred = True  # for good: the first one ends the run
        raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Raise KeyboardInterrupt only after the block is done."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self._is_pending:
            self._raise()
