"""The index file: a data set as flat arrays that every producer maps.

Built by the daemon from a folder or a manifest, kept in the user's cache, used again while a look
at all files shows the same names, sizes and times. Its descriptor goes to the producers, who map it
(`arrays.IndexArrays`); beside it lies the sizes sidecar, int32 (num_samples, 2) of width and
height, zero while unknown, which producers fill as they meet headers so that later plans need not
wait for the read. It is a hint only.

Invariants: a file is never changed once it has its name (it is written aside, then renamed), so
whoever mapped it keeps a valid one; a cache that cannot be written or that is damaged costs time,
never an error; no file of the data set is opened but the first. Imports no NumPy.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import time
from array import array
from collections.abc import Sequence
from typing import Final

import msgspec

from augd.dataset.access import read_access
from augd.dataset.changes import appended, change_between, replaced_samples, say_change, stamp_of
from augd.dataset.folder import NoImages, real_root, scan
from augd.dataset.found import SPLIT_CODES, Found, Progress, Skipped, shown
from augd.dataset.layout import (
    DIMS_BYTES,
    RULES,
    IndexHeader,
    digest_of,
    places_of,
    read_found,
    read_index_header,
    read_prefix,
    write_index,
)
from augd.dataset.manifest import read_manifest, real_manifest
from augd.dataset.sources import is_manifest, is_sharded, refuse_own
from augd.errors import DatasetError
from augd.pixels.header import BadImage, read_header
from augd.process.paths import NO_HOME, user_folder
from augd.stores.address import is_address, parse_store

_STALE_S: Final = 3600.0
_MAX_FIRST_BYTES: Final = 512 << 20


class IndexFile(msgspec.Struct):
    """An open index with its sidecar. Owns both descriptors until `close`.

    `path` is None when the index lives in memory only; `warning` then says why. `was_cached` says
    that the file of an earlier run was used, `change` what is other than there, in a line.
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
        """Number of samples."""
        return self.header.num_samples

    @property
    def classes(self) -> list[str]:
        """Class names by label; empty for a data set without labels."""
        return self.header.classes

    @property
    def num_targets(self) -> int:
        """Targets per sample of a multi-label data set; 0 when samples have one label or none."""
        return self.header.num_targets

    @property
    def has_splits(self) -> bool:
        """Whether the data set records which split each sample is in."""
        return self.header.has_splits

    @property
    def notes(self) -> list[str]:
        """Lines for people: what was read from names."""
        return self.header.notes

    @property
    def skipped(self) -> list[Skipped]:
        """What was passed over, by kind: pictures first."""
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
        """Count the samples without a label; none of a multi-label data set."""
        if self.num_targets:
            return 0
        _, start = read_index_header(self.fd)
        (place,) = (place for place in self.header.arrays if place.name == "labels")
        labels = array("q", os.pread(self.fd, 8 * place.length, start + place.offset))
        return labels.count(-1)

    def path_of(self, sample: int) -> str:
        """Give the path of a sample below the root, for messages: one printable line."""
        return shown(self.paths_of((sample,))[0])

    def paths_of(self, samples: Sequence[int], most_bytes: int = 1 << 62) -> list[bytes]:
        """Give the paths of the first of these samples: so many as fit into so many bytes.

        Five bytes are counted for each beside its own; the first one is cut where it doesn't fit.
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
        """Close both descriptors; those who mapped the files keep them. Closing twice is fine."""
        for fd in (self.fd, self.dims_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.dims_fd = -1


def load_or_build(
    root: str | bytes | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> IndexFile:
    """Open the cached index of a folder, of shards or a manifest, or look at it and write one.

    The cached one is used while each file has the size and the time that it had. Shards are walked
    only where one of them changed; of an address in an object store (`stores/address.py`), where a
    listing shows another version of one. `rebuild` walks them in any case.

    Raises:
        DatasetError: as `folder.scan`, `shards.read_shards` or `manifest.read_manifest`.
        StoreError: the store does not give what is asked of it.
    """
    refuse_own(root)
    if is_address(root):
        return _load_or_read_remote(os.fsencode(root), cache_dir, rebuild, progress)
    is_table = is_manifest(root)
    real = real_manifest(root) if is_table else real_root(root)
    access = read_access()
    base = (access.root or os.path.dirname(real)) if is_table else real
    cache = _Cache(cache_dir, real, base, access.links_to)
    if not rebuild and (cached := cache.load()) is not None:
        return cached
    if is_table:
        found = read_manifest(real, progress=progress, root=base, links_to=access.links_to)
    elif is_sharded(real):
        from augd.dataset.shards import read_shards  # with tarfile, which folders need not wait for

        found = read_shards(real, progress=progress)
    else:
        found = _scan(real, progress, access.links_to)
    return cache.keep(found, rebuild=rebuild)


def _scan(root: bytes, progress: Progress | None, links_to: Sequence[bytes]) -> Found:
    """Look at a folder of images, or of folders in which nothing but shards lie."""
    try:
        return scan(root, progress=progress, links_to=links_to)
    except NoImages as none:
        from augd.dataset.shards import read_shards
        from augd.dataset.shelves import has_shards

        if not none.has_shards or not has_shards(root):
            raise
        return read_shards(root, progress=progress)


def store_own(found: Found, own: str, first_size_px: tuple[int, int] | None) -> IndexFile:
    """Write the index of an own source, whose identity is `own`; it is made at each start."""
    found_now = header_of(found)
    header = msgspec.structs.replace(found_now, own=own, first_size_px=first_size_px)
    return _Cache(None, found.source).store(header, found)


def _load_or_read_remote(
    source: bytes,
    cache_dir: str | os.PathLike[str] | None,
    rebuild: bool,
    progress: Progress | None,
) -> IndexFile:
    source = str(parse_store(source)).encode()
    cache = _Cache(cache_dir, source)
    if not rebuild and (cached := cache.load()) is not None:
        return cached
    from augd.dataset.remote import read_remote  # with tarfile and threads

    return keep_remote(read_remote(source, progress=progress), cache_dir=cache_dir)


def keep_remote(found: Found, *, cache_dir: str | os.PathLike[str] | None = None) -> IndexFile:
    """Write the index of a data set in an object store into the user's cache, and open it."""
    return _Cache(cache_dir, found.source).keep(found, rebuild=True)


def header_of(found: Found) -> IndexHeader:
    """Make the header of an index of what was found."""
    return IndexHeader(
        digest=digest_of(found),
        source=found.source,
        root=found.root,
        num_samples=found.num_samples,
        num_targets=found.num_targets,
        has_splits=any(found.splits),
        classes=found.classes,
        watched=found.watched if found.shards else {},
        first_size_px=_first_size_px(found),
        shards=found.shards,
        arrays=places_of(found),
        notes=found.notes,
        skipped=found.skipped,
        links_to=list(found.links_to),
        rules=RULES,
        formats=found.formats,
        stamp=stamp_of(found),
    )


def _first_size_px(found: Found) -> tuple[int, int] | None:
    """Read the size of the first image; None when it is bad."""
    path, offset = found.path(0), 0
    if found.shards:
        path, offset = found.shards[found.shard_numbers[0]].path, found.shard_offsets[0]
    if found.sizes_bytes[0] > _MAX_FIRST_BYTES:
        return None
    if is_address(found.root):
        return _first_size_of_remote(found)
    try:
        with open(os.path.join(found.root, path), "rb") as file:
            content = os.pread(file.fileno(), found.sizes_bytes[0], offset)
        header = read_header(content)
    except (OSError, BadImage):
        return None
    return header.width, header.height


def _first_size_of_remote(found: Found) -> tuple[int, int] | None:
    if found.sides_px[0]:
        return found.sides_px[0], found.sides_px[1]
    if not found.sizes_bytes[0]:
        return None
    from augd.stores.store import Store, facts_of

    shard = facts_of(found.shards[found.shard_numbers[0]])
    store = Store(parse_store(found.source))
    try:
        header = read_header(bytes(store.read(shard, found.shard_offsets[0], found.sizes_bytes[0])))
    except BadImage:
        return None
    return header.width, header.height


class _Cache:
    """The place of one data set in the user's cache, keyed by its real path."""

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

    def keep(self, found: Found, *, rebuild: bool) -> IndexFile:
        """Open the cached index where it says the same; else write one, and say what changed."""
        header = header_of(found)
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

    def load(self) -> IndexFile | None:
        """Open the cached index of shards when it still holds; None when it must be made anew."""
        if (before := self._open()) is None:
            return None
        fd, header = before
        if not (header.shards and self._is_asked_for(header) and _is_unchanged(header)):
            os.close(fd)
            return None
        return self._opened(fd, header)

    def _opened(self, fd: int, header: IndexHeader) -> IndexFile:
        dims_fd, warning = self._open_dims(header)
        return IndexFile(fd, dims_fd, header, os.fstat(fd).st_size, self._path, True, warning)

    def _open(self) -> tuple[int, IndexHeader] | None:
        """Open the index of an earlier run, whatever it says; None where there is none."""
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
        """Say whether an index is of this data set, by the rules and with the access of now."""
        return (
            header.source == self._source
            and header.rules == RULES
            and self._root in (None, header.root)
            and header.links_to == self._links_to
        )

    def store(self, header: IndexHeader, found: Found) -> IndexFile:
        """Write the index beside its place, then move it there; in memory when that fails."""
        try:
            fd, size_bytes = self._write(header, found)
        except OSError as error:
            return self._store_in_memory(header, found, error)
        dims_fd, warning = self._open_dims(header)
        _write_dims(dims_fd, found)
        self._sweep(header.digest)
        return IndexFile(fd, dims_fd, header, size_bytes, self._path, False, warning)

    def _write(self, header: IndexHeader, found: Found) -> tuple[int, int]:
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

    def _store_in_memory(self, header: IndexHeader, found: Found, error: OSError) -> IndexFile:
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
        """Open the sizes sidecar of this digest, made with zeros when it is new."""
        path = os.path.join(self._folder, f"{self._key}.{header.digest}.dims")
        size_bytes = header.num_samples * DIMS_BYTES
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            return _dims_in_memory(header), self._not_writable(error)
        try:
            if os.fstat(fd).st_size != size_bytes:
                os.ftruncate(fd, size_bytes)
            # Taken from the disk now: a write into a hole of a full disk would be a SIGBUS.
            os.posix_fallocate(fd, 0, size_bytes)
        except OSError as error:
            os.close(fd)
            return _dims_in_memory(header), self._not_writable(error)
        return fd, None

    def _sweep(self, digest: str) -> None:
        """Remove what no data set needs any more: old sidecars, lost roots, broken-off writes."""
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
        """Say whether an index is of a data set that is gone, or not readable as an index."""
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
        # Nobody asks a store for the sake of tidiness.
        return not is_address(header.source) and not os.path.exists(header.source)

    def _is_stale(self, name: str) -> bool:
        try:
            age_s = time.time() - os.stat(os.path.join(self._folder, name)).st_mtime
        except OSError:
            return False
        return age_s > _STALE_S


def _is_unchanged(header: IndexHeader) -> bool:
    if is_address(header.source):
        from augd.dataset.remote import is_current

        return is_current(header.source, header.shards, header.watched)
    from augd.dataset.shelves import list_shards, watched_of

    try:
        shards = list_shards(header.root)
        return shards == header.shards and watched_of(header.root, shards) == header.watched
    except (DatasetError, OSError):
        return False


def _dims_in_memory(header: IndexHeader) -> int:
    fd = os.memfd_create("augd-dims", os.MFD_CLOEXEC)
    os.ftruncate(fd, header.num_samples * DIMS_BYTES)
    return fd


def _write_dims(fd: int, found: Found) -> None:
    """Write the sizes that an index knows; unknown ones stay as they are."""
    if any(found.sides_px):
        os.pwrite(fd, found.sides_px.tobytes(), 0)


def _unlink_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
