"""Questions that a daemon answers without a session: its STATUS, and the PATHS of samples.

Runs in commands, benchmarks, and beside a stream. It opens no stream, holds no slot and takes no
credit. No wait exceeds its deadline.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from augd.errors import ConnectError, ProtocolError, error_from_code
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.limits import PATHS_MAX
from augd.transport.address import (
    Address,
    TcpAddress,
    no_daemon,
    parse_address,
    require_daemon,
)
from augd.transport.auth.curve import client_curve
from augd.transport.zmq_sockets import Curve, Dealer, Poller


class StatusClient:
    """A connection that asks a daemon questions. `close()` it."""

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
        parsed = parse_address(address)
        self._connect(parsed, client_curve(parsed, keys), timeout_s)

    @classmethod
    def beside(
        cls, address: Address | TcpAddress, curve: Curve | None, timeout_s: float
    ) -> StatusClient:
        """Connect with an address and keys that are already parsed."""
        client = cls.__new__(cls)
        client._connect(address, curve, timeout_s)
        return client

    def _connect(
        self, address: Address | TcpAddress, curve: Curve | None, timeout_s: float
    ) -> None:
        self.address = address
        require_daemon(self.address)
        self._timeout_s = timeout_s
        self._dealer = Dealer(self.address, curve, is_watched=True)
        self._poller = Poller()
        self._poller.register(self._dealer, "dealer")
        if self._dealer.handshake is not None:
            self._poller.register(self._dealer.handshake, "handshake")

    def status(self) -> dict[str, Any]:
        """Ask for the daemon's snapshot.

        Returns:
            Plain data, as `Broker.snapshot` makes it.

        Raises:
            ConnectError: no answer came in time.
            Forbidden: the daemon wants a key, or doesn't know this one.
        """
        answer = self._ask(msg.Status())
        if not isinstance(answer, msg.StatusReply):
            raise ProtocolError(f"asked for the status, expected STATUS_REPLY, got {answer}")
        return answer.snapshot

    def paths(self, dataset: str, digest: str, ids: Sequence[int]) -> list[bytes]:
        """Ask for the paths of samples, below their dataset's root.

        Raises:
            ConnectError: no answer came in time.
            SpecMismatch: the daemon serves another dataset by that name now.
            OptionError: an id is none of the dataset's.
        """
        found: list[bytes] = []
        while len(found) < len(ids):
            asked = tuple(ids[len(found) : len(found) + PATHS_MAX])
            answer = self._ask(msg.Paths(dataset, digest, asked))
            if not isinstance(answer, msg.PathsReply) or not 0 < len(answer.paths) <= len(asked):
                raise ProtocolError(f"asked for paths, expected PATHS_REPLY, got {answer}")
            found += answer.paths
        return found

    def _ask(self, question: msg.FromClient) -> msg.ToClient:
        clock = self._poller.clock
        deadline = clock.now() + self._timeout_s
        self._dealer.send(codec.encode(question))
        while (frames := self._dealer.receive()) is None:
            left_s = deadline - clock.now()
            if left_s <= 0:
                raise ConnectError(
                    f"{no_daemon(self.address)} (no answer for {self._timeout_s:g} s)"
                )
            self._poller.wait(left_s)
            self._dealer.check_handshake(is_new=True)
        answer = codec.decode_to_client(frames[0])
        if isinstance(answer, msg.Error):
            raise error_from_code(answer.code, answer.text)
        return answer

    def close(self) -> None:
        self._dealer.close()


def status(
    address: str | None = None,
    timeout_s: float = 10.0,
    keys: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Ask a daemon once for its snapshot. See `StatusClient`."""
    client = StatusClient(address, timeout_s, keys)
    try:
        return client.status()
    finally:
        client.close()
