"""What arrives, row by row, beside what one producer of an undisturbed daemon made.

A `Reference` says which sample stands at which position of an epoch, and what its row is. A `Chain`
follows one rank through one epoch, resumes included: each batch must begin where the one before
ended, each row must be its position's, and the receipt must say what was counted, and no more.
Knows no process and no socket.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from augd.protocol.digest_sums import DIGEST_MODULUS, IDS_MODULUS
from augd.protocol.row_digest import ids_digest, rows_digest

PADDING, BAD_LABEL = -1, -100


class Mismatch(Exception):
    """What arrived is not what was to arrive."""


def row_digest(sample: int, label: int, is_valid: bool, image: np.ndarray[Any, Any]) -> str:
    """Digest all that a trainer gets of one sample."""
    head = f"{sample} {label} {bool(is_valid)} {image.shape} {image.dtype}".encode()
    return hashlib.blake2b(image.tobytes(), digest_size=16, key=head[:64]).hexdigest()


@dataclass(frozen=True)
class Layout:
    """How a trainer cuts an epoch."""

    batch_size: int
    world: int = 1
    rank: int = 0

    @property
    def step(self) -> int:
        return self.batch_size * self.world


@dataclass
class Row:
    """A sample at its position: its digest, and what it counts in receipts."""

    sample: int
    digest: str
    counts: int
    is_valid: bool


class Reference:
    """The rows of one dataset by position, of each (seed, epoch) that was read."""

    def __init__(self) -> None:
        self._passes: dict[str, list[Row]] = {}

    def add(self, seed: int, epoch: int, batches: Iterable[Any]) -> None:
        """Take an undisturbed pass, from its start to its end."""
        rows: list[Row] = []
        for batch in batches:
            if batch.position != len(rows):
                raise Mismatch(f"a batch at {batch.position}, after {len(rows)} rows")
            for at in range(len(batch.ids)):
                one = slice(at, at + 1)
                counts = rows_digest(batch.ids[one], batch.labels[one], batch.images[one])
                rows.append(
                    Row(int(batch.ids[at]), digest_at(batch, at), counts, bool(batch.valid[at]))
                )
        if sorted(row.sample for row in rows) != list(range(len(rows))):
            raise Mismatch(f"epoch {epoch} of seed {seed} has not each of {len(rows)} samples once")
        self._passes[f"{seed} {epoch}"] = rows

    def rows(self, seed: int, epoch: int) -> list[Row]:
        return self._passes[f"{seed} {epoch}"]

    def num_samples(self) -> int:
        return len(next(iter(self._passes.values())))

    def save(self, path: Path) -> None:
        kept = {
            key: [[row.sample, row.digest, f"{row.counts:x}", row.is_valid] for row in rows]
            for key, rows in self._passes.items()
        }
        path.write_text(json.dumps(kept))

    @classmethod
    def load(cls, path: Path) -> Reference:
        made = cls()
        for key, rows in json.loads(path.read_text()).items():
            made._passes[key] = [Row(one[0], one[1], int(one[2], 16), one[3]) for one in rows]
        return made


def digest_at(batch: Any, at: int) -> str:
    """Digest a row of a batch."""
    return row_digest(int(batch.ids[at]), int(batch.labels[at]), batch.valid[at], batch.images[at])


@dataclass(frozen=True)
class Tally:
    """What one rank was handed of an epoch so far; `is_whole`: it is known from its start."""

    samples: int = 0
    num_bad: int = 0
    ids: int = 0
    counts: int = 0
    is_whole: bool = True

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


class Chain:
    """One rank's way through an epoch. `take` each batch, `end` with the receipt."""

    def __init__(
        self,
        rows: list[Row],
        epoch: int,
        layout: Layout,
        position: int = 0,
        tally: Tally | None = None,
    ) -> None:
        """Begin at a position; without a tally nothing is known of what came before it."""
        self._rows = rows
        self.epoch = epoch
        self._layout = layout
        self.position = position
        self.tally = Tally(is_whole=position == 0) if tally is None else tally

    def is_over(self) -> bool:
        return self.position >= len(self._rows)

    def take(self, batch: Any) -> int:
        """Compare a batch; returns how many rows it had, padding left out.

        Raises:
            Mismatch: it is another place's, a row differs, is missing or is there twice.
        """
        where = f"epoch {self.epoch}, position {self.position}"
        if self.is_over():
            raise Mismatch(f"{where}: the epoch was over, and a batch came at {batch.position}")
        if (batch.epoch, batch.position) != (self.epoch, self.position):
            raise Mismatch(f"{where}: got epoch {batch.epoch}, position {batch.position}")
        layout = self._layout
        first = self.position + layout.rank * layout.batch_size
        wanted = self._rows[first : first + layout.batch_size]
        expected = layout.batch_size if layout.world > 1 else len(wanted)
        if len(batch.ids) != expected:
            raise Mismatch(f"{where}: expected {expected} rows, got {len(batch.ids)}")
        for at, row in enumerate(wanted):
            if (got := int(batch.ids[at])) != row.sample:
                raise Mismatch(f"{where}, row {at}: expected sample {row.sample}, got {got}")
            if digest_at(batch, at) != row.digest:
                raise Mismatch(f"{where}, row {at}: sample {row.sample} differs from its reference")
        for at in range(len(wanted), expected):
            if (int(batch.ids[at]), bool(batch.valid[at])) != (PADDING, False):
                raise Mismatch(f"{where}, row {at}: expected padding, got {batch.ids[at]}")
        self._count(first, wanted)
        self.position += layout.step
        return len(wanted)

    def _count(self, first: int, rows: list[Row]) -> None:
        ids = np.array([row.sample for row in rows], np.int64)
        tally = self.tally
        self.tally = replace(
            tally,
            samples=tally.samples + len(rows),
            num_bad=tally.num_bad + sum(not row.is_valid for row in rows),
            ids=(tally.ids + ids_digest(first, ids)) % IDS_MODULUS,
            counts=(tally.counts + sum(row.counts for row in rows)) % DIGEST_MODULUS,
        )

    def end(self, receipt: dict[str, Any]) -> None:
        """Compare the receipt of an epoch that yields nothing more.

        Raises:
            Mismatch: rows are missing, or it says what was not counted here.
        """
        where = f"epoch {self.epoch}"
        if not self.is_over():
            raise Mismatch(f"{where} ended at position {self.position} of {len(self._rows)}")
        if receipt["epoch"] != self.epoch or receipt["files_changed"]:
            raise Mismatch(f"{where}: its receipt is {receipt}")
        if bool(receipt["is_complete"]) != self.tally.is_whole:
            whole = "from its start" if self.tally.is_whole else "in a part only"
            said = receipt["is_complete"]
            raise Mismatch(f"{where} was counted {whole}, its receipt says is_complete {said}")
        if not self.tally.is_whole:
            return
        counted = {
            "samples": self.tally.samples,
            "num_bad": self.tally.num_bad,
            "ids": f"{self.tally.ids:016x}",
            "bytes": f"{self.tally.counts:032x}",
        }
        for name, value in counted.items():
            if receipt[name] != value:
                raise Mismatch(
                    f"{where}: {name} of its receipt: expected {value}, got {receipt[name]}"
                )
