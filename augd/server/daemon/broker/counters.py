"""Counters of streams and producers, which only grow while the daemon runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SentCounters:
    """What the clients of a stream, or of all streams of a dataset, were sent.

    `images` counts rows that are not padding, once for each client. `bad` counts the masked rows,
    once for each stream. The times are as the clients report them. `waited_us` is how long they
    waited for batches, `fetch_us` the part of it in which a batch was on its way, and `transfer_us`
    how long copying to a device held them up.
    """

    batches: int = 0
    images: int = 0
    bad: int = 0
    waited_us: int = 0
    transfer_us: int = 0
    fetch_us: int = 0

    def add(self, other: SentCounters) -> None:
        """Add the counters of another stream."""
        self.batches += other.batches
        self.images += other.images
        self.bad += other.bad
        self.waited_us += other.waited_us
        self.transfer_us += other.transfer_us
        self.fetch_us += other.fetch_us


@dataclass(slots=True)
class MadeCounters:
    """What all producers made, those that exited included; times in ns."""

    images: int = 0
    chunks: int = 0
    busy_ns: int = 0
    idle_ns: int = 0
