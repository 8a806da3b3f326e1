"""The ZeroMQ sockets: the daemon's ROUTER, a client's DEALER, and one poller for everything.

The only module that imports zmq. Options are set on purpose: ROUTER_MANDATORY, because a
ROUTER drops silently otherwise; MAXMSGSIZE, because a stranger's frame would be allocated;
LINGER 0, because what was not sent when a process ends is made again by design. Nothing
here blocks without a deadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zmq

from augd.transport.address import Address
from augd.wire.limits import HEADER_BYTES_MAX

FRAMES_MAX = 4
# ipc connects at once unless the daemon is only just binding: then soon again, later rarely.
_RECONNECT_MS = 5
_RECONNECT_MAX_MS = 1000
# Credits bound what a client that doesn't read can have queued: a BATCH and an EPOCH_END for
# each of at most 1,025 slots. ZeroMQ's own 1,000 would drop some of them.
_QUEUE_MAX = 4096
# Class lists travel in a frame of their own: 64 MiB name a million classes.
_CLIENT_MESSAGE_BYTES_MAX = 64 * 1024 * 1024


def _socket(kind: int, message_bytes_max: int) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, message_bytes_max)
    socket.setsockopt(zmq.SNDHWM, _QUEUE_MAX)
    socket.setsockopt(zmq.RCVHWM, _QUEUE_MAX)
    return socket


class Router:
    """The daemon's side: addressed sends, bounded receives."""

    def __init__(self, address: Address) -> None:
        """Bind; the caller holds the address's lock, so nobody is robbed of the path."""
        self.socket = _socket(zmq.ROUTER, HEADER_BYTES_MAX)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.bind(str(address))

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """Return one message as (peer, frames), or None when there is none now."""
        try:
            peer, *frames = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return peer, frames

    def send(self, peer: bytes, frames: Sequence[bytes]) -> bool:
        """Send to one client; say False when he is gone or takes nothing more."""
        try:
            self.socket.send_multipart([peer, *frames], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class Dealer:
    """A client's side."""

    def __init__(self, address: Address) -> None:
        """Start to connect; the first receive tells whether anybody is there."""
        self.socket = _socket(zmq.DEALER, _CLIENT_MESSAGE_BYTES_MAX)
        self.socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        self.socket.connect(str(address))

    def receive(self) -> list[bytes] | None:
        """Return one message as frames, or None when there is none now."""
        try:
            return self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def send(self, frame: bytes) -> None:
        """Queue one frame; credits keep the queue far below its high-water mark."""
        self.socket.send(frame, zmq.NOBLOCK)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class Poller:
    """Waits for sockets and fds, and names what is ready by the tag it was registered with."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._poller = zmq.Poller()
        self._tags: dict[Any, Any] = {}

    def register(self, source: Router | Dealer | int, tag: object) -> None:
        """Watch a socket or an fd for input."""
        key = source if isinstance(source, int) else source.socket
        self._tags[key] = tag
        self._poller.register(key, zmq.POLLIN)

    def unregister(self, source: int) -> None:
        """Stop watching an fd, before it is closed; nothing happens when it isn't watched."""
        if self._tags.pop(source, None) is not None:
            self._poller.unregister(source)

    def wait_for(self, socket: Dealer, timeout_s: float) -> None:
        """Wait for this socket alone, at most `timeout_s`."""
        socket.socket.poll(max(1, int(timeout_s * 1000)))

    def wait(self, timeout_s: float | None) -> list[Any]:
        """Return the tags of what is ready, an empty list after `timeout_s`."""
        timeout_ms = None if timeout_s is None else max(0, -(-int(timeout_s * 1e6) // 1000))
        return [self._tags[key] for key, _ in self._poller.poll(timeout_ms)]
