"""`augd pack` and `augd index`: pack a dataset into shards with an index, or index shards.

`augd pack` writes only below its target. `.augd-pack` there holds unfinished work and the options
that it was begun with, so the same command resumes after any interruption.

Invariants: the index is written last, after every shard. An index keeps the digest of its source
exactly when every image's pixels are those of the source.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from typing import IO, Any, Final

import msgspec
import numpy as np

from augd.cli.pack.options import IndexOptions, PackCommandOptions, PackOptions
from augd.cli.pack.photo import Shrink, place_of, require_kernels
from augd.cli.pack.shard_writer import (
    STATE_NAME,
    Entry,
    Job,
    ShardOptions,
    is_done,
    plan_shards,
    read_entries,
    written_whole,
)
from augd.cli.pack.workers import pack_all
from augd.dataset.index_arrays import IndexArrays
from augd.dataset.index_file import IndexFile
from augd.dataset.index_format import IndexHeader, read_found, write_index_to
from augd.dataset.scan.build_index import header_of, keep_remote, load_or_build
from augd.dataset.scan.folder_listing import real_root
from augd.dataset.scan.object_store import StoreListing
from augd.dataset.scan.shard_listing import CLASSES_NAME, INDEX_NAME, has_shards, list_shards
from augd.dataset.scan.shards import Walker, walk_shards
from augd.dataset.scan.tar import Member
from augd.dataset.scan_result import Progress, ScanResult, Shard, say_splits, shown
from augd.dataset.stores.address import is_address, parse_store
from augd.diagnostics.formatting import say_size, section
from augd.diagnostics.progress_bar import ProgressBar
from augd.errors import AugdError, DatasetError, OptionError, counted
from augd.pixels.headers.read_header import BadImage, Header, read_header
from augd.pixels.jpeg_segments import Table, find_segments
from augd.process.resource_limits import num_cores

_PLAN_VERSION: Final = 1
_HEAD_BYTES: Final = 64 << 10  # with EXIF; more has a thumbnail or a colour profile in it
_END_OF_IMAGE: Final = b"\xff\xd9"


class PackPlan(msgspec.Struct, frozen=True):
    """What a packing was started with; a resume must have the same."""

    version: int
    source: str
    options: ShardOptions


def run_pack(options: PackCommandOptions) -> None:
    """Pack a dataset and print the result.

    Raises:
        AugdError: an option, the source or the target is not fit for it, or as `pack_all`.
    """
    report = pack(options.source, options.target, options)
    print(json.dumps(report) if options.as_json else "\n".join(_lines(report)))


def pack(source: str, target: str, options: PackOptions) -> dict[str, Any]:
    """Pack a dataset; returns the result as plain data. See `run_pack`."""
    require_kernels()
    chosen = _chosen(options)
    started = time.monotonic()
    with ProgressBar("indexing") as progress:
        index = load_or_build(source, progress=progress)
    try:
        plan = PackPlan(_PLAN_VERSION, index.digest, chosen)
        with _begun(index, target, plan) as folder:
            report = _pack(index, folder, chosen, options.num_workers)
    except OSError as error:
        raise AugdError(
            f"{target} cannot be packed: {error}. Run the same command again to go on."
        ) from None
    finally:
        index.close()
    return {
        "source": source,
        "target": target,
        **report,
        "seconds": time.monotonic() - started,
    }


def _chosen(options: PackOptions) -> ShardOptions:
    for name, value, low, high in (
        ("--shard-mb", options.shard_mb, 1, 1 << 20),
        ("--quality", options.quality, 1, 100),
        ("--short-side", options.short_side_px, 1, 65535),
        ("--workers", options.num_workers, 1, 1024),
    ):
        if value is not None and not low <= value <= high:
            raise OptionError(f"{name}: expected {low}..{high}, got {value}")
    side = options.short_side_px
    shrink = None if side is None else Shrink(side, options.quality)
    return ShardOptions(options.shard_mb * 10**6, shrink)


@contextmanager
def _begun(index: IndexFile, target: str, plan: PackPlan) -> Iterator[str]:
    """Start or resume in the target, under a lock against a second packer."""
    folder = os.path.realpath(target)
    state = os.path.join(folder, STATE_NAME)
    source = os.fsdecode(index.header.source)
    if os.path.join(folder, "").startswith(os.path.join(source, "")):
        raise OptionError(f"DST: expected a folder outside of {source}, got {target}")
    if os.path.exists(os.path.join(folder, os.fsdecode(INDEX_NAME))):
        raise OptionError(f"DST: {target} is packed already. Give another folder, or remove it.")
    try:
        if os.path.isdir(folder) and os.listdir(folder) and not os.path.isdir(state):
            raise OptionError(f"DST: expected an empty or a new folder, got {target}")
        os.makedirs(state, exist_ok=True)
        plan_path = os.path.join(state, "plan.json")
        lock = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OptionError(f"DST: {target} cannot be written: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OptionError(f"DST: another augd pack is at work in {target}") from None
        content = msgspec.json.encode(plan)
        if not os.path.exists(plan_path):
            with written_whole(plan_path) as file:
                file.write(content)
        with open(plan_path, "rb") as file:
            if file.read() != content:
                raise OptionError(
                    f"DST: {target} was begun from another source, or with other options. Give "
                    f"those again to go on, or remove it."
                )
        yield folder
    finally:
        os.close(lock)


def _pack(
    index: IndexFile, folder: str, options: ShardOptions, num_workers: int | None
) -> dict[str, Any]:
    arrays = IndexArrays(index.fd, index.dims_fd)
    jobs = plan_shards(arrays, options.shard_bytes)
    done = sum(len(job.samples) for job in jobs if is_done(folder, job))
    wanted = min(num_workers or num_cores(), len(jobs))
    with ProgressBar("packing", index.num_samples) as progress:
        for num_begun, _ in enumerate(pack_all(index, folder, options, wanted), done):
            progress(num_begun)
        progress(index.num_samples)
    report = _finish(index, arrays, jobs, folder)
    shutil.rmtree(os.path.join(folder, STATE_NAME))
    return {**report, "resumed": done}


def _finish(index: IndexFile, arrays: IndexArrays, jobs: list[Job], folder: str) -> dict[str, Any]:
    """Write the index of all shards; returns what they hold."""
    found = read_found(index.fd)
    root = os.fsencode(folder)
    found.source = found.root = root
    found.forget_places()
    found.shards, found.sizes_bytes = list_shards(root), array("q")
    found.mtimes_ns = array("q", bytes(8 * found.num_samples))
    numbers = {shard.path: number for number, shard in enumerate(found.shards)}
    if set(numbers) != {f"{job.name}.tar".encode() for job in jobs}:
        raise DatasetError(f"{folder} holds other shards than it was packed with. Remove it.")
    kept: list[dict[str, Any]] = []
    num_shrunk = 0
    for job, entry in _in_order(folder, jobs, found.num_samples):
        place = msgspec.structs.replace(entry.place, shard=numbers[f"{job.name}.tar".encode()])
        found.sizes_bytes.append(entry.size_bytes)
        found.place(place)
        num_shrunk += entry.is_shrunk
        if entry.kept:
            reason = {"id": entry.sample, "path": arrays.path(entry.sample), "reason": entry.kept}
            kept.append(reason)
    if num_shrunk:
        found.digest = ""
    if found.classes:
        with written_whole(os.path.join(folder, os.fsdecode(CLASSES_NAME))) as file:
            file.write(msgspec.json.encode(found.classes))
    index_bytes = _write_index(found)
    return {
        "num_samples": found.num_samples,
        "num_shards": len(jobs),
        "num_shrunk": num_shrunk,
        "source_bytes": int(arrays.sizes_bytes.sum()),
        "shard_bytes": sum(shard.size_bytes for shard in found.shards),
        "index_bytes": index_bytes,
        "kept": kept,
    }


def _in_order(folder: str, jobs: list[Job], num_samples: int) -> Iterator[tuple[Job, Entry]]:
    """Yield all entries in the order of the samples, in which splits may alternate."""
    job_of = np.empty(num_samples, np.int64)
    for number, job in enumerate(jobs):
        job_of[job.samples] = number
    opened: dict[int, Iterator[Entry]] = {}
    for sample, number in enumerate(job_of.tolist()):
        job = jobs[number]
        if sample == job.samples[0]:
            opened[number] = iter(read_entries(folder, job))
        entry = next(opened[number], None)
        if entry is None or entry.sample != sample:
            raise DatasetError(
                f"{folder}: what was packed of {job.name} is damaged. Remove {job.name}.tar and "
                f"run the same command again."
            )
        yield job, entry
        if sample == job.samples[-1]:
            del opened[number]


def run_index(options: IndexOptions) -> None:
    """Index a folder of tar shards and print what is in them.

    Raises:
        DatasetError: there are no shards, or one is damaged.
        StoreError: the store that they lie in does not give them.
    """
    source = options.source
    if options.rebuild:
        report = rebuild_index(source)
        print(json.dumps(report) if options.as_json else _say_rebuilt(report))
        return
    try:
        report = index_remote(source, options) if is_address(source) else index_shards(source)
    except OSError as error:
        raise DatasetError(f"{source} cannot be indexed: {error}") from None
    print(json.dumps(report) if options.as_json else "\n".join(_index_lines(report)))


def rebuild_index(source: str) -> dict[str, Any]:
    """Scan a whole dataset again for the user's cache; returns its contents."""
    started = time.monotonic()
    with (
        ProgressBar("indexing") as progress,
        closing(load_or_build(source, rebuild=True, progress=progress)) as index,
    ):
        return {
            "source": source,
            "num_samples": index.num_samples,
            "num_classes": len(index.classes),
            "splits": {name or "none": count for name, count in index.count_splits().items()},
            "change": index.change,
            "digest": index.digest,
            "seconds": time.monotonic() - started,
        }


def _say_rebuilt(report: dict[str, Any]) -> str:
    splits = say_splits(report["splits"])
    said = (
        f"{report['source']}: {counted(report['num_samples'], 'image')}, "
        f"{counted(report['num_classes'], 'class', 'classes')}, "
        f"{f'{splits}: ' if splits else ''}indexed anew in {report['seconds']:.1f} s"
    )
    change = report["change"]
    return said if change is None else f"{said}; since the last index {change}"


Seen = tuple[Header | None, Table | None, str]
"""A photo's header and segments, as far as it has them, and what is wrong with it."""


def index_shards(source: str) -> dict[str, Any]:
    """Write `augd.index` beside shards; returns their contents. See `run_index`."""
    started = time.monotonic()
    root = real_root(source)
    if not has_shards(root):
        raise DatasetError(
            f"{source} holds no .tar shards, or images beside them. A folder of images needs no "
            f"index: serve it, or pack it (augd pack SRC DST)."
        )
    with ProgressBar("listing") as progress:
        walked = walk_shards(root, progress=progress)
    found = msgspec.structs.replace(walked)  # which is looked up meanwhile
    with ProgressBar("looking at images", walked.num_samples) as progress:
        report = _place_all(found, map(_look_at, _contents(walked)), progress)
    report["index_bytes"] = _write_index(found)
    return {"source": source, **report, "seconds": time.monotonic() - started}


def index_remote(source: str, options: IndexOptions) -> dict[str, Any]:
    """Index shards in an object store by range reads; returns their contents. See `run_index`."""
    started = time.monotonic()
    shelf = StoreListing(str(parse_store(source)).encode(), _look_within)
    if options.beside and not source.lower().startswith("s3:"):
        raise OptionError(
            f"--beside: nothing can be written to {source}; use --out FILE and copy it there"
        )
    with ProgressBar("looking at images") as progress:
        walker = Walker(shelf, progress)
        found = walker.walk()
    found.source = shelf.source
    report = _place_all(found, iter(walker.seen))
    content = BytesIO()
    report["index_bytes"] = write_index_to(content, *_portable(found))
    if options.out is not None:
        with written_whole(options.out) as file:
            file.write(content.getvalue())
    if options.beside:
        shelf.store.put(os.fsdecode(INDEX_NAME), content.getvalue())
    else:
        keep_remote(found).close()
    return {"source": source, **report, "seconds": time.monotonic() - started}


def _place_all(
    found: ScanResult, looks: Iterator[Seen], progress: Progress = lambda number: None
) -> dict[str, Any]:
    """Record the header of each image; returns the contents of the shards."""
    numbers, offsets = found.shard_numbers, found.shard_offsets
    found.forget_places()
    bad: list[dict[str, Any]] = []
    num_cut = 0
    for sample, (header, table, reason) in enumerate(looks):
        if reason:
            bad.append({"id": sample, "path": shown(found.path(sample)), "reason": reason})
        found.place(place_of(header, table, numbers[sample], offsets[sample]))
        num_cut += table is not None
        progress(sample + 1)
    return {
        "num_samples": found.num_samples,
        "num_shards": len(found.shards),
        "num_cut": num_cut,
        "classes": len(found.classes),
        "shard_bytes": sum(shard.size_bytes for shard in found.shards),
        "bad": bad,
    }


def _look_at(content: bytes) -> Seen:
    header = None
    try:
        header = read_header(content)
        return header, find_segments(content, header), ""
    except BadImage as error:
        return header, None, str(error)


def _look_within(file: IO[bytes], member: Member) -> Seen:
    """Read an image's header in a remote shard: its first bytes, if they suffice."""
    file.seek(member.offset)
    head = file.read(min(member.size_bytes, _HEAD_BYTES))
    if len(head) < member.size_bytes:
        try:
            # The end marker is taken for granted: `augd check` looks at whole photos.
            header = read_header(head + _END_OF_IMAGE)
            if header.format == "jpeg" and not header.has_restarts:
                return header, None, ""
        except BadImage:
            pass
        head += file.read(member.size_bytes - len(head))
    return _look_at(head)


def _contents(found: ScanResult) -> Iterator[bytes]:
    """Yield the bytes of all samples of shards, which lie in the order of the samples."""
    opened, fd = -1, -1
    try:
        for number, offset, size_bytes in zip(
            found.shard_numbers, found.shard_offsets, found.sizes_bytes, strict=True
        ):
            if number != opened:
                if fd >= 0:
                    os.close(fd)
                path = os.path.join(found.root, found.shards[number].path)
                fd, opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC), number
            yield os.pread(fd, size_bytes, offset)
    finally:
        if fd >= 0:
            os.close(fd)


def _write_index(found: ScanResult) -> int:
    """Write `augd.index` beside the shards; returns its size."""
    with written_whole(os.path.join(os.fsdecode(found.root), os.fsdecode(INDEX_NAME))) as file:
        return write_index_to(file, *_portable(found))


def _portable(found: ScanResult) -> tuple[IndexHeader, ScanResult]:
    """Return the index's header without what is true of this machine or store only."""
    header = msgspec.structs.replace(
        header_of(found),
        source=b"",
        root=b"",
        watched={},
        links_to=[],
        stamp="",
        shards=[Shard(shard.path, shard.size_bytes, 0) for shard in found.shards],
    )
    return header, found


def _lines(report: dict[str, Any]) -> Iterator[str]:
    source_bytes, shard_bytes = report["source_bytes"], report["shard_bytes"]
    whole_bytes = shard_bytes + report["index_bytes"]
    yield f"{report['target']}: {_say_packed(report)}, {report['seconds']:.1f} s"
    if resumed := report["resumed"]:
        yield f"  {resumed:,} of them {_were(resumed)} packed before"
    yield (
        f"  {say_size(source_bytes)} became {say_size(whole_bytes)}, "
        f"{whole_bytes / source_bytes:.3f} times as much; {say_size(report['index_bytes'])} of it "
        f"are the index"
    )
    if shrunk := report["num_shrunk"]:
        yield f"  {shrunk:,} {_were(shrunk)} shrunk and encoded again: this is another dataset"
    kept = report["kept"]
    as_is = "as it is" if len(kept) == 1 else "as they are"
    yield from section(
        f"{counted(len(kept), 'file')} kept {as_is}, read whole as in a folder",
        [f"{one['path']}: {one['reason']}" for one in kept],
    )


def _say_packed(report: dict[str, Any]) -> str:
    images = counted(report["num_samples"], "image")
    return f"{images} in {counted(report['num_shards'], 'shard')}"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _index_lines(report: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{report['source']}: {_say_packed(report)}, {say_size(report['shard_bytes'])}, "
        f"{counted(report['classes'], 'class', 'classes')}"
    )
    cut = report["num_cut"]
    yield (
        f"  {cut:,} {'has' if cut == 1 else 'have'} restart markers, so that crops cost what they "
        f"hold; {say_size(report['index_bytes'])} of index, {report['seconds']:.1f} s"
    )
    bad = report["bad"]
    yield from section(
        f"{counted(len(bad), 'bad file')}, whose rows would be masked",
        [f"{one['path']}: {one['reason']}" for one in bad],
    )
