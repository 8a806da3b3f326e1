"""The state of a client's TCP connection: whether the daemon let it in, and whether it has ended.

ZeroMQ retries for ever without an error; its monitor reports each handshake. A client reads the
monitor while it waits for WELCOME, and later to notice the end. Reads no key file and needs no
keys: a client without keys learns here that the daemon wants one.

Invariant: nothing here blocks, except one question to a port, which takes at most `_GREETING_S`.
"""

from __future__ import annotations

import socket
import struct

import zmq

from augd.errors import AugdError, ConnectError, Forbidden
from augd.transport.address import Address, TcpAddress

# In order of detail, the most telling last.
_REASONS = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
)
_FAILED = sum(_REASONS)
_WATCHED = _FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
_FAILURES_MIN = 3  # without a reason; about 20 ms

# Source: ZMTP 3.1, https://rfc.zeromq.org/spec/37/, "greeting".
_SIGNATURE, _VERSION = b"\xff" + bytes(8) + b"\x7f", b"\x03"
_GREETING_BYTES, _MECHANISM = 64, slice(12, 32)
_CURVE = b"CURVE"
_GREETING_S = 2.0

_EVENT = struct.Struct("=hi")  # as zmq_socket_monitor(3) says: the event, and a value that it has


class Handshake:
    """Follows the connections of a socket, from before it connects."""

    def __init__(self, watched: zmq.Socket[bytes]) -> None:
        self.socket = watched.get_monitor_socket(_WATCHED)
        self.socket.setsockopt(zmq.LINGER, 0)
        self._failures: list[int] = []
        self._has_stood = self._has_ended = False

    def has_failed(self) -> bool:
        """Say whether a handshake failed; never blocks."""
        self._read_events()
        return bool(self._failures)

    def has_ended(self) -> bool:
        """Say whether a connection whose handshake had succeeded ever ended; never blocks."""
        self._read_events()
        return self._has_ended

    def _read_events(self) -> None:
        while self.socket.poll(0):
            event, _ = _EVENT.unpack(self.socket.recv_multipart()[0])
            if event & _FAILED:
                self._failures.append(event)
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._has_stood = True
            elif self._has_stood:
                self._has_ended = True

    def forget(self) -> None:
        """Forget what failed so far."""
        self.has_failed()
        self._failures.clear()

    def check(self, address: Address | TcpAddress, *, has_keys: bool) -> None:
        """Do nothing unless a handshake failed.

        Raises:
            Forbidden: the daemon wants keys, or doesn't know this one.
            ConnectError: it is another daemon than the one that the keys are for.
        """
        # When both sides close for the same reason, only one of them sees the reason, and a
        # daemon's end looks the same. ZeroMQ retries at once, and a further failure tells.
        if not self.has_failed():
            return
        reason = max(self._failures, key=_REASONS.index)
        if reason == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            if len(self._failures) < _FAILURES_MIN:
                return
            if not has_keys and _mechanism(address) != _CURVE:
                self._failures.clear()  # a network that breaks, or a daemon that is just ending
                return
        raise _explain(reason, address, has_keys=has_keys)


def _mechanism(address: Address | TcpAddress) -> bytes:
    """Return the mechanism in the greeting of whatever listens at a port; empty if none."""
    assert isinstance(address, TcpAddress)
    greeting = b""
    try:
        host = address.host.strip("[]")
        with socket.create_connection((host, address.port), _GREETING_S) as asking:
            asking.sendall(_SIGNATURE + _VERSION)
            while len(greeting) < _GREETING_BYTES and (piece := asking.recv(_GREETING_BYTES)):
                greeting += piece
    except OSError:
        pass
    return greeting[_MECHANISM].rstrip(b"\0")


def _explain(event: int, address: Address | TcpAddress, *, has_keys: bool) -> AugdError:
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return Forbidden(
            f"the daemon at {address} does not know this key, or revoked it: ask its operator for "
            "`augd keys new NAME`, and give the file as keys= or --keys"
        )
    if not has_keys:
        return Forbidden(
            f"the daemon at {address} accepts only clients with a key: ask its operator for a "
            "NAME.key, and give it as keys= or --keys, or in $AUGD_KEYS"
        )
    if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
        return ConnectError(
            f"the daemon at {address} has no keys, so it is not the one that this key is for: "
            "check the address, or connect without keys (keys= or --keys, and $AUGD_KEYS)"
        )
    return ConnectError(
        f"what listens at {address} closed the connection: it lacks the daemon's key that came "
        "with this client's, or is just ending. Check the address; if the daemon got new keys, ask "
        "its operator for a new NAME.key"
    )
