"""The peer of a ZeroMQ socket that connects to a path: which user it is, and whether it is there.

ZeroMQ reconnects by itself and reports nothing. Its monitor reports each connection, with its
descriptor, before any message over it can be received. From the descriptor the kernel tells whose
process listens. Used in clients, by `augd/transport/zmq_sockets.py`. Never blocks.
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
    """Refuse a connection whose peer is not a process of this user or of root.

    Raises:
        UntrustedAddress: the peer is another user's process.
    """
    user = peer_uid(connection)
    if user not in (os.geteuid(), 0):
        raise UntrustedAddress(
            f"what listens at {path} is a process of user {user}, expected one of user "
            f"{os.geteuid()}, or of root: it could send anything in a daemon's place. Connect to a "
            "daemon of your own, or as that user"
        )


class Peer:
    """Follows the connections of a socket to a path, from before it connects."""

    def __init__(self, watched: zmq.Socket[bytes], path: Path) -> None:
        self.socket = watched.get_monitor_socket(_WATCHED)
        self.socket.setsockopt(zmq.LINGER, 0)
        self._watched = watched
        self._path = path
        self._has_ended = False
        self._is_known = True
        self._stranger: UntrustedAddress | None = None

    def is_known(self) -> bool:
        """Say whether every peer so far was a process of this user or of root.

        False if a connection ended before it could be examined: the sender of its messages cannot
        be determined.

        Raises:
            UntrustedAddress: a peer was another user's process.
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
        """Check the peer of a connection of ZeroMQ's, by a copy of its descriptor."""
        try:
            with socket.socket(fileno=os.dup(fd)) as connection:
                # If it was closed meanwhile, the fd may belong to another connection.
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
