"""Quarantine entries: samples that end their decoder, and from which place on they are masked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from augd.protocol.messages import Quarantined

Place = tuple[int, int]  # (epoch, position)


def united(*sets: Iterable[Quarantined]) -> dict[int, Place]:
    """Unite sets of entries: each sample with the earliest place."""
    found: dict[int, Place] = {}
    for entries in sets:
        for sample, epoch, position in entries:
            place = (epoch, position)
            found[sample] = min(found.get(sample, place), place)
    return found


def as_entries(found: Mapping[int, Place]) -> tuple[Quarantined, ...]:
    """Return entries in the order of their samples, as messages carry them."""
    return tuple((sample, *found[sample]) for sample in sorted(found))
