"""`augd.serve`: a daemon as a child process, for scripts, notebooks and tests.

The child is `augd serve` itself: the supervisor, whose child is the daemon (augd/supervisor.py).
The daemon holds a pidfd of this process as its lifeline: when this process ends, however it ends,
and whatever it has forked, the daemon drains and nothing is left. Starting waits until the daemon
says that it is ready, or says why it cannot be, under a deadline.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import time
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from augd import interpreter
from augd.allowance import why_too_many
from augd.dataset.sources import dataset_name, parse_own
from augd.errors import AugdError, OptionError, error_from_code
from augd.stores.address import is_address
from augd.transport.address import make_runtime_dir, runtime_dir

_STOP_S = 25.0  # beyond what the supervisor gives its daemon for a drain
_numbers = itertools.count()

Paths = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]


class ServedDaemon:
    """A running daemon. It ends with `close()`, behind `with`, or with the last reference to it.

    Attributes:
        addresses: where it listens, in the order of `listen`.
        http: URL of its page, empty without one.
        supervisor_pid: of the process that starts the daemon again when it dies. A signal to it
            is for both: SIGTERM drains the daemon, SIGKILL ends it at once.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Made by `serve`."""
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
        """Say where it is, or that it is closed."""
        if not self._end.alive:
            return "<ServedDaemon, closed>"
        page = f", page {self.http}" if self.http else ""
        return f"<ServedDaemon at {' and '.join(self.addresses)}{page}, pid {self.pid}>"

    def __enter__(self) -> ServedDaemon:
        """Return the daemon itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
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
    """Start a daemon that serves these data sets and dies with this process.

    It ends before that when nothing refers to what is returned: a notebook's cell that is run
    again leaves no second daemon. Children that this process forks keep none alive.

    Args:
        paths: one folder, manifest (`.csv`, `.jsonl`), address of shards in an object store
            (`s3://BUCKET/PREFIX`, docs/storage.md) or own source (`plugin:MODULE:CLASS?ARGUMENT`,
            docs/own-sources.md), or several by name.
        producers: producer processes; None is one per core that this process may use, 0 leaves
            all to `augd produce`. More than four per core are warned of.
        listen: `ipc://PATH` or `tcp://HOST:PORT` (port 0: a free one), or one of each; None
            chooses a private path.
        insecure: let anybody who reaches the port connect; without it the port must be this
            machine's own, or have keys.
        keys: a folder of keys (`augd keys new NAME` makes one): the port is for the clients that
            it names, and encrypted.
        patience_s: a producer that says nothing for so long while it has work is killed and
            replaced, 2..3600; None is 30.
        plugins: names of Python modules with own ops (docs/own-ops.md), importable from the
            working directory, PYTHONPATH or the installed packages.
        cache: keep decoded pictures, in memory (`"ram:8GB"`) or in a folder (`"disk:DIR:200GB"`);
            docs/storage.md says when.
        shard_cache: keep what came from object stores in a folder, `"DIR:SIZE"`; several daemons
            may share it.
        http: HOST:PORT of a page that shows what happens (extra `http`); port 0 is a free one, and
            `daemon.http` says which.
        http_token: a file with the token that the page asks for; without one it is for this
            machine only.
        links_to: a folder, or several, that links out of a data set's folder may lead to; "/" for
            anywhere. Other links that leave it are an error.
        root: the folder that a manifest's paths are relative to, instead of its own.
        max_pixels: of the largest picture that is read; None is 64,000,000. Memory limits follow.
        timeout_s: the longest wait for the daemon to be ready. Indexing a large folder for
            the first time takes its time: about a minute per million files.

    Raises:
        DatasetError, AddressInUse, OptionError: as the daemon says.
        PluginFailed: a plug-in cannot be imported, or has no op that can be used.
        AugdError: the daemon died, or was not ready in time.
    """
    if isinstance(plugins, str):
        raise OptionError(f"plugins: expected a list of module names, got {plugins!r}")
    if producers is not None and producers < 0:
        raise OptionError(f"producers: expected 0 or more, got {producers}")
    if producers is not None and (why := why_too_many(producers)):
        warnings.warn(f"augd.serve: producers: {why}", RuntimeWarning, stacklevel=2)
    listens = [listen] if isinstance(listen, str) else list(listen or [_private_address()])
    # Not a pipe, whose end would be open in every child that is forked from this process.
    lifeline = os.pidfd_open(os.getpid())
    ready_read, ready_write = os.pipe()
    words = [
        *("serve", *_arguments(paths), "--quiet"),
        *(part for one in listens for part in ("--listen", one)),
        *(("--insecure",) if insecure else ()),
        *(() if keys is None else ("--keys", os.path.abspath(keys))),
        *(part for one in plugins for part in ("--plugin", one)),
        *(() if cache is None else ("--cache", cache)),
        *(() if shard_cache is None else ("--shard-cache", shard_cache)),
        *(() if http is None else ("--http", http)),
        *(() if http_token is None else ("--http-token", os.path.abspath(http_token))),
        *_opening(links_to, root, max_pixels),
        *(() if producers is None else ("--producers", str(producers), "--force")),
        *(() if patience_s is None else ("--patience", str(patience_s))),
        *("--lifeline-fd", str(lifeline), "--ready-fd", str(ready_write)),
    ]
    try:
        # In a session of its own: interrupting a notebook's cell is not for the daemon to hear.
        process = interpreter.start(
            *("augd", *words),
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


def _private_address() -> str:
    folder = runtime_dir()
    make_runtime_dir(folder)
    return f"ipc://{folder}/{os.getpid()}-{next(_numbers)}"


def _arguments(paths: Paths) -> list[str]:
    if isinstance(paths, Mapping):
        if not paths:
            raise OptionError("paths: expected at least one data set, got none")
        return [f"{name}={os.fspath(path)}" for name, path in paths.items()]
    own = parse_own(os.fspath(paths))
    if own is not None:
        return [f"{own.class_name}={own}"]
    # With its name written out, a path that contains "=" is no name.
    if is_address(paths):
        return [f"{dataset_name(os.fspath(paths))}={os.fspath(paths)}"]
    path = Path(paths).absolute()
    return [f"{dataset_name(path) or 'data'}={path}"]


def _opening(
    links_to: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    root: str | os.PathLike[str] | None,
    max_pixels: int | None,
) -> list[str]:
    """Say on the daemon's command line how it opens data sets."""
    folders = [links_to] if isinstance(links_to, str | os.PathLike) else list(links_to)
    words = [f"--links-to={os.path.abspath(folder)}" for folder in folders]
    if root is not None:
        words.append(f"--root={os.path.abspath(root)}")
    if max_pixels is not None:
        words.append(f"--max-pixels={max_pixels}")
    return words


def _await_ready(ready_fd: int, timeout_s: float) -> dict[str, Any]:
    """Read the daemon's one line: where it is; raise what it says when it cannot start."""
    deadline = time.monotonic() + timeout_s
    line = b""
    while not line.endswith(b"\n"):
        left_s = max(0.0, deadline - time.monotonic())
        if not select.select([ready_fd], [], [], left_s)[0]:
            raise AugdError(f"the daemon was not ready within {timeout_s:g} s; raise timeout_s")
        piece = os.read(ready_fd, 65536)
        if not piece:
            raise AugdError("the daemon ended before it was ready; its output says why")
        line += piece
    said: dict[str, Any] = json.loads(line)
    if "error" in said:
        raise error_from_code(said["code"], said["error"])
    return said
