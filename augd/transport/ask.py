"""One question to a daemon: STATUS, answered without a session.

For people and benchmarks, beside the way of a batch: it opens no stream, holds no slot and
takes no credit. Never waits beyond its deadline.
"""

from __future__ import annotations

import os
import time
from typing import Any

from augd.errors import ConnectError, ProtocolError, error_from_code
from augd.transport.address import no_daemon, parse_address, require_daemon
from augd.transport.curve import client_curve
from augd.transport.sockets import Dealer, Poller
from augd.wire import codec
from augd.wire import messages as msg


class Inquirer:
    """A connection that asks a daemon for its snapshot. `close()` it."""

    def __init__(
        self,
        address: str | None,
        timeout_s: float = 10.0,
        keys: str | os.PathLike[str] | None = None,
    ) -> None:
        """Connect.

        Args:
            address: `ipc://PATH` or `tcp://HOST:PORT`; None is the user's default daemon.
            timeout_s: the longest wait for each answer.
            keys: this client's NAME.key, as `augd.connect` takes it.

        Raises:
            ConnectError: there is no daemon at the address.
        """
        self.address = parse_address(address)
        require_daemon(self.address)
        self._timeout_s = timeout_s
        self._dealer = Dealer(self.address, client_curve(self.address, keys), is_watched=True)
        self._poller = Poller()
        self._poller.register(self._dealer, "dealer")
        if self._dealer.handshake is not None:
            self._poller.register(self._dealer.handshake, "handshake")

    def status(self) -> dict[str, Any]:
        """Ask and wait for the snapshot: plain data, as `Broker.snapshot` makes it.

        Raises:
            ConnectError: nobody answered in time.
            Forbidden: the daemon wants a key, or doesn't know this one.
        """
        deadline = time.monotonic() + self._timeout_s
        self._dealer.send(codec.encode(msg.AskStatus()))
        while (frames := self._dealer.receive()) is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ConnectError(
                    f"{no_daemon(self.address)} (nobody answered for {self._timeout_s:g} s)"
                )
            self._poller.wait(left_s)
            self._dealer.check_handshake(is_new=True)
        return _snapshot(codec.decode_to_client(frames[0]))

    def close(self) -> None:
        """Close the connection."""
        self._dealer.close()


def _snapshot(answer: msg.ToClient) -> dict[str, Any]:
    if isinstance(answer, msg.Error):
        raise error_from_code(answer.code, answer.text)
    if not isinstance(answer, msg.Status):
        raise ProtocolError(f"asked for the status, expected STATUS_REPLY, got {answer}")
    return answer.snapshot


def status(
    address: str | None = None,
    timeout_s: float = 10.0,
    keys: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Ask a daemon once what it does. See `Inquirer`."""
    inquirer = Inquirer(address, timeout_s, keys)
    try:
        return inquirer.status()
    finally:
        inquirer.close()
