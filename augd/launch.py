"""`augd.serve`: a daemon as a child process, for scripts, notebooks and tests.

The child is `augd serve` itself. It holds a pipe from this process as its lifeline: when
this process ends, however it ends, the daemon drains and nothing is left. Starting waits
until the daemon says that it is ready, or says why it cannot be, under a deadline.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from augd.errors import AugdError, OptionError, error_from_code
from augd.transport.address import make_runtime_dir, runtime_dir

_STOP_S = 10.0
_numbers = itertools.count()

Paths = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]


class ServedDaemon:
    """A running daemon. `close()` it, or use it in `with`.

    Attributes:
        address: what `connect` takes.
        pid: of the daemon's process.
    """

    def __init__(self, process: subprocess.Popen[bytes], lifeline_fd: int, address: str) -> None:
        """Made by `serve`."""
        self._process = process
        self._lifeline_fd = lifeline_fd
        self._owner_pid = os.getpid()
        self.address = address
        self.pid = process.pid

    def close(self) -> None:
        """Drain the daemon and wait for its end; kill it when it takes longer than 10 s."""
        if self._lifeline_fd < 0 or os.getpid() != self._owner_pid:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._lifeline_fd)
        self._lifeline_fd = -1

    def __enter__(self) -> ServedDaemon:
        """Return the daemon itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def serve(
    paths: Paths,
    *,
    producers: int | None = None,
    listen: str | None = None,
    timeout_s: float = 60.0,
) -> ServedDaemon:
    """Start a daemon that serves these data sets and dies with this process.

    Args:
        paths: one folder, or folders by name.
        producers: producer processes; None is one per core.
        listen: `ipc://PATH`; None chooses a private one.
        timeout_s: the longest wait for the daemon to be ready. Indexing a large folder for
            the first time takes its time: about a minute per million files.

    Raises:
        DatasetError, AddressInUse, OptionError: as the daemon says.
        AugdError: the daemon died, or was not ready in time.
    """
    if producers is not None and producers < 1:
        raise OptionError(f"producers: expected 1 or more, got {producers}")
    address = listen if listen is not None else _private_address()
    lifeline_read, lifeline_write = os.pipe()
    ready_read, ready_write = os.pipe()
    try:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "augd", "serve", *_arguments(paths)),
                *("--listen", address, "--quiet"),
                *(() if producers is None else ("--producers", str(producers))),
                *("--lifeline-fd", str(lifeline_read), "--ready-fd", str(ready_write)),
            ],
            pass_fds=(lifeline_read, ready_write),
            stdin=subprocess.DEVNULL,
            # Interrupting a notebook's cell or a script is not for the daemon to hear.
            start_new_session=True,
        )
    except BaseException:
        os.close(lifeline_write)
        raise
    finally:
        os.close(lifeline_read)
        os.close(ready_write)
        if sys.exc_info()[0] is not None:
            os.close(ready_read)
    daemon = ServedDaemon(process, lifeline_write, address)
    try:
        _await_ready(ready_read, timeout_s)
    except BaseException:
        daemon.close()
        raise
    finally:
        os.close(ready_read)
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
    # With its name written out, a path that contains "=" is no name.
    path = Path(paths).absolute()
    return [f"{path.name or 'data'}={path}"]


def _await_ready(ready_fd: int, timeout_s: float) -> None:
    """Read the daemon's one line; raise what it says when it is not "ready"."""
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
    said = json.loads(line)
    if "error" in said:
        raise error_from_code(said["code"], said["error"])
