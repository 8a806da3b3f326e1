"""The fetcher's process as the daemon or a relay holds it.

There is one only if a dataset lies in an object store. Its program
(`augd/server/fetcher/__main__.py`) has the network that producers lack. It has a UNIX link as they
do, and ends with the daemon. When it was killed, producers repeat their requests to the next one.
"""

from __future__ import annotations

from collections.abc import Mapping

from augd.dataset.index_file import IndexFile
from augd.dataset.stores.address import is_address
from augd.protocol import fetch_messages as said
from augd.server.supervision.supervised_process import Backoff, SupervisedProcess
from augd.transport import unix_link
from augd.transport.fetch_buffer import FETCH_BUFFER_BYTES, FetchChannelEnd

_PAUSES = Backoff(0.1, 5.0, 60.0, again_s=5.0)
_SEND_S = 10.0  # until it has loaded its libraries and reads


class FetcherProcess(SupervisedProcess):
    """The process and what is sent to it. `start` it when it is due, `close` it at the end."""

    def __init__(self, datasets: Mapping[str, IndexFile], cache: str = "") -> None:
        super().__init__("the process that reads the store", _PAUSES)
        self._datasets = datasets
        self._cache = cache
        self._fetch_channels: dict[int, FetchChannelEnd] = {}

    def start(self, now: float) -> None:
        """Start it; it dies with the calling thread, which must be the main one.

        Raises:
            OSError: there is no fd or no process left.
        """
        near = self.launch(now, "augd.server.fetcher", *((self._cache,) if self._cache else ()))
        near.settimeout(_SEND_S)  # messages about a thousand producers fill the socket
        for name, index in self._datasets.items():
            if is_address(index.header.source):
                self._tell(said.UseDataset(name), index.fd)
        for end in self._fetch_channels.values():
            self._tell_fetch_channel(end)

    def add(self, place: int, end: FetchChannelEnd | None) -> None:
        """Serve the fetch channel of a producer, which is this object's from now on."""
        if end is not None:
            self._fetch_channels[place] = end
            self._tell_fetch_channel(end)

    def drop(self, place: int) -> None:
        """Forget the fetch channel of a producer that was reaped."""
        end = self._fetch_channels.pop(place, None)
        if end is not None:
            end.close()

    def _tell_fetch_channel(self, end: FetchChannelEnd) -> None:
        self._tell(
            said.UseFetchChannel(FETCH_BUFFER_BYTES), end.socket.fileno(), end.fetch_buffer_fd
        )

    def _tell(self, note: said.ToFetcher, *fds: int) -> None:
        """Send a message; a fetcher that is exiting receives it after its restart."""
        if self.link is not None:
            try:
                unix_link.send(self.link, said.encode(note), fds)
            except TimeoutError:
                self.kill()

    def close(self, patience_s: float = 0.0) -> None:
        """End it and wait for its exit; it has no state that must be saved."""
        super().close(patience_s)
        for place in list(self._fetch_channels):
            self.drop(place)


def make_fetcher(datasets: Mapping[str, IndexFile], cache: str = "") -> FetcherProcess | None:
    """Make one if a dataset lies in an object store; None otherwise."""
    if any(is_address(index.header.source) for index in datasets.values()):
        return FetcherProcess(datasets, cache)
    return None
