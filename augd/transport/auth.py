"""Who may talk to a daemon over TCP: CURVE, its authenticator, and the proof that it refuses.

Only loaded by a daemon with keys. ZeroMQ asks the authenticator (ZAP, RFC 27) about each new
connection; the answer names the client, and ZeroMQ stamps that name on every message of the
connection, so that `Gate.rights_of` decides per message by what the clients' files say now.

CURVE by itself lets everybody in who knows the public key. It refuses only with all three of: an
authenticator, a ZAP domain, and ZAP_ENFORCE_DOMAIN. `prove` tries it out before a daemon binds for
others: without an authenticator nobody gets in, with it a known key does and an unknown one
doesn't. Starts no thread, blocks beyond no deadline, and tells nobody a key.

pyzmq's `zmq.auth.Authenticator` isn't used: it is served by coroutines, in an asyncio loop or in a
thread with one, and this daemon has a single poll loop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import zmq
from zmq.utils import z85

from augd.errors import AugdError, Forbidden, OptionError
from augd.transport import keys
from augd.transport.address import TcpAddress
from augd.transport.curve import DOMAIN, ClientCurve, ServerCurve
from augd.transport.handshake import Handshake
from augd.transport.sockets import Dealer, Router
from augd.wire.rights import Rights

_log = logging.getLogger("augd")

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
LOOK_S = 0.5
PROOF_S = 5.0
_REQUEST_FRAMES_MIN = 6  # version, request id, domain, address, identity, mechanism
_KEY_BYTES = 32
_LOG_EVERY_S = 1.0  # strangers must not fill a disk
_REQUESTS_PER_TURN = 64


def answer(request: Sequence[bytes], users: Mapping[bytes, str]) -> list[bytes]:
    """Answer one ZAP request; everything but a known key at our sockets is refused.

    Args:
        request: version, request id, domain, address, identity, mechanism, credentials.
        users: what ZeroMQ shall call the owner of a public key, which here is 32 raw bytes.
    """
    request_id = request[1] if len(request) > 1 else b""

    def reply(status: bytes, text: bytes, user: str = "") -> list[bytes]:
        return [ZAP_VERSION, request_id, status, text, user.encode(), b""]

    if len(request) < _REQUEST_FRAMES_MIN or request[0] != ZAP_VERSION:
        return reply(b"500", b"malformed request")
    _, _, domain, _, _, mechanism, *credentials = request
    if domain != DOMAIN or mechanism != b"CURVE":
        return reply(b"400", b"not a domain or mechanism of this daemon")
    if len(credentials) != 1 or len(credentials[0]) != _KEY_BYTES:
        return reply(b"400", b"no key")
    user = users.get(credentials[0])
    return reply(b"400", b"unknown key") if user is None else reply(b"200", b"OK", user)


class Clients:
    """The clients that a folder of keys names, as of the last look."""

    def __init__(self, folder: Path) -> None:
        """Read the folder, which must be nobody else's to write."""
        self._folder = folder
        self._marks: dict[str, tuple[int, ...]] = {}
        self._known: dict[str, keys.Known] = {}
        self.users: dict[bytes, str] = {}
        self._rights: dict[str, Rights] = {}
        self.look_again()

    def rights_of(self, user: str) -> Rights | None:
        """Return what the owner of a connection may do now; None when he may nothing."""
        return self._rights.get(user)

    def look_again(self) -> list[str]:
        """Read what has changed; return the names of clients whose key or rights did."""
        marks = self._read_marks()
        touched = [name for name in marks | self._marks if marks.get(name) != self._marks.get(name)]
        before = self._rights
        for name in sorted(touched):
            self._known.pop(name, None)
            if name in marks:
                self._read(name)
        self._marks = marks
        if touched:
            self._index()
        changed = [user for user, rights in before.items() if self._rights.get(user) != rights]
        return [user.partition("/")[0] for user in changed]

    def _read(self, name: str) -> None:
        found = keys.read_client(keys.client_path(self._folder, name))
        if isinstance(found, keys.Known):
            self._known[name] = found
        else:
            _log.error("client %s is not let in: %s", name, found)

    def _read_marks(self) -> dict[str, tuple[int, ...]]:
        """Mark each file, none when the folder can't be trusted."""
        below = keys.clients_folder(self._folder)
        try:
            keys.check_folder(below)
            marks = {name: _mark(path) for name, path in keys.client_files(self._folder)}
            return {name: mark for name, mark in marks.items() if mark}
        except (OSError, OptionError) as error:
            if self._marks:
                _log.error("no client is let in: %s", error)
            return {}

    def _index(self) -> None:
        """Bind each connection to a name and a key: another key of that name is another user."""
        self.users, self._rights = {}, {}
        for name, known in sorted(self._known.items()):
            raw = z85.decode(known.public)
            if raw in self.users:
                _log.error("client %s is not let in: %s has the same key", name, self.users[raw])
                continue
            user = f"{name}/{keys.fingerprint(known.public)}"
            self.users[raw] = user
            self._rights[user] = known.rights

    def __len__(self) -> int:
        """Clients that are let in."""
        return len(self.users)


def _mark(path: Path) -> tuple[int, ...]:
    """Say what changes when a file does; nothing when it went away since it was listed."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_mode)


class Gate:
    """The authenticator, as a socket for the daemon's poller, and the rights behind it.

    Attributes:
        curve: what the daemon's sockets must have set.
        socket: wants `serve` when it is readable.
    """

    def __init__(self, folder: Path) -> None:
        """Read the keys; answer nobody before `open`.

        Raises:
            OptionError: the daemon's key is missing, or files are open to others.
        """
        keys.check_folder(folder)
        pair = keys.read_server_pair(folder)
        self.curve = ServerCurve(pair.secret)
        self.server = pair.public
        self.clients = Clients(folder)
        self.look_at = time.monotonic() + LOOK_S
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self._canaries: dict[bytes, str] = {}
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
        """Answer who waits; never blocks."""
        users = self.clients.users | self._canaries
        for _turn in range(_REQUESTS_PER_TURN):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            route, request = frames[:2], frames[2:]
            reply = answer(request, users)
            if reply[2] != b"200" and not self._canaries:
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
            Forbidden: the key was taken away, or ZeroMQ didn't say whose it is.
        """
        rights = self.clients.rights_of(user)
        if rights is None:
            raise Forbidden(REVOKED)
        return rights

    def look_again(self) -> list[str]:
        """Look at the clients' files when it is time; returns who was changed or removed."""
        now = time.monotonic()
        if now < self.look_at:
            return []
        self.look_at = now + LOOK_S
        return self.clients.look_again()

    def admit_canary(self, public: bytes) -> None:
        """Let a key in that no file names, until `forget_canaries`: `prove` shows one."""
        self._canaries[z85.decode(public)] = CANARY

    def forget_canaries(self) -> None:
        """Refuse them again."""
        self._canaries.clear()

    def close(self) -> None:
        """Answer nobody any more: whoever comes is refused."""
        # Closing alone leaves the endpoint to ZeroMQ's reaper, for a moment in which it is taken.
        with contextlib.suppress(zmq.ZMQError):
            self.socket.unbind(ZAP_ENDPOINT)
        self.socket.close()


REVOKED = (
    "the daemon does not let this key in any more: its operator changed or removed it; "
    "ask for it, then connect again"
)
CANARY = "canary"


def prove(gate: Gate, make_router: Callable[[ServerCurve], Router] = Router) -> None:
    """Show on a throw-away port that unknown keys are refused; then the gate is open.

    Args:
        gate: not yet open.
        make_router: makes the daemon's sockets.

    Raises:
        AugdError: it isn't so, and says what is; the daemon must not bind.
    """
    _try_keys(gate, make_router, is_open=False)
    gate.open()
    _try_keys(gate, make_router, is_open=True)


def _try_keys(gate: Gate, make_router: Callable[[ServerCurve], Router], *, is_open: bool) -> None:
    router = make_router(gate.curve)
    canaries: list[Canary] = []
    try:
        port = router.bind(TcpAddress("127.0.0.1", 0))
        assert isinstance(port, TcpAddress)
        known, unknown = (Canary(port, gate.server) for _ in range(2))
        canaries = [known, unknown]
        if is_open:
            gate.admit_canary(known.public)
        _await_verdicts(gate, router, known, unknown, is_open=is_open)
    finally:
        gate.forget_canaries()
        for canary in canaries:
            canary.close()
        router.close()


class Canary:
    """A client with a new key, to see whether it gets in."""

    def __init__(self, address: TcpAddress, server: bytes) -> None:
        """Connect and say the key's own fingerprint."""
        pair = keys.make_pair()
        self.public = pair.public
        self.song = keys.fingerprint(pair.public).encode()
        curve = ClientCurve(keys.ClientKeys(CANARY, pair, server))
        self._dealer = Dealer(address, curve, is_watched=True)
        assert self._dealer.handshake is not None
        self.handshake: Handshake = self._dealer.handshake
        self._dealer.send(self.song)

    def close(self) -> None:
        """Hang up."""
        self._dealer.close()


def _await_verdicts(
    gate: Gate, router: Router, known: Canary, unknown: Canary, *, is_open: bool
) -> None:
    poller = zmq.Poller()
    sockets = [router.socket, known.handshake.socket, unknown.handshake.socket]
    for socket in [*sockets, gate.socket] if is_open else sockets:
        poller.register(socket, zmq.POLLIN)
    heard: dict[bytes, str | None] = {}
    deadline = time.monotonic() + PROOF_S
    while True:
        refused = [one for one in (known, unknown) if one.handshake.has_failed()]
        if unknown.song in heard or (known.song in heard and not is_open):
            raise AugdError(_FAILS_OPEN)
        if is_open and known.song in heard and unknown in refused:
            if heard[known.song] != CANARY:
                raise AugdError(_UNNAMED)
            return
        if not is_open and len(refused) == 2:
            return
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise AugdError(_UNANSWERED if is_open else _UNDECIDED)
        poller.poll(max(1, int(left_s * 1000)))
        if is_open:
            gate.serve()
        while (received := router.receive_named()) is not None:
            heard[received[1][0]] = received[2]


_TESTED = "the daemon does not start, because its test of keys failed: "
_FAILS_OPEN = (
    f"{_TESTED}a client with an unknown key got in. CURVE refuses only with a ZAP domain, "
    "ZAP_ENFORCE_DOMAIN and an authenticator; this build of ZeroMQ may not enforce them"
)
_UNNAMED = f"{_TESTED}ZeroMQ did not say whose message it was, so that nobody's could be allowed"
_UNANSWERED = (
    f"{_TESTED}within {PROOF_S:g} s a known key was not let in and an unknown one refused; the "
    "authenticator does not answer"
)
_UNDECIDED = f"{_TESTED}within {PROOF_S:g} s nobody was refused while there was no authenticator"
