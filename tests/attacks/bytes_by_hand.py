"""Below the protocol: bytes at ZeroMQ's ports, of other protocols or of a broken ZMTP."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import struct
import time
from collections.abc import Iterator

import pytest

import augd
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.limits import HEADER_BYTES_MAX
from augd.transport.address import Address, TcpAddress, parse_address
from tests.attacks.catalogue import attack
from tests.attacks.peers import (
    COMMAND,
    LONG,
    MORE,
    SIGNATURE,
    command,
    dial,
    frame,
    greet,
    greeting,
    is_closed,
    read_until,
    ready,
    send_until_refused,
    shake_hands,
)
from tests.attacks.target import Target, digest
from tests.support.processes import await_true, is_alive, num_fds, producers_of
from tests.support.scenes import SMALL, digest_epoch

PING = codec.encode(msg.Ping())
PONG = codec.encode(msg.Pong())


def ports(target: Target) -> list[TcpAddress]:
    return [target.port, TcpAddress(target.port.host, target.bulk_port)]


@attack("A60")
def other_protocols(target: Target) -> None:
    """Speak HTTP, TLS, SSH and noise to every port.

    Seen: no answer but ZeroMQ's greeting, then the connection is closed.
    """
    words = (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 4,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"SSH-2.0-OpenSSH_9.0\r\n" * 9,
        *(random.Random(seed).randbytes(2_000) for seed in range(20)),
    )
    for port in ports(target):
        for word in words:
            with dial(port) as connection:
                connection.sendall(word)
                connection.shutdown(socket.SHUT_WR)
                assert is_closed(connection)


@attack("A61", is_slow=True)
def slowloris(target: Target) -> None:
    """Open 100 connections at each port; send the greeting byte by byte, ever more slowly.

    Seen: ZeroMQ gives them 10 s for the handshake and closes them.
    """
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(dial(port)) for port in ports(target) for _ in range(100)]
        for place in range(5):
            for connection in crowd:
                connection.send(greeting()[place : place + 1])
            time.sleep(0.2)
        deadline = time.monotonic() + 12
        for connection in crowd:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            with contextlib.suppress(ConnectionError):
                while connection.recv(4096):
                    pass


@attack("A62")
def half_handshakes(target: Target) -> None:
    """Break off after each single byte of a handshake, by FIN and by RST.

    Seen: nothing.
    """
    whole = greeting() + ready() + frame(PING)
    for end in range(len(whole) + 1):
        with dial(target.port) as connection:
            connection.sendall(whole[:end])
            if end % 2:
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@attack("A63")
def absurd_frame_lengths(target: Target) -> None:
    """Announce frames and commands of 65,537 bytes, 4 GiB, 2^63 and 2^64 − 1.

    Seen: the connection is closed, nothing is allocated.
    """
    for size in (HEADER_BYTES_MAX + 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1):
        for flags in (LONG, LONG | MORE, LONG | COMMAND):
            with shake_hands(target.port) as connection:
                connection.sendall(struct.pack(">BQ", flags, size))
                assert is_closed(connection), (size, flags)


@attack("A64")
def downgrades(target: Target) -> None:
    """Greet as ZMTP 1.0, 2.0 and 9.9, and with mechanisms that the daemon doesn't have.

    Seen: older versions are spoken, as ZeroMQ does, and get a PONG; other mechanisms are closed.
    """
    for mechanism in (b"PLAIN", b"CURVE", b"GSSAPI", b"null", b"", b"N" * 20):
        with dial(target.port) as connection:
            connection.sendall(greeting(mechanism=mechanism))
            connection.sendall(command(b"HELLO", bytes(194)))
            assert is_closed(connection)
    with dial(target.port) as connection:  # 1.0: length and flags, routing id first
        connection.sendall(b"\x01\x00" + bytes([len(PING) + 1, 0]) + PING)
        assert PONG in read_until(connection, PONG)
    with dial(target.port) as connection:  # 2.0: kind of socket, then as in 3.0
        connection.sendall(SIGNATURE + b"\x01\x05" + frame(b"") + frame(PING))
        assert PONG in read_until(connection, PONG)
    with greet(target.port, greeting(version=(9, 9))) as connection:
        connection.sendall(ready() + frame(PING))
        assert PONG in read_until(connection, PONG)


@attack("A65", peak_mb=100)
def endless_message(target: Target) -> None:
    """Send 64 MB in frames that all say that more follow, and never the last.

    Seen: a known weakness: ZeroMQ holds them all, until the connection ends; then none.
    """
    with shake_hands(target.port) as connection:
        piece = frame(bytes(HEADER_BYTES_MAX), MORE)
        assert send_until_refused(connection, piece, 64_000_000) >= 64_000_000


@attack("A66")
def torn_messages(target: Target) -> None:
    """Break off in the middle of a frame, of a message, and of a command, by FIN and by RST.

    Seen: nothing of it is acted upon.
    """
    hello = codec.encode(msg.Hello("torn"))
    for torn in (frame(hello, MORE), frame(hello)[:-1], frame(hello)[:1], command(b"PING")[:-2]):
        for is_reset in (False, True):
            with shake_hands(target.port) as connection:
                connection.sendall(frame(PING) + torn)
                assert PONG in read_until(connection, PONG)
                if is_reset:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@attack("A67")
def unknown_commands(target: Target) -> None:
    """Send commands: unknown ones, PINGs with 60 KB of context, READY twice, ERROR, SUBSCRIBE.

    Seen: ignored, or the connection is closed.
    """
    bodies = (
        command(b"NONSENSE", bytes(9)),
        command(b"PING", b"\xff\xff" + bytes(60_000)),
        command(b"PING"),
        command(b"PONG", bytes(60_000)),
        command(b"SUBSCRIBE", b"x"),
        command(b"ERROR", b"\xffx"),
        ready(),
        frame(b"", COMMAND),
        frame(b"\xffPING", COMMAND),
        b"\xff" * 20,
    )
    for body in bodies:
        with shake_hands(target.port) as connection, contextlib.suppress(OSError):
            connection.sendall(body * 50 + frame(PING))
            read_until(connection, PONG)


@attack("A68")
def odd_handshakes(target: Target) -> None:
    """READY with kinds of sockets that don't fit, routing ids of 0 to 4,000 bytes, 60 KB of
    properties, lying lengths of properties.

    Seen: what doesn't fit is closed, the rest is served as anybody.
    """
    shakes: tuple[tuple[bytes, bool], ...] = (
        *((ready(kind), False) for kind in (b"PUB", b"SERVER", b"DEALER\0", b"X" * 255)),
        *((ready(routing_id=b"r" * size), True) for size in (1, 255)),
        (ready(routing_id=b"r" * 4_000), True),
        (ready(routing_id=b"\0forged"), True),
        (ready(**{"X-Long": bytes(60_000)}), True),
        (command(b"READY", b"\x0bSocket-Type" + struct.pack(">I", 2**32 - 1) + b"DEALER"), False),
        (command(b"READY", b"\xffSocket-Type"), False),
        (command(b"READY"), True),
    )
    for shake, is_served in shakes:
        with greet(target.port, greeting()) as connection:
            connection.sendall(shake + frame(PING))
            if is_served:
                assert PONG in read_until(connection, PONG), shake[:40]
            else:
                assert is_closed(connection), shake[:40]


@attack("A70")
def second_daemons(target: Target) -> None:
    """Start a daemon at the path and at the port of this one.

    Seen: ADDRESS_IN_USE; the first is unharmed.
    """
    for address in target.daemon.addresses:
        with pytest.raises(augd.AddressInUse):
            augd.serve({"photos": target.folder}, listen=address)


@contextlib.contextmanager
def another_daemon(target: Target, kind: str) -> Iterator[augd.ServedDaemon]:
    """A daemon of one's own, that may die."""
    listen = {"path": f"ipc://{target.path.path}-other", "port": "tcp://127.0.0.1:0"}[kind]
    with augd.serve({"photos": target.folder}, producers=2, listen=listen) as daemon:
        yield daemon


def crowd_of(address: Address | TcpAddress, size: int, stack: contextlib.ExitStack) -> None:
    """Connect so often, say nothing, and hold the connections until the stack ends."""
    for _ in range(size):
        stack.enter_context(dial(address))


def streams_again(address: str) -> bool:
    """Read an epoch; False while a daemon still says of producers that they die at once."""
    with contextlib.suppress(augd.ProducersUnhealthy):
        return len(digest_epoch(address, epochs=1)) == 1
    return False


@attack("A71")
def all_descriptors_at_a_port(target: Target) -> None:
    """Connect to a port until the daemon has no file descriptor left; meanwhile kill a producer.

    Seen: who streams goes on, or is told why not; a producer is replaced once there is room.
    """
    with another_daemon(target, "port") as daemon:
        with augd.connect(daemon.address, recipe=SMALL, batch_size=16, timeout_s=20) as stream:
            next(stream.epoch(0)).release()
            spare = num_fds(daemon.pid) + 20
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (spare, spare))
            with contextlib.ExitStack() as stack:
                address = parse_address(daemon.address)
                crowd_of(address, 60, stack)
                await_true(lambda: num_fds(daemon.pid) >= spare, 5.0, "no fd is left")
                assert digest(stream.epoch(1)) == digest(stream.epoch(1))
                producer = producers_of(daemon.pid)[0]
                os.kill(producer, signal.SIGKILL)
                await_true(lambda: not is_alive(producer), 5.0, "it died")
                with contextlib.suppress(augd.ProducersUnhealthy):
                    digest(stream.epoch(1))
                assert is_alive(daemon.pid)
        await_true(lambda: len(producers_of(daemon.pid)) == 2, 10.0, "it is replaced")
        await_true(lambda: streams_again(daemon.address), 20.0, "an epoch after all that")


@attack("A72")
def all_descriptors_at_a_path(target: Target) -> None:
    """Connect to a path until the daemon has no file descriptor left, which needs its own user.

    Seen: libzmq ends the process by SIGABRT; the next one is there within a second, and who streams
    goes on. The daemon takes the hard limit of descriptors at start to make it unlikely.
    """
    with (
        another_daemon(target, "path") as daemon,
        augd.connect(daemon.address, recipe=SMALL, batch_size=16, timeout_s=20) as stream,
    ):
        undisturbed, pid = digest(stream.epoch(0)), daemon.pid
        spare = num_fds(pid) + 20
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (spare, spare))
        with contextlib.ExitStack() as stack:
            # It may be ended before all have connected, and the path is gone for a moment.
            with contextlib.suppress(FileNotFoundError, ConnectionError):
                crowd_of(parse_address(daemon.address), 60, stack)
            await_true(lambda: not is_alive(pid), 5.0, "libzmq ended it")
        assert digest(stream.epoch(0)) == undisturbed
        assert daemon.pid != pid


@attack("A73", may_end=True)
def hanging_up_with_much_unread(target: Target) -> None:
    """Send 4,800 requests for the STATUS with a PING command of ZMTP after each dozen, and hang up
    while the daemon has read only the first of them; over a path, and over a port.

    Seen: libzmq ends the process by SIGABRT (`!_io_error`, stream_engine_base.cpp); the next one is
    there within a second, at the same addresses, and who streams goes on.
    """
    asked = frame(codec.encode(msg.Status())) * 12 + command(b"PING", bytes(2))
    for address in (target.path, target.port):
        pid = target.daemon.pid
        with shake_hands(address) as connection:
            connection.sendall(asked * 400)
        target.await_next_daemon(pid)
