"""The fetcher's process as the daemon holds it, or a relay: started with it, started again.

Beside the way of a batch, and only where a data set lies in an object store. Its program
(`augd/fetch.py`) has the network that producers lack. It hangs on a link as they do, and ends with
the daemon. What producers asked of one that was killed they ask of the next.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from augd.dataset.index import IndexFile
from augd.deaths import describe_status
from augd.stores.address import is_address
from augd.transport import link
from augd.transport.basin import BASIN_BYTES, HatchEnd
from augd.wire import hatch as said

_PAUSE_S = 0.1
_PAUSE_MAX_S = 5.0
_CALM_S = 60.0  # after so long the next end is the first one again
_END_S = 2.0
_HEAR_S = 10.0  # until it has loaded its libraries


@dataclass(slots=True)
class Fetcher:
    """The process and what it is told. `start` it when it is due, `close` it at the end."""

    datasets: Mapping[str, IndexFile]
    cache: str = ""  # DIR:SIZE of the shard cache
    starts_at: float | None = 0.0  # when it is to be started; None while it runs
    pidfd: int = -1
    pid: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _link: socket.socket | None = None
    _hatches: dict[int, HatchEnd] = field(default_factory=dict)
    _started_at: float = 0.0
    _pause_s: float = _PAUSE_S

    def start(self, now: float) -> None:
        """Start it; it dies with the calling thread, which must be the main one.

        Raises:
            OSError: there is no fd or no process to be had.
        """
        near, far = link.make_link()
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "augd.fetch", str(far.fileno()), str(os.getpid())),
                    *((self.cache,) if self.cache else ()),
                ],
                pass_fds=(far.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the daemon alone
            )
        except BaseException:
            near.close()
            raise
        finally:
            far.close()
        near.settimeout(_HEAR_S)  # what it must hear of a thousand producers fills the socket
        self._link, self.starts_at, self._started_at = near, None, now
        self.pid, self.pidfd = self._process.pid, os.pidfd_open(self._process.pid)
        for name, index in self.datasets.items():
            if is_address(index.header.source):
                self._tell(said.UseSet(name), index.fd)
        for end in self._hatches.values():
            self._tell_hatch(end)

    def try_start(self, now: float) -> str | None:
        """Start it; returns None, or why that failed: then it is due again in a while."""
        try:
            self.start(now)
        except OSError as error:
            self.starts_at = now + _PAUSE_MAX_S
            return f"the process that reads the store could not be started: {error}"
        return None

    def add(self, place: int, end: HatchEnd | None) -> None:
        """Serve the hatch of a producer, which is this object's from now on."""
        if end is not None:
            self._hatches[place] = end
            self._tell_hatch(end)

    def drop(self, place: int) -> None:
        """Forget the hatch of a producer that was reaped."""
        end = self._hatches.pop(place, None)
        if end is not None:
            end.close()

    def _tell_hatch(self, end: HatchEnd) -> None:
        self._tell(said.UseHatch(BASIN_BYTES), end.socket.fileno(), end.basin_fd)

    def _tell(self, note: said.ToFetcher, *fds: int) -> None:
        """Send; one that is dying hears it when it is started again."""
        if self._link is not None:
            try:
                link.send(self._link, said.encode(note), fds)
            except TimeoutError:
                assert self._process is not None
                self._process.kill()

    def has_ended(self) -> bool:
        """Say whether its process is gone."""
        return self._process is not None and self._process.poll() is not None

    def ended(self, now: float) -> str:
        """Take its end: close what is left of it, and say how it ended and when it comes back."""
        assert self._process is not None
        how = describe_status(self._process.wait(_END_S))
        self._let_go()
        if now - self._started_at > _CALM_S:
            self._pause_s = _PAUSE_S
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, _PAUSE_MAX_S)
        self.starts_at = now + pause_s
        return (
            f"the process that reads the store ended: {how}; it is started again in {pause_s:g} s"
        )

    def close(self) -> None:
        """End it and wait for that."""
        if self._process is not None:
            self._process.kill()  # it keeps nothing that matters
            self._process.wait()
            self._let_go()
        for place in list(self._hatches):
            self.drop(place)

    def _let_go(self) -> None:
        assert self._link is not None
        self._link.close()
        os.close(self.pidfd)
        self._link, self.pidfd, self._process = None, -1, None


def make_fetcher(datasets: Mapping[str, IndexFile], cache: str = "") -> Fetcher | None:
    """Make one where a data set lies in a store; None where none does."""
    if any(is_address(index.header.source) for index in datasets.values()):
        return Fetcher(datasets, cache)
    return None
