"""The daemon's ROUTERs of one purpose: one for addresses without keys, one for CURVE.

In ZeroMQ a security mechanism belongs to a socket, not to an address. So a daemon that listens at a
path and, with keys, at a port has two sockets for each purpose. Peers are named by the socket's
number and the routing id, since ids of two sockets may be equal. Without keys there is one socket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from augd.transport.address import Address, TcpAddress
from augd.transport.zmq_sockets import Curve, Router

_PLAIN, _KEYED = 0, 1

Beside = Callable[[Address | TcpAddress, int], Address | TcpAddress]


class RouterPair:
    """One or two ROUTERs with the methods of one."""

    def __init__(
        self, curve: Curve | None = None, make_router: Callable[[Curve | None], Router] = Router
    ) -> None:
        """Make unbound sockets; with `curve`, ports are for clients with keys only."""
        curves = [None] if curve is None else [None, curve]
        self.routers = [make_router(one) for one in curves]

    def bind(self, address: Address | TcpAddress) -> Address | TcpAddress:
        """Listen at an address as `Router.bind` does: at a port with keys if there are any."""
        is_port = isinstance(address, TcpAddress)
        return self.routers[_KEYED if is_port and len(self.routers) > 1 else _PLAIN].bind(address)

    def receive(self, router_index: int) -> tuple[bytes, list[bytes], str | None] | None:
        """Return one message as (peer, frames, user), or None when there is none now.

        `user` is None at the socket without keys: what a client says there about itself is ignored.
        At the other one it is empty when ZeroMQ doesn't know it.
        """
        if router_index == _PLAIN:
            plain = self.routers[router_index].receive()
            return None if plain is None else (bytes((router_index,)) + plain[0], plain[1], None)
        named = self.routers[router_index].receive_named()
        return (
            None if named is None else (bytes((router_index,)) + named[0], named[1], named[2] or "")
        )

    def send(self, peer: bytes, frames: Sequence[bytes | memoryview]) -> bool:
        """Send to one client as `Router.send` does."""
        return self.routers[peer[0]].send(peer[1:], frames)

    def can_reach(self, peer: bytes, frames: Sequence[bytes]) -> bool:
        """Say whether a client's connection stands, as `Router.can_reach` does."""
        return self.routers[peer[0]].can_reach(peer[1:], frames)

    def close(self) -> None:
        for router in self.routers:
            router.close()


class SideChannel:
    """Sockets beside the daemon's own; each peer attaches by a number that it got before."""

    def __init__(self, router_pair: RouterPair, beside: Beside, probe: Sequence[bytes]) -> None:
        """Take unbound sockets; `bind` binds them `beside` each address of the daemon.

        `probe` is a message without effect: it is sent to learn whether a connection stands.
        """
        self.router_pair = router_pair
        self.disconnects = [router.watch_disconnects() for router in router_pair.routers]
        self.port = 0
        self._beside = beside
        self._probe = probe
        self._peers: dict[int, bytes] = {}

    def bind(self, address: Address | TcpAddress) -> None:
        """Listen beside a path, or at a free port of a host's address."""
        bound = self.router_pair.bind(self._beside(address, 0))
        if isinstance(bound, TcpAddress):
            self.port = bound.port

    def admit(self, number: int, peer: bytes) -> None:
        """Take this connection as that of a number, once its token was checked."""
        self._peers[number] = peer

    def forget(self, number: int) -> None:
        """Send nothing more to a number."""
        self._peers.pop(number, None)

    def unreachable(self) -> list[int]:
        """List the numbers whose connection ended."""
        return [
            number
            for number, peer in self._peers.items()
            if not self.router_pair.can_reach(peer, self._probe)
        ]

    def close(self) -> None:
        for watched in self.disconnects:
            watched.close()
        self.router_pair.close()
