"""Builds the index of a dataset: opens the cached one if it still holds, and scans otherwise."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import msgspec

from augd.dataset.access import read_access
from augd.dataset.index_cache import IndexCache
from augd.dataset.index_changes import (
    stamp_of,
)
from augd.dataset.index_file import IndexFile
from augd.dataset.index_format import (
    RULES,
    IndexHeader,
    digest_of,
    places_of,
)
from augd.dataset.scan.folder import NoImages, scan
from augd.dataset.scan.folder_listing import real_root
from augd.dataset.scan.manifest import read_manifest, real_manifest
from augd.dataset.scan_result import Progress, ScanResult
from augd.dataset.source_spec import is_manifest, is_sharded, refuse_own
from augd.dataset.stores.address import is_address, parse_store
from augd.errors import DatasetError
from augd.pixels.headers.read_header import BadImage, read_header

_MAX_FIRST_BYTES: Final = 512 << 20


def load_or_build(
    root: str | bytes | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> IndexFile:
    """Open the cached index of a folder, of shards or of a manifest, or scan and write one.

    The cached index is used while each file has the same size and time. Local shards are walked
    only if one of them changed. Shards in an object store (`dataset/stores/address.py`) are walked
    if the listing shows another version. `rebuild` always walks them.

    Raises:
        DatasetError: as `folder.scan`, `shards.read_shards` or `manifest.read_manifest`.
        StoreError: the store fails or rejects a request.
    """
    refuse_own(root)
    if is_address(root):
        return _load_or_read_remote(os.fsencode(root), cache_dir, rebuild, progress)
    is_table = is_manifest(root)
    real = real_manifest(root) if is_table else real_root(root)
    access = read_access()
    base = (access.root or os.path.dirname(real)) if is_table else real
    cache = IndexCache(cache_dir, real, base, access.links_to)
    if not rebuild and (cached := cache.load(_is_unchanged)) is not None:
        return cached
    if is_table:
        found = read_manifest(real, progress=progress, root=base, links_to=access.links_to)
    elif is_sharded(real):
        from augd.dataset.scan.shards import (
            read_shards,  # with tarfile, which folders need not wait for
        )

        found = read_shards(real, progress=progress)
    else:
        found = _scan(real, progress, access.links_to)
    return cache.keep(header_of(found), found, rebuild=rebuild)


def _scan(root: bytes, progress: Progress | None, links_to: Sequence[bytes]) -> ScanResult:
    """Scan a folder of images, or a folder that holds only folders of shards."""
    try:
        return scan(root, progress=progress, links_to=links_to)
    except NoImages as none:
        from augd.dataset.scan.shard_listing import has_shards
        from augd.dataset.scan.shards import read_shards

        if not none.has_shards or not has_shards(root):
            raise
        return read_shards(root, progress=progress)


def store_own(found: ScanResult, own: str, first_size_px: tuple[int, int] | None) -> IndexFile:
    """Write the index of an own source, whose identity is `own`. It is built at each start."""
    found_now = header_of(found)
    header = msgspec.structs.replace(found_now, own=own, first_size_px=first_size_px)
    return IndexCache(None, found.source).store(header, found)


def _load_or_read_remote(
    source: bytes,
    cache_dir: str | os.PathLike[str] | None,
    rebuild: bool,
    progress: Progress | None,
) -> IndexFile:
    source = str(parse_store(source)).encode()
    cache = IndexCache(cache_dir, source)
    if not rebuild and (cached := cache.load(_is_unchanged)) is not None:
        return cached
    from augd.dataset.scan.object_store import read_remote  # with tarfile and threads

    return keep_remote(read_remote(source, progress=progress), cache_dir=cache_dir)


def keep_remote(found: ScanResult, *, cache_dir: str | os.PathLike[str] | None = None) -> IndexFile:
    """Write the index of a dataset in an object store into the user's cache, and open it."""
    return IndexCache(cache_dir, found.source).keep(header_of(found), found, rebuild=True)


def header_of(found: ScanResult) -> IndexHeader:
    """Make the index header of a scan result."""
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


def _first_size_px(found: ScanResult) -> tuple[int, int] | None:
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


def _first_size_of_remote(found: ScanResult) -> tuple[int, int] | None:
    if found.sides_px[0]:
        return found.sides_px[0], found.sides_px[1]
    if not found.sizes_bytes[0]:
        return None
    from augd.dataset.stores.object_store import ObjectStore, facts_of

    shard = facts_of(found.shards[found.shard_numbers[0]])
    store = ObjectStore(parse_store(found.source))
    try:
        header = read_header(bytes(store.read(shard, found.shard_offsets[0], found.sizes_bytes[0])))
    except BadImage:
        return None
    return header.width, header.height


def _is_unchanged(header: IndexHeader) -> bool:
    if is_address(header.source):
        from augd.dataset.scan.object_store import is_current

        return is_current(header.source, header.shards, header.watched)
    from augd.dataset.scan.shard_listing import list_shards, watched_of

    try:
        shards = list_shards(header.root)
        return shards == header.shards and watched_of(header.root, shards) == header.watched
    except (DatasetError, OSError):
        return False
