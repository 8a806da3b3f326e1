"""`augd.serve`: a daemon as a child process, for scripts, notebooks and tests.

Runs in the caller's process. The child is `augd serve`: the supervisor, whose child is the daemon
(augd/server/supervisor/loop.py). The daemon holds a pidfd of this process as its lifeline. When
this process ends, however it ends and whatever it has forked, the daemon drains and ends. `serve`
waits, with a deadline, until the daemon is ready or reports why it cannot start.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from augd.client import argument_checks
from augd.client.serve_options import ServeOptions
from augd.dataset.source_spec import dataset_name, parse_own
from augd.dataset.stores.address import is_address
from augd.errors import AugdError, OptionError, error_from_code
from augd.process import interpreter
from augd.process.awake_clock import Awake
from augd.process.command import open_streams
from augd.process.options import to_words
from augd.process.paths import absolute
from augd.process.resource_limits import why_too_many
from augd.transport.address import make_runtime_dir, parse_address, runtime_dir

_STOP_S = 25.0  # beyond what the supervisor gives its daemon for a drain
_numbers = itertools.count()

Paths = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]


class ServedDaemon:
    """A running daemon. It ends with `close()`, with a `with`, or with the last reference to it.

    Attributes:
        addresses: where it listens, in the order of `listen`.
        http: URL of its dashboard, empty without one.
        supervisor_pid: pid of the process that restarts the daemon when it dies. A signal to it
            reaches both: SIGTERM drains the daemon, SIGKILL ends it at once.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._end = weakref.finalize(self, _end, process, os.getpid())
        self.addresses: list[str] = []
        self.http = ""
        self.supervisor_pid = process.pid
        self._daemon_pid = 0

    @property
    def pid(self) -> int:
        """The daemon's own process: another one, once it died and was started again."""
        path = f"/proc/{self.supervisor_pid}/task/{self.supervisor_pid}/children"
        with suppress(OSError), open(path, encoding="ascii") as children:
            self._daemon_pid = next((int(pid) for pid in children.read().split()), self._daemon_pid)
        return self._daemon_pid

    @property
    def address(self) -> str:
        """What `connect` takes: the first of the addresses."""
        return self.addresses[0]

    def close(self) -> None:
        """Drain the daemon and wait for its end; kill it when it takes longer than 25 s."""
        self._end()

    def __repr__(self) -> str:
        if not self._end.alive:
            return "<ServedDaemon, closed>"
        page = f", page {self.http}" if self.http else ""
        return f"<ServedDaemon at {' and '.join(self.addresses)}{page}, pid {self.pid}>"

    def __enter__(self) -> ServedDaemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(process: subprocess.Popen[bytes], owner_pid: int) -> None:
    """End a daemon once: asked for, with the last reference, or at the interpreter's exit."""
    if os.getpid() != owner_pid:
        return  # a forked child has a copy of the object, and no daemon
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def serve(
    paths: Paths,
    *,
    producers: int | None = None,
    listen: str | Sequence[str] | None = None,
    insecure: bool = False,
    keys: str | os.PathLike[str] | None = None,
    patience_s: float | None = None,
    plugins: Sequence[str] = (),
    cache: str | None = None,
    shard_cache: str | None = None,
    http: str | None = None,
    http_token: str | os.PathLike[str] | None = None,
    links_to: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    root: str | os.PathLike[str] | None = None,
    max_pixels: int | None = None,
    timeout_s: float = 60.0,
) -> ServedDaemon:
    """Start a daemon that serves these datasets and ends with this process.

    The daemon also ends when nothing refers to the returned object, so that running a notebook's
    cell again leaves no second daemon. Keep a reference, as `with` does:
    `augd.connect(augd.serve(PATH).address)` leaves a stream without a daemon. Children that this
    process forks do not keep the daemon alive.

    Args:
        paths: one folder, manifest (`.csv`, `.jsonl`), address of shards in an object store
            (`s3://BUCKET/PREFIX`, docs/storage.md) or own source (`plugin:MODULE:CLASS?ARGUMENT`,
            docs/own-sources.md), or several by name.
        producers: number of producer processes. None is one per core that this process may use,
            0 leaves all to `augd produce`. More than four per core raise a warning.
        listen: `ipc://PATH` or `tcp://HOST:PORT` (port 0: a free one), or one of each; None
            chooses a private path.
        insecure: let every host that reaches the port connect. Without it the port must be bound
            to loopback, or have keys.
        keys: a folder of keys (`augd keys new NAME` makes one). The port is then encrypted, and
            open to the clients that the folder names.
        patience_s: a producer that has work and sends nothing for so many seconds is killed and
            replaced, 2..3600; None is 30.
        plugins: names of Python modules with own ops (docs/own-ops.md). They are searched among
            the installed packages, in the absolute paths of PYTHONPATH, and last in the working
            directory. Nothing else is imported from there.
        cache: keep decoded images, in memory (`"ram:8GB"`) or in a folder (`"disk:DIR:200GB"`);
            docs/storage.md says when.
        shard_cache: keep bytes of object stores in a folder, `"DIR:SIZE"`; several daemons may
            share it.
        http: HOST:PORT of the dashboard (extra `http`); port 0 is a free one, and `daemon.http`
            says which.
        http_token: a file with the token that the dashboard asks for; without one it listens on
            loopback only.
        links_to: a folder, or several, that links out of a dataset's folder may lead to; "/" for
            anywhere. Other links that leave it are an error.
        root: the folder that a manifest's paths are relative to, instead of its own.
        max_pixels: pixels of the largest image that is read; None is 64,000,000. Memory limits
            follow from it.
        timeout_s: the longest wait for the daemon to be ready, in seconds. Indexing a large folder
            for the first time takes about a minute per million files.

    Returns:
        The running daemon, to be closed.

    Raises:
        DatasetError: a dataset cannot be opened.
        AddressInUse: another program or daemon has the address.
        OptionError: an argument is out of range; the message names it.
        PluginFailed: a plug-in cannot be imported, or has no op that can be used.
        AugdError: the daemon died, or was not ready in time.
    """
    if producers is not None:
        producers = argument_checks.whole("producers", producers, 0)
    if producers and (why := why_too_many(producers)):
        warnings.warn(f"augd.serve: producers: {why}", RuntimeWarning, stacklevel=2)
    timeout_s = argument_checks.seconds("timeout_s", timeout_s)
    options = argument_checks.options(
        ServeOptions,
        named=json.dumps(_by_name(paths)),
        quiet=True,
        listen=_listens(listen),
        insecure=insecure,
        producers=None if producers is None else str(producers),
        force=producers is not None,  # too many are warned of, as above
        keys=keys,
        patience_s=patience_s,
        plugins=plugins,
        cache=cache,
        shard_cache=shard_cache,
        http=http,
        http_token=http_token,
        links_to=links_to,
        root=root,
        max_pixels=max_pixels,
    )
    return _begin(options, timeout_s)


def _begin(options: ServeOptions, timeout_s: float) -> ServedDaemon:
    """Start a daemon, and wait until it serves."""
    open_streams()  # or new fds would get the numbers of missing standard streams
    # Not a pipe: every child that this process forks would hold its end open.
    lifeline = os.pidfd_open(os.getpid())
    ready_read, ready_write = os.pipe()
    options = replace(options, lifeline_fd=lifeline, ready_fd=ready_write)
    try:
        # In a session of its own: Ctrl-C in a notebook's cell must not reach the daemon.
        process = interpreter.start(
            *("augd", "serve", *to_words(options)),
            pass_fds=(lifeline, ready_write),
            start_new_session=True,
        )
    except BaseException:
        os.close(ready_read)
        raise
    finally:
        os.close(lifeline)
        os.close(ready_write)
    daemon = ServedDaemon(process)
    try:
        said = _await_ready(ready_read, timeout_s)
    except BaseException:
        daemon.close()
        raise
    finally:
        os.close(ready_read)
    daemon.addresses = said["addresses"]
    daemon._daemon_pid = said["pid"]
    daemon.http = said.get("http", "")
    return daemon


def _listens(listen: str | Sequence[str] | None) -> Sequence[str]:
    if listen is None:
        return [_private_address()]
    return [listen] if isinstance(listen, str) else listen


def _private_address() -> str:
    folder = runtime_dir()
    address = parse_address(f"ipc://{folder}/{os.getpid()}-{next(_numbers)}")
    make_runtime_dir(folder)
    return str(address)


def _by_name(paths: Paths) -> dict[str, str]:
    """Name each dataset: what is given to Python is a path, and no word of a command line."""
    if isinstance(paths, Mapping):
        if not paths:
            raise OptionError("paths: expected at least one dataset, got none")
        return {str(name): _as_path(path) for name, path in paths.items()}
    path = _as_path(paths)
    if (own := parse_own(path)) is not None:
        return {own.class_name: path}
    if is_address(path):
        return {dataset_name(path): path}
    path = absolute(path)
    return {dataset_name(Path(path)) or "data": path}


def _as_path(path: object) -> str:
    if isinstance(path, str | bytes | os.PathLike) and (text := os.fsdecode(path)):
        return text
    raise OptionError(
        f"paths: expected a folder or manifest, or several by name as a dict, got {path!r}"
    )


def _await_ready(ready_fd: int, timeout_s: float) -> dict[str, Any]:
    """Read the daemon's one line: where it is; raise what it says when it cannot start."""
    clock = Awake()
    deadline = clock.now() + timeout_s
    line = b""
    while not line.endswith(b"\n"):
        left_s = max(0.0, deadline - clock.now())
        if not clock.wait(lambda s: select.select([ready_fd], [], [], s)[0], left_s):
            raise AugdError(f"the daemon was not ready within {timeout_s:g} s; raise timeout_s")
        piece = os.read(ready_fd, 65536)
        if not piece:
            raise AugdError("the daemon ended before it was ready; its output says why")
        line += piece
    said: dict[str, Any] = json.loads(line)
    if "error" in said:
        raise error_from_code(said["code"], said["error"])
    return said
