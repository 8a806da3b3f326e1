"""What `augd serve` does, from its options to the end of the daemon.

Order matters for the time to the first batch: the producers are started first, because
they import NumPy and OpenCV while this process scans the folders. Imports nothing slow at
the top.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from augd.errors import AugdError, DatasetError, OptionError

if TYPE_CHECKING:
    from augd.dataset.index import IndexFile
    from augd.hire import Hired
    from augd.transport.address import Address

_PROGRESS_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """How the daemon is run, apart from what it serves."""

    listen: str | None = None
    num_producers: int | None = None
    is_quiet: bool = False
    lifeline_fd: int | None = None
    ready_fd: int | None = None


def serve_forever(paths: Sequence[str], options: Options) -> int:
    """Serve until drained; returns the exit status.

    Raises:
        AugdError: it cannot start; nothing is left running.
    """
    try:
        return _serve_locked(paths, options)
    except AugdError as error:
        tell_ready(options.ready_fd, {"code": error.code, "error": str(error)})
        raise


def _serve_locked(paths: Sequence[str], options: Options) -> int:
    from augd.transport.address import make_runtime_dir, parse_address
    from augd.transport.lock import AddressLock

    folders = name_paths(paths)
    for folder in folders.values():
        if not folder.is_dir():
            raise DatasetError(f"{folder} is not a folder; give the folder of the images")
    wanted = _count_producers(options.num_producers)
    address = parse_address(options.listen)
    make_runtime_dir(address.path.parent)
    lock = AddressLock.acquire(address)
    hired: list[Hired] = []
    try:
        from augd.hire import hire

        hired.extend(hire() for _ in range(wanted))
        return _serve(address, folders, hired, options)
    finally:
        for one in hired:
            if one.process.poll() is None:
                one.process.kill()
            one.process.wait()
        lock.release()


def _serve(
    address: Address,
    folders: dict[str, Path],
    hired: list[Hired],
    options: Options,
) -> int:
    from augd.daemon import Daemon, set_up_log

    set_up_log(is_quiet=options.is_quiet)
    datasets = {name: _load_index(name, folder) for name, folder in folders.items()}
    daemon = Daemon(address, hired, datasets, options.lifeline_fd)
    served = ", ".join(
        f"{name} ({index.num_samples} images, {len(index.classes)} classes)"
        for name, index in datasets.items()
    )
    if not options.is_quiet:
        print(f"augd: serving {served} at {address} with {len(hired)} producers; Ctrl-C ends it")
        sys.stdout.flush()
    tell_ready(options.ready_fd, {"address": str(address)})
    return daemon.run()


def tell_ready(ready_fd: int | None, said: dict[str, str]) -> None:
    """Write one line to whoever started this daemon, once, and close the pipe."""
    if ready_fd is not None:
        os.write(ready_fd, json.dumps(said).encode() + b"\n")
        os.close(ready_fd)


def _load_index(name: str, folder: Path) -> IndexFile:
    from augd.dataset.index import load_or_build

    progress = _Progress(name)
    try:
        index = load_or_build(folder, progress=progress)
    finally:
        progress.close()
    if index.warning is not None:
        print(f"augd: {index.warning}", file=sys.stderr)
    return index


class _Progress:
    """A line on the terminal once indexing has taken a second; silent elsewhere."""

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
            print(f"\r\x1b[Kaugd: {text}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._is_shown:
            print(file=sys.stderr)


def name_paths(paths: Sequence[str]) -> dict[str, Path]:
    """Turn `NAME=PATH` and plain paths into folders by name; a plain path has its last part's."""
    folders: dict[str, Path] = {}
    for text in paths:
        name, separator, rest = text.partition("=")
        # A plain path that contains "=" has a slash before it, or exists as it is written.
        if not separator or "/" in name or Path(text).exists():
            name, rest = Path(text).absolute().name, text
        if not name or not rest:
            raise OptionError(f"PATH: expected a folder or NAME=FOLDER, got {text!r}")
        if name in folders:
            raise OptionError(
                f"PATH: two data sets are named {name!r}; name them apart: NAME={rest}"
            )
        folders[name] = Path(rest)
    return folders


def _count_producers(wanted: int | None) -> int:
    if wanted is None:
        return len(os.sched_getaffinity(0))
    if not 1 <= wanted <= 1024:
        raise OptionError(f"--producers: expected 1..1024, got {wanted}")
    return wanted
