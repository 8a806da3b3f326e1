"""The index file: a dataset as flat arrays that every producer maps.

The daemon builds it from a folder or a manifest and keeps it in the user's cache. It uses the file
again while a scan shows the same names, sizes and times. The producers get its descriptor and map
it (`index_arrays`).

Beside it lies the sizes sidecar: int32 (num_samples, 2) of width and height, zero while unknown.
Producers fill it when they read headers, so that later plans need not wait for the read. It is only
a hint.

Invariants: a file never changes once it has its name (it is written aside, then renamed), so a
mapping stays valid. A cache that is damaged or cannot be written costs time and is never an error.
Only the first file of the dataset is opened. Imports no NumPy.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Sequence

import msgspec

from augd.dataset.index_format import (
    IndexHeader,
    read_index_header,
    read_prefix,
)
from augd.dataset.scan_result import SPLIT_CODES, Skipped, shown


class IndexFile(msgspec.Struct):
    """An open index with its sidecar. Owns both descriptors until `close`.

    `path` is None if the index lives in memory only; `warning` then gives the reason. `was_cached`:
    the file of an earlier run was used. `change` describes in a line what differs from it.
    """

    fd: int
    dims_fd: int
    header: IndexHeader
    size_bytes: int
    path: str | None
    was_cached: bool
    warning: str | None = None
    change: str | None = None

    @property
    def digest(self) -> str:
        """Digest of relative paths, sizes, labels and class names: 32 hexadecimal digits."""
        return self.header.digest

    @property
    def root(self) -> str:
        """Real path of the folder that the samples lie in."""
        return os.fsdecode(self.header.root)

    @property
    def num_samples(self) -> int:
        return self.header.num_samples

    @property
    def classes(self) -> list[str]:
        """Class names by label; empty for a dataset without labels."""
        return self.header.classes

    @property
    def num_targets(self) -> int:
        """Targets per sample of a multi-label dataset; 0 when samples have one label or none."""
        return self.header.num_targets

    @property
    def has_splits(self) -> bool:
        """Whether the dataset records which split each sample is in."""
        return self.header.has_splits

    @property
    def notes(self) -> list[str]:
        """Notes for the user: what was read from names."""
        return self.header.notes

    @property
    def skipped(self) -> list[Skipped]:
        """The files that were skipped, by kind: images first."""
        return self.header.skipped

    @property
    def first_size_px(self) -> tuple[int, int] | None:
        """Width and height of sample 0; None when it cannot be read."""
        return self.header.first_size_px

    def count_splits(self) -> dict[str, int]:
        """Count the samples of each split that has some, and of none (""); empty without splits."""
        if not self.has_splits:
            return {}
        _, start = read_index_header(self.fd)
        (place,) = (place for place in self.header.arrays if place.name == "splits")
        recorded = os.pread(self.fd, place.length, start + place.offset)
        counts = {name: recorded.count(code) for name, code in (*SPLIT_CODES.items(), ("", 0))}
        return {name: count for name, count in counts.items() if count}

    def count_unlabelled(self) -> int:
        """Count the samples without a label; 0 for a multi-label dataset."""
        if self.num_targets:
            return 0
        _, start = read_index_header(self.fd)
        (place,) = (place for place in self.header.arrays if place.name == "labels")
        labels = array("q", os.pread(self.fd, 8 * place.length, start + place.offset))
        return labels.count(-1)

    def path_of(self, sample: int) -> str:
        """Return the path of a sample below the root, as one printable line for messages."""
        return shown(self.paths_of((sample,))[0])

    def paths_of(self, samples: Sequence[int], most_bytes: int = 1 << 62) -> list[bytes]:
        """Return the paths of the first of these samples, as many as fit into `most_bytes`.

        Each counts five bytes beside its own. The first one is cut if it doesn't fit.
        """
        _, start = read_prefix(os.pread(self.fd, 16, 0))
        places = {place.name: start + place.offset for place in self.header.arrays}
        found: list[bytes] = []
        for sample in samples:
            ends = os.pread(self.fd, 16, places["path_offsets"] + 8 * sample)
            first, last = struct.unpack("<qq", ends)
            if found and most_bytes < last - first + 5:
                break
            found.append(os.pread(self.fd, min(last - first, most_bytes), places["paths"] + first))
            most_bytes -= last - first + 5
        return found

    def close(self) -> None:
        """Close both descriptors. Existing mappings stay valid. Closing twice is fine."""
        for fd in (self.fd, self.dims_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.dims_fd = -1
