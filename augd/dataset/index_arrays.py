"""The index as arrays: a producer's view of a dataset.

Opened from two descriptors that the daemon hands over. The arrays are plain views of shared file
pages: a producer adds nothing to the machine's memory by opening them.

Invariants: never opens a path; the index is read-only; no `np.memmap`, whose scalar indexing costs
12 us.
"""

from __future__ import annotations

import mmap
import os
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from augd.dataset.index_format import DIMS_BYTES, ITEM_BYTES, ArrayName, read_index_header
from augd.dataset.scan_result import Shard, shown
from augd.errors import DatasetError
from augd.pixels.jpeg_segments import Table

_INT64: Final = np.dtype("<i8")
_INT32: Final = np.dtype("<i4")
_UINT8: Final = np.dtype("|u1")
_FLOAT32: Final = np.dtype("<f4")


class IndexArrays:
    """A dataset's index, mapped. Positions in the arrays are sample ids.

    `splits`: uint8, as `scan_result.SPLIT_CODES`, 0 for none. `labels`, `sizes_bytes`, `mtimes_ns`:
    int64 (num_samples,), read-only. `targets`: float32 (num_samples, num_classes) of a multi-label
    dataset, read-only, else None. `dims`: int32 (num_samples, 2) of width and height, shared and
    writable by every process, zero while unknown. It is a hint, to be checked against each file's
    own header. `own` is empty unless an own source reads the samples. `links_to` are folders beside
    the root that links may lead to. `shards` is empty unless samples are ranges of these:
    `shard_numbers` and `shard_offsets` tell which.
    """

    def __init__(self, index_fd: int, dims_fd: int) -> None:
        """Map both files. The descriptors stay the caller's and may be closed afterwards.

        Raises:
            DatasetError: not an index file, or a sidecar of another size.
        """
        header, start = read_index_header(index_fd)
        self.digest: str = header.digest
        self.num_samples: int = header.num_samples
        self.classes: tuple[str, ...] = tuple(header.classes)
        self.root: bytes = header.root
        self.own: str = header.own
        self.links_to: list[bytes] = header.links_to
        self.first_size_px: tuple[int, int] | None = header.first_size_px
        index = mmap.mmap(index_fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
        places = {place.name: place for place in header.arrays}

        def view(name: ArrayName, dtype: np.dtype[Any] = _INT64) -> NDArray[Any]:
            place = places[name]
            return np.frombuffer(index, dtype, place.length, start + place.offset)

        self.labels: NDArray[np.int64] = view("labels")
        self.sizes_bytes: NDArray[np.int64] = view("sizes_bytes")
        self.mtimes_ns: NDArray[np.int64] = view("mtimes_ns")
        self.splits: NDArray[np.uint8] = view("splits", _UINT8)
        self.targets: NDArray[np.float32] | None = None
        if header.num_targets:
            flat = view("targets", _FLOAT32)
            self.targets = flat.reshape(header.num_samples, header.num_targets)
        self.shards: list[Shard] = header.shards
        self.shard_numbers: NDArray[np.int32] = view("shard_numbers", _INT32)
        self.shard_offsets: NDArray[np.int64] = view("shard_offsets")
        self.orientations: NDArray[np.uint8] = view("orientations", _UINT8)

        # For one sample at a time, where plain views are faster than arrays.
        def plain(name: ArrayName, code: Literal["B", "H", "i", "q"]) -> memoryview:
            place = places[name]
            first = start + place.offset
            size = place.length * ITEM_BYTES[place.dtype]
            return memoryview(index)[first : first + size].cast(code)

        self.has_segments: bool = places["segment_lengths"].length > 0
        self._sides_px = plain("sides_px", "i")
        self._mcus = plain("mcus", "B")
        self._intervals = plain("intervals", "i")
        self._scan_offsets = plain("scan_offsets", "i")
        self._segment_starts = plain("segment_starts", "q")
        self._segment_lengths = plain("segment_lengths", "H")
        self._path_offsets: NDArray[np.int64] = view("path_offsets")
        at = start + places["paths"].offset
        self._paths = memoryview(index)[at : at + places["paths"].length]
        self.dims: NDArray[np.int32] = _dims(dims_fd, header.num_samples)

    def path_bytes(self, sample: int) -> bytes:
        """Return the path of a sample below the root, as the file system has it."""
        return bytes(self._paths[self._path_offsets[sample] : self._path_offsets[sample + 1]])

    def path(self, sample: int) -> str:
        """Return the path of a sample below the root, as one printable line for messages."""
        return shown(self.path_bytes(sample))

    def segments(self, sample: int) -> Table | None:
        """Return the table of a sample's restart segments; None if it has none.

        Raises:
            BadImage: its table can't be that of such an image.
        """
        if not self.has_segments or not (mcu := self._mcus[sample]):
            return None
        return Table.of(
            (self._sides_px[2 * sample], self._sides_px[2 * sample + 1]),
            (8 * (mcu >> 4), 8 * (mcu & 15)),
            self._intervals[sample],
            self._scan_offsets[sample],
            self._segment_lengths[self._segment_starts[sample] : self._segment_starts[sample + 1]],
        )


class ChoiceArrays:
    """The chosen samples of a stream, mapped; see `selection`.

    `ids` is int64 (num_samples,), `offsets` int64 (num_groups + 1,) or None, `picked` int64
    (num_picked,) or None; all read-only.
    """

    def __init__(self, fd: int, num_samples: int, num_groups: int, num_picked: int) -> None:
        """Map the file. The descriptor stays the caller's and may be closed afterwards.

        Raises:
            DatasetError: the file has another size than was announced.
        """
        num_offsets = num_groups + 1 if num_groups else 0
        expected = 8 * (num_samples + num_offsets + num_picked)
        found = os.fstat(fd).st_size
        if found != expected:
            raise DatasetError(f"list of chosen samples: expected {expected} bytes, got {found}")
        whole = np.frombuffer(mmap.mmap(fd, expected, mmap.MAP_SHARED, mmap.PROT_READ), _INT64)
        end = num_samples + num_offsets
        self.ids: NDArray[np.int64] = whole[:num_samples]
        self.offsets: NDArray[np.int64] | None = whole[num_samples:end] if num_groups else None
        self.picked: NDArray[np.int64] | None = whole[end:] if num_picked else None


def _dims(fd: int, num_samples: int) -> NDArray[np.int32]:
    expected = num_samples * DIMS_BYTES
    found = os.fstat(fd).st_size
    if found != expected:
        raise DatasetError(
            f"sizes sidecar: expected {expected} bytes for {num_samples} samples, got {found}. "
            f"Index the dataset again."
        )
    shared = mmap.mmap(fd, expected, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    return np.frombuffer(shared, _INT32).reshape(num_samples, 2)
