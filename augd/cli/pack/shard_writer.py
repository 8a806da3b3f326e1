"""Write the shards of a packed dataset, and read back what is in them.

A shard is an ordinary tar in WebDataset's layout: `KEY.jpg`, and `KEY.cls` with the number of its
class, or `KEY.json` with the names of several. The writer writes and syncs a temporary file, and
renames it when the shard and the list of its places are complete. So every shard under its final
name is complete, whatever was killed.

Invariants: the index and the options alone decide which samples go into which shard. The same
images give the same bytes. The index records what was read back from a shard.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from augd.cli.pack.photo import Packed, Shrink
from augd.cli.pack.transcode_process import Packer
from augd.dataset.index_arrays import IndexArrays
from augd.dataset.readers.source import SampleSource
from augd.dataset.scan.tar import walk_tar
from augd.dataset.scan_result import SPLITS, ShardPlace
from augd.errors import AugdError
from augd.pixels.headers.formats import IMAGE_ENDINGS
from augd.pixels.headers.read_header import BadImage

STATE_NAME: Final = ".augd-pack"

_MIN_SHARD_BYTES: Final = 8 << 20
# So that a small set, too, keeps several processes busy.
_MIN_SHARDS: Final = 16


class ShardOptions(msgspec.Struct, frozen=True):
    """The options that decide the shards, beside the source."""

    shard_bytes: int
    shrink: Shrink | None = None


class Job(msgspec.Struct):
    """A planned shard: its name, and its samples in ascending order."""

    name: str
    samples: list[int]


class Entry(msgspec.Struct, array_like=True):
    """A sample in a finished shard. `kept` says why it was left as it is."""

    sample: int
    size_bytes: int
    place: ShardPlace
    kept: str = ""
    is_shrunk: bool = False


def plan_shards(index: IndexArrays, shard_bytes: int) -> list[Job]:
    """Divide a dataset into shards of about so many bytes of its files, each of one split."""
    enough = min(shard_bytes, max(int(index.sizes_bytes.sum()) // _MIN_SHARDS, _MIN_SHARD_BYTES))
    jobs = []
    for code in np.unique(index.splits).tolist():
        samples = np.flatnonzero(index.splits == code)
        ends = np.cumsum(index.sizes_bytes[samples])
        groups = (ends - index.sizes_bytes[samples]) // enough
        name = SPLITS[code - 1] if code else "shard"
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        for number, group in enumerate(np.split(samples, starts[1:])):
            jobs.append(Job(f"{name}-{number:06}", group.tolist()))
    return jobs


def is_done(folder: str, job: Job) -> bool:
    """Say whether a shard is finished."""
    return os.path.exists(_shard(folder, job)) and os.path.exists(_part(folder, job))


def read_entries(folder: str, job: Job) -> list[Entry]:
    """Read the entries of a finished shard, in the order of the samples."""
    with open(_part(folder, job), "rb") as file:
        return msgspec.msgpack.decode(file.read(), type=list[Entry])


def write_shard(
    folder: str,
    number: int,
    job: Job,
    index: IndexArrays,
    source: SampleSource,
    packer: Packer,
    is_feared: Callable[[int], bool],
) -> Iterator[int]:
    """Write one shard; yields each sample before it is read.

    Samples that killed a process are not decoded, and stay as they are.

    Raises:
        AugdError: a sample is missing or changed, or the disk is full.
    """
    aside = os.path.join(folder, STATE_NAME, f"{job.name}.tar")
    packed: list[tuple[int, Packed, int]] = []
    with open(aside, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as shard:
            target = _Members(shard, index)
            for sample in job.samples:
                yield sample
                one = _pack(index, source, sample, packer, is_feared(sample))
                target.add(sample, one)
                packed.append((sample, one, len(one.data)))
                one.data = b""
        file.flush()
        os.fsync(file.fileno())
    entries = []
    with open(aside, "rb") as file:
        members = walk_tar(file, os.fsencode(aside), os.fstat(file.fileno()).st_size)
        for (sample, one, size_bytes), member in zip(packed, members, strict=True):
            if member.size_bytes != size_bytes:
                raise AugdError(f"shard {aside}: {member.path!r} is not what was written to it")
            place = one.place(number, member.offset)
            entries.append(Entry(sample, size_bytes, place, one.reason, one.is_shrunk))
    with written_whole(_part(folder, job)) as file:
        file.write(msgspec.msgpack.encode(entries))
    os.rename(aside, _shard(folder, job))


@contextmanager
def written_whole(path: str) -> Iterator[BinaryIO]:
    """Open a file for writing that is complete or absent, also after a crash."""
    aside = f"{path}.new"
    with open(aside, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, path)


def _pack(
    index: IndexArrays, source: SampleSource, sample: int, packer: Packer, is_feared: bool
) -> Packed:
    if not index.sizes_bytes[sample]:
        return Packed(b"", None, None, "kept", "the file is empty")
    try:
        content = source.read(sample)
    except BadImage as bad:
        raise AugdError(
            f"sample {sample} ({source.path(sample)}): {bad}. Mend the source or take it out, "
            f"remove what was packed, and pack again."
        ) from None
    if is_feared:
        return Packed(content, None, None, "kept", "the decoder died of it")
    return packer.pack(content)


class _Members:
    """Adds samples to a shard, with names that WebDataset can split."""

    def __init__(self, shard: tarfile.TarFile, index: IndexArrays) -> None:
        self._shard = shard
        self._index = index
        self._keys: set[str] = set()
        targets = index.targets
        self._has_names = targets is None or bool(np.isin(targets, (0.0, 1.0)).all())

    def add(self, sample: int, one: Packed) -> None:
        path = os.fsdecode(self._index.path_bytes(sample))
        key, ending = self._name(path, one)
        self._write(f"{key}.{ending}", one.data)
        said: dict[str, Any] = {}
        if f"{key}.{ending}" != path:
            said["path"] = self._index.path(sample)
        if self._index.targets is not None:
            said["labels"] = self._labels(self._index.targets[sample])
        elif (label := int(self._index.labels[sample])) >= 0:
            self._write(f"{key}.cls", str(label).encode())
        if said:
            self._write(f"{key}.json", msgspec.json.encode(said))

    def _name(self, path: str, one: Packed) -> tuple[str, str]:
        """Return key and ending: a key is unique, and has no dot in its last part."""
        folder, slash, name = path.rpartition("/")
        stem, _, ending = name.rpartition(".")
        if ending.lower().encode() not in IMAGE_ENDINGS:  # as a manifest may have it
            stem, ending = name, one.header.format if one.header is not None else "jpeg"
        key = plain = folder + slash + (stem.replace(".", "_") or "_")
        number = 1
        while key in self._keys:
            number += 1
            key = f"{plain}_{number}"
        self._keys.add(key)
        return key, "jpg" if one.is_shrunk else ending

    def _labels(self, values: NDArray[np.float32]) -> list[Any]:
        """Name a sample's classes, or give its numbers where they aren't all zeros and ones."""
        if not self._has_names:
            return list(values.tolist())
        return [self._index.classes[number] for number in np.flatnonzero(values).tolist()]

    def _write(self, name: str, content: bytes | bytearray) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        self._shard.addfile(info, BytesIO(content))


def _shard(folder: str, job: Job) -> str:
    return os.path.join(folder, f"{job.name}.tar")


def _part(folder: str, job: Job) -> str:
    return os.path.join(folder, STATE_NAME, f"{job.name}.part")
