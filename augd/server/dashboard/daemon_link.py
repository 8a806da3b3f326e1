"""The dashboard's end of its link to the daemon: one request at a time, each with a deadline.

It holds the indexes of the datasets, to name samples. It opens no image.
"""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass
from typing import Self

from augd.dataset.index_arrays import IndexArrays
from augd.errors import AugdError
from augd.protocol import dashboard_messages as said
from augd.transport import unix_link

_ANSWER_S = 10.0  # a daemon that selects among many millions of samples is busy for seconds


class DaemonGone(AugdError):
    """The daemon ended or doesn't answer."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """A dataset's index: its fds, which stay open, and its arrays."""

    fds: tuple[int, int]
    arrays: IndexArrays


class DaemonLink:
    """Sends requests to the daemon. Use it in a `with`, from any thread."""

    def __init__(self, daemon: socket.socket) -> None:
        """Take over an inherited link, and receive the daemon's first message and the indexes.

        Raises:
            EOFError, DaemonGone: the daemon ended.
        """
        self._link = daemon
        self._link.settimeout(_ANSWER_S)
        self._busy = threading.Lock()
        self.has_ended = False
        begin, _ = self._receive()
        assert isinstance(begin, said.Begin)
        self.begin = begin
        self.datasets: dict[str, Indexed] = {}
        for name in begin.datasets:
            _, fds = self._ask(said.AskDataset(name))
            self.datasets[name] = Indexed((fds[0], fds[1]), IndexArrays(*fds))

    def _receive(self) -> tuple[said.AnyDashboardMessage, list[int]]:
        received = unix_link.receive(self._link, wait=True)
        assert received is not None
        return said.decode(received[0]), received[1]

    def _ask(self, note: said.DashboardMessage) -> tuple[said.AnyDashboardMessage, list[int]]:
        with self._busy:
            if self.has_ended:
                raise DaemonGone("the daemon ended")
            try:
                unix_link.send(self._link, said.encode(note))
                return self._receive()
            except TimeoutError:
                # A late answer would be taken for that to the next request.
                self.has_ended = True
                raise DaemonGone(f"the daemon has not answered for {_ANSWER_S:g} s") from None
            except (EOFError, OSError):
                self.has_ended = True
                raise DaemonGone("the daemon ended") from None

    def snapshot(self) -> said.Snapshot:
        """Request a snapshot of the daemon. Raises `DaemonGone`."""
        answer, _ = self._ask(said.AskSnapshot())
        assert isinstance(answer, said.Snapshot)
        return answer

    def look(self, stream: int, slot: int | None = None) -> tuple[said.Seen, int] | None:
        """Request the position of a batch that a client has; by default of its current one.

        Returns:
            The position and an fd of its arena, which is the caller's. None if there is no such
            stream, or no client has a batch of it.

        Raises:
            DaemonGone: the daemon ended or doesn't answer.
        """
        answer, fds = self._ask(said.Look(stream, slot))
        return (answer, fds[0]) if isinstance(answer, said.Seen) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()
        for dataset in self.datasets.values():
            for fd in dataset.fds:
                os.close(fd)
