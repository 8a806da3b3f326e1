"""The sampler of groups of ops: it draws which rows each op of the group is for.

The planner makes one for each group of a recipe. The samplers of the ops act one after another, as
they do outside of a group, on the rows that are chosen for them (`Frame.chosen`).

Block 0: the op of `one_of` takes word 2, p takes word 3. From block 1 on, `all_of` takes a word for
each op, in the order words 2, 0, 3, 1: the keys that sort its steps. Op j of the group draws from
draw 64 (j + 1) of the group's place on, what it draws elsewhere from draw 0 on.

Invariants: those of `all_samplers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from augd.plan.geometry.frame import Bools, Frame
from augd.plan.ops.groups import AllOf, OneOf
from augd.plan.program import StepOrder
from augd.plan.random.philox import Ints
from augd.plan.samplers.distributions import Chance, Sampler, sort_keys

DRAWS_PER_OP: Final = 64
"""How many draws of the group's place in the random counter each of its ops has."""


def first_draw(number: int) -> int:
    """Return the first draw of op `number` of a group, from 0."""
    return DRAWS_PER_OP * (number + 1)


def order_draws(num_ops: int) -> range:
    """Return the draws of a shuffled group's place that order its steps."""
    return range(1, 1 + (num_ops + 3) // 4)


def draw_order(even: Ints, odd: Ints, num_steps: int) -> Ints:
    """Return which of a group's steps comes at each place, (num_steps, n), from `order_draws`."""
    keys = sort_keys(even, odd)[:num_steps]
    # Stable, since the places of equal keys are otherwise free to differ by CPU.
    return np.argsort(keys, axis=0, kind="stable")


class GroupSampler:
    """Chooses rows for each op, and lets the ops' samplers act on them."""

    def __init__(self, op: OneOf[Any] | AllOf[Any], samplers: Sequence[Sampler]) -> None:
        """Take the samplers of the group's ops."""
        self._chance = Chance(op.p)
        self._thresholds = _thresholds(op) if isinstance(op, OneOf) else None
        self._is_shuffled = isinstance(op, AllOf) and op.shuffle
        num_own = 1 + (len(order_draws(len(samplers))) if self._is_shuffled else 0)
        self.draws = list(range(num_own))
        self._parts: list[tuple[Sampler, slice]] = []
        for number, sampler in enumerate(samplers):
            assert sampler.num_blocks <= DRAWS_PER_OP
            start = first_draw(number)
            part = slice(len(self.draws), len(self.draws) + sampler.num_blocks)
            self.draws += range(start, start + sampler.num_blocks)
            self._parts.append((sampler, part))
        self._num_own = num_own
        self.num_blocks = len(self.draws)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Let each op act on the rows that are chosen for it."""
        first = len(frame.steps)
        for (sampler, part), chosen in zip(self._parts, self.choose(even, odd), strict=True):
            frame.chosen = chosen
            sampler.sample(frame, even[:, part], odd[:, part])
        frame.chosen = None
        num_steps = len(frame.steps) - first
        if self._is_shuffled and num_steps > 1:
            keys = slice(1, self._num_own)
            order = draw_order(even[:, keys], odd[:, keys], num_steps)
            frame.orders.append(StepOrder(first, len(frame.steps), order))

    def choose(self, even: Ints, odd: Ints) -> list[Bools | None]:
        """Return the rows that are chosen for each op; None for all rows."""
        applied = self._chance(odd[0, 0])
        if self._thresholds is None:
            return [applied] * len(self._parts)
        words = even[0, 0]
        below = [words < threshold for threshold in self._thresholds]
        chosen = [below[0], *(~low & high for low, high in pairwise(below))]
        return [one if applied is None else one & applied for one in chosen]


def _thresholds(op: OneOf[Any]) -> list[Ints]:
    """Return below which words each op or one before it is drawn, of the 2**32."""
    weights = op.weights or (1.0,) * len(op.ops)
    total, before = sum(weights), 0.0
    thresholds = []
    for weight in weights:
        before += weight
        thresholds.append(np.array(round(before / total * 2**32), np.int64))
    return thresholds
