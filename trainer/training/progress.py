"""The output of a run: a progress bar while it trains, and a line for every epoch.

The loop calls it. The bar is drawn on a terminal only. The lines go to stdout, or to stderr with
`--json`. Nothing here waits for the device.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from ..data.source import BatchSource


class Pace:
    """How fast a stream's samples are used, and which share of the time is waiting for them."""

    def __init__(self, stream: BatchSource) -> None:
        """Count from now on."""
        self._stream = stream
        self._started_s = time.perf_counter()
        self._before = stream.stats()

    def read(self) -> tuple[float, float]:
        """Return images/s and the share of time waiting, 0..1, since the start."""
        passed_s = max(1e-9, time.perf_counter() - self._started_s)
        now = self._stream.stats()
        num_samples = now["samples"] - self._before["samples"]
        return num_samples / passed_s, (now["wait_s"] - self._before["wait_s"]) / passed_s


class Display:
    """Bar and lines; use it in `with`."""

    def __init__(self, num_epochs: int, *, is_json: bool, is_silent: bool = False) -> None:
        """Draw nothing yet; a silent one never does."""
        self._num_epochs = num_epochs
        self._is_silent = is_silent
        self._file = sys.stderr if is_json else sys.stdout
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=is_silent or not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, what: str, epoch: int, num_batches: int, num_done: int = 0) -> None:
        """Start the bar of one pass over a stream."""
        self._end()
        title = f"epoch {epoch + 1}/{self._num_epochs} {what}"
        self._task = self._bar.add_task(title, total=num_batches, completed=num_done, told="")

    def _end(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def advance(self, loss: float | None, accuracy: float | None, pace: Pace) -> None:
        """Count a batch, and show how it goes; None is not shown."""
        if self._task is None or self._bar.disable:
            return
        rate, waiting = pace.read()
        told = f"{rate:.0f} images/s  waiting {waiting:.1%}"
        if loss is not None and accuracy is not None:
            told = f"loss {loss:.3f}  {accuracy:.1%}  {told}"
        self._bar.update(self._task, advance=1, told=told)

    def say(self, line: str) -> None:
        if self._is_silent:
            return
        is_drawn = self._bar.live.is_started
        self._bar.stop()  # rich would print it to the bar's stream, which may not be stdout
        print(line, file=self._file, flush=True)
        if is_drawn:
            self._bar.start()

    def finish_epoch(self, record: Mapping[str, Any]) -> None:
        """Print an epoch's line instead of its bar."""
        self._end()
        pace = "resumed after training"
        if record["images_per_s"] is not None:
            pace = f"{record['images_per_s']:.0f} images/s, waiting {record['waiting']:.1%}"
        self.say(
            f"epoch {record['epoch']:>3}/{self._num_epochs}"
            f"   train loss {record['train_loss']:.4f} accuracy {record['train_accuracy']:6.1%}"
            f"   val loss {record['val_loss']:.4f} accuracy {record['val_accuracy']:6.1%}"
            f"   {pace}"
        )
