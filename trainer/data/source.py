"""Sources of training batches: a stream or stored features, epoch by epoch.

Runs in the training process, between a stream and the training loop. Invalid rows are dropped here.
Knows no network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

import augd

from .host_feed import Batch


class BatchSource(Protocol):
    """A source of batches for training and validation: `augd.torch.Stream`, or stored features."""

    @property
    def device(self) -> torch.device: ...

    @property
    def num_samples(self) -> int: ...

    @property
    def classes(self) -> list[str]: ...

    @property
    def dataset(self) -> str: ...

    def __len__(self) -> int: ...

    def epoch(self, epoch: int) -> Iterator[Batch]: ...

    def stats(self) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def usable_rows(batch: Batch, source: BatchSource) -> tuple[Tensor, Tensor]:
    """Return images and labels of the valid rows.

    Raises:
        DatasetError: samples have targets, one has no class, or one is beyond the classes.
    """
    images, labels = batch.images, batch.labels
    num_classes = len(source.classes)
    if labels.is_floating_point():
        raise augd.DatasetError(
            f"dataset {source.dataset!r} has targets, and no class per image; the trainer learns "
            "one class per image"
        )
    low, high = batch.label_range or (int(labels.min()), int(labels.max()))
    if low >= 0 and high < num_classes:
        return images, labels  # the usual case, without a wait for the device
    images, labels, ids = (rows[batch.valid] for rows in (images, labels, batch.ids))
    if bool((labels < 0).any()):
        raise augd.DatasetError(
            f"sample {int(ids[labels < 0][0])} of dataset {source.dataset!r} has no class, where "
            f"others have one of {num_classes}: put it into a class folder, or take it out"
        )
    if bool((labels >= num_classes).any()):
        first = int((labels >= num_classes).nonzero()[0])
        raise augd.DatasetError(
            f"sample {int(ids[first])} of dataset {source.dataset!r} has label "
            f"{int(labels[first])}, expected 0..{num_classes - 1} for its {num_classes} classes: "
            "correct the labels in its manifest"
        )
    return images, labels
