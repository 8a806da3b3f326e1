"""Counts of the classes in one pass, to say what a network cannot learn or be measured on.

The loop counts the whole first epoch and the first validation. Counting reads nothing from the
device before the end of the pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .distributed import Ranks

# From so many to one on, a network that always says the large class seems good.
_IMBALANCE = 16
_NAMED = 4


class ClassCounts:
    """Images by class."""

    def __init__(self, classes: list[str], device: torch.device) -> None:
        self._classes = classes
        self._counts = torch.zeros(len(classes), device=device)

    def add(self, labels: Tensor) -> None:
        """Count the labels of a batch, int64 (B,)."""
        ones = torch.ones(len(labels), device=self._counts.device)
        self._counts.index_add_(0, labels, ones)

    def told_of_training(self, ranks: Ranks, *, is_balanced: bool) -> list[str]:
        """Return lines about classes that are missing, or much smaller than others."""
        counts = ranks.sums(*self._counts.tolist())
        lines = []
        if empty := self._without(counts):
            lines.append(
                f"No image to train on has the class {empty}: the network "
                "cannot learn it. Add images, or take the class out of the dataset."
            )
        present = [
            (count, name) for count, name in zip(counts, self._classes, strict=True) if count
        ]
        if len(present) > 1 and max(present)[0] >= _IMBALANCE * min(present)[0] and not is_balanced:
            (most, large), (least, small) = max(present), min(present)
            lines.append(
                f"Class {large!r} has {most:.0f} images to train on, and {small!r} {least:.0f}: "
                "--balance class draws them in equal numbers, --class-weight weighs the loss."
            )
        return lines

    def told_of_validation(self, ranks: Ranks) -> list[str]:
        """Return a line about classes that the accuracy says nothing of."""
        empty = self._without(ranks.sums(*self._counts.tolist()))
        if not empty:
            return []
        return [
            f"No image to validate with has the class {empty}: the accuracy says nothing of it. "
            "Give val/ images of every class, or choose another --val-fraction."
        ]

    def _without(self, counts: list[float]) -> str:
        empty = [name for name, count in zip(self._classes, counts, strict=True) if not count]
        more = f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
        return ", ".join(map(repr, empty[:_NAMED])) + more
