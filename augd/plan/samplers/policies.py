"""Samplers of the policies: which ops a row gets, and how strong.

`all_samplers` pairs them with their ops; the tables are those of `plan/ops/policy_tables.py`.

One block for each layer:

    word 3   whether the layer is applied
    word 2   the op; in AutoAugment's first layer the sub-policy
    word 0   the level; in AutoAugment's first layer whether the policy is applied at all;
             a cutout's x
    word 1   the sign, by the highest bit; a cutout's y, by the others

Invariants: those of `all_samplers`; a row's words are the same whatever it draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from augd.plan.geometry.frame import Bools, Frame
from augd.plan.ops import policy_tables as tables
from augd.plan.ops.auto_augment_lists import AUTO_POLICIES
from augd.plan.ops.policies import (
    UNIFORM_STD,
    AutoAugment,
    RandAugment,
    ThreeAugment,
    TrivialAugment,
)
from augd.plan.ops.policy_tables import PolicyOp, Rule
from augd.plan.random.numerics import Floats
from augd.plan.random.philox import Ints, normals
from augd.plan.samplers.distributions import Chance, places, uniform
from augd.plan.samplers.policy_layer import (
    DrawnLayer,
    RuleTable,
    apply_layer,
    without_unapplied,
)

_U32 = np.array(32, np.int64)
_SIGN: Final = 1 << 31
_TIMM_TABLES: Final = {
    "weights": tables.TIMM_WEIGHTS,
    "3aw": tables.TIMM_3A_WEIGHTS,
}


class PolicySampler:
    """Draws layers, and applies them one after another."""

    num_blocks = 1
    top_level: float | None = None
    """The level at which ranges end; None if there are no levels."""
    _is_bounded = True
    _has_geometry = True

    def draw(self, frame: Frame, even: Ints, odd: Ints) -> list[DrawnLayer]:
        """Return what each layer draws for all rows; the frame stays as it is."""
        raise NotImplementedError

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Apply the layers."""
        if self._has_geometry and self._is_bounded:
            frame.bound()
        for layer in self.draw(frame, even, odd):
            apply_layer(frame, layer, has_geometry=self._has_geometry)


class RandAugmentSampler(PolicySampler):
    """One block for each layer."""

    def __init__(self, op: RandAugment) -> None:
        rules, weights = _rules_of(op)
        self.num_blocks = op.num_layers
        self._is_bounded = op.bounded
        self.table = RuleTable(rules)
        self._has_geometry = self.table.has_geometry
        self._choose = _Chooser(len(rules), weights)
        self._levels = _LevelLaw(op)
        self.top_level = self._levels.top
        self._chance = Chance(op.layer_p)
        self._has_cutout = any(rule.op == PolicyOp.CUTOUT for rule in rules)

    def draw(self, frame: Frame, even: Ints, odd: Ints) -> list[DrawnLayer]:
        """Draw each layer's op, level and sign."""
        layers = []
        for number, chosen in enumerate(self._choose(even[0])):
            level = self._levels(even[1, number])
            drawn = look_up(
                *(self.table, frame.sides, chosen, level, self._levels.share(level)),
                *(odd[1, number], (self._chance(odd[0, number]),)),
            )
            if self._has_cutout:
                drawn = drawn._replace(centre=_centres(frame, even[1, number], odd[1, number]))
            layers.append(drawn)
        return layers


class TrivialAugmentSampler(PolicySampler):
    """One block; word 0 is the bin."""

    def __init__(self, op: TrivialAugment) -> None:
        self._is_bounded = op.bounded
        self.table = RuleTable(tables.TRIVIAL_WIDE)
        self._bins = op.bins
        self.top_level = op.bins - 1.0
        self._chance = Chance(op.p)

    def draw(self, frame: Frame, even: Ints, odd: Ints) -> list[DrawnLayer]:
        """Draw one op, its bin and its sign."""
        chosen = even[0, 0] * len(self.table.ops) >> _U32
        level = (even[1, 0] * self._bins >> _U32).astype(np.float64)
        share = level / self.top_level
        applied = (self._chance(odd[0, 0]),)
        return [look_up(self.table, frame.sides, chosen, level, share, odd[1, 0], applied)]


class AutoAugmentSampler(PolicySampler):
    """Two blocks, one for each op of the pair."""

    num_blocks = 2
    top_level = 9.0

    def __init__(self, op: AutoAugment) -> None:
        pairs = AUTO_POLICIES[op.policy]
        place = {rule.op: number for number, rule in enumerate(tables.AUTO)}
        self._is_bounded = op.bounded
        self.table = RuleTable(tables.AUTO)
        # (2, 25): of the first and the second op of each pair.
        self._rules: Ints = np.array([[place[one.op] for one in pair] for pair in pairs]).T
        self._levels: Floats = np.array([[float(one.level) for one in pair] for pair in pairs]).T
        shares = [[round(one.tenths * 2**32 / 10) for one in pair] for pair in pairs]
        self._thresholds: Ints = np.array(shares, np.int64).T
        self._chance = Chance(op.p)

    def draw(self, frame: Frame, even: Ints, odd: Ints) -> list[DrawnLayer]:
        """Draw a pair, and whether each of its ops is applied."""
        pair = even[0, 0] * self._rules.shape[1] >> _U32
        is_any = self._chance(even[1, 0])
        layers = []
        for number in range(2):
            level = self._levels[number].take(pair)
            is_applied = odd[0, number] < self._thresholds[number].take(pair)
            layers.append(
                look_up(
                    *(
                        self.table,
                        frame.sides,
                        self._rules[number].take(pair),
                        level,
                        level / self.top_level,
                    ),
                    *(odd[1, number], (is_applied, is_any)),
                )
            )
        return layers


class ThreeAugmentSampler(PolicySampler):
    """One block; word 0 is sigma."""

    _has_geometry = False
    _OPS: Final = np.array([PolicyOp.COLOR, PolicyOp.SOLARIZE, PolicyOp.BLUR], np.int64)
    _NUMBERS: Final = np.array([0.0, 128.0, 0.0])

    def __init__(self, op: ThreeAugment) -> None:
        self._chance = Chance(op.p)

    def draw(self, frame: Frame, even: Ints, odd: Ints) -> list[DrawnLayer]:
        """Draw which of the three, and sigma."""
        chosen = even[0, 0] * len(self._OPS) >> _U32
        op = self._OPS.take(chosen)
        sigma = uniform(even[1, 0], 0.1, 2.0)
        number = np.where(op == PolicyOp.BLUR, sigma, self._NUMBERS.take(chosen))
        op = without_unapplied(op, (self._chance(odd[0, 0]),))
        return [DrawnLayer(op, number, np.zeros(len(op)))]


def look_up(
    table: RuleTable,
    sides: Floats,
    chosen: Ints,
    level: Floats,
    share: Floats,
    sign_words: Ints,
    applied: tuple[Bools | None, ...],
) -> DrawnLayer:
    """Return the layer of the `chosen` rules, in a frame of `sides`, where it is applied."""
    number = table.numbers(chosen, share, sign_words < _SIGN, sides)
    return DrawnLayer(without_unapplied(table.ops.take(chosen), applied), number, level)


def _rules_of(op: RandAugment) -> tuple[Sequence[Rule], Sequence[int] | None]:
    """Return what a RandAugment chooses from, and its weights if it has any."""
    if op.style == "torchvision":
        return tables.TORCHVISION, None
    if op.style == "tf":
        return tables.TF, None
    if op.choice in _TIMM_TABLES:
        return _TIMM_TABLES[op.choice]
    if op.choice == "3a":
        return tables.TIMM_3A, None
    return (tables.TIMM_INCREASING if op.increasing else tables.TIMM), None


def _centres(frame: Frame, x_words: Ints, y_words: Ints) -> Floats:
    """Return a uniform pixel for each row, (2, n); the highest bit of `y_words` is the sign's."""
    width, height = frame.out_sides[:, 0]
    x = places(x_words, width - 1.0)
    y = places((y_words & (_SIGN - 1)) << 1, height - 1.0)
    return np.stack([x, y])


class _LevelLaw:
    """The levels of a RandAugment: one for all rows, normal, or uniform from 0."""

    def __init__(self, op: RandAugment) -> None:
        self._mean = op.level_number
        self._std = op.std or 0.0
        self._most = op.level_max
        self.top = 30.0 if op.style == "torchvision" else 10.0

    def __call__(self, words: Ints) -> Floats:
        """Return the levels of rows, clipped as timm does."""
        if self._std == 0.0:
            level = np.full(len(words), self._mean)
        elif self._std == UNIFORM_STD:
            level = uniform(words, 0.0, self._mean)
        else:
            level = normals(words)
            level *= self._std
            level += self._mean
        if self._most is not None:
            np.clip(level, 0.0, self._most, out=level)
        return level

    def share(self, level: Floats) -> Floats:
        """Return the share of an op's range that a level stands for."""
        return level / self.top


class _Chooser:
    """Chooses a rule for each layer: uniformly, or by whole weights without replacement."""

    def __init__(self, num_rules: int, weights: Sequence[int] | None) -> None:
        self._num_rules = num_rules
        self._weights = None if weights is None else np.array(weights, np.int64)

    def __call__(self, words: Ints) -> Sequence[Ints]:
        """Return the numbers of the rules, (layers, n), by one word each."""
        if self._weights is None:
            return words * self._num_rules >> _U32  # type: ignore[return-value]
        num_rows = words.shape[1]
        left = np.repeat(self._weights[:, None], num_rows, axis=1)
        chosen = []
        for word in words:
            below = np.cumsum(left, axis=0)
            at = (below <= (word * below[-1] >> _U32)).sum(axis=0)
            chosen.append(at)
            left[at, np.arange(num_rows)] = 0
        return chosen
