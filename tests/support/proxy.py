"""A network that fails on demand: stands between a client, or a producer, and a daemon's ports.

Listens on another address of the loopback at the same port numbers, so that the bulk port which
WELCOME names leads through it, too. Loses nothing that the network would not lose: a connection
that is reset loses what was on its way, one that is frozen keeps it for later.
"""

from __future__ import annotations

import random
import selectors
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from augd.protocol import codec
from augd.protocol import messages as msg
from augd.transport.address import TcpAddress
from augd.transport.zmq_sockets import Dealer, Poller

HERE, THERE = "127.0.0.2", "127.0.0.1"
_TURN_S = 0.01
_LISTENS = "0A"  # the state of a socket in /proc/net/tcp


def listening_ports(pid: int) -> list[int]:
    """Ports at which a process listens."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(str(fd.readlink()))
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTENS and f"socket:[{words[9]}]" in inodes:
                ports.add(int(words[1].rpartition(":")[2], 16))
    return sorted(ports)


def _bulk_port(control: TcpAddress) -> int:
    """Ask a daemon for its bulk port."""
    dealer = Dealer(control)
    try:
        dealer.send(codec.encode(msg.Hello("ports", transport="frames")))
        assert Poller().wait_for(dealer, 10.0)
        welcome = codec.decode_to_client((dealer.receive() or [b""])[0])
        assert isinstance(welcome, msg.Welcome)
        dealer.send(codec.encode(msg.Bye(welcome.session)))
        dealer.send(codec.encode(msg.Ping()))
        assert Poller().wait_for(dealer, 10.0), "BYE has been read by now"
        return welcome.bulk_port
    finally:
        dealer.close()


@dataclass(eq=False)
class Pair:
    """A connection of a client, and the one that continues it."""

    kind: str
    client: socket.socket
    daemon: socket.socket
    frozen: set[str] = field(default_factory=set)


class Proxy:
    """Forwards the ports of a daemon. `close` it, or use it in `with`."""

    def __init__(self, control_port: int, daemon_pid: int) -> None:
        self.control_port = control_port
        self.slice_bytes = 65536
        self.num_resets = 0
        self._selector = selectors.DefaultSelector()
        self._lock = threading.RLock()
        self._listeners: dict[str, socket.socket] = {}
        self._pairs: list[Pair] = []
        self._cuts: dict[str, int] = {}
        self._is_running = True
        self.lead_to(daemon_pid)
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._thread.start()

    @property
    def address(self) -> str:
        return f"tcp://{HERE}:{self.control_port}"

    def lead_to(self, daemon_pid: int) -> None:
        """Forward to a daemon that came to the same control port; its other ports are others."""
        bulk_port = _bulk_port(TcpAddress(THERE, self.control_port))
        (rows_port,) = set(listening_ports(daemon_pid)) - {self.control_port, bulk_port}
        ports = {"control": self.control_port, "bulk": bulk_port, "rows": rows_port}
        with self._lock:
            for kind, port in ports.items():
                if kind in self._listeners:
                    if self._listeners[kind].getsockname()[1] == port:
                        continue
                    self._selector.unregister(self._listeners[kind])
                    self._listeners[kind].close()
                listener = socket.create_server((HERE, port))
                self._listeners[kind] = listener
                self._selector.register(listener, selectors.EVENT_READ, kind)

    # faults

    def reset(self, *kinds: str) -> None:
        """Reset every connection of these kinds now."""
        with self._lock:
            for pair in [pair for pair in self._pairs if pair.kind in kinds]:
                self._reset(pair)

    def cut(self, kind: str, after_bytes: int) -> None:
        """Reset a kind's connections when exactly so many more bytes came from the daemon."""
        with self._lock:
            self._cuts[kind] = after_bytes

    def freeze(self, *directions: str) -> None:
        """Silently forward nothing more "up" or "down" on the connections that there are."""
        with self._lock:
            for pair in self._pairs:
                pair.frozen.update(directions)

    def heal(self) -> None:
        """Forward again, first what waits."""
        with self._lock:
            for pair in self._pairs:
                pair.frozen.clear()

    # the loop

    def _run(self) -> None:
        while self._is_running:
            ready = self._selector.select(_TURN_S)
            with self._lock:
                moved = [self._move(key.fileobj, key.data) for key, _ in ready]
            if not any(moved):
                time.sleep(_TURN_S / 5)  # what is readable is frozen, or someone wants the lock

    def _move(self, source: object, data: object) -> bool:
        if isinstance(data, str):
            return self._accept(data, source)
        assert isinstance(data, Pair)
        if data not in self._pairs:
            return True
        return self._forward(data, source is data.daemon)

    def _accept(self, kind: str, listener: object) -> bool:
        if self._listeners[kind] is not listener:
            return True
        client, _ = self._listeners[kind].accept()
        try:
            daemon = socket.create_connection((THERE, self._listeners[kind].getsockname()[1]), 5)
        except OSError:
            client.close()
            return True
        pair = Pair(kind, client, daemon)
        self._pairs.append(pair)
        for one in (client, daemon):
            one.settimeout(10)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(one, selectors.EVENT_READ, pair)
        return True

    def _forward(self, pair: Pair, is_down: bool) -> bool:
        if ("down" if is_down else "up") in pair.frozen:
            return False
        source, target = (pair.daemon, pair.client) if is_down else (pair.client, pair.daemon)
        left = self._cuts.get(pair.kind) if is_down else None
        size = self.slice_bytes if left is None else min(self.slice_bytes, left)
        try:
            piece = source.recv(size) if size else b""
            target.sendall(piece)
        except OSError:
            piece = b""
        if left is not None and piece:
            self._cuts[pair.kind] = left - len(piece)
        if left is not None and left - len(piece) <= 0:
            del self._cuts[pair.kind]
            self.reset(pair.kind)
        elif not piece:
            self._drop(pair)
        return True

    def _reset(self, pair: Pair) -> None:
        self.num_resets += 1
        for one in (pair.client, pair.daemon):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop(pair)

    def _drop(self, pair: Pair) -> None:
        self._pairs.remove(pair)
        for one in (pair.client, pair.daemon):
            self._selector.unregister(one)
            one.close()

    def close(self) -> None:
        self._is_running = False
        self._thread.join()
        for pair in list(self._pairs):
            self._drop(pair)
        for listener in self._listeners.values():
            listener.close()
        self._selector.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def random_cut(proxy: Proxy, chance: random.Random, bytes_max: int) -> None:
    """Arm a reset of one kind of connection, or both, after random numbers of bytes."""
    for kind in chance.choice([["control"], ["bulk"], ["control", "bulk"]]):
        proxy.cut(kind, chance.randrange(1, 1000 if kind == "control" else bytes_max))
