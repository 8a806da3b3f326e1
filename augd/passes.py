"""One pass over an epoch, as `Stream.epoch` returns it: an iterator that knows its length."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from augd.stream import Batch


class Pass:
    """Yields the batches of an epoch. Holds none that it handed out.

    `len` is how many it yields in all: what is left of the epoch where a state was loaded.
    """

    __slots__ = ("_batches", "_epoch", "_num_batches")

    def __init__(self, batches: Generator[Batch, None, None], epoch: int, num_batches: int) -> None:
        """Made by `Stream`."""
        self._batches, self._epoch, self._num_batches = batches, epoch, num_batches

    def __iter__(self) -> Pass:
        """Return the pass itself: it is gone through once."""
        return self

    def __next__(self) -> Batch:
        """Wait for the next batch."""
        return next(self._batches)

    def __len__(self) -> int:
        """Batches of the whole pass, however many of them came already."""
        return self._num_batches

    def close(self) -> None:
        """End the pass; a newer one ends it, too."""
        self._batches.close()

    def __repr__(self) -> str:
        """Name the epoch."""
        return f"<pass over epoch {self._epoch}, {self._num_batches} batches>"
