"""Ctrl-C that takes effect between two steps, and never within one.

Used around the loop of `trainer fit`, and around every change of what a checkpoint holds. While the
loop waits for a batch, Ctrl-C interrupts at once; inside `deferred` it takes effect at the end.
After the first one, no other interrupts the save that follows. Leaves no signal handler behind.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """The process's Ctrl-C while in `with`; for the main thread, as signals are."""

    def __init__(self) -> None:
        self._is_deferred = False
        self._is_pending = False

    def __enter__(self) -> Interrupt:
        self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
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
