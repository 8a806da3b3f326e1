"""A stream's receipts: what was handed out of each epoch, and the sums of its digests.

Runs in the training process, below `augd/client/epoch_reader.py`. Sums survive resumes, because the
stream's state contains them. Holds a few integers per epoch; knows no socket and no pixel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from augd.errors import OptionError
from augd.protocol.digest_sums import DIGEST_MODULUS, IDS_MODULUS, Sums, read_sum
from augd.protocol.messages import BatchMessage

_EPOCHS_MAX = 1000
_PLACES_MAX = 4096  # batches for which a state may still be asked: more than two per slot


@dataclass(slots=True)
class EpochDigest(Sums):
    """What was handed out of an epoch; `is_whole` means that it was counted from its start.

    `files_changed` means that files of the dataset were replaced while it was read.
    """

    is_whole: bool = True
    files_changed: bool = False

    def as_data(self) -> dict[str, Any]:
        return {
            "batches": self.batches,
            "samples": self.samples,
            "num_bad": self.num_bad,
            "ids": f"{self.ids_digest:016x}",
            "bytes": f"{self.digest:032x}",
            "is_whole": self.is_whole,
            "files_changed": self.files_changed,
        }


def read_sums(data: Mapping[str, Any] | None) -> EpochDigest:
    """Read what `as_data` returned; None is an epoch that was not counted from its start."""
    if data is None:
        return EpochDigest(is_whole=False)
    try:
        counts = int(data["batches"]), int(data["samples"]), int(data["num_bad"])
        digests = int(data["bytes"], 16) % DIGEST_MODULUS, int(data["ids"], 16) % IDS_MODULUS
        return EpochDigest(
            *counts, *digests, bool(data["is_whole"]), bool(data.get("files_changed"))
        )
    except (KeyError, TypeError, ValueError):
        raise OptionError(
            f"state: expected a receipt of state_dict() under 'receipt', got {data!r}"
        ) from None


class Receipts:
    """The sums of each epoch, of the newest thousand."""

    def __init__(self) -> None:
        self._of: dict[int, EpochDigest] = {}
        self._ended: set[int] = set()
        self._after: dict[tuple[int, int], EpochDigest] = {}  # (epoch, position of the next batch)
        self._order: deque[tuple[int, int]] = deque()

    def begin(self, epoch: int, sums: EpochDigest) -> None:
        """Count an epoch from these sums on; earlier counts of it are dropped."""
        self._of.pop(epoch, None)
        self._of[epoch] = sums
        self._ended.discard(epoch)
        while len(self._of) > _EPOCHS_MAX:
            oldest = next(iter(self._of))
            del self._of[oldest]
            self._ended.discard(oldest)

    def add(self, ready: BatchMessage, samples: int, ids: int, next_position: int) -> None:
        """Count a batch that is handed out."""
        sums = self._of[ready.epoch]
        sums.add(Sums(1, samples, ready.num_bad, read_sum(ready.digest), ids))
        self.keep((ready.epoch, next_position), sums)

    def keep(self, place: tuple[int, int], sums: EpochDigest) -> None:
        """Keep the sums up to a place: of this process, or from a checkpoint."""
        if place not in self._after:
            self._order.append(place)
        self._after[place] = replace(sums)
        while len(self._order) > _PLACES_MAX:
            del self._after[self._order.popleft()]

    def note_change(self, epoch: int) -> None:
        """Mark an unfinished epoch: files changed while it was read."""
        if epoch in self._of and epoch not in self._ended and self._of[epoch].batches:
            self._of[epoch].files_changed = True

    def end(self, epoch: int) -> None:
        """Mark an epoch as handed out to its end."""
        self._ended.add(epoch)

    def at(self, place: tuple[int, int]) -> EpochDigest | None:
        """Return the sums up to a place that was passed; None when that was too long ago."""
        return self._after.get(place)

    def receipt(self, epoch: int) -> dict[str, Any]:
        """Return an epoch's receipt as JSON data.

        Raises:
            OptionError: nothing of this epoch was handed out, or too long ago.
        """
        if epoch not in self._of:
            known = ", ".join(map(str, list(self._of)[-5:])) or "none"
            raise OptionError(f"epoch: no receipt of {epoch}; the last ones are of: {known}")
        data = self._of[epoch].as_data()
        is_complete = data.pop("is_whole") and epoch in self._ended
        return {"epoch": epoch, **data, "is_complete": is_complete}
