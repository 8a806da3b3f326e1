"""Links: UNIX socket pairs between the daemon and its own producers, and fds over sockets.

A link carries whole messages in order, passes fds with them, and ends when either side dies: it is
the producers' lifeline. It has no name in a file system, so no other process can reach it, and it
needs neither key nor address. Sends never block: a producer that doesn't read has at most a few
leases, and its deadline kills it.
"""

from __future__ import annotations

import array
import os
import select
import socket
from collections.abc import Sequence

from augd.protocol.limits import HEADER_BYTES_MAX

_FDS_MAX = 4
_ANCILLARY_BYTES = socket.CMSG_SPACE(_FDS_MAX * array.array("i").itemsize)


def make_link() -> tuple[socket.socket, socket.socket]:
    """Make both ends of a link; the producer inherits the second."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    return near, far


def send(link: socket.socket, frame: bytes, fds: Sequence[int] = ()) -> bool:
    """Send one message; False if the other side is gone or its buffer is full."""
    try:
        if fds:
            socket.send_fds(link, [frame], list(fds), socket.MSG_NOSIGNAL)
        else:
            link.send(frame, socket.MSG_NOSIGNAL)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        return False
    return True


def is_connected(link: socket.socket) -> bool:
    """Say whether the other side lives; a send that failed then found its buffer full."""
    poller = select.poll()
    poller.register(link, 0)  # hang-ups and errors are always reported
    return not poller.poll(0)


def receive(link: socket.socket, *, wait: bool) -> tuple[bytes, list[int]] | None:
    """Receive one message and its fds (close-on-exec); None when nothing is there.

    Raises:
        EOFError: the other side is gone.
    """
    flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
    try:
        frame, ancillary, flags_out, _ = link.recvmsg(HEADER_BYTES_MAX, _ANCILLARY_BYTES, flags)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        raise EOFError from None
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if flags_out & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for fd in fds:
            os.close(fd)
        raise EOFError("a message was truncated: the other side sends more than a header")
    if not frame and not fds:
        raise EOFError
    return frame, list(fds)


def peer_uid(connection: socket.socket) -> int:
    """Return the user id of the process at the other end, from the kernel."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(array.array("i", credentials)[1])
