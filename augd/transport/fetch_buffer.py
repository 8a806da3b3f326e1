"""The parts of a producer's fetch channel: a socket pair, and the fetch buffer for the bytes.

The daemon makes them before it starts a producer, so this module imports nothing slow.
`augd/transport/fetch_client.py` describes the channel.
"""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import dataclass
from typing import Final

from augd.dataset.stores.range_reader import BUFFER_SLOT_BYTES
from augd.transport import unix_link

NUM_BUFFER_SLOTS: Final = 6  # the read-ahead threads, the producer's main thread, and a spare
FETCH_BUFFER_BYTES: Final = NUM_BUFFER_SLOTS * BUFFER_SLOT_BYTES


@dataclass(slots=True)
class FetchChannelEnd:
    """The fetcher's end of a producer's fetch channel; the daemon keeps it."""

    socket: socket.socket
    fetch_buffer_fd: int

    def close(self) -> None:
        """Close both; the producer then fails its requests."""
        self.socket.close()
        os.close(self.fetch_buffer_fd)


def make_fetch_channel() -> tuple[FetchChannelEnd, socket.socket]:
    """Make a fetch channel; return the fetcher's end, and the socket that the producer inherits."""
    end, near = unix_link.make_link()
    fetch_buffer = os.memfd_create("augd-fetch-buffer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fetch_buffer, FETCH_BUFFER_BYTES)
    fcntl.fcntl(fetch_buffer, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return FetchChannelEnd(end, fetch_buffer), near
