"""Sums over rows: counts, and digests that are added as numbers (docs/protocol.md, Receipts).

The broker adds up the rows that producers made, a client the rows that it received; the client
compares both. Loads no NumPy; `augd.protocol.row_digest` computes the digests themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

DIGEST_MODULUS = 1 << 128
IDS_MODULUS = 1 << 64


@dataclass(slots=True)
class Sums:
    """Counts and digests of some rows; digests wrap at their moduli."""

    batches: int = 0
    samples: int = 0
    num_bad: int = 0
    digest: int = 0
    ids_digest: int = 0

    def add(self, other: Sums) -> None:
        self.batches += other.batches
        self.samples += other.samples
        self.num_bad += other.num_bad
        self.digest = (self.digest + other.digest) % DIGEST_MODULUS
        self.ids_digest = (self.ids_digest + other.ids_digest) % IDS_MODULUS


def read_sum(carried: bytes) -> int:
    """Read a digest as messages carry it: little-endian."""
    return int.from_bytes(carried, "little")


def write_digest(digest: int) -> bytes:
    """Write a digest of rows, 16 bytes."""
    return digest.to_bytes(16, "little")


def write_ids_digest(digest: int) -> bytes:
    """Write a digest of ids, 8 bytes."""
    return digest.to_bytes(8, "little")
