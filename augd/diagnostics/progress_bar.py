"""A progress bar for work that takes longer than a second: on a terminal only.

Used by commands. Writes to standard error, never to standard output, which may be a file.
"""

from __future__ import annotations

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_AFTER_S = 1.0


class ProgressBar:
    """Counts up to `total` (None: unknown). Use it in a `with`, and call it with the count."""

    def __init__(self, title: str, total: int | None = None) -> None:
        """Start the clock; the bar appears after a second."""
        self._title = title
        self._total = total
        self._started = time.monotonic()
        self._bar: Progress | None = None

    def __call__(self, num_done: int) -> None:
        if self._bar is None:
            if time.monotonic() - self._started < _AFTER_S or not sys.stderr.isatty():
                return
            self._bar = self._show()
        self._bar.update(self._bar.task_ids[0], completed=num_done)

    def _show(self) -> Progress:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        bar = Progress(
            *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
        )
        bar.add_task(self._title, total=self._total)
        bar.start()
        return bar

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
