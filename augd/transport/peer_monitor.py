"""Who is at the other end of a ZeroMQ socket that connects to a path, and whether he still is.

ZeroMQ connects by itself, again and again, and says nothing. Its monitor tells of each connection
before anything that came over it can be received, with its descriptor: the kernel knows whose
process listens there. Beside the way of a batch; looked at by whoever receives.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import zmq

from augd.errors import UntrustedAddress
from augd.transport.unix_link import peer_uid

_WATCHED = zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED
_EVENT = struct.Struct("=hi")  # as zmq_socket_monitor(3) says: the event, and a value that it has


def check_peer(connection: socket.socket, path: Path | str) -> None:
    """Refuse what listens at a path unless it is a process of this user or of root.

    Raises:
        UntrustedAddress: it isn't.
    """
    user = peer_uid(connection)
    if user not in (os.geteuid(), 0):
        raise UntrustedAddress(
            f"what listens at {path} is a process of user {user}, expected one of user "
            f"{os.geteuid()}, or of root: it could send anything in a daemon's place. Connect to a "
            "daemon of your own, or as that user"
        )


class Peer:
    """Hears of a socket's connections to a path, from before it connects."""

    def __init__(self, watched: zmq.Socket[bytes], path: Path) -> None:
        """Watch a socket until `close`."""
        self.socket = watched.get_monitor_socket(_WATCHED)
        self.socket.setsockopt(zmq.LINGER, 0)
        self._watched = watched
        self._path = path
        self._has_ended = False
        self._is_known = True
        self._stranger: UntrustedAddress | None = None

    def is_known(self) -> bool:
        """Say whether everybody who was ever connected was a process of this user or of root.

        No where a connection ended before it could be looked at: what it brought is nobody's.

        Raises:
            UntrustedAddress: somebody wasn't.
        """
        self._read_events()
        return self._is_known

    def has_told(self) -> bool:
        """Say whether a connection ever ended. Raises as `is_known`."""
        self._read_events()
        return self._has_ended

    def _read_events(self) -> None:
        while self.socket.poll(0):
            event, value = _EVENT.unpack(self.socket.recv_multipart()[0])
            if event == zmq.EVENT_DISCONNECTED:
                self._has_ended = True
            else:
                self._look_at(value)
        if self._stranger is not None:
            raise self._stranger

    def _look_at(self, fd: int) -> None:
        """Look whose process is at the other end of a connection of ZeroMQ's, by a copy of it."""
        try:
            with socket.socket(fileno=os.dup(fd)) as connection:
                # Closed meanwhile, the number may be another connection's.
                if connection.getpeername() == os.fsdecode(self._path):
                    check_peer(connection, self._path)
                    return
        except OSError:
            pass
        except UntrustedAddress as stranger:
            self._stranger = stranger
        self._is_known = False

    def close(self) -> None:
        """Stop watching, before the watched socket is closed. Closing twice is fine."""
        if not self.socket.closed:
            self._watched.disable_monitor()
            self.socket.close()
