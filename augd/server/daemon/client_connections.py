"""The daemon's end of its clients: their messages, their lifelines and their batches over TCP.

Runs in the daemon's loop. A client sends its messages to a ROUTER. It then attaches: on the same
host by a UNIX socket, its lifeline, over which it receives the fds of arenas. From elsewhere by the
batch channel, over which it receives batches in pieces. The end of either ends the session.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from augd.dataset.index_file import IndexFile
from augd.errors import Forbidden, ProtocolError
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.limits import PATHS_BYTES_MAX
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker_driver import MESSAGES_PER_TURN, Actions, BrokerDriver, RightsOf
from augd.server.daemon.stream_memory import StreamMemory
from augd.server.daemon.zmq_disconnects import DisconnectWatch
from augd.transport import lifeline, unix_link
from augd.transport.address import Address, TcpAddress
from augd.transport.arena import read_only
from augd.transport.batch_channel import BatchChannel
from augd.transport.router_pair import RouterPair
from augd.transport.zmq_sockets import FRAMES_MAX, Curve

_log = logging.getLogger("augd")

# Connections to the attach socket that have not sent ATTACH. A client sends it at once, so the
# oldest of so many is no client: it is closed.
_UNATTACHED_MAX = 256


@dataclass(slots=True, eq=False)
class _Connection:
    """A client's connection to the attach socket; `session` is 0 until it sent ATTACH."""

    socket: socket.socket
    session: int = 0


class ClientEndpoint:
    """All sockets that clients connect to.

    Attributes:
        disconnects: finds clients whose batch channel ended.
    """

    def __init__(
        self,
        driver: BrokerDriver,
        memory: StreamMemory,
        datasets: Mapping[str, IndexFile],
        rights_of: RightsOf,
        curve: Curve | None,
    ) -> None:
        """Make unbound sockets; with `curve`, ports are for clients with keys only.

        `rights_of` returns the rights of a ZeroMQ user id, None without keys, or raises
        `Forbidden`.
        """
        self._driver = driver
        self._memory = memory
        self._datasets = datasets
        self._rights_of = rights_of
        self._routers = RouterPair(curve)
        self._bulk = BatchChannel(curve)
        self._listener: socket.socket | None = None
        self._lifelines: dict[int, _Connection] = {}
        self._unattached: dict[int, _Connection] = {}  # by fd, the oldest first
        for number, router in enumerate(self._routers.routers):
            driver.poller.register(router, partial(self._read_router, number))
        for number, router in enumerate(self._bulk.router_pair.routers):
            driver.poller.register(router, partial(self._read_bulk, number))
        self.disconnects = DisconnectWatch(
            self._bulk, driver.poller, lambda session: driver.handle(ev.PeerGone(session))
        )

    @property
    def batch_port(self) -> int:
        """TCP port of the batch channel; 0 if there is none."""
        return self._bulk.port

    def bind(self, address: Address | TcpAddress) -> Address | TcpAddress:
        """Listen at an address, whose lock the caller holds; returns it with its port."""
        bound = self._routers.bind(address)
        self._bulk.bind(address)
        if isinstance(address, Address):
            self._listener = lifeline.listen(address.attach_path)
            self._driver.poller.register(self._listener.fileno(), self._accept)
        return bound

    def actions(self) -> Actions:
        """Return the functions that do the broker's actions."""
        return {
            ev.SendToClient: self._send,
            ev.SendPaths: self._send_paths,
            ev.GiveArena: self._give_arena,
            ev.SendSlot: self._send_slot,
            ev.EndSession: self._end_session,
        }

    # what clients send

    def _read_router(self, number: int) -> None:
        for _turn in range(MESSAGES_PER_TURN):
            received = self._routers.receive(number)
            if received is None:
                return
            peer, frames, user = received
            try:
                rights = self._rights_of(user)
                if len(frames) > FRAMES_MAX:
                    raise ProtocolError(f"message of {len(frames)} frames, expected {FRAMES_MAX}")
                message = codec.decode_from_client(frames[0] if frames else b"")
            except (ProtocolError, Forbidden) as error:
                self._routers.send(peer, [codec.encode(msg.Error(error.code, str(error)))])
                continue
            self._driver.handle(ev.FromPeer(peer, message, rights))

    def _read_bulk(self, number: int) -> None:
        """Take the one message that clients send on the batch channel: ATTACH."""
        for _turn in range(MESSAGES_PER_TURN):
            received = self._bulk.router_pair.receive(number)
            if received is None:
                return
            peer, frames, user = received
            try:
                self._rights_of(user)
                message = codec.decode_over_attach(frames[0] if frames else b"")
            except (ProtocolError, Forbidden):
                continue
            if not isinstance(message, msg.AttachMessage):
                continue
            if self._driver.broker.admits(message.session, message.token, is_framed=True):
                self._bulk.admit(message.session, peer)
            self._driver.handle(ev.PeerAttached(message.session, message.token, is_framed=True))

    def _accept(self) -> None:
        assert self._listener is not None
        # As many as messages: a turn may take the HELLO and the OPEN of many clients.
        for _turn in range(MESSAGES_PER_TURN):
            connected = lifeline.accept(self._listener)
            if connected is None:
                return
            connection = self._unattached[connected.fileno()] = _Connection(connected)
            self._driver.poller.register(
                connected.fileno(), partial(self._read_lifeline, connection)
            )
            if len(self._unattached) > _UNATTACHED_MAX:
                self._drop_connection(next(iter(self._unattached.values())))

    def _read_lifeline(self, connection: _Connection) -> None:
        if connection.socket.fileno() < 0:
            return  # closed by an earlier event of the same round
        try:
            received = unix_link.receive(connection.socket, wait=False)
            if received is None:
                return
            for fd in received[1]:
                os.close(fd)
            message = codec.decode_over_attach(received[0])
            if not isinstance(message, msg.AttachMessage) or connection.session:
                raise ProtocolError(f"expected one ATTACH, got {message}")
        except (EOFError, OSError, ProtocolError):
            self._drop_connection(connection)
            return
        is_admitted = self._driver.broker.admits(message.session, message.token, is_framed=False)
        if is_admitted:
            connection.session = message.session
            self._lifelines[message.session] = connection
            del self._unattached[connection.socket.fileno()]
        self._driver.handle(ev.PeerAttached(message.session, message.token))
        if not is_admitted:
            self._drop_connection(connection)

    def _drop_connection(self, connection: _Connection) -> None:
        self._driver.poller.unregister(connection.socket.fileno())
        self._unattached.pop(connection.socket.fileno(), None)
        connection.socket.close()
        if self._lifelines.get(connection.session) is connection:
            del self._lifelines[connection.session]
            self._driver.handle(ev.PeerGone(connection.session))

    # what the broker sends to them

    def _send(self, action: ev.SendToClient) -> None:
        frames = [_encode(action.message)]
        classes = action.classes
        if classes is not None:
            if isinstance(classes, str):
                classes = tuple(self._datasets[classes].classes)
            frames.append(codec.encode_names(list(classes)))
        is_sent = self._routers.send(action.peer, frames)
        if not is_sent and isinstance(action.message, msg.BatchMessage):
            self._driver.handle(ev.PeerUnreachable(action.message.session))

    def _send_paths(self, action: ev.SendPaths) -> None:
        paths = self._datasets[action.dataset].paths_of(action.ids, PATHS_BYTES_MAX)
        self._routers.send(action.peer, [_encode(msg.PathsReply(tuple(paths)))])

    def _give_arena(self, action: ev.GiveArena) -> None:
        connection = self._lifelines.get(action.session)
        if connection is None:
            return  # it is attached by the batch channel, or gone
        fd, size_bytes = self._memory.arena(action.stream)
        frame = codec.encode(msg.Arena(action.stream, size_bytes))
        if not action.is_read_only:
            unix_link.send(connection.socket, frame, (fd,))
            return
        reading = read_only(fd)
        unix_link.send(connection.socket, frame, (reading,))
        os.close(reading)

    def _send_slot(self, action: ev.SendSlot) -> None:
        try:
            arena = self._memory.map_arena(action.stream)
        except OSError as error:
            _log.error("session %d: its arena cannot be mapped: %s", action.session, error)
            self._driver.handle(ev.PeerGone(action.session))
            return
        start = action.slot * action.slot_bytes
        piece = msg.Piece(action.session, action.opening, action.sequence, 0, 0)
        if not self._bulk.send(piece, arena[start : start + action.slot_bytes]):
            self._driver.handle(ev.PeerGone(action.session))

    def _end_session(self, action: ev.EndSession) -> None:
        self._bulk.forget(action.session)
        connection = self._lifelines.pop(action.session, None)
        if connection is not None:
            self._driver.poller.unregister(connection.socket.fileno())
            connection.socket.close()

    def close(self) -> None:
        """Close all sockets, lifelines first: by them clients learn that the daemon ended."""
        for connection in (*self._lifelines.values(), *self._unattached.values()):
            connection.socket.close()
        if self._listener is not None:
            self._listener.close()
        self._bulk.close()
        self._routers.close()


def _encode(message: msg.ToClient) -> bytes:
    """Encode a message to a client; one that cannot be encoded becomes an ERROR."""
    try:
        return codec.encode(message)
    except (ProtocolError, UnicodeEncodeError) as error:
        _log.error("a message could not be encoded: %s", error)
        return codec.encode(msg.Error("INTERNAL", f"the daemon's answer does not encode: {error}"))
