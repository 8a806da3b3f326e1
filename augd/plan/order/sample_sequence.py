"""The samples that a stream draws: at each position a sample, and the epoch to plan it by.

Between the order of positions and the planner. A stream draws from the whole dataset, from a list
of chosen samples, or from such a list class by class.

Balanced by class, position p stands for q = order(p), which gives class q mod K and, by a random
number of (epoch, q), one of that class's samples, each alike and with replacement. So an epoch
holds as many draws as samples were chosen, the counts of any two classes differ by at most one, and
a sample may come several times or not at all. To make it look different each time, its plan is
drawn by a word of (epoch, q) in place of the epoch.

Repeated, position p stands for a copy of a sample: windows of count * spread positions hold
`spread` samples, and copy k of each stands k * spread positions after the first. Copies look
different: from the second on, a plan is drawn by a word of (epoch, position of the first, k).

Invariants: the result depends only on (choice, seed, shuffle, repeats, epoch, position);
correctness needs no state.
"""

from __future__ import annotations

import numpy as np

from augd.plan.order.order import Order
from augd.plan.order.repeat_option import ONCE, Repeats
from augd.plan.order.shuffle_option import Shuffle
from augd.plan.random.philox import Ints, Purpose, Words, mix, philox_words

_U32 = np.array(32, np.uint64)


class Draw:
    """What is drawn from `num_samples` samples, or from the `chosen` ones of them.

    `chosen` is int64 (m,), the ids that an epoch consists of. `offsets` is int64 (K + 1,): where
    in `chosen` each class begins, from 0 to m; with them the draws are balanced.
    """

    __slots__ = ("_balance", "_chosen", "_num_positions", "_order", "_repeats", "_repeats_key")

    def __init__(
        self,
        num_samples: int,
        seed: int,
        shuffle: Shuffle,
        chosen: Ints | None = None,
        offsets: Ints | None = None,
        repeats: Repeats = ONCE,
    ) -> None:
        self._chosen = chosen
        self._num_positions = num_samples if chosen is None else len(chosen)
        self._repeats = None if repeats == ONCE else repeats
        num_places = self._num_positions
        if offsets is not None:
            # Only so many places are drawn from: of these, classes have equal shares.
            num_places = _count_firsts(num_places, repeats)
        self._order = Order(num_places, seed, shuffle)
        self._repeats_key = mix(seed, Purpose.REPEATS)
        self._balance = None if offsets is None else _Balance(offsets, seed)

    def rows(self, epoch: int, positions: Ints) -> tuple[Ints, Ints]:
        """Return the sample id at each position, -1 beyond the end, and the epoch to plan it by.

        `positions` is int64 (n,), not negative; both answers are int64 (n,).
        """
        if self._repeats is not None:
            return self._repeated(self._repeats, epoch, positions)
        return self._once(epoch, positions)

    def _repeated(self, repeats: Repeats, epoch: int, positions: Ints) -> tuple[Ints, Ints]:
        window, within = np.divmod(positions, repeats.count * repeats.spread)
        copy, sample = np.divmod(within, repeats.spread)
        firsts = window * repeats.spread + sample
        ids, epochs = self._once(epoch, firsts)
        ids[positions >= self._num_positions] = -1
        again = np.flatnonzero(copy > 0)
        if len(again):
            counter = (firsts[again] * repeats.count + copy[again]).view(np.uint64)
            words = philox_words(self._repeats_key, counter, epoch, 0)
            epochs[again] = words[0].view(np.int64)
        return ids, epochs

    def _once(self, epoch: int, positions: Ints) -> tuple[Ints, Ints]:
        places = self._order.ids(epoch, positions)
        if self._balance is None:
            epochs = np.full_like(places, epoch)
        else:
            places, epochs = self._balance.draw(epoch, places)
        if self._chosen is None:
            return places, epochs
        ids = self._chosen[places]
        ids[places < 0] = -1
        return ids, epochs


def _count_firsts(num_positions: int, repeats: Repeats) -> int:
    """Return how many positions are those of a first copy."""
    windows, rest = divmod(num_positions, repeats.count * repeats.spread)
    return windows * repeats.spread + min(rest, repeats.spread)


class _Balance:
    """Draws with replacement within classes, and classes in equal numbers."""

    __slots__ = ("_key", "_num_groups", "_sizes", "_starts")

    def __init__(self, offsets: Ints, seed: int) -> None:
        self._key = mix(seed, Purpose.BALANCE)
        self._num_groups = np.array(len(offsets) - 1, np.int64)
        self._starts = offsets[:-1].copy()
        self._sizes: Words = np.diff(offsets).view(np.uint64)
        assert 0 < self._sizes.min() <= self._sizes.max() < 2**32

    def draw(self, epoch: int, drawn: Ints) -> tuple[Ints, Ints]:
        """Return places in the list, -1 where `drawn` is -1, and epochs below 2**32."""
        group = np.remainder(drawn, self._num_groups)
        words = philox_words(self._key, drawn.view(np.uint64), epoch, 0)
        sizes = self._sizes[group]
        # 64 random bits times the size, as a fixed-point number: its whole part.
        low = words[1] * sizes >> _U32
        places = self._starts[group] + (words[0] * sizes + low >> _U32).view(np.int64)
        places[drawn < 0] = -1
        return places, words[2].view(np.int64)
