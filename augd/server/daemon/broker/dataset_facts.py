"""What the broker is given of datasets and earlier daemons when it starts. Plain data, pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from augd.errors import counted, verb
from augd.pixels.headers.formats import DECODER
from augd.protocol.messages import Quarantined, Selection

_NAMED = 3  # classes in a note


class DaemonHistory(Struct, frozen=True):
    """The earlier daemons of one supervisor: how many died, and how the last one did.

    `supervisor_pid` is 0 without a supervisor.
    """

    supervisor_pid: int = 0
    deaths: int = 0
    last_death: str = ""


class DatasetFacts(Struct, frozen=True):
    """What the broker knows of a dataset; it never sees the files.

    `num_targets` is 0 unless samples have several labels. `has_splits` says whether it records the
    split of each sample, and `splits` counts them. `num_unlabelled` samples have no label. `stamp`
    digests the times of its files, and `changes` say what changed since earlier stamps. `classes`
    are their names by label. `doubts` describe what is likely a mistake. `decoders` are the names,
    in a producer's environment, of the decoder packages that its formats need. `quarantine` has its
    quarantined samples by content.
    """

    digest: str
    root: str
    num_samples: int
    first_size_px: tuple[int, int] | None
    num_targets: int = 0
    has_splits: bool = False
    splits: Mapping[str, int] = {}
    num_unlabelled: int = 0
    classes: Sequence[str] = ()
    doubts: tuple[str, ...] = ()
    stamp: str = ""
    changes: tuple[tuple[str, str], ...] = ()
    decoders: frozenset[str] = frozenset()
    quarantine: Mapping[str, tuple[Quarantined, ...]] = {}


def relevant(environment: Mapping[str, str], decoders: Collection[str]) -> dict[str, str]:
    """Leave decoders other than these out of an environment."""
    return {
        name: value
        for name, value in environment.items()
        if name in decoders or not name.startswith(DECODER)
    }


def split_note(facts: DatasetFacts, selection: Selection, num_samples: int) -> str | None:
    """Describe how many samples a training goes without, if only a hash sets them aside."""
    alone = Selection("train", selection.val_fraction)
    left = facts.num_samples - num_samples
    if facts.has_splits or selection != alone or not left:
        return None
    return (
        f"split='train': {num_samples:,} of {counted(facts.num_samples, 'sample')}; the other "
        f"{left:,} {verb(left, 'is', 'are')} 'val' (val_fraction={selection.val_fraction:g}), as "
        f"no splits are recorded. split='all' takes all."
    )


def class_notes(name: str, datasets: Mapping[str, DatasetFacts]) -> dict[str, str]:
    """Describe, by other dataset, which classes of this one have other numbers there."""
    here = {one: number for number, one in enumerate(datasets[name].classes)}
    notes = {}
    for other, facts in datasets.items():
        moved = [
            (one, here[one], number)
            for number, one in enumerate(facts.classes)
            if here.get(one, number) != number
        ]
        if other != name and moved:
            first = ", ".join(
                f"{one!r} is {a} in {name!r} and {b} in {other!r}" for one, a, b in moved[:_NAMED]
            )
            more = f" and {len(moved) - _NAMED} more" if len(moved) > _NAMED else ""
            notes[other] = (
                f"classes: of the same names {len(moved)} "
                f"{verb(len(moved), 'has another', 'have other')} "
                f"{verb(len(moved), 'number', 'numbers')}: {first}{more}. Where "
                f"both are meant for one network, serve them as splits of one dataset, or give "
                f"both streams the same classes=[...]."
            )
    return notes
