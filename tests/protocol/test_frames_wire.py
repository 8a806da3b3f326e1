"""What only the bulk socket has: pieces as they come from a real daemon, and who gets them."""

from __future__ import annotations

import pytest

from augd.protocol import codec
from augd.protocol import messages as msg
from augd.transport.address import Address, TcpAddress, bulk_address
from augd.transport.zmq_sockets import Dealer, Poller
from tests.protocol.harness import NUM_SAMPLES, Client, FramedConnection, RealWire, make_spec

clause = pytest.mark.clause


def receive_pieces(client: Client, num_batches: int) -> list[tuple[msg.Piece, bytes]]:
    """The pieces of so many batches, as they come."""
    assert client.opened is not None
    assert isinstance(client.connection, FramedConnection)
    pieces: list[tuple[msg.Piece, bytes]] = []
    while sum(len(body) for _, body in pieces) < num_batches * client.opened.slot_bytes:
        header, body = client.connection.receive_piece()
        piece = codec.decode_over_attach(header)
        assert isinstance(piece, msg.Piece)
        if piece.session:
            pieces.append((piece, body))
    return pieces


@clause("P-91")
def test_the_bulk_socket_is_beside_the_path_or_at_the_port_that_welcome_says(
    framed: RealWire,
) -> None:
    welcome = Client(framed).hello()
    assert welcome.bulk_port > 0  # the daemon listens at a port, too
    found = bulk_address(framed.address, welcome.bulk_port)
    if isinstance(framed.address, Address):
        assert found == Address(framed.address.path.with_name(framed.address.path.name + ".bulk"))
    else:
        assert found == TcpAddress(framed.address.host, welcome.bulk_port)
        assert welcome.bulk_port != framed.address.port


@clause("P-93")
def test_every_batch_comes_as_its_whole_slot(framed: RealWire) -> None:
    client = Client(framed).join()
    client.open(make_spec(), credit=3)
    opened = client.hear(msg.Opened)
    batches = [client.hear(msg.BatchMessage) for _ in range(3)]
    pieces = receive_pieces(client, 3)
    assert [piece for piece, _ in pieces] == [
        msg.Piece(client.session, 1, batch.sequence, 0, opened.slot_bytes) for batch in batches
    ]
    assert all(len(body) == opened.slot_bytes for _, body in pieces)


@clause("P-93")
def test_a_slot_larger_than_a_piece_comes_in_several(framed: RealWire) -> None:
    recipe = {"ops": [{"op": "resize", "size": 1024}], "filter": "linear"}
    client = Client(framed).join()
    client.open(make_spec(2, recipe=recipe), credit=2)
    opened = client.hear(msg.Opened)
    assert opened.slot_bytes > 4 * 2**20
    offsets = [
        (piece.sequence, piece.offset, piece.size_bytes) for piece, _ in receive_pieces(client, 2)
    ]
    rest = opened.slot_bytes - 4 * 2**20
    assert offsets == [
        (sequence, offset, size)
        for sequence in range(2)
        for offset, size in ((0, 4 * 2**20), (4 * 2**20, rest))
    ]


@clause("P-95")
def test_pieces_name_the_opening_that_they_were_sent_under(framed: RealWire) -> None:
    client = Client(framed).join()
    client.open(credit=2)
    client.hear(msg.Opened)
    client.settle()
    client.open(credit=1, epoch=3)
    client.hear(msg.Opened)
    batch = client.hear(msg.BatchMessage)
    named = [(piece.opening, piece.sequence) for piece, _ in receive_pieces(client, 3)]
    assert named == [(1, 0), (1, 1), (2, 0)]
    assert client.session == batch.session


@clause("P-92")
@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"\x01nonsense"],
        [b"\x02" + codec.encode(msg.Ping())[1:]],
        [codec.encode(msg.Ping())],
        [codec.encode(msg.Hello("n"))],
        [codec.encode(msg.Piece(1, 1, 0, 0, 8)), b"12345678"],
        [codec.encode(msg.Arena(1, 8))],
        [b"x"] * 20,
    ],
)
def test_nonsense_on_the_bulk_socket_is_not_answered_and_harms_nobody(
    framed: RealWire, frames: list[bytes]
) -> None:
    owner, stranger = Client(framed).join(), Client(framed)
    owner.open(credit=NUM_SAMPLES)
    owner.hear(msg.Opened)
    welcome = stranger.hello()
    dealer = Dealer(bulk_address(framed.address, welcome.bulk_port))
    dealer.socket.send_multipart(frames)
    # Its own ATTACH after it on the same connection: what follows proves that both were read.
    dealer.send(codec.encode(msg.AttachMessage(welcome.session, welcome.token)))
    stranger.open(credit=1)
    stranger.hear(msg.Opened)
    first = next_piece(dealer)
    while not first.session:  # knocks: clients of the tests before have left
        first = next_piece(dealer)
    assert first.session == stranger.session
    assert owner.ids(owner.hear(msg.BatchMessage)) == [0, 1, 2]
    dealer.close()


def next_piece(dealer: Dealer) -> msg.Piece:
    poller = Poller()
    poller.register(dealer, "bulk")
    assert poller.wait(20.0)
    answer = dealer.receive()
    assert answer is not None
    piece = codec.decode_over_attach(answer[0])
    assert isinstance(piece, msg.Piece)
    return piece


@clause("P-90", "P-25")
def test_by_frames_no_arena_is_passed(framed: RealWire) -> None:
    client = Client(framed).join()
    client.open(credit=1)
    client.hear(msg.Opened)
    assert client.ids(client.hear(msg.BatchMessage)) == [0, 1, 2]
    assert all(piece.session == client.session for piece, _ in receive_pieces_left(client))


def receive_pieces_left(client: Client) -> list[tuple[msg.Piece, bytes]]:
    assert isinstance(client.connection, FramedConnection)
    client.flow(2)
    client.hear(msg.BatchMessage)
    return receive_pieces(client, 1)
