"""The sampler of `aug_mix`: chains of ops, and the weights by which they are blended.

The finished row is the image of each chain. So a chain is a frame of its own, which begins as the
whole row, and is planned as a row is.

Blocks of a row: one for each op of each chain, chain after chain; then three for each of the
numbers that make up the weights.

    word 3   of a chain's first op: how many ops the chain has
    word 2   the op
    word 0   the level
    word 1   the sign, by the highest bit

The last word of the first number of the weights says whether the op is applied at all.

Invariants: those of `registry`; weights are whole numbers and sum to `MIX_UNIT`.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from augd.plan.geometry.frame import Frame, FrameMixture
from augd.plan.ops import policy_tables as tables
from augd.plan.ops.policies import AugMix
from augd.plan.plan import MIX_UNIT, Int32s
from augd.plan.random.gamma_law import WORDS, GammaLaw, shares
from augd.plan.random.numerics import Floats
from augd.plan.random.philox import Ints
from augd.plan.samplers.distributions import Chance
from augd.plan.samplers.policies import look_up
from augd.plan.samplers.policy_layer import DrawnLayer, RuleTable, apply_layer

_U32 = np.array(32, np.int64)
_BLOCKS_OF_NUMBER: Final = 3  # 12 words, of which `WORDS` are read
_RANDOM_DEPTH: Final = 3
_TOP_LEVEL: Final = 9.0  # of the ten bins that torchvision has


class AugMixSampler:
    """Draws chains and weights, and hands the frame a mixture."""

    top_level = _TOP_LEVEL

    def __init__(self, op: AugMix) -> None:
        self._width = op.width
        self._is_depth_drawn = op.depth == -1
        self._depth = _RANDOM_DEPTH if self._is_depth_drawn else op.depth
        self._severity = op.severity
        self._num_ops = op.width * self._depth
        self.num_blocks = self._num_ops + _BLOCKS_OF_NUMBER * (op.width + 2)
        self._table = RuleTable(tables.AUG_MIX_ALL if op.all_ops else tables.AUG_MIX_PAPER)
        self._law = GammaLaw(op.alpha)
        self._chance = Chance(op.p)

    def sample(self, frame: Frame, even: Ints, odd: Ints) -> None:
        """Plan the chains on the finished row."""
        chains = []
        for layers in self.draw(frame, even, odd):
            chain = Frame(np.repeat(frame.out_sides, frame.num_rows, axis=1), frame.out_sides)
            chain.bound()
            for layer in layers:
                apply_layer(chain, layer, has_geometry=True)
            chains.append(chain)
        frame.mixture = FrameMixture(chains, self.draw_weights(even, odd))

    def draw(self, frame: Frame, even: Ints, odd: Ints) -> list[list[DrawnLayer]]:
        """Return what each op of each chain draws for all rows."""
        chains = []
        for chain in range(self._width):
            first = chain * self._depth
            depth = np.full(even.shape[2], self._depth)
            if self._is_depth_drawn:
                depth = 1 + (odd[0, first] * _RANDOM_DEPTH >> _U32)
            layers = []
            for number in range(self._depth):
                at = first + number
                chosen = even[0, at] * len(self._table.ops) >> _U32
                level = (even[1, at] * self._severity >> _U32).astype(np.float64)
                layers.append(
                    look_up(
                        *(self._table, frame.out_sides, chosen, level, level / _TOP_LEVEL),
                        *(odd[1, at], (number < depth,)),
                    )
                )
            chains.append(layers)
        return chains

    def draw_weights(self, even: Ints, odd: Ints) -> Int32s:
        """Return the weights of the row and its chains, (n, 1 + width)."""
        words = np.concatenate([even, odd]).transpose(1, 0, 2)[self._num_ops :]
        # (12, numbers, n): the words of each number.
        words = words.reshape(self._width + 2, 4 * _BLOCKS_OF_NUMBER, -1).transpose(1, 0, 2)
        numbers = self._law(words[:WORDS])
        mixed = shares(numbers[:2])[1]
        is_applied = self._chance(words[WORDS, 0])
        if is_applied is not None:
            mixed = mixed * is_applied
        of_chains: Floats = np.floor(shares(numbers[2:]) * mixed * MIX_UNIT)
        weights = np.empty((even.shape[2], 1 + self._width), np.int32)
        weights[:, 1:] = of_chains.T
        weights[:, 0] = MIX_UNIT - weights[:, 1:].sum(axis=1)
        return weights
