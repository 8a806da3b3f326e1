"""The cache of decoded pictures as the daemon holds it: in memory, or in files of a folder.

`ram:SIZE` is a sealed memfd like a stream's arena: nothing is left of it. `disk:DIR:SIZE` is three
kinds of files in a folder that one daemon has at a time: `augd.lock`, `augd.pixels`, and a table
per data set, which says for each sample where its picture lies (augd/protocol/cache_table.py).
Producers get the fds over their links; they map the pixels and write them, the daemon alone writes
tables.

What is found on disk is believed as far as it can be checked: the table is of this data set, at
this place, decoded by these libraries; a record is whole, lies in the file, overlaps no other, and
is of a file with the time that the index has. The pixels' digest is looked at by whoever uses them
first. So after a kill -9, and after a loss of power, what is not whole is decoded again.

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
    """What `--cache` says; `folder` is None for memory."""

    size_bytes: int
    folder: Path | None = None
    text: str = ""


_PIXELS: Final = "augd.pixels"
_TABLE: Final = re.compile(r"augd-[0-9a-f]{16}\.table")
_AGAIN: Final = "its pictures are not used until the daemon is started again"


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
    """Refuse a cache on disk that cannot be, before anything is made or started for it.

    Raises:
        OptionError: there is no folder to make its folder in.
        OverLimit: the disk has not that much space.
    """
    if spec.folder is not None:
        count = partial(_held_bytes, spec.folder / _PIXELS)
        check_folder("--cache", spec.text, spec.folder, spec.size_bytes, count)


def _held_bytes(path: Path) -> int:
    """Count what a file takes of its disk; nothing where there is none."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


class _Table:
    """The records of one data set, mapped."""

    def __init__(self, fd: int, index: IndexFile) -> None:
        """Map the table, which has its full size."""
        self.fd = fd
        self.num_samples = index.num_samples
        self.memory = memoryview(mmap.mmap(fd, table_bytes(index.num_samples)))
        self._index = index

    @cached_property
    def mtimes_ns(self) -> Sequence[int]:
        """The time of each sample's file, of its shard where it lies in one."""
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
        """Take every record out."""
        self.memory[TABLE_START:] = bytes(len(self.memory) - TABLE_START)

    def close(self) -> None:
        """Close the file; who mapped it keeps it."""
        os.close(self.fd)


class CacheStore:
    """An open cache. `close` it; nobody else may have the folder meanwhile."""

    def __init__(self, spec: CacheSpec, datasets: Mapping[str, IndexFile]) -> None:
        """Allocate or open the cache of these data sets.

        Raises:
            OverLimit: there is not that much memory, or not that much space on the disk.
            AddressInUse: another daemon has the folder.
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
            # Pages of the table are taken as records are written: 40 bytes beside a picture.
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
                path.unlink()  # its pictures' places are given away
        for name, index in datasets.items():
            fd = _open_file(folder / keys[name])
            os.ftruncate(fd, table_bytes(index.num_samples))
            # Taken from the disk now: a write into a hole of a full disk would be a SIGBUS.
            os.posix_fallocate(fd, 0, table_bytes(index.num_samples))
            self._tables[name] = _Table(fd, index)

    def facts(self) -> CacheFacts:
        """Say what is in it, having taken out what cannot be believed."""
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
            if start < at:  # over its neighbour: one of the two is not what it says
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
        """Find by which libraries all pictures were decoded; None where they are not of one kind.

        A table that says nothing is new, or was cut off: it begins anew beside the others.
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
        """Yield (offset, bytes, data set, sample) of every sound record; clear the others."""
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
        """Return the fd of a data set's table."""
        return self._tables[dataset].fd

    def is_cut(self) -> bool:
        """Say whether somebody cut a file off since it was opened; then it is one for good.

        A mapped file that was cut off reads as zeros, or ends who reads it by SIGBUS. It is never
        made as long again while producers map it: its pictures would be zeros.
        """
        if self._spec.folder is not None and not self._is_cut:
            sizes = [(self.fd, self._spec.size_bytes)]
            sizes += [(table.fd, len(table.memory)) for table in self._tables.values()]
            self._is_cut = any(os.fstat(fd).st_size < size for fd, size in sizes)
        return self._is_cut

    def clear(self, environment: dict[str, str]) -> None:
        """Take every record out; the next ones are of pictures decoded so."""
        if self._spec.folder is None or self.is_cut():
            return  # nothing is older than this daemon, or nothing is read of it
        for table in self._tables.values():
            table.clear()
            _write_header(table, environment)

    def put(self, dataset: str, entry: CacheEntry) -> None:
        """Write a picture's record."""
        table = self._tables[dataset]
        if self.is_cut():
            return
        # Compared at a start, and memory outlives none.
        mtime_ns = 0 if self._spec.folder is None else table.mtimes_ns[entry.sample]
        write_record(table.memory, entry, mtime_ns)

    def take_space(self, span: Span) -> None:
        """Make sure that these bytes of the file can be written: a hole of a full disk can't.

        Raises:
            OSError: the disk is full, or the cache's files were cut off.
        """
        if self.is_cut():
            raise OSError(errno.EIO, f"somebody cut off a file in {self._spec.folder}; {_AGAIN}")
        if self._spec.folder is not None:
            start, end = span
            os.posix_fallocate(self.fd, start, end - start)

    def close(self) -> None:
        """Close the files, and let another daemon have the folder."""
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
    """Say whether a file is a table that a daemon of this user made: a plain file that says so."""
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
    return _environment_of(head) is not None or not any(head)  # made, and not written before a kill


def _key_of(index: IndexFile) -> str:
    """Name a data set's table: another place with equal names and sizes may hold other pictures."""
    key = hashlib.blake2b(index.header.source, digest_size=8, key=index.digest.encode())
    return f"augd-{key.hexdigest()}.table"


def _read_header(table: _Table) -> dict[str, str] | None:
    """Read by which libraries the pictures of a table were decoded; None when it says nothing."""
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
