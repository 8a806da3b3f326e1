"""One pass over an epoch, as `Stream.epoch` returns it: an iterator that knows its length.

Runs in the training process.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Generic, TypeVar

from augd.errors import StreamClosed, counted

T = TypeVar("T")


class EpochPass(Generic[T]):
    """Yields the batches of an epoch. Holds none that it handed out.

    `len` is how many it yields in all: the rest of the epoch, if a state was loaded.

    After an error or an interruption, every further `next` raises StreamClosed. A plain generator
    would end instead, and a loop that catches the error would miss the rest of the epoch.
    """

    __slots__ = ("_batches", "_broke_off", "_epoch", "_num_batches")

    def __init__(self, batches: Generator[T, None, None], epoch: int, num_batches: int) -> None:
        self._batches, self._epoch, self._num_batches = batches, epoch, num_batches
        # A text: the error itself would hold its frames, with their batches.
        self._broke_off = ""

    def __iter__(self) -> EpochPass[T]:
        return self

    def __next__(self) -> T:
        """Wait for the next batch; raises StreamClosed after a pass broke off."""
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
        """Batches of the whole pass, those that came already included."""
        return self._num_batches

    def close(self) -> None:
        self._batches.close()

    def __repr__(self) -> str:
        return f"<pass over epoch {self._epoch}, {counted(self._num_batches, 'batch', 'batches')}>"


def _name(error: BaseException) -> str:
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
