"""The order of an epoch that is shuffled by blocks: neighbours of the index stay near each other.

Used by `order`. With blocks of B samples, W of them in a window:

1. The index is cut into blocks of B neighbours; the last may be shorter. A permutation orders the
   whole ones, and the shorter one stands at a place among them that each epoch draws.
2. Each W consecutive blocks in that order are a window, whose samples a permutation of its own
   mixes.

So the samples of a window come from W stretches of the index, each of which is read within W x B
positions and not before or after. The code computes the inverse, from a position: its window, its
place there, the block and the row in it, the sample. The shorter block is treated as a whole one
whose missing rows, the gap, are skipped: in its window, and by the windows after it.

Invariants: a permutation for every N, B and W. A position costs the same wherever it is.
Correctness needs no state (keys, and where a window's blocks begin, are cached).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from augd.plan.order.permutation import Drawn, Permutation
from augd.plan.order.shuffle_option import Blocks
from augd.plan.random.philox import Ints, Purpose, mix, philox_block

_KEPT: Final = 8
_SHORT_PLACE: Final = 2  # the stream of that counter; a permutation's are 0 and 1

_LARGEST = np.maximum.reduce
_SMALLEST = np.minimum.reduce


class _Window(NamedTuple):
    """A window of an epoch: how it is mixed, and where in the index its blocks begin.

    The gap is skipped from row `gap_at` on; -1 if the window has none.
    """

    first: int
    permutation: Permutation
    drawn: Drawn
    starts: Ints
    gap_at: int


class BlockOrder:
    """The order of `num_samples` samples under `seed`, by blocks."""

    __slots__ = (
        "_blocks_key",
        "_epochs",
        "_gap",
        "_num_blocks",
        "_per_window",
        "_rows",
        "_rows_key",
        "_size",
        "_whole",
        "_windows",
    )

    def __init__(self, num_samples: int, seed: int, blocks: Blocks) -> None:
        self._size = min(blocks.size, num_samples)
        self._num_blocks = -(-num_samples // self._size)
        self._gap = self._num_blocks * self._size - num_samples
        self._per_window = min(blocks.window, self._num_blocks)
        self._rows = Permutation(self._size * self._per_window)  # of a window without the gap
        self._whole = Permutation(num_samples // self._size)
        self._blocks_key = mix(seed, Purpose.BLOCKS)
        self._rows_key = mix(seed, Purpose.WINDOWS)
        self._epochs: dict[int, tuple[int, Drawn]] = {}
        self._windows: dict[tuple[int, int], _Window] = {}

    def ids(self, epoch: int, positions: Ints) -> Ints:
        """Return the sample id at each position, which is int64 (n,), n > 0, inside the epoch."""
        rows = self._rows.size
        if self._gap:
            leaps_at = (self._epoch(epoch)[0] // self._per_window + 1) * rows - self._gap
            padded = positions + (positions >= leaps_at) * self._gap
        else:
            padded = positions
        first = int(_SMALLEST(padded)) // rows
        if int(_LARGEST(padded)) // rows == first:
            return self._ids_of_window(epoch, first, positions)
        ids = np.empty_like(positions)
        windows = padded // rows
        for each in np.unique(windows).tolist():
            at = np.flatnonzero(windows == each)
            ids[at] = self._ids_of_window(epoch, each, positions[at])
        return ids

    def _ids_of_window(self, epoch: int, number: int, positions: Ints) -> Ints:
        window = self._windows.get((epoch, number)) or self._open_window(epoch, number)
        places = window.permutation.apply(window.drawn, positions - window.first)
        if window.gap_at >= 0:
            places[places >= window.gap_at] += self._gap
        block, row = np.divmod(places, self._size)
        ids = window.starts[block]
        ids += row
        return ids

    def _open_window(self, epoch: int, number: int) -> _Window:
        """Compute what all positions of a window share, and cache it for the next chunks."""
        begin = number * self._per_window
        end = min(begin + self._per_window, self._num_blocks)
        short, drawn = self._epoch(epoch)
        places = np.arange(begin, end, dtype=np.int64)
        is_whole = places != short
        blocks = np.full_like(places, self._num_blocks - 1)
        if is_whole.any():
            numbers = places - (places > short)  # as if the shorter block were absent
            blocks[is_whole] = self._whole.apply(drawn, numbers[is_whole])
        first = begin * self._size - (self._gap if short < begin else 0)
        num_rows, gap_at = len(places) * self._size, -1
        if begin <= short < end:
            num_rows -= self._gap
            gap_at = (short - begin + 1) * self._size - self._gap
        rows = self._rows if num_rows == self._rows.size else Permutation(num_rows)
        mixed = rows.draw(self._rows_key, epoch, number)
        window = _Window(first, rows, mixed, blocks * self._size, gap_at)
        _keep(self._windows, (epoch, number), window)
        return window

    def _epoch(self, epoch: int) -> tuple[int, Drawn]:
        """Return where the shorter block stands, after all if there is none, and their order."""
        found = self._epochs.get(epoch)
        if found is None:
            short = self._num_blocks
            if self._gap:
                words = philox_block(self._blocks_key, 0, epoch, _SHORT_PLACE)
                short = (words[0] << 32 | words[1]) % self._num_blocks
            found = short, self._whole.draw(self._blocks_key, epoch)
            _keep(self._epochs, epoch, found)
        return found


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    """Cache one more result, and no more than a few."""
    if len(kept) >= _KEPT:
        del kept[next(iter(kept))]
    kept[key] = value
