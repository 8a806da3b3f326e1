"""What the broker is told of the world when it starts. Plain data, pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from augd.wire.messages import Quarantined


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
