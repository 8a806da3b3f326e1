"""What a producer's hatch is made of: a socket pair, and the basin, memory for what comes through.

Made before a producer is started, hence imports nothing that takes time. `hatch` says what it is
for.
"""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import dataclass
from typing import Final

from augd.dataset.stores.range_reader import LANE_BYTES
from augd.transport import unix_link

NUM_LANES: Final = 6  # the read-ahead's threads, the producer's own, and one to spare
BASIN_BYTES: Final = NUM_LANES * LANE_BYTES


@dataclass(slots=True)
class FetchChannelEnd:
    """The fetcher's side of a producer's hatch, as the daemon keeps it."""

    socket: socket.socket
    basin_fd: int

    def close(self) -> None:
        """Close both; the producer then hears that nobody is left to ask."""
        self.socket.close()
        os.close(self.basin_fd)


def make_fetch_channel() -> tuple[FetchChannelEnd, socket.socket]:
    """Make a hatch; returns the fetcher's end, and the socket for the producer to inherit."""
    end, near = unix_link.make_link()
    basin = os.memfd_create("augd-basin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(basin, BASIN_BYTES)
    fcntl.fcntl(basin, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return FetchChannelEnd(end, basin), near
