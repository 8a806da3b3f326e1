"""Other people's sessions: guessed, stolen, replayed; and one's own, out of order."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from augd.protocol import codec
from augd.protocol import messages as msg
from augd.transport.address import bulk_address
from tests.attacks.catalogue import attack
from tests.attacks.peers import Peer, is_closed, probing
from tests.attacks.target import Target, make_spec
from tests.support.processes import await_true


@dataclass
class Session:
    """An attacker with a session of his own, by memfd, and everything that he said."""

    peer: Peer
    welcome: msg.Welcome
    said: list[bytes] = field(default_factory=list)
    opening: int = 0

    @property
    def number(self) -> int:
        return self.welcome.session

    def say(self, message: msg.Message) -> None:
        self.said.append(codec.encode(message))
        self.peer.say(message)

    def open(self, spec: msg.Spec | None = None, **place: object) -> None:
        self.opening += 1
        spec = make_spec() if spec is None else spec
        self.say(msg.Open(self.number, self.opening, spec, **place))

    def await_batch(self) -> msg.BatchMessage:
        while not isinstance(message := self.peer.hear(), msg.BatchMessage):
            assert not isinstance(message, msg.Error), message
        return message


@contextlib.contextmanager
def session_of(target: Target, kind: str = "path", routing_id: bytes = b"") -> Iterator[Session]:
    """Say HELLO and attach the lifeline, whose end ends the session."""
    with target.peer(kind, routing_id) as peer:
        welcome = peer.hello()
        with probing(target.attach_path) as lifeline:
            lifeline.send(codec.encode(msg.AttachMessage(welcome.session, welcome.token)))
            yield Session(peer, welcome)


def stale(target: Target, kind: str) -> int:
    return int(target.status()["stale"].get(kind, 0))


@attack("A20")
def other_peoples_sessions(target: Target) -> None:
    """Name each session from 0 to 3,000, those of the honest clients among them, in OPEN, FLOW,
    RELEASE and BYE.

    Seen: PROTOCOL_STATE for each OPEN; the others are ignored and counted.
    """
    sessions = [stream["session"] for stream in target.status()["streams"]]
    assert len(sessions) == 2
    before = stale(target, "session")
    numbers = {*range(3_000), *sessions, 2**62}
    with target.peer("port") as peer:
        answers = peer.shout(
            message
            for number in numbers
            for message in (
                msg.Open(number, 1, make_spec(), credit=9),
                msg.Flow(number, 1, 99),
                msg.Release(number, 0, 1),
                msg.Bye(number),
            )
        )
    assert answers == {"ERROR PROTOCOL_STATE": len(numbers)}
    assert stale(target, "session") - before == 3 * len(numbers)


@attack("A21")
def replayed_messages(target: Target) -> None:
    """Record all that a client says, HELLO to BYE; say it again, on its own connection and on
    another, twenty times.

    Seen: the session that ended stays ended; OPEN is PROTOCOL_STATE, the rest is ignored.
    """
    with session_of(target) as victim:
        victim.open(credit=2)
        batch = victim.await_batch()
        victim.say(msg.Release(victim.number, batch.slot, batch.generation))
        victim.say(msg.Flow(victim.number, 1, 9))
        victim.say(msg.Bye(victim.number))
        assert set(victim.peer.answers()) <= {"BATCH", "EPOCH_END"}
        assert victim.peer.shout(victim.said * 20) == {"ERROR PROTOCOL_STATE": 20}
        with target.peer("port") as other:
            assert other.shout(victim.said * 20) == {"ERROR PROTOCOL_STATE": 20}


@attack("A22")
def stale_numbers(target: Target) -> None:
    """RELEASE slots and generations, and FLOW for openings, that are past, to come or nowhere.

    Seen: nothing is freed and no credit given; all are counted as stale.
    """
    with session_of(target) as thief:
        thief.open(credit=1)
        batch = thief.await_batch()
        before = stale(target, "generation"), stale(target, "opening")
        wrong = [g for g in (0, batch.generation + 1, 2**62) if g != batch.generation]
        releases = [(batch.slot, g) for g in wrong] + [(s, 0) for s in (5, 2**31 - 1)]
        flows = [0, 2, 2**62]
        for _ in range(100):
            for slot, generation in releases:
                thief.say(msg.Release(thief.number, slot, generation))
            for opening in flows:
                thief.say(msg.Flow(thief.number, opening, 50))
        assert not thief.peer.heard(), "neither a batch nor an answer"
        assert stale(target, "generation") - before[0] == 100 * len(releases)
        assert stale(target, "opening") - before[1] == 100 * len(flows)


@attack("A23")
def absurd_credit(target: Target) -> None:
    """Grant 2^62 batches, and never release one.

    Seen: as many batches as there are slots, then no more.
    """
    with session_of(target) as glutton:
        glutton.open(make_spec(prefetch=7), credit=2**62)
        got = [glutton.await_batch() for _ in range(8)]
        assert len({batch.slot for batch in got}) == 8
        glutton.say(msg.Flow(glutton.number, 1, 2**62))
        time.sleep(0.2)
        assert set(glutton.peer.answers()) <= {"EPOCH_END"}


@attack("A24")
def held_by_thousands(target: Target) -> None:
    """OPEN with 6,000 `held` slots, most of which never were; a hundred times.

    Seen: what doesn't exist is ignored, the stream goes on.
    """
    held = tuple((slot % 2_000, slot // 2_000) for slot in range(6_000))
    with session_of(target) as hoarder:
        for _ in range(100):
            hoarder.open(credit=1, held=held)
        while hoarder.await_batch().opening < 100:
            pass


@attack("A25")
def nowhere_in_the_dataset(target: Target) -> None:
    """OPEN at positions and epochs far beyond the dataset's end, at the limits of their types.

    Seen: beyond an epoch's end the next one begins, beyond the last epoch's nothing.
    """
    last_epoch = 2**31 - 1
    with session_of(target) as lost:
        for position in (3, 159, 160, 161, 2**31, 2**53, 2**62):
            lost.open(position=position, epoch=7, credit=1)
            batch = lost.await_batch()
            while batch.opening < lost.opening:
                batch = lost.await_batch()
            assert batch.epoch == (7 if position < 160 else 8)
        lost.open(position=156, epoch=last_epoch, credit=3)
        while (batch := lost.await_batch()).opening < lost.opening:
            pass
        assert batch.epoch == last_epoch
        time.sleep(0.2)
        assert not [one for one in lost.peer.heard() if isinstance(one, msg.BatchMessage)]


@attack("A26")
def forged_tokens(target: Target) -> None:
    """Make a session's token from all that a stranger is told: instance, numbers, own tokens.

    Seen: it opens no other session, by the attach socket or by the bulk socket.
    """
    with target.peer("port") as victim, target.peer("port") as thief:
        seen, theirs = thief.hello(), victim.hello()
        own = victim.hello("frames")
        for key in (seen.instance.encode(), bytes.fromhex(seen.instance), seen.token.encode()):
            for number in (theirs.session, own.session):
                forged = hashlib.blake2b(f"session {number}".encode(), key=key, digest_size=16)
                try_token(target, number, forged.hexdigest())
                try_token(target, number, seen.token)
        with probing(target.attach_path) as lifeline:
            lifeline.send(codec.encode(msg.AttachMessage(theirs.session, theirs.token)))
            victim.say(msg.Open(theirs.session, 1, make_spec(), credit=1))
            assert isinstance(victim.hear(), msg.Opened), "still the victim's to attach"
            victim.say(msg.Bye(theirs.session), msg.Bye(own.session))
        thief.say(msg.Bye(seen.session))
        victim.heard()


def try_token(target: Target, session: int, token: str) -> None:
    """Attach with it everywhere; assert that it changed nothing."""
    attach = codec.encode(msg.AttachMessage(session, token))
    with probing(target.attach_path) as connection:
        connection.send(attach)
        before = stale(target, "attach")
        assert is_closed(connection)
    port = target.bulk_port
    with Peer(bulk_address(target.port, port)) as bulk:
        bulk.say(attach)
        await_true(lambda: stale(target, "attach") > before, 5.0, "the bulk socket refused")


@attack("A27")
def stolen_routing_id(target: Target) -> None:
    """Connect with the routing id of a client that is connected, and speak in its session's name.

    Seen: ZeroMQ lets the second one in nowhere; the first goes on.
    """
    with session_of(target, routing_id=b"victim") as victim:
        victim.open(credit=1)
        batch = victim.await_batch()
        for kind in ("path", "port"):
            with target.peer(kind, routing_id=b"victim") as thief:
                thief.say(msg.Bye(victim.number), msg.Ping())
                assert not thief.socket.poll(300), "nobody answers the thief"
        victim.say(msg.Release(victim.number, batch.slot, batch.generation))
        victim.say(msg.Flow(victim.number, 1, 2))
        assert victim.await_batch().sequence == 1


@attack("A28")
def attached_to_a_session_of_others(target: Target) -> None:
    """Attach to the honest clients' sessions and to one's own twice, with wrong and right tokens.

    Seen: the connection is closed; who was attached stays attached.
    """
    sessions = [stream["session"] for stream in target.status()["streams"]]
    with session_of(target) as own:
        for number in (*sessions, own.number, 0, 2**62):
            for token in ("", "0" * 32, own.welcome.token):
                with probing(target.attach_path) as connection:
                    connection.send(codec.encode(msg.AttachMessage(number, token)))
                    if number != own.number or token != own.welcome.token:
                        assert is_closed(connection)
        own.open(credit=1)
        own.await_batch()


@attack("A29")
def bulk_of_another(target: Target) -> None:
    """On the bulk socket: ATTACH to others' sessions, PIECEs to the daemon, 20,000 random frames.

    Seen: nothing is answered and nobody's bytes come.
    """
    sessions = [stream["session"] for stream in target.status()["streams"]]
    for address in (bulk_address(target.path, 0), bulk_address(target.port, target.bulk_port)):
        with Peer(address) as bulk:
            for number in (*sessions, *range(200)):
                bulk.say(msg.AttachMessage(number, "0" * 32), msg.Piece(number, 1, 0, 0, 4_096))
            for n in range(10_000):
                bulk.say([n.to_bytes(3), bytes(n % 300)] if n % 2 else b"\x01" + bytes(n % 99))
            assert not bulk.socket.poll(300)
