"""The attach socket: SEQPACKET, one header per packet, file descriptors on the side."""

from __future__ import annotations

import contextlib
import random
import socket
import tempfile

from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.limits import HEADER_BYTES_MAX
from tests.attacks.catalogue import attack
from tests.attacks.peers import is_closed, probing
from tests.attacks.sessions import session_of
from tests.attacks.target import Target, make_spec
from tests.support.processes import await_true


@attack("A50")
def garbage_packets(target: Target) -> None:
    """Send 500 random packets, each on a connection of its own, and some that are messages.

    Seen: the connection is closed.
    """
    rng = random.Random(50)
    packets = [rng.randbytes(rng.randrange(1, 300)) for _ in range(500)]
    packets += map(codec.encode, (msg.Ping(), msg.Arena(1, 1), msg.Piece(1, 1, 1, 1, 1)))
    packets += [b"\x01", b"\x01\x80", bytes(HEADER_BYTES_MAX), bytes(HEADER_BYTES_MAX + 1)]
    for packet in packets:
        with probing(target.attach_path) as connection:
            connection.send(packet)
            assert is_closed(connection)


@attack("A51")
def passed_descriptors(target: Target) -> None:
    """Pass 1, 64 and 253 file descriptors along: before ATTACH, with it, and after it.

    Seen: the daemon keeps none of them; with more than a message may have the connection ends.
    """
    with tempfile.NamedTemporaryFile() as some:
        for count in (1, 4, 5, 64, 253):
            for frame in (b"x", codec.encode(msg.AttachMessage(1, "0" * 32))):
                with probing(target.attach_path) as connection:
                    socket.send_fds(connection, [frame], [some.fileno()] * count)
                    assert is_closed(connection)
            with session_of(target) as own:
                own.open(credit=1)
                own.await_batch()
                with probing(target.attach_path) as second:
                    attach = codec.encode(msg.AttachMessage(own.number, own.welcome.token))
                    socket.send_fds(second, [attach], [some.fileno()] * count)
                    assert is_closed(second)
    assert some.name not in target.open_files()


@attack("A52")
def silent_connections(target: Target) -> None:
    """Connect 300 times and say nothing.

    Seen: the first of them are closed, and a client that connects after them is served.
    """
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(probing(target.attach_path)) for _ in range(300)]
        with session_of(target) as late:
            late.open(credit=1)
            late.await_batch()
        assert is_closed(crowd[0])


@attack("A53")
def a_lifeline_that_talks(target: Target) -> None:
    """Attach, and go on to send: ATTACH again, garbage, an empty packet; never read.

    Seen: the connection is closed, which ends its own session and no other.
    """
    again = codec.encode(msg.AttachMessage(1, "0" * 32))
    for packet in (again, b"\x01\x80", b"garbage", b""):
        with target.peer() as peer:
            welcome = peer.hello()
            with probing(target.attach_path) as lifeline:
                lifeline.send(codec.encode(msg.AttachMessage(welcome.session, welcome.token)))
                with contextlib.suppress(OSError):
                    for _ in range(200):
                        lifeline.send(packet)
                assert is_closed(lifeline)
            # Its end is read from another socket than the peer's messages: look until it was.
            reopen = msg.Open(welcome.session, 1, make_spec())
            await_true(
                lambda peer=peer, reopen=reopen: (
                    peer.shout([reopen]) == {"ERROR PROTOCOL_STATE": 1}
                ),
                5.0,
                "its session is gone",
            )


@attack("A54")
def attached_before_hello(target: Target) -> None:
    """Attach to the 50 sessions that will be next, with tokens of the last one.

    Seen: the connections are closed, and the sessions are their clients' all the same.
    """
    with target.peer() as peer:
        last = peer.hello()
        for number in range(last.session + 1, last.session + 51):
            with probing(target.attach_path) as connection:
                connection.send(codec.encode(msg.AttachMessage(number, last.token)))
                assert is_closed(connection)
        peer.say(msg.Bye(last.session))
        peer.heard()
    with session_of(target) as after:
        after.open(credit=1)
        after.await_batch()
