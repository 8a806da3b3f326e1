"""Predictions of networks: probabilities, averaged over views and over an ensemble.

Used after training, on a stream in the index's order. Averages are of probabilities, after the
softmax, and not of logits: "in training add noise, at test average it out". Changes no weight and
no buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data.host_feed import Batch
from ..data.source import BatchSource, usable_rows
from ..data.stream import Stream
from .metrics import Scores


@torch.inference_mode()
def probabilities(network: nn.Module, images: Tensor, rows_max: int) -> Tensor:
    """Return probabilities (B, K), float32, of images (B, 3, H, W) or of views (B, V, 3, H, W).

    Those of a row's views are averaged. At most `rows_max` images pass at once.

    Source: Krizhevsky et al. 2012, section 4.1.
    """
    flat = images.flatten(0, 1) if images.dim() == 5 else images
    logits = torch.cat([network(part) for part in torch.split(flat, rows_max)])
    shares = logits.float().softmax(1)
    return shares.view(len(images), -1, shares.shape[1]).mean(1)


def evaluate(
    networks: Sequence[nn.Module],
    source: BatchSource,
    rows_max: int,
    report: Callable[[int], None] = lambda rows: None,
) -> tuple[Scores, list[Scores]]:
    """Score an ensemble on one epoch of a source, and each of its networks alone.

    Args:
        networks: in evaluation mode, on the source's device.
        source: with views or without.
        rows_max: images that pass through a network at once.
        report: called with the rows of each batch that was done.

    Raises:
        DatasetError: a sample has no class, or one beyond the classes.
    """
    together = Scores(source.classes, source.device)
    alone = [Scores(source.classes, source.device) for _ in networks]
    for images, labels in _rows(source):
        said = [probabilities(one, images, rows_max) for one in networks]
        for scores, shares in zip(alone, said, strict=True):
            scores.add(shares, labels)
        together.add(torch.stack(said).mean(0), labels)
        report(len(labels))
    return together, alone


def _rows(source: BatchSource) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in source.epoch(0):
        images, labels = usable_rows(batch, source)
        if len(labels):
            yield images, labels


class Predicted(NamedTuple):
    """What networks say of one batch.

    Attributes:
        ids: of its samples, in order, without padding.
        is_bad: whether each could not be read.
        shares: probabilities, float32 (B, K), of those that could, in order.
    """

    ids: list[int]
    is_bad: list[bool]
    shares: NDArray[np.float32]


def predict(networks: Sequence[nn.Module], stream: Stream, rows_max: int) -> Iterator[Predicted]:
    """Yield the probabilities of one epoch of a stream, averaged over the networks.

    A batch is read from the device when the next one is under way, so that neither waits.
    """
    pending: tuple[Batch, Tensor] | None = None
    for batch in stream.epoch(0):
        shares = _shares(networks, batch, rows_max)
        if pending is not None:
            yield _read(*pending)
        pending = batch, shares
    if pending is not None:
        yield _read(*pending)


@torch.inference_mode()
def _shares(networks: Sequence[nn.Module], batch: Batch, rows_max: int) -> Tensor:
    low, _ = batch.label_range or (-100, 0)
    images = batch.images if low >= -1 else batch.images[batch.valid]
    if not len(images):
        return torch.empty(0, 0)
    said = [probabilities(one, images, rows_max) for one in networks]
    return torch.stack(said).mean(0)


def _read(batch: Batch, shares: Tensor) -> Predicted:
    ids, valid = batch.ids.tolist(), batch.valid.tolist()
    rows = [number for number, sample in enumerate(ids) if sample >= 0]
    return Predicted(
        ids=[ids[row] for row in rows],
        is_bad=[not valid[row] for row in rows],
        shares=shares.cpu().numpy(),
    )
