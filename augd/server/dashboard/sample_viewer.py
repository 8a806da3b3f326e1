"""Has files decoded in a process of its own: small images of bad samples, and drawn parameters.

A sample is bad or quarantined because its bytes broke or crashed a decoder, so the dashboard must
not open it. The viewer's process may: it is confined as producers are. When it crashes or hangs,
the dashboard reports that and starts another. This module is the dashboard's end; the process runs
`sample_viewer_main`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, msgpack

from augd.process import interpreter
from augd.process.child_environment import without_secrets
from augd.process.exit_status import describe_status, end
from augd.server.dashboard.daemon_link import Indexed
from augd.transport import unix_link

_ANSWER_S = 10.0


class ViewRequest(Struct, frozen=True):
    """Show a sample's file; with a recipe, describe what was drawn for it in an epoch."""

    dataset: str
    sample: int
    epoch: int = 0
    recipe: dict[str, Any] | None = None
    seed: int = 0


class Answer(Struct, frozen=True):
    """A JPEG, or a line for each view; `why` is the reason if there is none."""

    jpeg: bytes = b""
    words: tuple[str, ...] = ()
    why: str = ""


class SampleViewer:
    """The dashboard's end. It starts the process when it is first needed."""

    def __init__(self, datasets: Mapping[str, Indexed], plugins: Sequence[str]) -> None:
        self._datasets = datasets
        self._plugins = plugins
        self._busy = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None

    def ask(self, asked: ViewRequest) -> Answer:
        """Send a request; a crash or hang of the process is an answer, not an exception."""
        with self._busy:
            if self._process is None:
                self._start()
            assert self._link is not None and self._process is not None
            try:
                unix_link.send(self._link, msgpack.encode(asked))
                received = unix_link.receive(self._link, wait=True)
                assert received is not None
                return msgpack.decode(received[0], type=Answer)
            except TimeoutError:
                self._end()
                return Answer(why=f"its decoder did not finish within {_ANSWER_S:g} s")
            except (EOFError, OSError):
                return Answer(why=f"its decoder crashed: {describe_status(self._end())}")

    def _start(self) -> None:
        near, far = unix_link.make_link()
        near.settimeout(_ANSWER_S)
        words = str(far.fileno()), str(os.getpid()), *self._plugins
        try:
            self._process = interpreter.start(
                *("augd.server.dashboard.sample_viewer_main", *words),
                pass_fds=(far.fileno(),),
                env=without_secrets(),
            )
        finally:
            far.close()
        self._link = near
        unix_link.send(near, msgpack.encode(len(self._datasets)))
        for name, indexed in self._datasets.items():
            unix_link.send(near, msgpack.encode(name), indexed.fds)

    def _end(self) -> int:
        """Reap the process; returns its status, or that of the SIGKILL that it gets."""
        assert self._process is not None and self._link is not None
        status = end(self._process)
        self._link.close()
        self._process = self._link = None
        return status

    def close(self) -> None:
        """End the process."""
        with self._busy:
            if self._process is not None:
                self._process.kill()
                self._end()
