"""Checks what a command line names before a program starts processes: datasets, stores, producers.

The daemon's startup and the relay's use it. It imports nothing slow at the top.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from augd.errors import (
    DatasetError,
    OptionError,
    OverLimit,
    counted,
    verb,
)
from augd.process.command import say
from augd.process.resource_limits import num_cores, why_too_many
from augd.protocol.limits import PLACES_MAX

if TYPE_CHECKING:
    from augd.dataset.index_file import IndexFile
    from augd.dataset.source_spec import OwnSource

Source: TypeAlias = "Path | str | OwnSource"
"""Where a dataset lies: a path, an address in an object store (as text), or a class."""


_PROGRESS_AFTER_S = 1.0


# Its link, its pidfd and the fetcher's end of its fetch channel. The spare ones are the daemon's
# own, about thirty, and those of a few clients.
_FDS_OF_PRODUCER = 4


_FDS_SPARE = 64


@contextmanager
def interruptions_held() -> Iterator[None]:
    """Block SIGINT and SIGTERM meanwhile. Start no process in the block: it would inherit that.

    It is for imports: an exception within the initialisation of a native module can end the process
    by SIGSEGV, without a message.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def raise_fd_limit(num_producers: int) -> None:
    """Raise the limit of open files to its maximum.

    libzmq aborts the process if accept finds no free fd at a path. Each client takes up to four
    fds, each other connection one; the usual limit is 1,024. Source: ipc_listener_t::accept of
    libzmq 4.3.5 asserts on EMFILE, tcp_listener_t doesn't.

    Raises:
        OverLimit: so many producers leave too few fds for clients.
    """
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    needed = _FDS_SPARE + _FDS_OF_PRODUCER * num_producers
    if 0 <= most < needed:
        enough = (most - _FDS_SPARE) // _FDS_OF_PRODUCER
        raise OverLimit(
            f"{counted(num_producers, 'producer')} {verb(num_producers, 'needs', 'need')} "
            f"{needed} open files, and {most} are allowed: "
            f"raise the limit, ulimit -n {needed} (LimitNOFILE= of a systemd unit)"
            + (f", or ask for {enough} --producers" if enough > 0 else "")
        )


def load_index(name: str, source: Source) -> IndexFile:
    """Open a dataset's index, or build it, with a line on the terminal if that takes time."""
    if not isinstance(source, Path | str):
        from augd.plugins.sources import index_own

        return index_own(name, source)
    from augd.dataset.scan.build_index import load_or_build

    progress = _Progress(name)
    try:
        index = load_or_build(source, progress=progress)
    finally:
        progress.close()
    if index.warning is not None:
        say(f"augd: {index.warning}", file=sys.stderr)
    if index.change is not None:
        say(
            f"augd: {name}: since the last index {index.change}; they are read as they are now, "
            f"so rows of changed files differ from those of earlier runs",
            file=sys.stderr,
        )
    from augd.dataset.scan.likely_mistakes import doubts_of

    for note in (*index.notes, *doubts_of(index)):
        say(f"augd: {name}: {note}", file=sys.stderr)
    if missed := [one for one in index.skipped if one.is_image]:
        from augd.dataset.scan.skipped_files import say_skipped

        say(f"augd: {name}: not read: {say_skipped(missed)}", file=sys.stderr)
    return index


class _Progress:
    """A line on the terminal once indexing has taken a second; none if stderr is no terminal."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.monotonic()
        self._is_shown = False

    def __call__(self, num_seen: int) -> None:
        passed_s = time.monotonic() - self._started
        if passed_s > _PROGRESS_AFTER_S and sys.stderr.isatty():
            self._is_shown = True
            rate = num_seen / passed_s
            text = f"indexing {self._name}: {num_seen:,} files, {rate:,.0f} per second"
            say(f"\r\x1b[Kaugd: {text}", end="", file=sys.stderr)

    def close(self) -> None:
        if self._is_shown:
            say(file=sys.stderr)


def list_own(sources: Mapping[str, Source]) -> list[str]:
    """Return the own sources among them, in the form of a producer's arguments."""
    return [
        json.dumps({name: str(source)})
        for name, source in sources.items()
        if not isinstance(source, Path | str)
    ]


def name_paths(paths: Sequence[str], named: str | None = None) -> dict[str, Source]:
    """Turn `NAME=PATH` and plain paths into sources by name.

    A plain path is named after its last part, a manifest without its extension, an own source after
    its class. `named` are more of them by name, as JSON, which needs no parsing of `NAME=PATH`.
    """
    from augd.dataset.source_spec import dataset_name, parse_own
    from augd.dataset.stores.address import is_address, parse_store
    from augd.protocol.codec import as_text

    sources: dict[str, Source] = {}
    for name, text in (json.loads(named) if named else {}).items():
        store = str(parse_store(text)) if is_address(text) else None
        sources[as_text(name)] = store or parse_own(text) or Path(text)
    for text in paths:
        name, separator, rest = text.partition("=")
        alone = parse_own(text)
        # A plain path that contains "=" has a slash before it, or exists as it is written.
        if alone is not None:
            name, rest = alone.class_name, text
        elif not separator or "/" in name or Path(text).exists():
            rest = text
            name = dataset_name(text if is_address(text) else Path(text).absolute())
        name = as_text(name)
        if not name or not rest:
            raise OptionError(f"PATH: expected a folder or manifest, or NAME=PATH, got {text!r}")
        if name in sources:
            raise OptionError(
                f"PATH: two datasets are named {name!r}; give one another name: NAME={rest}"
            )
        if is_address(rest):
            sources[name] = str(parse_store(rest))
        else:
            sources[name] = parse_own(rest) or Path(rest)
    if not sources:
        raise OptionError("PATH: expected a folder or manifest, or NAME=PATH, got none")
    return sources


def has_remote(sources: Mapping[str, Source]) -> bool:
    """Return whether one of these lies in an object store."""
    return any(isinstance(source, str) for source in sources.values())


def absolute_shard_cache(shard_cache: str | None) -> str | None:
    """Make the folder of a shard cache absolute."""
    if shard_cache is None:
        return None
    folder, _, size = shard_cache.rpartition(":")
    return f"{os.path.abspath(folder)}:{size}"


def check_shard_cache(text: str | None, sources: Mapping[str, Source]) -> None:
    """Reject a shard cache that cannot be used, or that would stay empty.

    Raises:
        OptionError: it is no DIR:SIZE, the folder cannot be used, or no dataset is remote.
        OverLimit: its disk has too little space.
    """
    if text is None:
        return
    from augd.dataset.stores.shard_cache import check_shard_cache as check

    if not has_remote(sources):
        raise OptionError(
            "--shard-cache: expected a dataset in an object store, as s3://BUCKET/PREFIX; datasets "
            "on local disks need none"
        )
    check(text)


def check_sources(sources: Mapping[str, Source]) -> None:
    """Reject a source that is no dataset, before anything is started for it.

    Raises:
        DatasetError: names the first such source.
        OptionError: one lies in an object store, and the extra that reads these is not installed.
    """
    from augd.dataset.source_spec import is_manifest, why_no_folder

    for source in sources.values():
        if isinstance(source, str):
            from augd.dataset.stores.object_store import patience_s, require_engine

            require_engine()
            patience_s()
            continue
        if not isinstance(source, Path):
            continue  # an own source is checked when plug-ins are loaded
        if (why := why_no_folder(source)) is not None:
            raise DatasetError(why)
        if not source.is_dir() and not (is_manifest(source) and source.is_file()):
            raise DatasetError(
                f"{source} is not a folder, nor a .csv or .jsonl manifest; give the folder of "
                f"the images, or the file that lists them"
            )


def count_producers(wanted: int | None, *, is_forced: bool = False) -> int:
    """Return how many producers an option asks for; one per core without the option.

    Raises:
        OptionError: it is out of range, or far more than cores without being forced.
    """
    if wanted is None:
        return min(num_cores(), PLACES_MAX)
    if not 0 <= wanted <= PLACES_MAX:
        raise OptionError(f"--producers: expected 0..{PLACES_MAX}, got {wanted}")
    if not is_forced and (why := why_too_many(wanted)):
        raise OptionError(f"--producers: {why}; add --force if you mean it")
    return wanted
