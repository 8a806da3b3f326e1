"""Running sums of loss and hits over a pass.

The loop adds each step. Sums are over rows, so that a short last batch counts by its rows. They are
added in the order of the batches, so that a resumed sum is the same number. Adding a batch reads
nothing from the device.
"""

from __future__ import annotations

import math

from torch import Tensor


class RunningMetrics:
    """Loss and hits, summed over rows; `unread` of them are still on the device."""

    def __init__(self, loss_sum: float = 0.0, hits: int = 0, rows: int = 0) -> None:
        """Go on from sums, or start from nothing."""
        self.loss_sum, self.hits, self.rows = loss_sum, hits, rows
        self._unread: list[tuple[int, int, Tensor, Tensor]] = []

    def add(self, batch: int, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch by its mean loss; reads nothing from the device."""
        hits = (logits.detach().argmax(1) == labels).sum()
        self._unread.append((batch, len(labels), loss.detach(), hits))

    @property
    def num_unread(self) -> int:
        """Batches that `read` would add."""
        return len(self._unread)

    def read(self) -> int | None:
        """Add up what is unread; return the first batch whose loss is no finite number."""
        unread, self._unread = self._unread, []
        for batch, rows, loss, hits in unread:
            value = loss.item()
            if not math.isfinite(value):
                return batch
            self.loss_sum += value * rows
            self.hits += int(hits.item())
            self.rows += rows
        return None

    @property
    def loss(self) -> float:
        """Mean loss of a row; 0 before the first."""
        return self.loss_sum / max(1, self.rows)

    @property
    def accuracy(self) -> float:
        """Share of hits, 0..1; 0 before the first."""
        return self.hits / max(1, self.rows)

    def sums(self) -> dict[str, float]:
        """Return what `RunningMetrics(**sums)` goes on from."""
        return {"loss_sum": self.loss_sum, "hits": self.hits, "rows": self.rows}
