"""One pass over an epoch, as `Stream.epoch` returns it: an iterator that knows its length."""

from __future__ import annotations

from collections.abc import Generator
from typing import Generic, TypeVar

from augd.errors import StreamClosed, counted

T = TypeVar("T")


class EpochPass(Generic[T]):
    """Yields the batches of an epoch. Holds none that it handed out.

    `len` is how many it yields in all: what is left of the epoch where a state was loaded.

    A pass that broke off never looks like one that ended: after an error, or an interruption, a
    generator would just end when it is asked again, and whoever catches the error and reads on
    would miss the rest of the epoch without a word.
    """

    __slots__ = ("_batches", "_broke_off", "_epoch", "_num_batches")

    def __init__(self, batches: Generator[T, None, None], epoch: int, num_batches: int) -> None:
        """Made by `Stream`."""
        self._batches, self._epoch, self._num_batches = batches, epoch, num_batches
        # In words: the error itself would hold the frames that it went through, with their batches.
        self._broke_off = ""

    def __iter__(self) -> EpochPass[T]:
        """Return the pass itself: it is gone through once."""
        return self

    def __next__(self) -> T:
        """Wait for the next batch; raises StreamClosed once one could not be had."""
        if self._broke_off:
            raise StreamClosed(
                f"this pass over epoch {self._epoch} broke off ({self._broke_off}) and can't go "
                "on: begin the epoch again, or load the state that was saved last"
            )
        try:
            return next(self._batches)
        except StopIteration:
            raise
        except BaseException as error:
            self._broke_off = _name(error)
            raise

    def __len__(self) -> int:
        """Batches of the whole pass, however many of them came already."""
        return self._num_batches

    def close(self) -> None:
        """End the pass; a newer one ends it, too."""
        self._batches.close()

    def __repr__(self) -> str:
        """Name the epoch."""
        return f"<pass over epoch {self._epoch}, {counted(self._num_batches, 'batch', 'batches')}>"


def _name(error: BaseException) -> str:
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
