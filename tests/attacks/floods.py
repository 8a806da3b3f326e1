"""More of everything than anybody needs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.limits import HEADER_BYTES_MAX
from augd.server.daemon.broker.sessions import ATTACH_S, SESSIONS_MAX
from augd.transport.address import Address, TcpAddress, bulk_address
from tests.attacks.catalogue import attack
from tests.attacks.peers import Peer, frame, read_until, shake_hands
from tests.attacks.sessions import session_of
from tests.attacks.target import Target, make_spec
from tests.support.budget import spend
from tests.support.processes import is_alive, producers_of


@attack("A40", is_slow=True, may_end=True)
def status_flood(target: Target) -> None:
    """Ask for the STATUS 30,000 times over one connection and read no answer; then stay.

    Seen: answers are queued up to ZeroMQ's high-water mark, further ones are dropped. Where libzmq
    ends the process, as with A73, the next one is there within a second.
    """
    asked = frame(codec.encode(msg.Status())) * 1_000
    with shake_hands(target.path) as connection:
        connection.settimeout(60.0)
        for _ in range(spend(30, soak=100)):
            connection.sendall(asked)  # waits while the daemon has enough unread
        time.sleep(0.5)


@attack("A41")
def ping_flood(target: Target) -> None:
    """Send 8,000 PINGs from four connections at once, answers read.

    Seen: a PONG for each.
    """
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(target.peer(kind)) for kind in ("path", "port") * 2]
        for _ in range(8):
            for peer in peers:
                peer.say(*[msg.Ping()] * 250)
            for peer in peers:
                for _ in range(250):
                    assert isinstance(peer.hear(), msg.Pong)


@attack("A42", peak_mb=24)
def flood_of_large_messages(target: Target) -> None:
    """Send 4,000 messages of 64 KiB, a quarter of a GB in all, as fast as the kernel takes them.

    Seen: the daemon reads no further ahead than it can work; all are answered MALFORMED.
    """
    large = frame(b"\x01" + bytes(HEADER_BYTES_MAX - 1)) * 50
    with shake_hands(target.path) as connection:
        for _ in range(80):
            connection.sendall(large)
        connection.sendall(frame(codec.encode(msg.Ping())))
        answers = read_until(connection, codec.encode(msg.Pong()))
        assert answers.count(b"MALFORMED") == 4_000


@attack("A58", peak_mb=80)
def four_floods_of_strangers(target: Target) -> None:
    """Ask for the STATUS 1,500 times from each of four connections at once, by path and port, and
    send 1,000 messages of 64 KiB behind that, while the daemon is busy; answers are read.

    Seen: of each connection the daemon reads no further ahead than of one; all are answered.
    """
    asked = frame(codec.encode(msg.Status())) * 1_500
    large = frame(b"\x01" + bytes(HEADER_BYTES_MAX - 1)) * 50
    end = frame(codec.encode(msg.Ping()))

    def flood(connection: socket.socket) -> None:
        connection.sendall(asked)
        for _ in range(20):
            connection.sendall(large)
        connection.sendall(end)

    def hear(connection: socket.socket) -> None:
        assert read_until(connection, codec.encode(msg.Pong())).count(b"MALFORMED") == 1_000

    with contextlib.ExitStack() as stack:
        addresses: tuple[Address | TcpAddress, ...] = (target.path, target.port) * 2
        connections = [stack.enter_context(shake_hands(one)) for one in addresses]
        pool = stack.enter_context(ThreadPoolExecutor(2 * len(connections)))
        for connection in connections:
            connection.settimeout(60.0)
        said = [pool.submit(do, one) for one in connections for do in (flood, hear)]
        for one in said:
            one.result()


@attack("A43", is_slow=True)
def sessions_never_attached(target: Target) -> None:
    """Say HELLO 1,000 times and attach nothing.

    Seen: OVER_LIMIT beyond SESSIONS_MAX; the sessions end after ATTACH_S, and others can come.
    """
    free = SESSIONS_MAX - 2
    with target.peer("port") as peer:
        answers = peer.shout(msg.Hello("n") for _ in range(1_000))
        assert answers == {"WELCOME": free, "ERROR OVER_LIMIT": 1_000 - free}
        time.sleep(ATTACH_S)
        assert peer.answers() == {"ERROR PROTOCOL_STATE": free}
        peer.say(msg.Bye(peer.hello().session))


@attack("A44")
def all_sessions_attached(target: Target) -> None:
    """Open as many sessions as there may be, attach them all, open a stream in each.

    Seen: the next HELLO is OVER_LIMIT; all end with their connections.
    """
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(session_of(target)) for _ in range(SESSIONS_MAX - 2)]
        for one in crowd:
            one.open(make_spec(4, prefetch=1), credit=2**62)
        for one in crowd:
            one.await_batch()
        with target.peer() as peer:
            assert peer.shout([msg.Hello("n")]) == {"ERROR OVER_LIMIT": 1}
    target.sessions_are_back_to(2)


@attack("A45")
def wide_streams(target: Target) -> None:
    """Open 12 streams of 1,025 slots each, read none, release none, then send 2,000 PINGs.

    Seen: a stream that stands still costs the others nothing.
    """
    spec = make_spec(1, prefetch=1024, recipe={"ops": [{"op": "center_crop", "size": 1}]})
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(session_of(target)) for _ in range(12)]
        for one in crowd:
            one.open(spec, credit=2**62)
        with target.peer() as peer:
            peer.shout([msg.Ping()] * 2_000)
    target.sessions_are_back_to(2)


@attack("A46")
def open_storm(target: Target) -> None:
    """Seek 3,000 times, as fast as it goes, with work begun each time.

    Seen: work that nobody waits for is given up; the last OPEN is served.
    """
    restarts = target.status()["restarts"]
    with session_of(target) as seeker:
        for number in range(3_000):
            seeker.open(make_spec(64, prefetch=8), position=number % 160, credit=9)
        while seeker.await_batch().opening < 3_000:
            pass
    assert target.status()["restarts"] == restarts


@attack("A47")
def coming_and_going(target: Target) -> None:
    """Connect, attach, open and leave 200 times, with BYE or without, before anything came.

    Seen: every session ends, every arena is given back.
    """
    restarts = target.status()["restarts"]
    for number in range(200):
        with session_of(target) as visitor:
            visitor.open(make_spec(64), credit=5)
            if number % 2:
                visitor.say(msg.Bye(visitor.number))
    target.sessions_are_back_to(2)
    assert target.status()["restarts"] == restarts


@attack("A48")
def a_client_that_never_reads(target: Target) -> None:
    """Open streams by memfd and by frames with all credit, and read nothing; send RELEASEs
    for batches that were never looked at.

    Seen: what is queued for him is bounded by his slots.
    """
    with session_of(target) as deaf, target.peer("port") as framed:
        welcome = framed.hello("frames")
        with Peer(bulk_address(target.port, welcome.bulk_port)) as bulk:
            bulk.say(msg.AttachMessage(welcome.session, welcome.token))
            framed.say(msg.Open(welcome.session, 1, make_spec(64, prefetch=64), credit=2**62))
            deaf.open(make_spec(64, prefetch=64), credit=2**62)
            for generation in range(40):
                for slot in range(65):
                    deaf.peer.say(msg.Release(deaf.number, slot, generation))
                    framed.say(msg.Release(welcome.session, slot, generation))
            time.sleep(0.5)
    target.sessions_are_back_to(2)


@attack("A49")
def a_crowd_of_peers(target: Target) -> None:
    """Connect 300 peers, each of which sends garbage and a PING, and hang up without a word.

    Seen: each is answered; their connections are gone with them.
    """
    for kind in ("path", "port"):
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(target.peer(kind)) for _ in range(150)]
            for peer in peers:
                peer.say(b"garbage", msg.Ping())
            for peer in peers:
                assert isinstance(peer.hear(), msg.Error)


@attack("A56")
def seeks_at_a_stalled_producer(target: Target) -> None:
    """Seek 1,000 times while the producer stands still, as a slow disk makes it; then another
    client comes.

    Seen: the producer gets to hear all that it must; nobody is killed for it.
    """
    restarts = target.status()["restarts"]
    producer = producers_of(target.daemon.pid)[0]
    with session_of(target) as seeker, session_of(target) as other:
        seeker.open(make_spec(64), credit=5)
        seeker.await_batch()
        os.kill(producer, signal.SIGSTOP)
        try:
            for _ in range(1_000):
                seeker.open(make_spec(64), credit=5)
            seeker.peer.heard()
            other.open(make_spec(16), credit=1)
            other.peer.heard()
        finally:
            os.kill(producer, signal.SIGCONT)
        other.await_batch()
        while seeker.await_batch().opening < seeker.opening:
            pass
    assert target.status()["restarts"] == restarts


@attack("A57")
def visits_at_a_stalled_producer(target: Target) -> None:
    """Come, open and leave 150 times while the producer stands still: more than its link holds.

    Seen: it is told of nothing that it has no lease of, and goes on when it can.
    """
    restarts = target.status()["restarts"]
    producer = producers_of(target.daemon.pid)[0]
    os.kill(producer, signal.SIGSTOP)
    try:
        for _ in range(150):
            with session_of(target) as visitor:
                visitor.open(make_spec(4), credit=1)
                assert not [m for m in visitor.peer.heard() if isinstance(m, msg.Error)]
    finally:
        os.kill(producer, signal.SIGCONT)
    with session_of(target) as visitor:
        visitor.open(make_spec(4), credit=1)
        visitor.await_batch()
    assert is_alive(producer)
    assert target.status()["restarts"] == restarts
