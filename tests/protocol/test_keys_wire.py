"""Keys on the wire: what a real daemon with keys answers to raw sockets."""

from __future__ import annotations

import time

import pytest
import zmq

import augd
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.transport.address import TcpAddress, bulk_address, parse_address
from augd.transport.auth import keys
from augd.transport.auth.curve import ClientCurve
from augd.transport.zmq_sockets import Dealer, Poller
from tests.protocol.harness import Client, RealWire, make_spec
from tests.support.keyring import Keyring

clause = pytest.mark.clause

SOON_S = 5.0


def probe(address: TcpAddress, curve: ClientCurve | None) -> str:
    """Say PING and return what came of it: why it was refused, or the answer's type."""
    dealer = Dealer(address, curve, is_watched=True)
    dealer.send(codec.encode(msg.Ping()))
    assert dealer.handshake is not None
    poller = Poller()
    poller.register(dealer, "answer")
    poller.register(dealer.handshake, "failed")
    try:
        deadline = time.monotonic() + SOON_S
        while time.monotonic() < deadline:
            poller.wait(SOON_S)
            dealer.check_handshake(is_new=True)
            if (frames := dealer.receive()) is not None:
                return type(codec.decode_to_client(frames[0])).__name__
        return "silence"
    except augd.AugdError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        dealer.close()


@pytest.fixture
def ports(keyed_daemon: augd.ServedDaemon, keyring: Keyring) -> list[TcpAddress]:
    """The control and the bulk port."""
    control = parse_address(keyed_daemon.addresses[1])
    wire = RealWire(str(control), "frames", keyring.curve("photographer"))
    client = Client(wire).join()
    bulk = bulk_address(control, client.welcome.bulk_port)
    wire.close()
    assert isinstance(control, TcpAddress) and isinstance(bulk, TcpAddress)
    return [control, bulk]


@clause("P-100", "P-101")
def test_strangers_get_into_neither_port(ports: list[TcpAddress], keyring: Keyring) -> None:
    stranger = ClientCurve(keys.read_client_keys(keyring.stranger()))
    known = keyring.curve("photographer").keys
    wrong_server = ClientCurve(keys.ClientKeys("x", known.pair, keys.make_pair().public))
    for port in ports:
        assert probe(port, stranger).startswith(f"Forbidden: the daemon at {port} does not know")
        assert probe(port, None).startswith(f"Forbidden: the daemon at {port} accepts only clients")
        assert probe(port, wrong_server).startswith(
            f"ConnectError: what listens at {port} closed the"
        )
    assert probe(ports[0], ClientCurve(known)) == "Pong"


@clause("P-100")
def test_the_path_needs_no_key(keyed_daemon: augd.ServedDaemon) -> None:
    wire = RealWire(keyed_daemon.addresses[0])
    client = Client(wire).join()
    client.open(make_spec(dataset="photos"))
    client.hear(msg.Opened)
    wire.close()


@clause("P-103", "P-107")
def test_a_key_that_is_taken_away_is_refused_on_the_standing_connection(
    keyed_daemon: augd.ServedDaemon, keyring: Keyring
) -> None:
    curve = keyring.curve("mallory", datasets=("photos",))
    wire = RealWire(keyed_daemon.addresses[1], "frames", curve)
    client = await_let_in(wire).join()
    client.open(make_spec(dataset="photos"), credit=1)
    client.hear(msg.Opened)
    client.hear(msg.BatchMessage)
    other_wire = RealWire(keyed_daemon.addresses[1], "frames", keyring.curve("photographer"))
    reserved_for_suspects = Client(other_wire).join()
    keyring.file_of("mallory").unlink()
    started = time.monotonic()
    error = client.hear(msg.Error)
    assert (error.code, error.session, error.opening) == ("FORBIDDEN", client.session, 0)
    assert time.monotonic() - started < 2.0
    for message in (msg.Ping(), msg.Hello("n", transport="frames"), msg.Status()):
        client.say(message)
        error = client.hear(msg.Error)
        assert error.code == "FORBIDDEN"
        assert "does not accept this key any more" in error.text
    assert probe(wire.address, curve).startswith("Forbidden: the daemon at")
    reserved_for_suspects.say(msg.Ping())
    reserved_for_suspects.hear(msg.Pong)
    other_wire.close()
    wire.close()


def await_let_in(wire: RealWire) -> Client:
    """Connect when the daemon has seen the client's new file."""
    deadline = time.monotonic() + SOON_S
    while probe(wire.address, wire.curve) != "Pong":
        assert time.monotonic() < deadline
    return Client(wire)


@clause("P-103")
def test_a_peer_that_chooses_its_own_routing_id_is_nobody(
    keyed_daemon: augd.ServedDaemon, keyring: Keyring
) -> None:
    class Chosen(ClientCurve):
        def apply(self, socket: zmq.Socket[bytes]) -> None:
            super().apply(socket)
            socket.setsockopt(zmq.ROUTING_ID, b"photographer")

    curve = Chosen(keyring.curve("photographer").keys)
    wire = RealWire(keyed_daemon.addresses[1], "frames", curve)
    client = Client(wire)
    client.say(msg.Ping())
    assert client.hear(msg.Error).code == "FORBIDDEN"
    wire.close()


@clause("P-105")
def test_what_is_not_for_this_key_reads_like_what_does_not_exist(
    keyed_daemon: augd.ServedDaemon, keyring: Keyring
) -> None:
    wire = RealWire(keyed_daemon.addresses[1], "frames", keyring.curve("outsider"))
    client = Client(wire).join()
    texts = []
    for name in ("photos", "nowhere"):
        client.open(make_spec(dataset=name))
        error = client.hear(msg.Error)
        assert error.code == "FORBIDDEN"
        texts.append(error.text.replace(name, "NAME"))
    assert texts[0] == texts[1] == "dataset: 'NAME' is not served here, expected one of: none"
    client.say(msg.Status())
    assert client.hear(msg.StatusReply).snapshot["datasets"] == {}
    wire.close()
