"""Regularisation against overfitting: mixup, label smoothing, averaged weights.

Used around the loss of a step (`mixup`, `loss_of`) and after it (`Average`). Every random number
comes from torch's CPU generator, whose state checkpoints hold. Dropout and DropConnect belong to
the head (`trainer.models.head`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Mixed(NamedTuple):
    """Images that are each a blend of two.

    Attributes:
        images: (B, 3, H, W), as the originals.
        labels: int64 (B,): of the first of the two.
        partners: int64 (B,): of the second.
        share: of the first, 0..1.
    """

    images: Tensor
    labels: Tensor
    partners: Tensor
    share: float


def mixup(images: Tensor, labels: Tensor, alpha: float) -> Mixed:
    """Blend each image with another one of its batch, at one share from Beta(alpha, alpha).

    Source: Zhang et al. 2018, section 2; one share per batch, as in the authors' program.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(images)).to(images.device)
    return Mixed(torch.lerp(images[order], images, share), labels, labels[order], share)


def loss_of(
    logits: Tensor, mixed: Mixed, smoothing: float, class_weights: Tensor | None = None
) -> Tensor:
    """Return the mean cross-entropy of logits (B, K) with either label, weighed by the share.

    Args:
        logits: of the mixed images.
        mixed: has both labels.
        smoothing: share of each label that is spread over all classes (Szegedy et al. 2016,
            section 7).
        class_weights: (K,), 1 on the average; None is 1 each.
    """
    loss = _cross_entropy(logits, mixed.labels, smoothing, class_weights)
    if mixed.share == 1:
        return loss
    other = _cross_entropy(logits, mixed.partners, smoothing, class_weights)
    return mixed.share * loss + (1 - mixed.share) * other


def soft_loss_of(logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of logits (B, K) with targets, float (B, K).

    `class_weights`, (K,), weigh each class's part of a target; None is 1 each.
    """
    return functional.cross_entropy(logits, targets, class_weights)


def _cross_entropy(
    logits: Tensor, labels: Tensor, smoothing: float, weights: Tensor | None
) -> Tensor:
    if weights is None:
        return functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    # Divided by the rows, and not by their weights, which differ from batch to batch: so the
    # gradients of several processes add up to that of all their rows.
    losses = functional.cross_entropy(
        logits, labels, weights, reduction="none", label_smoothing=smoothing
    )
    return losses.mean()


class Average:
    """An exponential moving average of a network's weights and buffers.

    After update n it holds d * average + (1 - d) * weights with d = min(decay, (1 + n) / (10 + n)).
    So the influence of the first, random weights soon vanishes. Buffers that are not floats are the
    network's. torch's `AveragedModel` is not used: it copies at the first update, and it averages
    integer buffers.

    Source: Polyak and Juditsky 1992; the warm-up is TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self._num_updates = 0
        self._shadow = {name: one.detach().clone() for name, one in network.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network's weights after a step; allocates nothing."""
        decay = min(self._decay, (1 + self._num_updates) / (10 + self._num_updates))
        self._num_updates += 1
        for name, one in self._network.state_dict().items():
            if one.is_floating_point():
                self._shadow[name].lerp_(one, 1 - decay)
            else:
                self._shadow[name].copy_(one)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Use the average as the network's weights within the block."""
        own = {name: one.detach().clone() for name, one in self._network.state_dict().items()}
        self._network.load_state_dict(self._shadow)
        try:
            yield
        finally:
            self._network.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average, by the names of the network's own state."""
        return self._shadow

    @property
    def num_updates(self) -> int:
        """How many steps were averaged."""
        return self._num_updates

    def load_state_dict(self, state: dict[str, Tensor], num_updates: int) -> None:
        """Go on from a saved average."""
        for name, one in state.items():
            self._shadow[name].copy_(one)
        self._num_updates = num_updates
