"""What the rows of a batch are mixed with: partners, shares and boxes, drawn for all rows at once.

The client computes it when a batch arrives. Nothing of it travels: it is a function of the recipe's
`mix`, the seed, the epoch and the position of the rows, so that a resume mixes the same.

    key      mix(seed, Purpose.MIX)
    counter  first position of what is drawn for (64) | epoch (32) | 0 (8) view (12) draw (12)

What is drawn for is a batch of one rank, a pair or a row, by `scope`. View 0, draw 0: word 0
whether it is mixed, word 1 CutMix or mixup, words 2 and 3 the centre of the box. View 1: the share
of mixup, view 2: that of CutMix. Draws 0 to 2 are of the first gamma number, 3 to 5 of
the second. View 3: the keys by which rows are permuted, one block per row.

Invariants: nothing here touches a pixel; no operation whose bits depend on the processor; the draws
of one batch do not depend on another.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from augd.plan.random.gamma_law import WORDS, GammaLaw, shares
from augd.plan.random.numerics import Floats
from augd.plan.random.philox import (
    Ints,
    Purpose,
    Words,
    mix,
    philox_words,
    stream_counter,
)
from augd.plan.recipe.mix import Mix

_BLOCKS: Final = -(-WORDS // 4)
_PLACE, _MIXUP, _CUTMIX, _ORDER = 0, 1, 2, 3
_UNIT: Final = 2.0**-32


class Mixing(NamedTuple):
    """How each row of a batch is mixed. The arrays are the caller's.

    A row that is not mixed has itself as its partner, share 1 and an empty box.
    """

    partners: NDArray[np.int64]
    """(B,): the row that is mixed in."""
    share: NDArray[np.float32]
    """(B,): the weight of the row's own label, 0..1; of its own pixels where it is not cut."""
    is_cut: NDArray[np.bool_]
    """(B,): rows with a box of their partner's pixels (CutMix); the others are blends (mixup)."""
    box: NDArray[np.float64]
    """(B, 4): x1, y1, x2, y2 as shares of the width and the height, 0..1; 0 where not cut.

    They are whole pixels at the size that the share was computed for.
    """

    def pixels(self, height: int, width: int) -> NDArray[np.int64]:
        """Return the boxes, int64 (B, 4), in pixels of an image of this size."""
        scale = np.array([width, height, width, height], np.float64)
        return np.rint(self.box * scale).astype(np.int64)


class Mixer:
    """Computes the mixing of the batches of one stream.

    `size` is (height, width) of the rows, for which boxes are whole pixels.
    """

    def __init__(self, recipe: Mix, seed: int, size: tuple[int, int]) -> None:
        self.recipe = recipe
        self._key = mix(seed, Purpose.MIX)
        self._height, self._width = size
        # Of an alpha of 0 nothing is drawn.
        self._mixup, self._cutmix = GammaLaw(recipe.mixup or 1.0), GammaLaw(recipe.cutmix or 1.0)

    def plan(self, epoch: int, position: int, valid: NDArray[np.bool_]) -> Mixing:
        """Return how the rows of a batch are mixed.

        `position` is that of the batch's first row in the epoch; `valid`, (B,), says which rows are
        samples that could be read. Others are neither mixed nor mixed in.
        """
        recipe, count = self.recipe, len(valid)
        rows = np.arange(count)
        is_off = recipe.off_epoch is not None and epoch >= recipe.off_epoch
        if is_off or not (recipe.mixup or recipe.cutmix):
            return _unmixed(rows)
        number = _numbers(recipe.scope, rows)
        first = {"batch": 1, "pair": 2, "row": 1}[recipe.scope]
        drawn_for = int(number[-1]) + 1 if count else 0
        at = np.arange(drawn_for) * first + position
        share, is_cut, box, is_mixed = self._draw(at, epoch)
        partners = self._partners(rows, epoch, position)
        is_mixed = is_mixed[number] & valid & valid[partners] & (partners != rows)
        return Mixing(
            partners=np.where(is_mixed, partners, rows),
            share=np.where(is_mixed, share[number], 1.0).astype(np.float32),
            is_cut=is_mixed & is_cut[number],
            box=np.where((is_mixed & is_cut[number])[:, None], box[number], 0.0),
        )

    def _draw(
        self, at: Ints, epoch: int
    ) -> tuple[Floats, NDArray[np.bool_], Floats, NDArray[np.bool_]]:
        """Return share, is_cut, box (n, 4) and is_mixed for each of n positions."""
        recipe = self.recipe
        words = self._words(at, epoch, _PLACE, 0)
        is_mixed = words[0] < round(recipe.prob * 2**32)
        is_cut = np.full(len(at), bool(recipe.cutmix))
        if recipe.mixup and recipe.cutmix:
            is_cut = words[1] < round(recipe.switch * 2**32)
        share = np.ones(len(at))
        if recipe.mixup:
            share = self._beta(self._mixup, at, epoch, _MIXUP)
        box = np.zeros((len(at), 4))
        if recipe.cutmix:
            kept = self._beta(self._cutmix, at, epoch, _CUTMIX)
            box, corrected = self._box(kept, words)
            share = np.where(is_cut, corrected, share)
        return share, is_cut, box, is_mixed

    def _box(self, share: Floats, words: Words) -> tuple[Floats, Floats]:
        """Return boxes as shares of the sides, and the share of pixels that stays.

        The side of the box is int(side * sqrt(1 - share)) about a uniform pixel, cut at the border.
        """
        cut = np.sqrt(1.0 - share)
        ends = []
        for side, word in ((self._width, words[2]), (self._height, words[3])):
            half = np.floor(cut * side) // 2
            centre = np.floor(word.astype(np.float64) * (side * _UNIT))
            ends.append((np.clip(centre - half, 0, side), np.clip(centre + half, 0, side)))
        (x1, x2), (y1, y2) = ends
        area = (x2 - x1) * (y2 - y1)
        width, height = self._width, self._height
        box = np.stack([x1 / width, y1 / height, x2 / width, y2 / height], axis=1)
        return box, 1.0 - area / (width * height)

    def _partners(self, rows: Ints, epoch: int, position: int) -> Ints:
        recipe, count = self.recipe, len(rows)
        if recipe.scope == "pair":
            return np.asarray(np.minimum(rows ^ 1, count - 1), np.int64)
        if recipe.partner == "flip":
            return rows[::-1]
        if recipe.partner == "roll":
            return np.roll(rows, 1)
        keys = self._words(rows + position, epoch, _ORDER, 0)[0]
        return np.asarray(np.argsort(keys, kind="stable"), np.int64)

    def _beta(self, law: GammaLaw, at: Ints, epoch: int, view: int) -> Floats:
        """Return Beta(alpha, alpha): the share of one gamma number of two."""
        words = np.stack([self._words(at, epoch, view, draw) for draw in range(2 * _BLOCKS)])
        both = words.reshape(2, 4 * _BLOCKS, len(at))[:, :WORDS]
        share: Floats = shares(np.stack([law(both[0]), law(both[1])]))[0]
        return share

    def _words(self, at: Ints, epoch: int, view: int, draw: int) -> Words:
        return philox_words(self._key, at.astype(np.uint64), epoch, stream_counter(0, view, draw))


def soft_targets(
    labels: NDArray[np.int64] | NDArray[np.float32],
    mixing: Mixing,
    num_classes: int,
    smoothing: float,
) -> NDArray[np.float32]:
    """Return the targets of mixed rows, float32 (B, K).

    `labels` are classes, int64 (B,), or targets, float32 (B, K). With classes a target is one-hot:
    1 - e + e / K and e / K elsewhere for a `smoothing` of e, and all 0 where the label is below 0.
    Then share * own + (1 - share) * partner's.
    """
    if labels.ndim == 2:
        own = labels.astype(np.float32)
    else:
        own = np.full((len(labels), num_classes), smoothing / max(1, num_classes), np.float32)
        is_known = labels >= 0
        own[~is_known] = 0.0
        own[is_known, labels[is_known]] += np.float32(1.0 - smoothing)
    share = mixing.share[:, None]
    mixed = own * share
    mixed += own[mixing.partners] * (np.float32(1.0) - share)
    return mixed


def _unmixed(rows: Ints) -> Mixing:
    count = len(rows)
    box = np.zeros((count, 4))
    return Mixing(rows, np.ones(count, np.float32), np.zeros(count, np.bool_), box)


def _numbers(scope: str, rows: Ints) -> Ints:
    """Return for each row the number of what is drawn for."""
    if scope == "batch":
        return rows * 0
    return rows // 2 if scope == "pair" else rows
