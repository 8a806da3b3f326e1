"""What the broker is told of the world when it starts. Plain data, pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct

from augd.pixels.kinds import DECODER
from augd.wire.messages import Quarantined


class Life(Struct, frozen=True):
    """What this daemon follows: the deaths of those before it that one supervisor started.

    `supervisor_pid` is 0 where there is none.
    """

    supervisor_pid: int = 0
    deaths: int = 0
    last_death: str = ""


class DatasetFacts(Struct, frozen=True):
    """What the broker knows of a data set; its files are none of its business.

    `num_targets` is 0 unless samples have several labels; `has_splits` says that it records which
    split each sample is in; `decoders` are the names, in a producer's environment, of decoders that
    are packages of their own and that its formats take; `quarantine` are its deadly samples so far,
    by content.
    """

    digest: str
    root: str
    num_samples: int
    first_size_px: tuple[int, int] | None
    num_targets: int = 0
    has_splits: bool = False
    decoders: frozenset[str] = frozenset()
    quarantine: Mapping[str, tuple[Quarantined, ...]] = {}


def relevant(environment: Mapping[str, str], decoders: Collection[str]) -> dict[str, str]:
    """Leave out of an environment what decodes formats that are none of these."""
    return {
        name: value
        for name, value in environment.items()
        if name in decoders or not name.startswith(DECODER)
    }
