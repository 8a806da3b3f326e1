"""Metrics of predictions: accuracy, top-5, per class, and the confusion matrix.

Takes probabilities, after the softmax. Sums are over rows, so batches may have any size. Adding a
batch reads nothing from the device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_TOP = 5


class Scores:
    """Counts of predictions against labels."""

    def __init__(self, classes: list[str], device: torch.device) -> None:
        self._classes = classes
        num_classes = len(classes)
        self._counts = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=device)
        self._top = torch.zeros((), dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, probabilities: Tensor, labels: Tensor) -> None:
        """Count rows of probabilities (B, K) against int64 labels (B,) in 0..K-1."""
        num_classes = len(self._classes)
        ranked = probabilities.topk(min(_TOP, num_classes), dim=1).indices
        cells = labels * num_classes + ranked[:, 0]
        self._counts.index_add_(0, cells, torch.ones_like(cells))
        self._top += (ranked == labels[:, None]).any(1).sum()
        # The smallest normal number: a probability of 0 is a bad guess, no infinite one.
        chosen = probabilities.double().gather(1, labels[:, None]).clamp_min(2.0**-126)
        self._loss -= chosen.log().sum()

    @property
    def confusion(self) -> Tensor:
        """Samples by label (rows) and prediction (columns): int64 (K, K), on the CPU."""
        num_classes = len(self._classes)
        return self._counts.view(num_classes, num_classes).cpu()

    def as_data(self) -> dict[str, Any]:
        """Return everything as JSON data; the accuracy of a class without samples is None.

        accuracy, top5: shares, 0..1; top5 counts the label among the five likeliest classes.
        loss: mean of -log p(label).
        """
        confusion = self.confusion
        samples, hits = confusion.sum(1), confusion.diagonal()
        total = max(1, int(samples.sum()))
        return {
            "samples": int(samples.sum()),
            "accuracy": int(hits.sum()) / total,
            "top5": int(self._top) / total,
            "loss": float(self._loss) / total,
            "classes": [
                {"name": name, "samples": count, "accuracy": hit / count if count else None}
                for name, count, hit in zip(
                    self._classes, samples.tolist(), hits.tolist(), strict=True
                )
            ],
            "confusion": confusion.tolist(),
        }
