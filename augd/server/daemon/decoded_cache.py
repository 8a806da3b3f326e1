"""The daemon's side of the cache of decoded images: in memory, or in files of a folder.

`ram:SIZE` is a sealed memfd like a stream's arena; it ends with the daemon. `disk:DIR:SIZE` is a
folder that one daemon uses at a time. It has three kinds of files: `augd.lock`, `augd.pixels`, and
a table per dataset with the position of each sample's image (augd/protocol/cache_table.py).
Producers receive the fds over their links. They map the pixels and write them; only the daemon
writes tables.

Files on disk are checked before use. A table must be of this dataset, at this path, decoded by
these libraries. A record must be complete, lie in the file, overlap no other, and be of a file with
the index's modification time. The first producer that uses an image checks the digest of its
pixels. So incomplete images are decoded again after a kill -9 or a power failure.

Imports no NumPy.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import msgspec

from augd.dataset.index_file import IndexFile
from augd.dataset.index_format import read_index_header
from augd.dataset.stores.sizes import check_folder, parse_size
from augd.errors import AddressInUse, OptionError, OverLimit
from augd.protocol.cache_table import (
    ALIGNMENT,
    RECORD,
    TABLE_START,
    CacheFacts,
    Span,
    age_record,
    aligned,
    clear_record,
    read_record,
    table_bytes,
    write_record,
)
from augd.protocol.messages import CacheEntry
from augd.transport.arena import make_arena

SIZE_MIN: Final = 1 << 20
_MAGIC: Final = "augd-cache/1"


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """The value of `--cache`; `folder` is None for memory."""

    size_bytes: int
    folder: Path | None = None
    text: str = ""


_PIXELS: Final = "augd.pixels"
_TABLE: Final = re.compile(r"augd-[0-9a-f]{16}\.table")
_AGAIN: Final = "its images are not used until the daemon is restarted"


def parse_cache(text: str) -> CacheSpec:
    """Read `ram:SIZE` or `disk:DIR:SIZE`, a size being a number and MB, GB, TB, MiB, GiB or TiB.

    Raises:
        OptionError: it is neither.
    """
    kind, _, rest = text.partition(":")
    folder, has_folder, size = rest.rpartition(":")
    if (
        kind not in ("ram", "disk")
        or bool(has_folder) != (kind == "disk")
        or (kind == "disk" and not folder)
    ):
        raise OptionError(
            f"--cache: expected ram:SIZE or disk:DIR:SIZE, as in ram:8GB, got {text!r}"
        )
    size_bytes = parse_size("--cache", text, size, SIZE_MIN) // mmap.PAGESIZE * mmap.PAGESIZE
    return CacheSpec(size_bytes, Path(folder).absolute() if folder else None, text)


def check_room(spec: CacheSpec) -> None:
    """Reject a cache on disk that cannot be used, before anything is made or started for it.

    Raises:
        OptionError: there is no folder to make its folder in.
        OverLimit: the disk has too little space.
    """
    if spec.folder is not None:
        count = partial(_held_bytes, spec.folder / _PIXELS)
        check_folder("--cache", spec.text, spec.folder, spec.size_bytes, count)


def _held_bytes(path: Path) -> int:
    """Return how many bytes of its disk a file takes; 0 if there is no file."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


class _Table:
    """The mapped records of one dataset. The file has its full size already."""

    def __init__(self, fd: int, index: IndexFile) -> None:
        self.fd = fd
        self.num_samples = index.num_samples
        self.memory = memoryview(mmap.mmap(fd, table_bytes(index.num_samples)))
        self._index = index

    @cached_property
    def mtimes_ns(self) -> Sequence[int]:
        """The modification time of each sample's file, or of its shard."""
        header, start = read_index_header(self._index.fd)
        places = {place.name: start + place.offset for place in header.arrays}
        whole = memoryview(mmap.mmap(self._index.fd, 0, mmap.MAP_SHARED, mmap.PROT_READ))
        if not header.shards:
            first = places["mtimes_ns"]
            return whole[first : first + 8 * self.num_samples].cast("q")
        first, times = places["shard_numbers"], [shard.mtime_ns for shard in header.shards]
        numbers = whole[first : first + 4 * self.num_samples].cast("i")
        return [times[number] for number in numbers]

    def clear(self) -> None:
        self.memory[TABLE_START:] = bytes(len(self.memory) - TABLE_START)

    def close(self) -> None:
        """Close the file; producers that mapped it keep their mapping."""
        os.close(self.fd)


class CacheStore:
    """An open cache. No other daemon can use its folder until `close`."""

    def __init__(self, spec: CacheSpec, datasets: Mapping[str, IndexFile]) -> None:
        """Allocate or open the cache of these datasets.

        Raises:
            OverLimit: there is too little memory, or too little space on the disk.
            AddressInUse: another daemon uses the folder.
            OptionError: the folder cannot be used.
        """
        self._spec = spec
        self._tables: dict[str, _Table] = {}
        self._lock_fd = self.fd = -1
        self._is_cut = False
        try:
            if spec.folder is None:
                self._allocate(spec, datasets)
            else:
                self._open(spec.folder, datasets)
        except OSError as error:
            self.close()
            raise OptionError(
                f"--cache {spec.text}: {error.filename or spec.folder} cannot be used: "
                f"{error.strerror}"
            ) from None
        except BaseException:
            self.close()
            raise

    def _allocate(self, spec: CacheSpec, datasets: Mapping[str, IndexFile]) -> None:
        try:
            self.fd = make_arena("augd-cache", spec.size_bytes)
        except OverLimit as error:
            raise OverLimit(
                f"--cache {spec.text}: {error}; give it less, or disk:DIR:SIZE"
            ) from None
        for name, index in datasets.items():
            # The table's pages are allocated as records are written: 40 bytes per image.
            fd = os.memfd_create("augd-cache-table", os.MFD_CLOEXEC)
            os.ftruncate(fd, table_bytes(index.num_samples))
            self._tables[name] = _Table(fd, index)

    def _open(self, folder: Path, datasets: Mapping[str, IndexFile]) -> None:
        check_room(self._spec)
        folder.mkdir(mode=0o700, exist_ok=True)
        self._lock_fd = _open_file(folder / "augd.lock")
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AddressInUse(
                f"--cache {self._spec.text}: another daemon has {folder}; stop it, or give each "
                "daemon a folder of its own"
            ) from None
        self.fd = _open_file(folder / _PIXELS)
        os.ftruncate(self.fd, self._spec.size_bytes)
        keys = {name: _key_of(index) for name, index in datasets.items()}
        for path in folder.iterdir():
            if path.name not in keys.values() and _is_own_table(path):
                path.unlink()  # the space of its images is reused
        for name, index in datasets.items():
            fd = _open_file(folder / keys[name])
            os.ftruncate(fd, table_bytes(index.num_samples))
            # Allocated now: a write into a hole of a full disk would be a SIGBUS.
            os.posix_fallocate(fd, 0, table_bytes(index.num_samples))
            self._tables[name] = _Table(fd, index)

    def facts(self) -> CacheFacts:
        """Return what the cache contains, after clearing all invalid records."""
        if self._spec.folder is None:
            present = {name: bytearray(table.num_samples) for name, table in self._tables.items()}
            spans = [(ALIGNMENT, self._spec.size_bytes)]
            return CacheFacts("ram", self._spec.size_bytes, spans, present)
        environment = self._agree()
        kept = sorted(self._look_through()) if environment is not None else []
        facts = CacheFacts(
            kind="disk",
            size_bytes=self._spec.size_bytes,
            spans=[],
            present={name: bytearray(table.num_samples) for name, table in self._tables.items()},
            environment=environment,
            is_checked=True,
        )
        at = ALIGNMENT
        for start, size_bytes, name, sample in kept:
            if start < at:  # it overlaps its neighbour: one of the two is wrong
                clear_record(self._tables[name].memory, sample)
                continue
            if start > at:
                facts.spans.append((at, start))
            at = aligned(start + size_bytes)
            facts.present[name][sample] = 1
            facts.num_entries += 1
            facts.filled_bytes += size_bytes
        if at < self._spec.size_bytes:
            facts.spans.append((at, self._spec.size_bytes))
        return facts

    def _agree(self) -> dict[str, str] | None:
        """Return the libraries that decoded all images; None if they are not the same.

        A table without a header is new, or was truncated: it is cleared and gets the others'.
        """
        found = [_read_header(table) for table in self._tables.values()]
        known = [one for one in found if one is not None]
        if not known or any(one != known[0] for one in known):
            return None
        for table, environment in zip(self._tables.values(), found, strict=True):
            if environment is None:
                table.clear()
                _write_header(table, known[0])
        return known[0]

    def _look_through(self) -> Iterator[tuple[int, int, str, int]]:
        """Yield (offset, bytes, dataset, sample) of every valid record; clear the others."""
        for name, table in self._tables.items():
            for sample, record in enumerate(RECORD.iter_unpack(table.memory[TABLE_START:])):
                if not any(record):
                    continue
                offset, mtime_ns, *_, is_fresh, _, _ = record
                size_bytes = read_record(record, sample)
                is_inside = offset % ALIGNMENT == 0 and offset + size_bytes <= self._spec.size_bytes
                if not size_bytes or not is_inside or mtime_ns != table.mtimes_ns[sample]:
                    clear_record(table.memory, sample)
                    continue
                if is_fresh:
                    age_record(table.memory, sample)
                yield offset, size_bytes, name, sample

    def table_fd(self, dataset: str) -> int:
        return self._tables[dataset].fd

    def is_cut(self) -> bool:
        """Return whether a file was truncated since it was opened; this never changes back.

        A mapped file that was truncated reads as zeros, or ends its reader by SIGBUS. It is not
        extended again while producers map it, since its images would be zeros.
        """
        if self._spec.folder is not None and not self._is_cut:
            sizes = [(self.fd, self._spec.size_bytes)]
            sizes += [(table.fd, len(table.memory)) for table in self._tables.values()]
            self._is_cut = any(os.fstat(fd).st_size < size for fd, size in sizes)
        return self._is_cut

    def clear(self, environment: dict[str, str]) -> None:
        """Clear all records; the next ones are of images decoded by these libraries."""
        if self._spec.folder is None or self.is_cut():
            return  # it has no older image, or it is not used any more
        for table in self._tables.values():
            table.clear()
            _write_header(table, environment)

    def put(self, dataset: str, entry: CacheEntry) -> None:
        """Write an image's record."""
        table = self._tables[dataset]
        if self.is_cut():
            return
        # It is compared when a daemon starts, and a cache in memory ends with its daemon.
        mtime_ns = 0 if self._spec.folder is None else table.mtimes_ns[entry.sample]
        write_record(table.memory, entry, mtime_ns)

    def take_space(self, span: Span) -> None:
        """Allocate these bytes of the file, so that writing them cannot fail.

        Raises:
            OSError: the disk is full, or the cache's files were truncated.
        """
        if self.is_cut():
            raise OSError(errno.EIO, f"a file in {self._spec.folder} was truncated; {_AGAIN}")
        if self._spec.folder is not None:
            start, end = span
            os.posix_fallocate(self.fd, start, end - start)

    def close(self) -> None:
        """Close the files; another daemon can use the folder then."""
        for table in self._tables.values():
            table.close()
        for fd in (self.fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self._lock_fd = -1
        self._tables = {}


def _open_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _is_own_table(path: Path) -> bool:
    """Return whether a file is a table of a daemon of this user, by its name, owner and header."""
    if not _TABLE.fullmatch(path.name):
        return False
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        return False
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        head = os.pread(fd, TABLE_START, 0)
    finally:
        os.close(fd)
    # All zeros: its daemon was killed before it wrote the header.
    return _environment_of(head) is not None or not any(head)


def _key_of(index: IndexFile) -> str:
    """Return the name of a dataset's table, which depends on its digest and on its path.

    Another folder with the same names and sizes may have other images.
    """
    key = hashlib.blake2b(index.header.source, digest_size=8, key=index.digest.encode())
    return f"augd-{key.hexdigest()}.table"


def _read_header(table: _Table) -> dict[str, str] | None:
    """Return the libraries that decoded a table's images; None if it has no header."""
    return _environment_of(bytes(table.memory[:TABLE_START]))


def _environment_of(head: bytes) -> dict[str, str] | None:
    try:
        magic, environment = msgspec.json.decode(
            head.rstrip(b"\0"), type=tuple[str, dict[str, str]]
        )
    except msgspec.DecodeError:
        return None
    return environment if magic == _MAGIC else None


def _write_header(table: _Table, environment: Mapping[str, str]) -> None:
    text = msgspec.json.encode((_MAGIC, environment))
    if len(text) > TABLE_START:
        raise OverLimit(f"the cache's header takes {len(text)} of {TABLE_START} bytes")
    table.memory[:TABLE_START] = text.ljust(TABLE_START, b"\0")
