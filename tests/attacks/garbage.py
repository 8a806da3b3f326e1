"""Frames that are no message, or nearly one."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import zmq

from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.limits import HEADER_BYTES_MAX
from tests.attacks.catalogue import attack
from tests.attacks.peers import frame, header, is_closed, shake_hands
from tests.attacks.target import Target, make_spec
from tests.unit.protocol.test_codec import MESSAGES


@attack("A01", is_slow=True)
def random_frames(target: Target) -> None:
    """Send 100,000 frames of random bytes, half of them behind a right version byte.

    Seen: an ERROR for each.
    """
    rng = random.Random(1)
    starts = (b"", b"\x01")
    frames = (starts[n % 2] + rng.randbytes(rng.randrange(60)) for n in range(100_000))
    with target.peer() as peer:
        answers = peer.shout(frames)
    assert set(answers) <= {"ERROR MALFORMED", "ERROR UNSUPPORTED_VERSION"}
    assert answers.total() == 100_000


@attack("A02")
def random_maps(target: Target) -> None:
    """Send 5,000 msgpack maps of random keys, types and nesting, some with a `type` that exists.

    Seen: MALFORMED, but for those that happen to be messages.
    """
    rng = random.Random(2)
    with target.peer() as peer:
        answers = peer.shout(header(_random_map(rng)) for _ in range(5_000))
    # STATUS, PING and HELLO ask for so little that chance finds them.
    assert set(answers) <= {"ERROR MALFORMED", "STATUS_REPLY", "PONG"}
    assert answers["ERROR MALFORMED"] > 3_000


def _random_map(rng: random.Random) -> dict[str, Any]:
    fields = ("session", "opening", "spec", "epoch", "position", "credit", "held", "slot")
    plain = {rng.choice(fields): _random_value(rng, 3) for _ in range(rng.randrange(6))}
    tags = ("OPEN", "FLOW", "RELEASE", "STATUS", "BYE", "LEASE", "ATTACH", "", "open", 7, None)
    return plain | {"type": rng.choice(tags)}


def _random_value(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(8 if depth else 6)
    if kind == 6:
        return [_random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {rng.randbytes(2).hex(): _random_value(rng, depth - 1) for _ in range(3)}
    values = (None, True, rng.randrange(-(2**63), 2**63), rng.random(), "x" * 9, rng.randbytes(9))
    return values[kind]


BOUNDARIES: tuple[Any, ...] = (
    *(-1, -(2**31), -(2**63), 2**31, 2**32, 2**62 + 1, 2**63 - 1, 2**64 - 1),
    *(None, True, 0.5, float("nan"), float("inf"), "", "x" * 60_000, "\0", "\ud7ff", b"", b"x"),
    *([], [[]], [1, 2, 3], {}, {"x": 1}, [{}] * 1000, msgspec.msgpack.Ext(1, b"x")),
)


@attack("A03", peak_mb=24)
def mutated_messages(target: Target) -> None:
    """Put each of 27 boundary values into each field, however deep, of each kind of message.

    Seen: MALFORMED, the reason why the spec can't be served, or nothing when the value is legal.
    """
    with target.peer() as peer:
        session = peer.hello().session
        spec = make_spec(selection=msg.Selection("train", classes=("class0",), limit=3))
        whole = (
            msg.Hello("n", "software", "frames"),
            msg.Open(session, 1, spec, held=((1, 2),)),
            msg.Flow(session, 1, 1),
            msg.Release(session, 0, 0),
            msg.Bye(session + 1_000_000),
        )
        answers = peer.shout(
            header(mutant) for message in whole for mutant in mutants(msgspec.to_builtins(message))
        )
        peer.say(msg.Bye(session))
        sessions = [m.session for m in peer.heard() if isinstance(m, msg.Welcome)]
        peer.say(*map(msg.Bye, sessions))
    assert answers["ERROR MALFORMED"] > 500
    expected = {"ERROR MALFORMED", "ERROR PROTOCOL_STATE", "ERROR OVER_LIMIT", "WELCOME"}
    assert set(answers) <= expected


def mutants(plain: Any) -> Iterator[Any]:
    """Yield copies of plain data with one value exchanged, or one key missing."""
    if isinstance(plain, dict):
        for key, value in plain.items():
            yield {name: one for name, one in plain.items() if name != key}
            yield from ({**plain, key: mutant} for mutant in mutants(value))
    elif isinstance(plain, list | tuple) and plain:
        for place, value in enumerate(plain):
            for mutant in mutants(value):
                yield [*plain[:place], mutant, *plain[place + 1 :]]
    yield from BOUNDARIES


@attack("A04")
def deep_nesting(target: Target) -> None:
    """Nest arrays and maps 60,000 deep, as the message, as a recipe and as an op's parameter.

    Seen: MALFORMED.
    """
    deep = 60_000
    opening = b"\x01\x84\xa4type\xa4OPEN\xa7session\x01\xa7opening\x01\xa4spec"
    recipe = b"\x83\xa7dataset\xc0\xa6layout\x81\xaabatch_size\x04\xa6recipe"
    places = (b"\x01", opening, opening + recipe, opening + recipe + b"\x81\xa3ops\x91\x81\xa4size")
    nests = (b"\x91" * deep, b"\x81\xa1x" * (deep // 3), b"\xdc\xff\xff" * (deep // 3))
    with target.peer() as peer:
        answers = peer.shout(place + nest for place in places for nest in nests for _ in range(20))
    assert answers == {"ERROR MALFORMED": 240}


@attack("A05")
def lying_lengths(target: Target) -> None:
    """Announce 4 GiB of text, bytes, extension, array or map, where any of them could stand.

    Seen: MALFORMED; nothing is allocated.
    """
    tags = (b"\xdb", b"\xc6", b"\xdd", b"\xdf", b"\xc9")  # str32, bin32, array32, map32, ext32
    sizes = (2**32 - 1, 2**31, 2**28, 70_000)
    lies = [tag + struct.pack(">I", size) for tag in tags for size in sizes]
    opening = b"\x01\x85\xa4type\xa4OPEN\xa7session\x01\xa7opening\x01"
    places = (
        *(b"\x01", b"\x01\x81", b"\x01\x81\xa4type", opening + b"\xa4spec", opening + b"\xa4held"),
        *(b"\x01\x82\xa4type\xa5HELLO\xa5nonce", opening + b"\xa4spec\x81\xa6recipe\x81\xa1x"),
        *(opening + b"\xa4spec\x81\xa9selection\x81\xa7classes", opening + b"\xa4more"),
    )
    with target.peer() as peer:
        answers = peer.shout(
            place + lie + end for place in places for lie in lies for end in (b"", b"\x01" * 50_000)
        )
    assert answers == {"ERROR MALFORMED": len(places) * len(lies) * 2}


@attack("A06")
def other_versions(target: Target) -> None:
    """Send every version byte but the right one, before a right message and before nothing.

    Seen: UNSUPPORTED_VERSION.
    """
    body = codec.encode(msg.Ping())[1:]
    versions = [version for version in range(256) if version != msg.PROTOCOL_VERSION]
    with target.peer() as peer:
        answers = peer.shout(bytes([one]) + rest for one in versions for rest in (body, b""))
    assert answers == {"ERROR UNSUPPORTED_VERSION": 2 * len(versions)}


@attack("A07")
def oversized_headers(target: Target) -> None:
    """Send headers of 65,537 bytes, 1 MiB and 100 MiB, and one of 65,536.

    Seen: the largest legal one is answered, for the others the connection is closed, unread.
    """
    with target.peer() as peer:
        peer.say(bytes(HEADER_BYTES_MAX))
        assert set(peer.answers()) == {"ERROR UNSUPPORTED_VERSION"}
    for size in (HEADER_BYTES_MAX + 1, 1 << 20, 100 << 20):
        with shake_hands(target.port) as connection:
            connection.sendall(frame(b"", size=size))
            assert is_closed(connection)


@attack("A08")
def many_frames(target: Target) -> None:
    """Send messages of 5, 1,000 and 10,000 frames.

    Seen: MALFORMED, however right the first frame is.
    """
    ping = codec.encode(msg.Ping())
    with target.peer() as peer:
        answers = peer.shout([ping] * count for count in (5, 1_000, 10_000))
        assert answers == {"ERROR MALFORMED": 3}


@attack("A09")
def empty_frames(target: Target) -> None:
    """Send 10,000 messages of one empty frame, and some of several.

    Seen: MALFORMED.
    """
    with target.peer() as peer:
        answers = peer.shout([b""] * (1 + n % 4) for n in range(10_000))
    assert answers == {"ERROR MALFORMED": 10_000}


@attack("A10")
def the_wrong_way(target: Target) -> None:
    """Say what only a daemon or a producer says: WELCOME, OPENED, BATCH, READY, LEASE, and others.

    Seen: MALFORMED.
    """
    from_client = get_args(msg.FromClient)
    others = [message for message in MESSAGES.values() if not isinstance(message, from_client)]
    with target.peer() as peer:
        assert peer.shout(others) == {"ERROR MALFORMED": len(others)}


@attack("A11")
def refused_by_zeromq(target: Target) -> None:
    """Connect as REQ, ROUTER, PUSH and SUB, and send what these send.

    Seen: REQ's empty frame is MALFORMED; kinds that don't fit are never connected.
    """
    for kind in (zmq.REQ, zmq.ROUTER, zmq.PUSH, zmq.SUB):
        with zmq.Context.instance().socket(kind) as other:
            other.setsockopt(zmq.LINGER, 0)
            other.connect(str(target.path))
            if kind == zmq.REQ:
                other.send(codec.encode(msg.Ping()))
                assert not other.poll(300)  # the answer lacks REQ's empty frame
            elif kind == zmq.SUB:
                other.setsockopt(zmq.SUBSCRIBE, b"")
