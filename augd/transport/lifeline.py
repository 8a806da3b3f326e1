"""The UNIX socket beside a daemon's address: lifelines of clients, and the fds of their arenas.

A client connects, sends ATTACH with its session's token, and keeps the connection while it lives.
When its process dies, the kernel closes the connection, and the daemon frees its slots at once.
Forked children close their copies as they begin. The daemon sends each arena's fd over it before
it sends OPENED. Only processes of the daemon's own user are accepted.
"""

from __future__ import annotations

import errno
import os
import socket
import weakref
from pathlib import Path

from augd.errors import ConnectError, ProtocolError, UntrustedAddress
from augd.protocol.codec import decode_over_attach, encode
from augd.protocol.messages import Arena, AttachMessage
from augd.transport import owned_socket, unix_link
from augd.transport.peer_monitor import check_peer


def listen(path: Path) -> socket.socket:
    """Listen at the path, for this user only."""
    return owned_socket.listen(path, socket.SOCK_SEQPACKET)


def accept(listener: socket.socket) -> socket.socket | None:
    """Accept one connection of this daemon's user; others are closed and give None.

    None also while the process has no fd left: the connection then waits in the backlog.
    """
    try:
        connection, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            return None
        raise
    if unix_link.peer_uid(connection) not in (os.getuid(), 0):
        connection.close()
        return None
    connection.setblocking(False)
    return connection


class ArenaUnavailable(ConnectError):
    """This process cannot map the daemon's memory, though the daemon answers."""


class Lifeline:
    """A client's end of the attach socket. A forked child of the client has none."""

    def __init__(self, path: str, session: int, token: str, timeout_s: float) -> None:
        """Connect and send ATTACH.

        Raises:
            ArenaUnavailable: the daemon went away meanwhile, or is on another host.
            UntrustedAddress: what listens there is a process of another user.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(path)
            check_peer(self._socket, path)
            self._socket.send(encode(AttachMessage(session, token)), socket.MSG_NOSIGNAL)
        except OSError as error:
            self._socket.close()
            raise ArenaUnavailable(f"the socket {path} does not answer: {error}") from None
        except UntrustedAddress:
            self._socket.close()
            raise
        _lifelines.add(self)

    def fileno(self) -> int:
        """Return the fd to poll: readable when an arena came, or the daemon died."""
        return self._socket.fileno()

    def receive_arena(self, stream: int) -> tuple[int, int]:
        """Wait for the arena of a stream; returns (fd, size in bytes), the fd is the caller's.

        Raises:
            ArenaUnavailable: the daemon closed the socket, or sends none within the timeout.
        """
        while True:
            try:
                received = unix_link.receive(self._socket, wait=True)
            except (EOFError, TimeoutError) as error:
                raise ArenaUnavailable(
                    f"no arena came from the daemon: {error or 'it ended'}"
                ) from None
            assert received is not None
            frame, fds = received
            here = decode_over_attach(frame)
            if isinstance(here, Arena) and here.stream == stream and len(fds) == 1:
                return fds[0], here.size_bytes
            for fd in fds:
                os.close(fd)
            raise ProtocolError(f"expected the arena of stream {stream}, got {here}")

    def is_alive(self) -> bool:
        """Say whether the daemon still holds its end; never blocks."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Close; the daemon then ends the session."""
        self._socket.close()


_lifelines: weakref.WeakSet[Lifeline] = weakref.WeakSet()


def _close_in_child() -> None:
    """Close a forked child's copies, which would keep sessions of a dead client open."""
    for lifeline in list(_lifelines):
        lifeline.close()


os.register_at_fork(after_in_child=_close_in_child)
