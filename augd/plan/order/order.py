"""The order of an epoch: position -> sample, without an array of the permutation.

A producer calls it to learn which samples a chunk holds; no other process knows the order.

Shuffled as a whole, an epoch is one permutation of all samples (`permutation.py`). Shuffled by
blocks, neighbours of the index stay near each other (`block_shuffle.py`), so that data in the
index's order are read stretch by stretch.

Invariants: every epoch is a permutation of 0..N-1. A billion samples cost what a thousand cost. The
result depends only on (N, seed, shuffle, epoch, position). Correctness needs no state (keys are
cached, and can be computed again).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from augd.errors import OptionError
from augd.plan.order.block_shuffle import BlockOrder
from augd.plan.order.permutation import Drawn, Permutation
from augd.plan.order.shuffle_option import Blocks, Shuffle
from augd.plan.random.philox import Ints, Purpose, mix

MAX_SAMPLES: Final = 2**48
_EPOCHS_KEPT: Final = 8

# The methods of an array do the same through slower wrappers.
_LARGEST = np.maximum.reduce
_SMALLEST = np.minimum.reduce


class Order:
    """The order of `num_samples` samples under `seed`; without `shuffle`, as they are indexed."""

    __slots__ = ("_blocks", "_epochs", "_key", "_permutation", "num_samples", "shuffle")

    def __init__(self, num_samples: int, seed: int, shuffle: Shuffle) -> None:
        if not 1 <= num_samples <= MAX_SAMPLES:
            raise OptionError(
                f"num_samples: expected 1 <= num_samples <= 2**48, got {num_samples}. "
                "Choose a dataset, a split or classes that leave samples."
            )
        self.num_samples = num_samples
        self.shuffle = shuffle
        self._key = mix(seed, Purpose.ORDER)
        self._permutation = Permutation(num_samples)
        self._epochs: dict[int, Drawn] = {}
        self._blocks: BlockOrder | None = None
        if isinstance(shuffle, Blocks):
            self._blocks = BlockOrder(num_samples, seed, shuffle)

    def ids(self, epoch: int | Ints, positions: Ints) -> Ints:
        """Return the sample id at each position of the epoch, -1 from `num_samples` on.

        `positions` is int64 (n,), not negative; `epoch` from 0 to 2**32 - 1, one for all, which
        is faster, or one for each position. The array returned is new.
        """
        if not len(positions):
            return positions.copy()
        if isinstance(epoch, int):
            return self._ids_of_epoch(epoch, positions)
        if _LARGEST(epoch) == _SMALLEST(epoch):
            return self._ids_of_epoch(int(epoch[0]), positions)
        ids = np.empty_like(positions)
        for each in np.unique(epoch).tolist():
            rows = np.flatnonzero(epoch == each)
            ids[rows] = self._ids_of_epoch(each, positions[rows])
        return ids

    def _ids_of_epoch(self, epoch: int, positions: Ints) -> Ints:
        if _LARGEST(positions) < self.num_samples:
            return self._ids_inside(epoch, positions)
        ids = np.full_like(positions, -1)
        inside = np.flatnonzero(positions < self.num_samples)
        if not len(inside):
            return ids
        ids[inside] = self._ids_inside(epoch, positions[inside])
        return ids

    def _ids_inside(self, epoch: int, positions: Ints) -> Ints:
        if not self.shuffle:
            return positions.copy()
        if self._blocks is not None:
            return self._blocks.ids(epoch, positions)
        drawn = self._epochs.get(epoch)
        if drawn is None:
            drawn = self._start_epoch(epoch)
        return self._permutation.apply(drawn, positions)

    def _start_epoch(self, epoch: int) -> Drawn:
        """Compute what all positions of an epoch share, and cache it for the next chunks."""
        drawn = self._permutation.draw(self._key, epoch)
        if len(self._epochs) >= _EPOCHS_KEPT:
            del self._epochs[next(iter(self._epochs))]
        self._epochs[epoch] = drawn
        return drawn
