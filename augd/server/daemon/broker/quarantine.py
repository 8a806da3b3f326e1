"""Samples that kill their decoder: strikes, verdicts, and from which place on they hold.

Theory of operation. A producer that dies with a sample in hand is a strike against that sample,
which is then made again alone by a fresh producer. A second strike in a row is the verdict: from
its place (epoch, position) on, the sample is masked in every batch of this content, so that a
batch stays a pure function of content, quarantine and place. A sample known to kill in one
content needs a single strike in another.

Entries only ever move to earlier places, and are never dropped: a union of two sets (a client's
state and what this daemon knows) is their minimum by sample. Pure; the daemon writes entries to
disk before anything that depends on them is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from augd.protocol.messages import Quarantined
from augd.protocol.quarantine import Place, as_entries, united

STRIKES = 2


class QuarantineRegister:
    """What is known of one data set's deadly samples."""

    def __init__(self, known: Mapping[str, Iterable[Quarantined]]) -> None:
        """Start with entries by content, as they were written to disk."""
        self._of: dict[str, dict[int, Place]] = {
            content: united(entries) for content, entries in known.items()
        }
        self._strikes: dict[int, int] = {}

    def entries(self, content: str, place: Place) -> tuple[Quarantined, ...]:
        """Return what holds in a stream of this content that opens at `place`.

        Samples that are known from other contents only hold from `place` on.
        """
        own = self._of.get(content, {})
        others = {sample: place for sample in self.samples() if sample not in own}
        return as_entries(own | others)

    def samples(self) -> set[int]:
        """All samples with an entry, in whatever content."""
        return set().union(*self._of.values())

    def strike(self, sample: int) -> bool:
        """Count a death with this sample in hand; say whether that was the last one needed."""
        self._strikes[sample] = self._strikes.get(sample, 0) + 1
        return self._strikes[sample] >= STRIKES or sample in self.samples()

    def forgive(self, sample: int) -> None:
        """Forget a strike: the sample could be made after all."""
        self._strikes.pop(sample, None)

    def add(self, content: str, entries: Iterable[Quarantined]) -> tuple[Quarantined, ...]:
        """Add entries; returns the ones that are new here, or earlier than they were."""
        known = self._of.setdefault(content, {})
        fresh = united(entries)
        news = {s: place for s, place in fresh.items() if s not in known or place < known[s]}
        known.update(news)
        return as_entries(news)
