"""The daemon's end of remote producers: their messages, and the rows that come with them.

Runs in the daemon's loop. `augd produce` on another host joins by a client's message, and then
attaches to the row channel. The rows of a DONE are received straight into their slot. These and the
batches of clients elsewhere are the only pixels that the daemon moves.
"""

from __future__ import annotations

import logging
from functools import partial

from augd.errors import Forbidden, ProtocolError
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.slot_layout import row_frames
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker_driver import MESSAGES_PER_TURN, BrokerDriver, RightsOf
from augd.server.daemon.stream_memory import StreamMemory
from augd.server.daemon.zmq_disconnects import DisconnectWatch
from augd.transport.address import Address, TcpAddress
from augd.transport.row_channel import RowChannel
from augd.transport.zmq_sockets import Curve

_log = logging.getLogger("augd")
_CONNECTION_ENDED = "the connection to its host ended"


class RemoteRowsEndpoint:
    """The row channel.

    Attributes:
        disconnects: finds remote producers whose connection ended.
    """

    def __init__(
        self,
        driver: BrokerDriver,
        memory: StreamMemory,
        rights_of: RightsOf,
        curve: Curve | None,
    ) -> None:
        """Make unbound sockets; with `curve`, ports are for keys that may produce."""
        self._driver = driver
        self._memory = memory
        self._rights_of = rights_of
        self._rows = RowChannel(curve)
        for number, router in enumerate(self._rows.router_pair.routers):
            driver.poller.register(router, partial(self._read, number))
        self.disconnects = DisconnectWatch(
            self._rows,
            driver.poller,
            lambda number: driver.handle(ev.RemoteProducerGone(number, _CONNECTION_ENDED)),
        )

    @property
    def port(self) -> int:
        """TCP port of the row channel; 0 if there is none."""
        return self._rows.port

    def bind(self, address: Address | TcpAddress) -> None:
        """Listen beside an address of the daemon."""
        self._rows.bind(address)

    def _read(self, router_index: int) -> None:
        """Take what remote producers send; after a chunk's rows other sources are read first."""
        for _turn in range(MESSAGES_PER_TURN):
            received = self._rows.receive(router_index)
            if received is None:
                return
            message = self._take(router_index, *received)
            if self._rows.drop_rows(router_index) or isinstance(message, msg.Done):
                return

    def _take(
        self, router_index: int, peer: bytes, header: bytes, user: str | None
    ) -> msg.FromRelay | None:
        """Take one message with its rows; returns it, None if it is malformed."""
        number = self._rows.number_of(peer)
        try:
            self._rights_of(user)
            if number is None:
                self._rows.count_message(router_index, peer, is_leased=False)
            message = codec.decode_from_relay(header)
            if number is not None:
                is_done = isinstance(message, msg.Done)
                is_leased = self._answers_lease(number, message)
                self._rows.count_message(router_index, peer, is_done=is_done, is_leased=is_leased)
            if number is None:
                self._attach(peer, message)
            elif not self._take_rows(router_index, number, message):
                raise ProtocolError("its rows are not those of the lease that it answers")
            else:
                self._driver.handle(ev.FromRemoteProducer(number, message))
            return message
        except (ProtocolError, Forbidden, OSError) as error:
            if number is None:
                self._rows.reject(peer, str(error))
            else:
                _log.error("producer %d sent a malformed message: disconnected: %s", number, error)
                self._driver.handle(ev.RemoteProducerGone(number, str(error)))
            return None

    def _answers_lease(self, number: int, message: msg.FromRelay) -> bool:
        if isinstance(message, msg.Done | msg.Dropped | msg.Fail):
            return self._driver.broker.has_leased(number, message.lease)
        return False

    def _attach(self, peer: bytes, message: msg.FromRelay) -> None:
        match message:
            case msg.AttachMessage(number, token) if self._driver.broker.admits_remote(
                number, token
            ):
                self._rows.admit(number, peer)
                self._driver.handle(ev.RemoteProducerAttached(number, token))
            case _:
                raise ProtocolError("the daemon does not know this connection; join again")

    def _take_rows(self, router_index: int, number: int, message: msg.FromRelay) -> bool:
        """Receive a lease's rows into their slot; returns False if they don't fit the lease."""
        target = None
        if isinstance(message, msg.Done):
            target = self._driver.broker.target(number, message.lease)
        if target is None:  # too late, or a message that brings none
            self._rows.drop_rows(router_index)
            return True
        slot = self._memory.map_arena(target.stream)[target.slot_offset :]
        frames = row_frames(target.arrays, target.first_row, target.rows)
        return self._rows.receive_rows(router_index, [slot[at : at + size] for at, size in frames])

    def tell(self, number: int, message: msg.ToRelay) -> None:
        """Send a message to a remote producer; one that cannot be sent ends its connection."""
        try:
            is_sent = self._rows.send(number, message)
        except ProtocolError as error:  # too large, with the list of samples that it needs
            self._driver.handle(ev.RemoteProducerGone(number, str(error)))
            return
        if not is_sent:
            self._driver.handle(ev.RemoteProducerGone(number, _CONNECTION_ENDED))

    def forget(self, action: ev.ForgetProducer) -> None:
        """Take nothing more from a remote producer, and send it the reason if there is one."""
        if action.why:
            self._rows.send(action.producer, msg.Part(action.why))
        self._rows.forget(action.producer)

    def close(self) -> None:
        self._rows.close()
