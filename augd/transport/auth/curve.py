"""CURVE on a socket: the options that either side sets before it binds or connects.

They encrypt the connection and prove the daemon's identity. Which clients may connect is decided by
`augd/transport/auth/authenticator.py`. Reads no file unless there are keys to read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from augd.transport.address import Address, TcpAddress

if TYPE_CHECKING:
    from augd.transport.auth.keys import ClientKeys

ENV_KEYS = "AUGD_KEYS"
DOMAIN = b"augd"
PRODUCE_DOMAIN = b"augd.produce"  # of the sockets that take rows: only from keys that may produce


@dataclass(frozen=True, slots=True)
class ServerCurve:
    """The daemon's side."""

    secret: bytes = field(repr=False)
    domain: bytes = DOMAIN

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Refuse every client that the authenticator doesn't accept; all, when there is none."""
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, self.domain)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


@dataclass(frozen=True, slots=True)
class ClientCurve:
    """A client's side."""

    keys: ClientKeys

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Expect the daemon whose public key is known, and present this client's key."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.keys.server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.keys.pair.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.keys.pair.secret)


def client_curve(
    address: Address | TcpAddress, keys: str | os.PathLike[str] | None
) -> ClientCurve | None:
    """Return the keys to present at an address: of a file, or of the one that $AUGD_KEYS names.

    A path needs none: there the kernel identifies the peer.

    Raises:
        OptionError: the file is missing, damaged, or others could have read it.
    """
    path = os.environ.get(ENV_KEYS) if keys is None else keys
    if not path or isinstance(address, Address):
        return None
    from augd.transport.auth.keys import read_client_keys

    return ClientCurve(read_client_keys(Path(path)))
