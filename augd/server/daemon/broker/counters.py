"""What streams and producers did, counted: numbers that only grow while the daemon lives. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SentCounters:
    """What the readers of a stream, or of all streams of a data set, were sent.

    `images` counts rows that are no padding, once for each reader; `bad` the rows that were made
    masked, once for each production. `waited_us` is how long the readers waited for batches, in
    `fetch_us` of it for one on its way, and `transfer_us` how long handing them to a device held
    them up, by their own word.
    """

    batches: int = 0
    images: int = 0
    bad: int = 0
    waited_us: int = 0
    transfer_us: int = 0
    fetch_us: int = 0

    def add(self, other: SentCounters) -> None:
        """Add what another stream was sent."""
        self.batches += other.batches
        self.images += other.images
        self.bad += other.bad
        self.waited_us += other.waited_us
        self.transfer_us += other.transfer_us
        self.fetch_us += other.fetch_us


@dataclass(slots=True)
class MadeCounters:
    """What all producers made, the dead ones included; times in ns."""

    images: int = 0
    chunks: int = 0
    busy_ns: int = 0
    idle_ns: int = 0
