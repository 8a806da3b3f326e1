"""Pieces: what a client takes of a bulk socket, against a daemon's end that is driven by hand."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
import zmq

from augd.client.slots import FramedSlots
from augd.errors import ConnectError, ProtocolError
from augd.protocol import messages as msg
from augd.protocol.codec import decode_over_attach, encode
from augd.protocol.limits import PIECE_BYTES
from augd.transport.address import TcpAddress
from augd.transport.batch_channel import BatchChannel
from augd.transport.zmq_sockets import _HEARTBEAT_MS, _HEARTBEAT_TIMEOUT_MS, Dealer, Poller, Router

SESSION, TOKEN = 7, "f00d"
SLOT_BYTES = 12
LOOPBACK = TcpAddress("127.0.0.1", 0)
SOON_S = 20.0
clause = pytest.mark.clause


def batch(sequence: int = 0, *, opening: int = 1, slot: int = 0) -> msg.BatchMessage:
    return msg.BatchMessage(SESSION, opening, sequence, 0, sequence, 0, 1, slot, 0)


def piece(offset: int, size: int, sequence: int = 0, opening: int = 1) -> msg.Piece:
    return msg.Piece(SESSION, opening, sequence, offset, size)


class Pair:
    """A client's slots and the ROUTER that fills them."""

    def __init__(self, slot_bytes: int = SLOT_BYTES, num_slots: int = 2) -> None:
        self.router = Router()
        address = self.router.bind(LOOPBACK)
        self.slots = FramedSlots(address, SESSION, TOKEN)
        opened = msg.Opened(SESSION, 1, 1, "", {}, "", 1, (), slot_bytes, num_slots)
        self.memory = self.slots.open(opened)
        self.peer, frames = receive(self.router)
        self.hello = decode_over_attach(frames[0])

    def send(self, *frames: bytes) -> None:
        assert self.router.send(self.peer, frames)

    def send_piece(self, header: msg.Piece, body: bytes) -> None:
        self.send(encode(header), body)

    def fetch(self, wanted: msg.BatchMessage, within_s: float = SOON_S) -> None:
        self.slots.fetch(wanted, time.monotonic() + within_s)

    def close(self) -> None:
        self.slots.close()
        self.router.close()


def receive(router: Router) -> tuple[bytes, list[bytes]]:
    poller = Poller()
    poller.register(router, "router")
    assert poller.wait(SOON_S)
    received = router.receive()
    assert received is not None
    return received


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@clause("P-92")
def test_the_first_word_on_the_bulk_socket_is_attach(pair: Pair) -> None:
    assert pair.hello == msg.AttachMessage(SESSION, TOKEN)


@clause("P-93")
def test_pieces_in_order_fill_the_slot_of_their_batch(pair: Pair) -> None:
    pair.send_piece(piece(0, 8), b"abcdefgh")
    pair.send_piece(piece(8, 4), b"ijkl")
    pair.fetch(batch(slot=1))
    assert bytes(pair.memory) == bytes(SLOT_BYTES) + b"abcdefghijkl"


@clause("P-95")
def test_pieces_of_an_older_opening_or_sequence_are_dropped(pair: Pair) -> None:
    pair.send_piece(piece(0, 12, sequence=9, opening=1), b"x" * 12)  # the seek came after it
    pair.send_piece(piece(0, 8, sequence=10, opening=1), b"y" * 8)  # broken off in the middle
    pair.send_piece(piece(0, 12, sequence=3, opening=2), b"z" * 12)
    pair.send_piece(piece(0, 12, sequence=4, opening=2), b"m" * 12)
    pair.fetch(batch(4, opening=2))
    assert bytes(pair.memory[:SLOT_BYTES]) == b"m" * 12


@clause("P-96")
def test_a_knock_is_dropped_wherever_it_comes(pair: Pair) -> None:
    probe = msg.Piece(0, 0, 0, 0, 0)
    pair.send_piece(probe, b"")
    pair.send_piece(piece(0, 8), b"abcdefgh")
    pair.send_piece(probe, b"")
    pair.send_piece(piece(8, 4), b"ijkl")
    pair.fetch(batch())
    assert bytes(pair.memory[:SLOT_BYTES]) == b"abcdefghijkl"


@clause("P-94")
@pytest.mark.parametrize(
    ("header", "found"),
    [
        (piece(4, 8), "8 at (1, 0, 4)"),  # a gap
        (piece(0, 8, sequence=1), "8 at (1, 1, 0)"),  # a batch was left out
        (piece(0, 8, opening=2), "8 at (2, 0, 0)"),  # an opening that was never asked for
        (piece(0, 8, sequence=0, opening=2), "8 at (2, 0, 0)"),
        (piece(0, 0), "0 at (1, 0, 0)"),  # would go on for ever
    ],
)
def test_a_piece_that_is_not_the_next_one_is_refused(
    pair: Pair, header: msg.Piece, found: str
) -> None:
    pair.send_piece(header, bytes(header.size_bytes))
    expected = (
        "PIECE out of order: expected bytes at (opening, sequence, offset) (1, 0, 0), got " + found
    )
    with pytest.raises(ProtocolError, match=re.escape(expected)):
        pair.fetch(batch())


@clause("P-94")
def test_a_newer_opening_is_not_dropped_for_its_small_sequence(pair: Pair) -> None:
    pair.send_piece(piece(0, 12, sequence=0, opening=2), b"x" * 12)
    with pytest.raises(ProtocolError, match="PIECE out of order"):
        pair.fetch(batch(5))


@clause("P-94")
@pytest.mark.parametrize(
    ("header", "body", "text"),
    [
        (piece(0, 8), 7, "PIECE of 7 bytes, its header says 8 and 8 fit"),
        (piece(0, 8), 9, "PIECE of 9 bytes, its header says 8 and 8 fit"),
        (piece(0, 8), 0, "PIECE of 0 bytes, its header says 8 and 8 fit"),
        (piece(0, 13), 13, "PIECE of 13 bytes, its header says 13 and 12 fit"),
        (piece(0, 8, opening=0), 9, "PIECE of 9 bytes, its header says 8 and 8 fit"),
        (msg.Piece(0, 0, 0, 0, 0), 5, "PIECE of 5 bytes, its header says 0 and 0 fit"),
    ],
)
def test_a_lying_size_is_refused_and_writes_nothing_outside_the_slot(
    pair: Pair, header: msg.Piece, body: int, text: str
) -> None:
    pair.send_piece(header, b"x" * body)
    with pytest.raises(ProtocolError, match=text):
        pair.fetch(batch())
    assert bytes(pair.memory[SLOT_BYTES:]) == bytes(SLOT_BYTES)


@clause("P-94")
def test_a_piece_without_its_frame_is_refused(pair: Pair) -> None:
    pair.send(encode(piece(0, 8)))
    with pytest.raises(ProtocolError, match="PIECE of 0 bytes, its header says 8 and 8 fit"):
        pair.fetch(batch())


@clause("P-04")
def test_frames_beyond_the_stated_ones_are_dropped(pair: Pair) -> None:
    pair.send(encode(piece(0, 8)), b"abcdefgh", b"more", b"and more")
    pair.send_piece(piece(8, 4), b"ijkl")
    pair.fetch(batch())
    assert bytes(pair.memory[:SLOT_BYTES]) == b"abcdefghijkl"


@clause("P-94")
def test_a_piece_larger_than_a_piece_may_be_is_refused_before_its_frame() -> None:
    pair = Pair(slot_bytes=PIECE_BYTES + 4096)
    pair.send_piece(piece(0, PIECE_BYTES + 1), b"x")
    with pytest.raises(ProtocolError, match=r"expected a PIECE of at most 4194304 bytes, got P"):
        pair.fetch(batch())
    pair.close()


@clause("P-94")
@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"", "empty header"),
        (b"\x01garbage", "header does not decode"),
        (b"\x02" + encode(piece(0, 8))[1:], "the peer speaks protocol version 2"),
        (encode(msg.Arena(1, 8)), "expected a PIECE of at most 4194304 bytes, got Arena"),
        (encode(msg.Pong()), "Invalid value 'PONG'"),
        (b"x" * 70_000, "header of 70000 bytes, expected at most 65536"),
    ],
)
def test_a_garbage_header_is_refused(pair: Pair, header: bytes, text: str) -> None:
    pair.send(header, b"abcdefgh")
    with pytest.raises(ProtocolError, match=text):
        pair.fetch(batch())


@clause("P-97")
def test_a_daemon_that_ends_in_mid_slot_is_a_named_error_at_once_and_stays_one(pair: Pair) -> None:
    pair.send_piece(piece(0, 12), b"whole batch!")
    pair.send_piece(piece(0, 8, sequence=1), b"abcdefgh")
    pair.fetch(batch(0))
    pair.router.close()
    for _ in range(2):
        with pytest.raises(ConnectError, match=r"the daemon at tcp://.* ended while it sent a bat"):
            pair.fetch(batch(1))
        assert pair.slots.has_ended()
    assert bytes(pair.memory[:SLOT_BYTES]) == b"abcdefghtch!"


@clause("P-97")
def test_what_came_whole_before_the_end_is_still_given(pair: Pair) -> None:
    pair.send_piece(piece(0, 12), b"whole batch!")
    poller = Poller()
    poller.register(pair.slots._dealer, "bulk")
    assert poller.wait(SOON_S)
    pair.router.close()
    pair.slots.watch(poller, "ended")
    while "ended" not in poller.wait(SOON_S):
        pass
    pair.fetch(batch())
    assert bytes(pair.memory[:SLOT_BYTES]) == b"whole batch!"


def test_pixels_that_come_late_are_a_named_error_within_the_deadline(pair: Pair) -> None:
    pair.send_piece(piece(0, 8), b"abcdefgh")
    started = time.monotonic()
    with pytest.raises(ConnectError, match=r"a batch's pixels did not come from tcp://.* in time"):
        pair.fetch(batch(), within_s=0.05)
    assert 0.04 < time.monotonic() - started < 1.0
    assert not pair.slots.has_ended()


# the daemon's end


class Peer:
    """A client's bare bulk socket, admitted to a sender."""

    def __init__(self, sender: BatchChannel, session: int = SESSION) -> None:
        self.dealer = Dealer(TcpAddress("127.0.0.1", sender.port))
        self.dealer.send(b"attach")
        routing_id, _ = receive(sender.router_pair.routers[0])
        self.name = b"\0" + routing_id
        sender.admit(session, self.name)

    def receive(self) -> list[bytes]:
        poller = Poller()
        poller.register(self.dealer, "dealer")
        assert poller.wait(SOON_S)
        frames = self.dealer.receive()
        assert frames is not None
        return frames


@pytest.fixture(scope="module")
def _zero_copy() -> None:
    """Have pyzmq start, and keep, the thread that frees what was sent without a copy."""
    made = BatchChannel()
    made.bind(LOOPBACK)
    peer = Peer(made)
    made.send(piece(0, 0), memoryview(bytes(PIECE_BYTES)))
    peer.receive()
    peer.dealer.close()
    made.close()


@pytest.fixture
def sender(_zero_copy: None) -> Iterator[BatchChannel]:
    made = BatchChannel()
    made.bind(LOOPBACK)
    yield made
    made.close()


@clause("P-93")
@pytest.mark.parametrize("slot_bytes", [4096, PIECE_BYTES, PIECE_BYTES + 4096, 2 * PIECE_BYTES])
def test_a_slot_is_sent_in_contiguous_pieces_of_bounded_size(
    sender: BatchChannel, slot_bytes: int
) -> None:
    peer = Peer(sender)
    slot = bytes(range(256)) * (slot_bytes // 256)
    assert sender.send(piece(0, 0, sequence=3), memoryview(slot))
    got = b""
    while len(got) < slot_bytes:
        header, body = peer.receive()
        expected = piece(len(got), min(PIECE_BYTES, slot_bytes - len(got)), sequence=3)
        assert decode_over_attach(header) == expected
        assert len(body) == expected.size_bytes
        got += body
    assert got == slot
    peer.dealer.close()


def test_the_real_ends_fit_each_other(sender: BatchChannel) -> None:
    slot_bytes = PIECE_BYTES + 4096
    slots = FramedSlots(TcpAddress("127.0.0.1", sender.port), SESSION, TOKEN)
    opened = msg.Opened(SESSION, 1, 1, "", {}, "", 1, (), slot_bytes, 2)
    memory = slots.open(opened)
    peer, _ = receive(sender.router_pair.routers[0])
    sender.admit(SESSION, b"\0" + peer)
    sent = [bytes([65 + n]) * slot_bytes for n in range(2)]
    for sequence, content in enumerate(sent):
        assert sender.send(piece(0, 0, sequence), memoryview(content))
    for sequence in range(2):
        slots.fetch(batch(sequence, slot=1 - sequence), time.monotonic() + SOON_S)
    assert bytes(memory) == sent[1] + sent[0]
    slots.close()


def test_nothing_is_sent_to_a_session_that_is_not_here(sender: BatchChannel) -> None:
    peer = Peer(sender)
    assert not sender.send(msg.Piece(8, 1, 0, 0, 0), memoryview(bytes(4096)))
    sender.forget(SESSION)
    assert not sender.send(piece(0, 0), memoryview(bytes(4096)))
    assert sender.unreachable() == []
    peer.dealer.close()


@clause("P-97")
def test_a_connection_that_ends_is_told_and_whose_it_was_is_found(sender: BatchChannel) -> None:
    staying, leaving = Peer(sender, 7), Peer(sender, 8)
    assert not sender.disconnects[0].has_told()
    assert sender.unreachable() == []
    leaving.dealer.close()
    poller = Poller()
    poller.register(sender.disconnects[0], "left")
    assert poller.wait(SOON_S) == ["left"]
    while not sender.unreachable():  # told a little before the ROUTER forgets the peer
        pass
    assert sender.unreachable() == [8]
    assert not sender.send(msg.Piece(8, 1, 0, 0, 0), memoryview(bytes(4096)))
    sender.disconnects[0].forget()
    assert not sender.disconnects[0].has_told()
    staying.dealer.close()


@clause("P-96")
def test_a_client_whose_queue_is_full_is_not_taken_for_dead(sender: BatchChannel) -> None:
    slow: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    slow.setsockopt(zmq.RCVHWM, 1)
    slow.connect(f"tcp://127.0.0.1:{sender.port}")
    slow.send(b"attach")
    peer, _ = receive(sender.router_pair.routers[0])
    sender.admit(SESSION, b"\0" + peer)
    num_sent = 0
    while sender.router_pair.routers[0].send(peer, [bytes(60_000)]):
        num_sent += 1
    assert num_sent >= 4096
    assert sender.unreachable() == []
    slow.close(linger=0)
    while not sender.unreachable():
        # The end of a full pipe is found by reading.
        assert sender.router_pair.receive(0) is None


@clause("P-97")
def test_heartbeats_are_asked_for_on_both_sides(pair: Pair) -> None:
    assert (_HEARTBEAT_MS, _HEARTBEAT_TIMEOUT_MS) == (2_000, 10_000)
    for socket in (pair.router.socket, pair.slots._dealer.socket):
        assert socket.getsockopt(zmq.HEARTBEAT_IVL) == 2_000
        assert socket.getsockopt(zmq.HEARTBEAT_TIMEOUT) == 10_000
