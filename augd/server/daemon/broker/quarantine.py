"""Samples that kill their decoder: strikes, and the place from which on they are masked.

Theory of operation. A producer that dies while it decodes a sample is a strike against that sample.
The sample is then made again, alone, by an unused producer. The second strike in a row quarantines
it: from its place (epoch, position) on, it is masked in every batch of this content. So a batch
stays a pure function of content, quarantine and place. A sample that was quarantined in one content
needs a single strike in another.

Entries only move to earlier places, and are never removed. The union of two sets (a client's state
and this daemon's register) takes the earliest place of each sample. Pure; the daemon writes entries
to disk before it sends anything that depends on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from augd.protocol.messages import Quarantined
from augd.protocol.quarantine import Place, as_entries, united

STRIKES = 2


class QuarantineRegister:
    """The quarantine of one dataset, by content, and the strikes against its samples."""

    def __init__(self, known: Mapping[str, Iterable[Quarantined]]) -> None:
        """Start with entries by content, as they were written to disk."""
        self._of: dict[str, dict[int, Place]] = {
            content: united(entries) for content, entries in known.items()
        }
        self._strikes: dict[int, int] = {}

    def entries(self, content: str, place: Place) -> tuple[Quarantined, ...]:
        """Return the entries of a stream of this content that opens at `place`.

        Samples with an entry in other contents only are masked from `place` on.
        """
        own = self._of.get(content, {})
        others = {sample: place for sample in self.samples() if sample not in own}
        return as_entries(own | others)

    def samples(self) -> set[int]:
        """Return all samples with an entry in any content."""
        return set().union(*self._of.values())

    def strike(self, sample: int) -> bool:
        """Count an exit while this sample was decoded; return whether it is now quarantined."""
        self._strikes[sample] = self._strikes.get(sample, 0) + 1
        return self._strikes[sample] >= STRIKES or sample in self.samples()

    def forgive(self, sample: int) -> None:
        """Remove the strike of a sample that was decoded after all."""
        self._strikes.pop(sample, None)

    def add(self, content: str, entries: Iterable[Quarantined]) -> tuple[Quarantined, ...]:
        """Add entries; return those that are new, or earlier than before."""
        known = self._of.setdefault(content, {})
        added = united(entries)
        news = {s: place for s, place in added.items() if s not in known or place < known[s]}
        known.update(news)
        return as_entries(news)
