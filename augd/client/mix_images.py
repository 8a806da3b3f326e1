"""Mixes the rows of a batch, as a recipe's `mix` says: mixup, CutMix and soft targets.

Runs in the training process, when a batch is opened and its digest compared. Slots may be shared
with other trainers, so that mixed images are a copy. `augd/plan/mix_draws.py` says what is mixed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from augd.plan.mix_draws import Mixer, Mixing, soft_targets
from augd.plan.recipe.mix import Mix

if TYPE_CHECKING:
    from augd.client.batch import Batch

# Shares of a blend of bytes are multiples of 2**-16: within 1/256 of a grey level.
_STEPS = 16


class RowMixer:
    """Mixes the batches of one stream, or says how they are to be mixed.

    `size` is (height, width) of the rows. With `is_applied` images become mixed copies.
    """

    def __init__(
        self, mix: Mix, seed: int, size: tuple[int, int], num_classes: int, *, is_applied: bool
    ) -> None:
        self._mixer = Mixer(mix, seed, size)
        self._smoothing = mix.smoothing
        self._num_classes = num_classes
        self._is_applied = is_applied

    def mix(self, batch: Batch, position: int) -> None:
        """Mix a batch whose first row stands at this position of its epoch."""
        mixing = self._mixer.plan(batch.epoch, position, batch.valid)
        batch.mixing = mixing
        batch.targets = soft_targets(batch.labels, mixing, self._num_classes, self._smoothing)
        if self._is_applied:
            batch.images = mix_images(batch.images, mixing)


def mix_images(images: NDArray[np.uint8], mixing: Mixing) -> NDArray[np.uint8]:
    """Return mixed images, uint8 as (B, H, W, 3) or (B, V, H, W, 3) came; the others are copied.

    A blend is rounded to the nearest grey level, halves up.
    """
    mixed = images.copy()
    boxes = mixing.pixels(*images.shape[-3:-1])
    scratch: list[NDArray[Any]] = []
    for row, partner in enumerate(mixing.partners.tolist()):
        if partner == row:
            continue
        if mixing.is_cut[row]:
            x1, y1, x2, y2 = boxes[row].tolist()
            mixed[row, ..., y1:y2, x1:x2, :] = images[partner, ..., y1:y2, x1:x2, :]
            continue
        if not scratch:
            scratch = [np.empty(images.shape[1:], np.uint32) for _ in range(2)]
        _blend(images[row], images[partner], float(mixing.share[row]), mixed[row], scratch)
    return mixed


def _blend(
    own: NDArray[np.uint8],
    other: NDArray[np.uint8],
    share: float,
    out: NDArray[np.uint8],
    scratch: list[NDArray[Any]],
) -> None:
    total, part = scratch
    weight = round(share * (1 << _STEPS))
    np.multiply(own, np.uint32(weight), out=total, dtype=np.uint32)
    np.multiply(other, np.uint32((1 << _STEPS) - weight), out=part, dtype=np.uint32)
    total += part
    total += np.uint32(1 << (_STEPS - 1))
    total >>= np.uint32(_STEPS)
    np.copyto(out, total, casting="unsafe")
