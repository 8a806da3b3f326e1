"""A self-test at every start: a daemon's port with keys must refuse unknown keys.

Runs in the daemon, before it binds. CURVE alone accepts every client that knows the public key. It
refuses only with all three of: an authenticator, a ZAP domain, and ZAP_ENFORCE_DOMAIN. Of the seven
ways to have them or not, three accept an unknown client silently. So probe clients connect, on a
temporary port, to sockets made as the daemon's own. Takes milliseconds, at most `SELF_TEST_S`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import zmq

from augd.errors import AugdError
from augd.transport.address import TcpAddress
from augd.transport.auth import keys
from augd.transport.auth.authenticator import PROBE_NAME, Authenticator
from augd.transport.auth.curve import ClientCurve, ServerCurve
from augd.transport.handshake_monitor import Handshake
from augd.transport.zmq_sockets import Dealer, Router

SELF_TEST_S = 5.0


def run_self_test(
    authenticator: Authenticator, make_router: Callable[[ServerCurve], Router] = Router
) -> None:
    """Check on a temporary port that unknown keys are refused, and open the authenticator.

    Args:
        authenticator: not yet open.
        make_router: makes the daemon's sockets.

    Raises:
        AugdError: an unknown key was accepted, or a known one was not; the daemon must not bind.
    """
    _try_keys(authenticator, make_router, is_open=False)
    authenticator.open()
    _try_keys(authenticator, make_router, is_open=True)


def _try_keys(
    authenticator: Authenticator, make_router: Callable[[ServerCurve], Router], *, is_open: bool
) -> None:
    router = make_router(authenticator.curve)
    probe_clients: list[ProbeClient] = []
    try:
        port = router.bind(TcpAddress("127.0.0.1", 0))
        assert isinstance(port, TcpAddress)
        known, unknown = (ProbeClient(port, authenticator.server) for _ in range(2))
        probe_clients = [known, unknown]
        if is_open:
            authenticator.admit_probe(known.public)
        _await_verdicts(authenticator, router, known, unknown, is_open=is_open)
    finally:
        authenticator.forget_probes()
        for probe_client in probe_clients:
            probe_client.close()
        router.close()


class ProbeClient:
    """A client with a new key, to test whether it is accepted."""

    def __init__(self, address: TcpAddress, server: bytes) -> None:
        pair = keys.make_pair()
        self.public = pair.public
        self.payload = keys.fingerprint(pair.public).encode()
        curve = ClientCurve(keys.ClientKeys(PROBE_NAME, pair, server))
        self._dealer = Dealer(address, curve, is_watched=True)
        assert self._dealer.handshake is not None
        self.handshake: Handshake = self._dealer.handshake
        self._dealer.send(self.payload)

    def close(self) -> None:
        self._dealer.close()


def _await_verdicts(
    authenticator: Authenticator,
    router: Router,
    known: ProbeClient,
    unknown: ProbeClient,
    *,
    is_open: bool,
) -> None:
    poller = zmq.Poller()
    sockets = [router.socket, known.handshake.socket, unknown.handshake.socket]
    for socket in [*sockets, authenticator.socket] if is_open else sockets:
        poller.register(socket, zmq.POLLIN)
    heard: dict[bytes, str | None] = {}
    deadline = time.monotonic() + SELF_TEST_S
    while True:
        refused = [one for one in (known, unknown) if one.handshake.has_failed()]
        if unknown.payload in heard or (known.payload in heard and not is_open):
            raise AugdError(_FAILS_OPEN)
        if is_open and known.payload in heard and unknown in refused:
            if heard[known.payload] != PROBE_NAME:
                raise AugdError(_UNNAMED)
            return
        if not is_open and len(refused) == 2:
            return
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise AugdError(_UNANSWERED if is_open else _UNDECIDED)
        poller.poll(max(1, int(left_s * 1000)))
        if is_open:
            authenticator.serve()
        while (received := router.receive_named()) is not None:
            heard[received[1][0]] = received[2]


_TESTED = "the daemon does not start, because its test of keys failed: "
_FAILS_OPEN = (
    f"{_TESTED}a client with an unknown key was accepted. CURVE refuses only with a ZAP domain, "
    "ZAP_ENFORCE_DOMAIN and an authenticator; this build of ZeroMQ may not enforce them"
)
_UNNAMED = (
    f"{_TESTED}ZeroMQ did not name the sender of a message, so that no client could be allowed"
)
_UNANSWERED = (
    f"{_TESTED}within {SELF_TEST_S:g} s a known key was not accepted and an unknown one refused; "
    "the authenticator does not answer"
)
_UNDECIDED = (
    f"{_TESTED}within {SELF_TEST_S:g} s no key was refused while there was no authenticator"
)
