"""What the broker is told of the world when it starts. Plain data, pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

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
    split each sample is in; `quarantine` are its deadly samples so far, by content.
    """

    digest: str
    root: str
    num_samples: int
    first_size_px: tuple[int, int] | None
    num_targets: int = 0
    has_splits: bool = False
    quarantine: Mapping[str, tuple[Quarantined, ...]] = {}
