"""The user's cache of index files: one file and one sizes sidecar for each dataset."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from augd.dataset.index_changes import (
    appended,
    change_between,
    replaced_samples,
    say_change,
)
from augd.dataset.index_file import IndexFile
from augd.dataset.index_format import (
    DIMS_BYTES,
    RULES,
    IndexHeader,
    read_found,
    read_index_header,
    write_index,
)
from augd.dataset.scan_result import ScanResult, shown
from augd.dataset.stores.address import is_address
from augd.errors import DatasetError
from augd.process.paths import NO_HOME, user_folder

_STALE_S: Final = 3600.0


class IndexCache:
    """The place of one dataset in the user's cache, keyed by its real path."""

    def __init__(
        self,
        cache_dir: str | os.PathLike[str] | None,
        source: bytes,
        root: bytes | None = None,
        links_to: Sequence[bytes] = (),
    ) -> None:
        base = cache_dir or user_folder("XDG_CACHE_HOME", ".cache")
        self._folder = os.path.join(os.fspath(base), "augd", "index")
        self._source = source
        self._root = root
        self._links_to = list(links_to)
        self._key = hashlib.blake2b(source, digest_size=16).hexdigest()
        self._path = os.path.join(self._folder, f"{self._key}.idx")

    def keep(self, header: IndexHeader, found: ScanResult, *, rebuild: bool) -> IndexFile:
        """Open the cached index if it holds the same; else write one, and describe the change."""
        before = self._open()
        if before is None:
            return self.store(header, found)
        fd, known = before
        try:
            same = msgspec.structs.replace(header, history=known.history, watched=known.watched)
            if same == known and not rebuild:
                return self._opened(os.dup(fd), known)
            history, change, replaced = known.history, None, []
            if known.source == header.source and known.stamp and known.stamp != header.stamp:
                earlier = read_found(fd)
                found_change = change_between(earlier, known.stamp, found)
                history = appended(history, found_change)
                change = say_change([found_change])
                replaced = replaced_samples(earlier, found)
        finally:
            os.close(fd)
        opened = self.store(msgspec.structs.replace(header, history=history), found)
        opened.change = change
        for sample in replaced:
            os.pwrite(opened.dims_fd, bytes(DIMS_BYTES), sample * DIMS_BYTES)
        return opened

    def load(self, is_unchanged: Callable[[IndexHeader], bool]) -> IndexFile | None:
        """Open the cached index of shards if it still holds; None if it must be built again."""
        if (before := self._open()) is None:
            return None
        fd, header = before
        if not (header.shards and self._is_asked_for(header) and is_unchanged(header)):
            os.close(fd)
            return None
        return self._opened(fd, header)

    def _opened(self, fd: int, header: IndexHeader) -> IndexFile:
        dims_fd, warning = self._open_dims(header)
        return IndexFile(fd, dims_fd, header, os.fstat(fd).st_size, self._path, True, warning)

    def _open(self) -> tuple[int, IndexHeader] | None:
        """Open the index of an earlier run, whatever it holds; None if there is none."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            header, _ = read_index_header(fd)
        except (DatasetError, OSError):
            os.close(fd)
            return None
        return fd, header

    def _is_asked_for(self, header: IndexHeader) -> bool:
        """Return whether an index is of this dataset, by the present rules and access."""
        return (
            header.source == self._source
            and header.rules == RULES
            and self._root in (None, header.root)
            and header.links_to == self._links_to
        )

    def store(self, header: IndexHeader, found: ScanResult) -> IndexFile:
        """Write the index aside, then rename it; if that fails, keep it in memory."""
        try:
            fd, size_bytes = self._write(header, found)
        except OSError as error:
            return self._store_in_memory(header, found, error)
        dims_fd, warning = self._open_dims(header)
        _write_dims(dims_fd, found)
        self._sweep(header.digest)
        return IndexFile(fd, dims_fd, header, size_bytes, self._path, False, warning)

    def _write(self, header: IndexHeader, found: ScanResult) -> tuple[int, int]:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        aside = f"{self._path}.{os.getpid()}.tmp"
        fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            size_bytes = write_index(fd, header, found)
            readable = os.open(aside, os.O_RDONLY | os.O_CLOEXEC)
            os.rename(aside, self._path)
        except OSError:
            os.unlink(aside)
            raise
        finally:
            os.close(fd)
        return readable, size_bytes

    def _store_in_memory(self, header: IndexHeader, found: ScanResult, error: OSError) -> IndexFile:
        fd = os.memfd_create("augd-index", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        size_bytes = write_index(fd, header, found)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        dims_fd, warning = _dims_in_memory(header), self._not_writable(error)
        _write_dims(dims_fd, found)
        return IndexFile(fd, dims_fd, header, size_bytes, None, False, warning)

    def _not_writable(self, error: OSError) -> str:
        cache = f"the cache {shown(os.fsencode(self._folder))} cannot be written"
        why = f"{cache} ({error.strerror})"
        if self._folder.startswith(f"{NO_HOME}/"):
            why = "this user has no home"
        return (
            f"the index of {shown(self._source)} is kept in memory only: {why}. "
            "Set XDG_CACHE_HOME to a folder that can be written."
        )

    def _open_dims(self, header: IndexHeader) -> tuple[int, str | None]:
        """Open the sizes sidecar of this digest; a new one is filled with zeros."""
        path = os.path.join(self._folder, f"{self._key}.{header.digest}.dims")
        size_bytes = header.num_samples * DIMS_BYTES
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            return _dims_in_memory(header), self._not_writable(error)
        try:
            if os.fstat(fd).st_size != size_bytes:
                os.ftruncate(fd, size_bytes)
            # Disk space is reserved now: a write into a hole of a full disk would be a SIGBUS.
            os.posix_fallocate(fd, 0, size_bytes)
        except OSError as error:
            os.close(fd)
            return _dims_in_memory(header), self._not_writable(error)
        return fd, None

    def _sweep(self, digest: str) -> None:
        """Remove what no dataset needs: old sidecars, indexes of missing roots, unfinished
        writes."""
        keep = f"{self._key}.{digest}.dims"
        try:
            names = os.listdir(self._folder)
        except OSError:
            return
        lost = {name[:-4] for name in names if name.endswith(".idx") and self._is_lost(name)}
        for name in names:
            key = name.partition(".")[0]
            is_old = key == self._key and name.endswith(".dims") and name != keep
            if is_old or key in lost or (name.endswith(".tmp") and self._is_stale(name)):
                _unlink_quietly(os.path.join(self._folder, name))

    def _is_lost(self, name: str) -> bool:
        """Return whether an index is of a dataset that is missing, or is not readable."""
        try:
            fd = os.open(os.path.join(self._folder, name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            header, _ = read_index_header(fd)
        except DatasetError:
            return True
        finally:
            os.close(fd)
        # No request is sent to a store only to clean up.
        return not is_address(header.source) and not os.path.exists(header.source)

    def _is_stale(self, name: str) -> bool:
        try:
            age_s = time.time() - os.stat(os.path.join(self._folder, name)).st_mtime
        except OSError:
            return False
        return age_s > _STALE_S


def _dims_in_memory(header: IndexHeader) -> int:
    fd = os.memfd_create("augd-dims", os.MFD_CLOEXEC)
    os.ftruncate(fd, header.num_samples * DIMS_BYTES)
    return fd


def _write_dims(fd: int, found: ScanResult) -> None:
    """Write the sizes that an index holds. Unknown ones stay as they are."""
    if any(found.sides_px):
        os.pwrite(fd, found.sides_px.tobytes(), 0)


def _unlink_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
