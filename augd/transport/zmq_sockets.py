"""The ZeroMQ sockets: the daemon's ROUTER, a client's DEALER, and one poller for sockets and fds.

Makes every socket that carries the protocol; only monitors and the authenticator make others. The
options matter: ROUTER_MANDATORY, because a ROUTER drops silently otherwise; MAXMSGSIZE, because an
unknown peer's frame would be allocated; LINGER 0, because what was not sent when a process ends is
recomputed.

Invariant: nothing here blocks without a deadline.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Protocol

import zmq

from augd.errors import AddressInUse, AugdError, ConnectionLost, OptionError
from augd.process.awake_clock import Awake
from augd.protocol.limits import HEADER_BYTES_MAX
from augd.transport import owned_socket
from augd.transport.address import Address, TcpAddress, check_path
from augd.transport.peer_monitor import Peer

if TYPE_CHECKING:
    from augd.transport.handshake_monitor import Handshake

FRAMES_MAX = 4
# ipc connects at once unless the daemon is just binding: retry soon at first, later rarely.
_RECONNECT_MS = 5
_RECONNECT_MAX_MS = 1000
_HEARTBEAT_MS = 2_000
_HEARTBEAT_TIMEOUT_MS = 10_000  # ZeroMQ's own thread answers, however long a training step takes
_HANDSHAKE_MS = 10_000
# Credits bound the queue of a client that doesn't read: a BATCH and an EPOCH_END for each of at
# most 1,025 slots. ZeroMQ's default of 1,000 would drop some of them.
_QUEUE_MAX = 4096
# Messages of one connection that the daemon has read and not handled. Further ones wait at their
# sender, so that a flood of the largest ones takes 16 MB of the daemon's memory and not 268.
_UNREAD_MAX = 256
# Class lists travel in a frame of their own: 64 MiB name a million classes.
_CLIENT_MESSAGE_BYTES_MAX = 64 * 1024 * 1024


class Curve(Protocol):
    """The keys of one side (augd/transport/auth/curve.py)."""

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Set them on a socket that has neither bound nor connected yet."""


def _socket(kind: int, message_bytes_max: int, curve: Curve | None) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, message_bytes_max)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.SNDHWM, _QUEUE_MAX)
    socket.setsockopt(zmq.RCVHWM, _QUEUE_MAX)
    # A peer whose host or link died sends nothing: heartbeats end its connection.
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
    if curve is not None:
        curve.apply(socket)
    return socket


class Router:
    """The daemon's side: addressed sends, bounded receives, at one or more addresses."""

    def __init__(
        self,
        curve: Curve | None = None,
        frame_bytes_max: int = HEADER_BYTES_MAX,
        unread_max: int = _UNREAD_MAX,
    ) -> None:
        """Make an unbound socket; with `curve`, for clients with keys only."""
        self.socket = _socket(zmq.ROUTER, frame_bytes_max, curve)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.RCVHWM, unread_max)
        self._source_fd = -1
        self._names: set[object] = set()  # paths and ports

    def bind(self, address: Address | TcpAddress) -> Address | TcpAddress:
        """Listen at an address, whose lock the caller holds; return it with its real port.

        Raises:
            AddressInUse: another program listens at the port.
            OptionError: this host doesn't have the address, or the path exists.
        """
        if isinstance(address, Address):
            self._bind_path(address)
            return address
        port = address.port or "*"
        try:
            self.socket.bind(f"tcp://{address.host}:{port}")
        except zmq.ZMQError as error:
            raise _cannot_bind(address, error) from None
        bound = int(self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        self._names.add(bound)
        return TcpAddress(address.host, bound)

    def _bind_path(self, address: Address) -> None:
        """Listen at a path for this user alone.

        ZeroMQ itself would remove any file there, now and when it closes, and leave the socket's
        mode to the umask. So it gets a socket that listens already.
        """
        for user in {os.geteuid(), 0}:  # besides the socket's mode
            with suppress(zmq.ZMQError):  # a libzmq that was built without it
                self.socket.setsockopt(zmq.IPC_FILTER_UID, user)
        listener = owned_socket.listen(address.path, socket.SOCK_STREAM)
        self._names.add(listener.getsockname())
        self.socket.setsockopt(zmq.USE_FD, listener.fileno())
        try:
            self.socket.bind(str(address))
            listener.detach()  # ZeroMQ closes it
        finally:
            listener.close()
            self.socket.setsockopt(zmq.USE_FD, -1)

    def watch_disconnects(self) -> Disconnects:
        """Return what a poller watches to notice the end of a connection."""
        return Disconnects(self.socket)

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """Return one message as (peer, frames), or None when there is none now."""
        try:
            peer, *frames = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return peer, frames

    def receive_named(self) -> tuple[bytes, list[bytes], str | None] | None:
        """Return one message as (peer, frames, user), the name that the authenticator gave.

        The user is None when the authenticator was not asked, and when the peer chose its routing
        id itself. It could have taken that of a client that left (ZeroMQ's own begin with 0).
        """
        try:
            peer, *frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        return peer.bytes, [frame.bytes for frame in frames], _user_of(peer)

    def receive_header(self) -> tuple[bytes, bytes, str | None] | None:
        """Return the peer, the first frame and the user of a message, as `receive_named` does.

        None when there is no message now. `receive_into` and `drop_rest` take the other frames.
        """
        try:
            peer = self.socket.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        user, self._source_fd = _user_of(peer), _source_fd_of(peer)
        has_header = self.socket.getsockopt(zmq.RCVMORE)
        return peer.bytes, self.socket.recv(zmq.NOBLOCK) if has_header else b"", user

    def has_more(self) -> bool:
        """Say whether the message in hand has another frame."""
        return bool(self.socket.getsockopt(zmq.RCVMORE))

    def hang_up(self) -> None:
        """End the connection of the message in hand; what it sent before still arrives.

        libzmq has no such call for a ROUTER, but names the descriptor that it read from. That may
        be another connection of this socket by now, whose peer then has to reconnect. So this is
        called once per connection.
        """
        with suppress(OSError):
            connection = socket.socket(fileno=os.dup(self._source_fd))
            with closing(connection):
                name = connection.getsockname()
                if (name if isinstance(name, str) else name[1]) in self._names:
                    connection.shutdown(socket.SHUT_RDWR)

    def receive_into(self, target: memoryview) -> bool:
        """Receive the next frame of a message; say whether there was one, of exactly this size."""
        return _receive_into(self.socket, target) == len(target)

    def drop_rest(self) -> int:
        """Drop the frames of the message that were not received; return their number."""
        return _drop_rest(self.socket)

    def send(self, peer: bytes, frames: Sequence[bytes | memoryview]) -> bool:
        """Send to one client; False if it is gone or its queue is full.

        A memoryview is not copied: it must stay unchanged until the client has answered.
        """
        return self._try(peer, frames) == 0

    def can_reach(self, peer: bytes, frames: Sequence[bytes]) -> bool:
        """Say whether a client's connection stands, by sending a message that the client drops.

        A client whose queue is full counts as connected.
        """
        return self._try(peer, frames) != zmq.EHOSTUNREACH

    def _try(self, peer: bytes, frames: Sequence[bytes | memoryview]) -> int:
        """Send; return 0, or the errno of the failure."""
        try:
            self.socket.send(peer, zmq.NOBLOCK | zmq.SNDMORE)
            for frame in frames[:-1]:
                self.socket.send(frame, zmq.NOBLOCK | zmq.SNDMORE)
            is_copied = isinstance(frames[-1], bytes)
            self.socket.send(frames[-1], zmq.NOBLOCK, copy=is_copied)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return int(error.errno)
            raise
        return 0

    def close(self) -> None:
        self.socket.close()


def _cannot_bind(address: TcpAddress, error: zmq.ZMQError) -> AugdError:
    if error.errno == zmq.EADDRINUSE:
        return AddressInUse(
            f"another program already listens at {address}: connect to it if it is a daemon, "
            "stop it, or choose another port with --listen"
        )
    return OptionError(f"--listen {address}: {error.strerror}; expected an address of this host")


def _user_of(peer: zmq.Frame) -> str | None:
    """Return the name that the authenticator gave a peer; see `Router.receive_named`."""
    try:
        return str(peer.get("User-Id")) if peer.bytes.startswith(b"\0") else None
    except zmq.ZMQError:
        return None


def _source_fd_of(peer: zmq.Frame) -> int:
    """Return the descriptor that a message was read from; -1 if libzmq does not tell."""
    try:
        return int(peer.get(zmq.SRCFD))
    except (zmq.ZMQError, ValueError):
        return -1


def _receive_into(socket: zmq.Socket[bytes], target: memoryview) -> int:
    """Receive the next frame of a message; return the frame's size, 0 if there is none."""
    if not socket.getsockopt(zmq.RCVMORE):
        return 0
    return int(socket.recv_into(target, flags=zmq.NOBLOCK))


def _drop_rest(socket: zmq.Socket[bytes]) -> int:
    num_dropped = 0
    while socket.getsockopt(zmq.RCVMORE):
        socket.recv(zmq.NOBLOCK, copy=False)
        num_dropped += 1
    return num_dropped


class Dealer:
    """A client's side."""

    def __init__(
        self, address: Address | TcpAddress, curve: Curve | None = None, *, is_watched: bool = False
    ) -> None:
        """Start to connect; the first receive tells whether a daemon answers.

        Args:
            address: the daemon's.
            curve: the client's keys, for a port that needs them.
            is_watched: watch the connection's end in `monitor`, and a port's handshake in
                `handshake`. A path's connection is always watched.

        Raises:
            UntrustedAddress: another user could listen there.
        """
        if isinstance(address, Address):
            check_path(address)
        self.has_keys = curve is not None
        self.address = address
        self.handshake: Handshake | None = None
        self._peer: Peer | None = None  # for a path, where the peer must be this user or root
        self.socket = _socket(zmq.DEALER, _CLIENT_MESSAGE_BYTES_MAX, curve)
        # Credits and leases bound what a daemon sends. At a high-water mark libzmq would stop
        # reading, and could abort the process when the daemon then closes: see
        # augd/transport/row_channel.py.
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        if is_watched and isinstance(address, TcpAddress):
            from augd.transport.handshake_monitor import Handshake

            self.handshake = Handshake(self.socket)
        elif isinstance(address, Address):
            self._peer = Peer(self.socket, address.path)
        self.socket.connect(str(address))

    @property
    def monitor(self) -> Readable:
        """What a poller watches to notice the connection's end, and its handshake."""
        watched = self.handshake or self._peer
        assert watched is not None, "is_watched"
        return watched

    def has_ended(self) -> bool:
        """Say whether the connection ever ended; never blocks.

        ZeroMQ reconnects by itself, but as a peer that the daemon doesn't know.
        """
        if self.handshake is not None:
            return self.handshake.has_ended()
        return self._peer is not None and self._peer.has_told()

    def check_handshake(self, *, is_new: bool) -> None:
        """Raise the reason for which the daemon refused this client, if it did.

        If the connection is not new, ZeroMQ is reconnecting to a lost daemon. Such failures are
        reported elsewhere, and dropped here.
        """
        if self.handshake is None:
            return
        if is_new:
            self.handshake.check(self.address, has_keys=self.has_keys)
        else:
            self.handshake.forget()

    def watch_disconnects(self) -> Disconnects | Peer:
        """Return what a poller watches to notice that the daemon is lost."""
        return self._peer or Disconnects(self.socket)

    def receive(self) -> list[bytes] | None:
        """Return one message as frames, or None when there is none now.

        Raises:
            UntrustedAddress: it came from a process of another user.
            ConnectionLost: its sender can no longer be determined.
        """
        try:
            frames = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        self._check_peer()
        return frames

    def receive_header(self) -> bytes | None:
        """Return the first frame of a message whose second one `receive_into` takes.

        Raises as `receive` does.
        """
        try:
            header = self.socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
        self._check_peer()
        return header

    def _check_peer(self) -> None:
        # The monitor reports a connection before its first message is received.
        if self._peer is not None and not self._peer.is_known():
            raise ConnectionLost(f"the connection to {self.address} ended as soon as it stood")

    def receive_into(self, target: memoryview) -> int:
        """Receive the frame that follows a header into `target`; returns the frame's own size.

        A larger frame is truncated silently, so the caller compares the sizes. 0 if no frame
        follows. Further frames are dropped.
        """
        size = _receive_into(self.socket, target)
        _drop_rest(self.socket)
        return size

    def send(self, frame: bytes) -> None:
        """Queue one frame; credits keep the queue far below its high-water mark.

        After a refused handshake of a reconnection, ZeroMQ has no queue any more. Then the frame
        is lost, as with any connection that ended.
        """
        with suppress(zmq.Again):
            self.socket.send(frame, zmq.NOBLOCK)

    def send_rows(self, frames: Sequence[bytes | memoryview]) -> None:
        """Queue a message; memoryviews are not copied, and must stay unchanged until answered."""
        with suppress(zmq.Again):
            self.socket.send_multipart(frames, zmq.NOBLOCK, copy=False)

    def close(self, linger_s: float = 0.0) -> None:
        """Close the socket; queued frames are still sent for `linger_s`, in the background."""
        if self.handshake is not None:
            self.socket.disable_monitor()
            self.handshake.socket.close()
        if self._peer is not None:
            self._peer.close()
        self.socket.close(int(linger_s * 1000))


def send_last_words() -> None:
    """Close open sockets, and wait until closed ones have sent what they linger for.

    ZeroMQ sends in the background; the queue of a process that just ends is lost.
    """
    zmq.Context.instance().destroy()


class Disconnects:
    """Notices that a connection of a socket ended: its peer died, or heartbeats stopped."""

    def __init__(self, watched: zmq.Socket[bytes]) -> None:
        self.socket = watched.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.socket.setsockopt(zmq.LINGER, 0)
        self._watched = watched

    def has_told(self) -> bool:
        """Say whether a connection ended since the last `forget`; never blocks."""
        return bool(self.socket.poll(0))

    def forget(self) -> None:
        """Drop the ends that were reported so far."""
        while True:
            try:
                self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return

    def close(self) -> None:
        """Stop watching, before the watched socket is closed."""
        self._watched.disable_monitor()
        self.socket.close()


class Readable(Protocol):
    """Something with a ZeroMQ socket that a poller can watch."""

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """The socket."""


class Poller:
    """Waits for sockets and fds, and returns the tags of those that are ready."""

    def __init__(self, clock: Awake | None = None) -> None:
        """Watch nothing yet; time in which this process is stopped counts for no wait."""
        self.clock = clock or Awake()
        self._poller = zmq.Poller()
        self._tags: dict[Any, Any] = {}

    def register(self, source: Readable | int, tag: object) -> None:
        """Watch a socket or an fd for input."""
        key = source if isinstance(source, int) else source.socket
        self._tags[key] = tag
        self._poller.register(key, zmq.POLLIN)

    def unregister(self, source: Readable | int) -> None:
        """Stop watching, before it is closed; does nothing if it isn't watched."""
        key = source if isinstance(source, int) else source.socket
        if self._tags.pop(key, None) is not None:
            self._poller.unregister(key)

    def wait_for(self, socket: Dealer | Router, timeout_s: float) -> bool:
        """Wait for this socket alone, at most `timeout_s`; say whether a message came."""
        return self.clock.wait(
            lambda left_s: bool(socket.socket.poll(max(1, int((left_s or 0.0) * 1000)))), timeout_s
        )

    def wait(self, timeout_s: float | None) -> list[Any]:
        """Return the tags that are ready; an empty list after `timeout_s`."""
        return [self._tags[key] for key, _ in self.clock.wait(self._poll, timeout_s)]

    def _poll(self, timeout_s: float | None) -> list[tuple[Any, int]]:
        timeout_ms = None if timeout_s is None else max(0, -(-int(timeout_s * 1e6) // 1000))
        return self._poller.poll(timeout_ms)
