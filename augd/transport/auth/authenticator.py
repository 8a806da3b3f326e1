"""The authenticator of a daemon with keys: who may connect over TCP, and with which rights.

Runs in the daemon, in its poll loop. ZeroMQ asks the authenticator (ZAP, RFC 27) about each new
connection. The answer names the client, and ZeroMQ puts that name on every message of the
connection. `Authenticator.rights_of` then decides per message, by the clients' files as they are
now. `augd/transport/auth/self_test.py` checks at each start that unknown keys are refused.

Invariants: starts no thread, never blocks, and reveals no key.

pyzmq's `zmq.auth.Authenticator` isn't used: it runs as coroutines, in an asyncio loop or in a
thread with one. The daemon has a single poll loop.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import zmq
from zmq.utils import z85

from augd.errors import AugdError, Forbidden
from augd.protocol.permissions import Rights
from augd.transport.auth import keys
from augd.transport.auth.curve import DOMAIN, PRODUCE_DOMAIN, ServerCurve
from augd.transport.auth.key_files import check_folder
from augd.transport.auth.known_clients import KnownClients

_log = logging.getLogger("augd")

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
LOOK_S = 0.5
_REQUEST_FRAMES_MIN = 6  # version, request id, domain, address, identity, mechanism
_KEY_BYTES = 32
_LOG_EVERY_S = 1.0  # refused peers must not fill a disk with log lines
_REQUESTS_PER_TURN = 64


def answer(
    request: Sequence[bytes],
    users: Mapping[bytes, str],
    may_produce: Callable[[str], bool] = lambda user: False,
) -> list[bytes]:
    """Answer one ZAP request; only a known key at the daemon's own sockets is accepted.

    Args:
        request: version, request id, domain, address, identity, mechanism, credentials.
        users: the name of each public key's owner; keys are 32 raw bytes.
        may_produce: says which users may connect to the sockets that take producers' rows.
    """
    request_id = request[1] if len(request) > 1 else b""

    def reply(status: bytes, text: bytes, user: str = "") -> list[bytes]:
        return [ZAP_VERSION, request_id, status, text, user.encode(), b""]

    if len(request) < _REQUEST_FRAMES_MIN or request[0] != ZAP_VERSION:
        return reply(b"500", b"malformed request")
    _, _, domain, _, _, mechanism, *credentials = request
    if domain not in (DOMAIN, PRODUCE_DOMAIN) or mechanism != b"CURVE":
        return reply(b"400", b"not a domain or mechanism of this daemon")
    if len(credentials) != 1 or len(credentials[0]) != _KEY_BYTES:
        return reply(b"400", b"no key")
    user = users.get(credentials[0])
    if user is None:
        return reply(b"400", b"unknown key")
    if domain == PRODUCE_DOMAIN and not may_produce(user):
        return reply(b"400", b"not a key that may produce")
    return reply(b"200", b"OK", user)


REVOKED = (
    "the daemon does not accept this key any more: its operator changed or removed it; "
    "ask for a new one, then connect again"
)
PROBE_NAME = "probe"


class Authenticator:
    """Answers ZAP requests on a socket of the daemon's poller, and knows the clients' rights.

    Attributes:
        curve: the keys to set on the daemon's sockets.
        produce_curve: the same for those that take producers' rows.
        socket: call `serve` when it is readable.
    """

    def __init__(self, folder: Path) -> None:
        """Read the keys; answer no request before `open`.

        Raises:
            OptionError: the daemon's key is missing, or files are open to others.
        """
        check_folder(folder)
        pair = keys.read_server_pair(folder)
        self.curve = ServerCurve(pair.secret)
        self.produce_curve = ServerCurve(pair.secret, PRODUCE_DOMAIN)
        self.server = pair.public
        self.clients = KnownClients(folder)
        self.reload_at = time.monotonic() + LOOK_S
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self._probes: dict[bytes, str] = {}
        self._log_at = 0.0
        self._num_refused = 0

    def open(self) -> None:
        """Begin to answer.

        Raises:
            AugdError: this process has an authenticator already.
        """
        try:
            self.socket.bind(ZAP_ENDPOINT)
        except zmq.ZMQError as error:
            raise AugdError(f"the authenticator cannot start: {error.strerror}") from None

    def serve(self) -> None:
        """Answer the requests that are waiting; never blocks."""
        users = self.clients.users | self._probes
        for _turn in range(_REQUESTS_PER_TURN):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            route, request = frames[:2], frames[2:]
            reply = answer(request, users, self.clients.may_produce)
            if reply[2] != b"200" and not self._probes:
                self._log_refusal(request)
            self.socket.send_multipart([*route, *reply], zmq.NOBLOCK)

    def _log_refusal(self, request: Sequence[bytes]) -> None:
        self._num_refused += 1
        now = time.monotonic()
        if now < self._log_at:
            return
        self._log_at = now + _LOG_EVERY_S
        peer = request[3].decode("ascii", "replace") if len(request) > 3 else "?"
        peer = peer.removeprefix("::ffff:")  # an IPv4 address as a socket for both kinds sees it
        _log.warning("refused an unknown key from %s (refusals: %d)", peer, self._num_refused)
        self._num_refused = 0

    def rights_of(self, user: str) -> Rights:
        """Return what the sender of a message may do now.

        Raises:
            Forbidden: the key was revoked, or ZeroMQ didn't name its owner.
        """
        rights = self.clients.rights_of(user)
        if rights is None:
            raise Forbidden(REVOKED)
        return rights

    def reload_changed(self) -> list[str]:
        """Read the clients' files if it is time; return the names of changed or removed clients."""
        now = time.monotonic()
        if now < self.reload_at:
            return []
        self.reload_at = now + LOOK_S
        return self.clients.reload_changed()

    def admit_probe(self, public: bytes) -> None:
        """Accept a key that no file names, until `forget_probes`, for the self-test."""
        self._probes[z85.decode(public)] = PROBE_NAME

    def forget_probes(self) -> None:
        """Refuse them again."""
        self._probes.clear()

    def close(self) -> None:
        """Stop answering: new connections are then refused."""
        # After a close alone, ZeroMQ's reaper thread keeps the endpoint taken for a moment.
        with contextlib.suppress(zmq.ZMQError):
            self.socket.unbind(ZAP_ENDPOINT)
        self.socket.close()
