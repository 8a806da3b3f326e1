"""What an attacker has in hand: a ZeroMQ peer without manners, raw ZMTP bytes, raw packets."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import zmq

from augd.protocol import codec
from augd.protocol import messages as msg
from augd.transport.address import Address, TcpAddress

TIMEOUT_S = 10.0
Frames = bytes | list[bytes]


def header(fields: dict[str, Any], version: int = msg.PROTOCOL_VERSION) -> bytes:
    """Encode what no typed message would hold."""
    return bytes([version]) + msgspec.msgpack.encode(fields)


class Peer:
    """A DEALER that sends what it likes, as fast as the socket takes it."""

    def __init__(self, address: Address | TcpAddress, routing_id: bytes = b"") -> None:
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(TIMEOUT_S * 1000))
        self.socket.setsockopt(zmq.SNDTIMEO, int(TIMEOUT_S * 1000))
        if routing_id:
            self.socket.setsockopt(zmq.ROUTING_ID, routing_id)
        self.socket.connect(str(address))

    def say(self, *messages: Frames | msg.Message) -> None:
        for message in messages:
            if isinstance(message, msg.Message):
                message = codec.encode(message)
            self.socket.send_multipart([message] if isinstance(message, bytes) else message)

    def shout(self, messages: Iterable[Frames | msg.Message]) -> Counter[str]:
        """Say all of them, reading answers meanwhile; returns what was answered."""
        answers: Counter[str] = Counter()
        for number, message in enumerate(messages):
            self.say(message)
            if number % 256 == 255:
                answers += self.answers()
        return answers + self.answers()

    def hear(self) -> msg.ToClient:
        """Wait for one message."""
        return codec.decode_to_client(self.socket.recv_multipart()[0])

    def heard(self) -> list[msg.ToClient]:
        """Return all that comes before the answer to a PING."""
        self.say(msg.Ping())
        messages: list[msg.ToClient] = []
        while not isinstance(message := self.hear(), msg.Pong):
            messages.append(message)
        return messages

    def answers(self) -> Counter[str]:
        """Count all that comes before the answer to a PING, by kind and code."""
        return Counter(_name(message) for message in self.heard())

    def hello(self, transport: Any = "memfd") -> msg.Welcome:
        self.say(msg.Hello("n", transport=transport))
        while not isinstance(message := self.hear(), msg.Welcome):
            pass
        return message

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _name(message: msg.ToClient) -> str:
    if isinstance(message, msg.Error):
        return f"ERROR {message.code}"
    return str(type(message).__struct_config__.tag)


# the attach socket


@contextlib.contextmanager
def probing(path: str) -> Iterator[socket.socket]:
    """Connect to the attach socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(path)  # waits while the backlog is full, which a timeout forbids
        connection.settimeout(TIMEOUT_S)
        yield connection


def is_closed(connection: socket.socket) -> bool:
    """Wait until the other side hangs up; say False when it doesn't in time."""
    connection.settimeout(TIMEOUT_S)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


# ZMTP by hand

SIGNATURE = b"\xff" + bytes(8) + b"\x7f"


def greeting(version: tuple[int, int] = (3, 0), mechanism: bytes = b"NULL") -> bytes:
    """Return the 64 bytes that each side sends first. Source: RFC 23, ZMTP 3.0."""
    return SIGNATURE + bytes(version) + mechanism.ljust(20, b"\0") + bytes(32)


MORE, LONG, COMMAND = 1, 2, 4


def frame(body: bytes, flags: int = 0, size: int | None = None) -> bytes:
    """Return a ZMTP frame; `size` may lie."""
    size = len(body) if size is None else size
    if size > 255:
        return struct.pack(">BQ", flags | LONG, size) + body
    return struct.pack(">BB", flags, size) + body


def command(name: bytes, body: bytes = b"") -> bytes:
    """Return a ZMTP command."""
    return frame(bytes([len(name)]) + name + body, COMMAND)


def ready(kind: bytes = b"DEALER", routing_id: bytes = b"", **more: bytes) -> bytes:
    """Return the READY command that ends a NULL handshake."""
    properties = {b"Socket-Type": kind, b"Identity": routing_id}
    properties |= {name.encode(): value for name, value in more.items()}
    body = b"".join(
        bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
        for name, value in properties.items()
    )
    return command(b"READY", body)


def dial(address: Address | TcpAddress) -> socket.socket:
    """Connect a plain stream socket to where ZeroMQ listens."""
    if isinstance(address, TcpAddress):
        return socket.create_connection((address.host, address.port), TIMEOUT_S)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _closed_on_failure(connection):
        connection.settimeout(TIMEOUT_S)
        connection.connect(str(address.path))
    return connection


@contextlib.contextmanager
def _closed_on_failure(connection: socket.socket) -> Iterator[None]:
    """Close who is not handed on: the traceback of an expected failure outlives its test."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


def greet(address: Address | TcpAddress, said: bytes) -> socket.socket:
    """Connect, send a greeting, and wait for the daemon's: libzmq hangs up on who doesn't."""
    connection = dial(address)
    with _closed_on_failure(connection):
        connection.sendall(said)
        received = b""
        while len(received) < 64:
            piece = connection.recv(64 - len(received))
            assert piece, "the daemon hung up during the greeting"
            received += piece
    return connection


def shake_hands(address: Address | TcpAddress, **properties: bytes) -> socket.socket:
    """Connect and perform the NULL handshake by hand."""
    connection = greet(address, greeting())
    with _closed_on_failure(connection):
        connection.sendall(ready(**properties))
        received = b""
        while b"READY" not in received:
            piece = connection.recv(4096)
            assert piece, "the daemon hung up during the handshake"
            received += piece
    return connection


def send_until_refused(connection: socket.socket, piece: bytes, bytes_max: int) -> int:
    """Send the same bytes until the other side hangs up or the sum is reached; returns the sum."""
    sent = 0
    deadline = time.monotonic() + TIMEOUT_S
    while sent < bytes_max and time.monotonic() < deadline:
        try:
            sent += connection.send(piece)
        except OSError:
            break
    return sent


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    """Read until these bytes came, or the end; returns all that came."""
    received = b""
    while wanted not in received:
        piece = connection.recv(65536)
        if not piece:
            break
        received += piece
    return received
