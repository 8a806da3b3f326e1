"""Opens the source of samples that an index names: a folder, shards, or an object store."""

from __future__ import annotations

import os

from augd.dataset.readers.shards import ShardSamples, ShardSource
from augd.dataset.readers.source import FolderSource, SampleSource
from augd.dataset.stores.address import is_address


def open_source(root: str | bytes | os.PathLike[str], samples: ShardSamples) -> SampleSource:
    """Open the source of a dataset, as its index describes it.

    A dataset in an object store is read by this process, which must have a network.

    Raises:
        OSError: the root cannot be opened.
        OptionError: the package that reads object stores is not installed.
    """
    if is_address(root):
        from augd.dataset.readers.object_store import (
            RemoteSource,  # with threads, which other sources need not import
        )
        from augd.dataset.stores.shard_ranges import DirectReader

        return RemoteSource(samples, DirectReader(os.fsencode(root), samples.shards))
    if samples.shards:
        return ShardSource(root, samples)
    return FolderSource(root, samples, samples.links_to)
