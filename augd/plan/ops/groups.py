"""Groups of ops: one of several, or several behind one coin. A group holds single ops alone.

Gathered by `all_ops`, which says what the single ops are; sampled by `plan/samplers/groups.py`.

Invariants: no op in a group decides the size of the row, makes several rows or is a policy.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

from augd.plan.ops.base import BaseOp, check_probability, name_of

# Each op of a group has 64 of the 4096 draws of the group's place in the random counter.
MAX_GROUP_OPS = 32

SingleOp = TypeVar("SingleOp", bound=BaseOp)


class OneOf(BaseOp, Generic[SingleOp], tag="one_of", frozen=True, kw_only=True):
    """Apply one of `ops`, drawn with `weights`, which are equal by default; or none, by `p`.

    The op that was drawn is applied with its own probability. Weights need not sum to 1.
    Source: Buslaev et al. 2020 (Albumentations), `OneOf`.
    """

    ops: tuple[SingleOp, ...]
    weights: tuple[float, ...] | None = None
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        _check_ops(self)
        self._check_weights()

    @property
    def inner(self) -> tuple[BaseOp, ...]:
        """The ops of the group."""
        return self.ops

    @property
    def reduction(self) -> float:
        """By how much the op that reduces the image most does so."""
        return max(op.reduction for op in self.inner)

    def check_rows(self, height: int, width: int) -> None:
        """Check each op of the group."""
        _check_rows(self, height, width)

    def _check_weights(self) -> None:
        if self.weights is None:
            return
        if len(self.weights) != len(self.ops):
            raise ValueError(
                f"weights: expected {len(self.ops)} numbers, one for each op, got "
                f"{len(self.weights)}. Give one for each op, or leave weights out."
            )
        if not (all(weight >= 0 for weight in self.weights) and 0 < sum(self.weights) < math.inf):
            raise ValueError(
                f"weights: expected numbers >= 0 with a sum > 0, got {list(self.weights)}. "
                "Give how often each op is drawn, compared to the others."
            )


class AllOf(BaseOp, Generic[SingleOp], tag="all_of", frozen=True, kw_only=True):
    """Apply all of `ops`, or with probability 1 - `p` none of them: one coin for the group.

    Each op is applied with its own probability then. `shuffle` draws the order of the group's
    colour ops for each image; its geometric ops stay in the order of the list.
    Source: torchvision, `RandomApply` and `RandomOrder`.
    """

    ops: tuple[SingleOp, ...]
    p: float = 1.0
    shuffle: bool = False

    def __post_init__(self) -> None:
        check_probability(self.p)
        _check_ops(self)

    @property
    def inner(self) -> tuple[BaseOp, ...]:
        """The ops of the group."""
        return self.ops

    @property
    def reduction(self) -> float:
        """By how much the ops reduce the image together."""
        return math.prod(op.reduction for op in self.inner)

    def check_rows(self, height: int, width: int) -> None:
        """Check each op of the group."""
        _check_rows(self, height, width)


def _check_ops(group: BaseOp) -> None:
    if not 1 <= len(group.inner) <= MAX_GROUP_OPS:
        raise ValueError(
            f"ops: expected 1 to {MAX_GROUP_OPS} ops in {name_of(group)}, got "
            f"{len(group.inner)}. Give the ops that it is made of."
        )
    for number, op in enumerate(group.inner):
        if op.is_sizing or op.num_views > 1:
            raise ValueError(
                f"ops[{number}].op: expected an op that leaves the size of the row in "
                f"{name_of(group)}, got {name_of(op)}. Put it beside the group, not into it."
            )
        if op.needs_size:
            raise ValueError(
                f"ops[{number}].op: expected a single op in {name_of(group)}, got {name_of(op)}, "
                "which chooses among ops itself. Put it beside the group, not into it."
            )


def _check_rows(group: BaseOp, height: int, width: int) -> None:
    for number, op in enumerate(group.inner):
        try:
            op.check_rows(height, width)
        except ValueError as error:
            raise ValueError(f"ops[{number}].{error}") from None
