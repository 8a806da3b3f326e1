"""Records what changed in a dataset between two scans: which files have other times or sizes.

The index file keeps the last few changes. A start names the files, and a stream or a saved state of
before is told of them. A stamp digests the times. The index's digest does not hold them, and no
batch depends on them: a copy with other times is the same dataset.

Invariants: bounded, however much changed; a stamp that is not among the changes belongs to another
copy, about which nothing is known. Imports no NumPy.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from augd.dataset.scan_result import ScanResult, Shard, shown

_KEPT: Final = 8  # changes
_NAMED: Final = 10  # files of a change
_NAME_MAX: Final = 160  # characters in a text, of a path


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What differs from an earlier scan, which has this stamp and this digest.

    Counts files, or shards if these hold the samples. `names` are the first of them.
    """

    stamp: str
    digest: str
    num_changed: int
    num_added: int
    num_removed: int
    names: list[bytes]


def stamp_of(found: ScanResult) -> str:
    """Digest the times of all files; of shards, what tells two of one size apart."""
    state = hashlib.blake2b(digest_size=16, person=b"augd.stamp.1")
    state.update(found.mtimes_ns)
    for shard in found.shards:
        state.update(struct.pack("<QQ", shard.size_bytes, shard.mtime_ns % 2**64))
        state.update(shard.path + b"\0" + shard.etag.encode())
    return state.hexdigest()


def change_between(before: ScanResult, stamp: str, now: ScanResult) -> Change:
    """Compare a dataset with an earlier index of it."""
    if before.shards or now.shards:
        differing, added, removed = _shards_that_differ(before.shards, now.shards)
    else:
        differing, added, removed = _files_that_differ(before, now)
    names = [*differing, *added, *removed][:_NAMED]
    counts = len(differing), len(added), len(removed)
    return Change(stamp, before.digest, *counts, names)


def _shards_that_differ(
    before: Sequence[Shard], now: Sequence[Shard]
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    old, new = ({shard.path: shard for shard in shards} for shards in (before, now))
    differing = [path for path in new if path in old and new[path] != old[path]]
    return differing, [p for p in new if p not in old], [p for p in old if p not in new]


def replaced_samples(before: ScanResult, now: ScanResult) -> list[int]:
    """List the samples whose files have other times than before, under the same digest.

    Their image sizes in the sidecar are those of the earlier files.
    """
    if before.num_samples != now.num_samples or now.shards:
        return []
    pairs = zip(before.mtimes_ns, now.mtimes_ns, strict=True)
    return [sample for sample, (old, new) in enumerate(pairs) if old != new]


def _files_that_differ(
    before: ScanResult, now: ScanResult
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    places: Sequence[int | None]
    gone: list[bytes] = []
    if before.paths == now.paths and before.path_offsets == now.path_offsets:
        places = range(now.num_samples)
    else:
        # By hashes of the paths: a table of paths would take ten times the memory.
        known = {value: sample for sample, value in enumerate(before.limit_hashes)}
        places = [known.get(value) for value in now.limit_hashes]
        left = set(before.limit_hashes).difference(now.limit_hashes)
        gone = [before.path(k) for k, value in enumerate(before.limit_hashes) if value in left]
    differing, added = [], []
    for sample, place in enumerate(places):
        if place is None:
            added.append(now.path(sample))
        elif (before.mtimes_ns[place], before.sizes_bytes[place]) != (
            now.mtimes_ns[sample],
            now.sizes_bytes[sample],
        ):
            differing.append(now.path(sample))
    return differing, added, gone


def appended(history: Sequence[Change], change: Change) -> list[Change]:
    """Add a change to the earlier ones, and keep the last few."""
    return [*history, change][-_KEPT:]


def say_change(changes: Sequence[Change]) -> str:
    """Describe consecutive changes in one line."""
    num_changed, num_added, num_removed = (
        sum(getattr(change, name) for change in changes)
        for name in ("num_changed", "num_added", "num_removed")
    )
    parts = [
        f"{count:,} {said}"
        for count, said in (
            (num_changed, "changed"),
            (num_added, "added"),
            (num_removed, "removed"),
        )
        if count
    ]
    names = list(dict.fromkeys(name for change in changes for name in change.names))
    first = ", ".join(shown(name)[:_NAME_MAX] for name in names[:_NAMED])
    more = ", ..." if num_changed + num_added + num_removed > len(names[:_NAMED]) else ""
    return f"files {' and '.join(parts) or 'listed otherwise'}{': ' if first else ''}{first}{more}"


def told(history: Sequence[Change]) -> Iterator[tuple[str, str]]:
    """Yield each earlier stamp with what changed since, the oldest first."""
    for place, change in enumerate(history):
        yield change.stamp, say_change(history[place:])
