"""What a peer may try who says that it is a producer, or joined as one and then lies.

It is trusted with pixels, hence none of these sends wrong pixels of the right size: what it must
not do is to harm the daemon, to write anywhere else, or to keep others waiting.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import zmq

from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.limits import PIECE_BYTES, PLACES_MAX
from augd.protocol.slot_layout import row_frames
from augd.server.daemon.broker.remote_producers import REMOTES_MAX
from augd.transport.address import rows_address
from augd.transport.row_channel import _STRANGE_MAX
from tests.attacks.catalogue import attack
from tests.attacks.peers import Peer
from tests.attacks.target import Target
from tests.support.processes import await_true


def offer(target: Target, **changes: Any) -> msg.Join:
    """What a producer with this daemon's own datasets and libraries says."""
    seen = target.status()
    digests = {name: one["digest"] for name, one in seen["datasets"].items()}
    fields = {"host": "evil", "pid": 1, "datasets": digests, "environment": seen["environment"]}
    return msg.Join(**{**fields, **changes})


class Impostor:
    """A producer that joined, with a rows socket that says what it likes."""

    def __init__(self, target: Target) -> None:
        with target.peer("port") as peer:
            peer.say(offer(target))
            joined = peer.hear()
            assert isinstance(joined, msg.Joined), joined
        self.number = joined.producer
        self.token, self.port = joined.token, joined.rows_port
        self.rows = Peer(rows_address(target.port, joined.rows_port))
        self.streams: dict[int, msg.StreamMessage] = {}

    def attach(self) -> None:
        self.rows.say(msg.AttachMessage(self.number, self.token))

    def hear(self) -> msg.Message:
        message = codec.decode_to_relay(self.rows.socket.recv_multipart()[0])
        if isinstance(message, msg.StreamMessage):
            self.streams[message.stream] = message
        return message

    def lease(self) -> msg.Lease:
        while not isinstance(message := self.hear(), msg.Lease):
            pass
        return message

    def rows_of(self, lease: msg.Lease) -> list[bytes]:
        frames = row_frames(self.streams[lease.stream].arrays, lease.first_row, lease.rows)
        return [bytes(size) for _, size in frames]

    def await_part(self) -> str:
        while not isinstance(message := self.hear(), msg.Part):
            pass
        return message.text


@contextlib.contextmanager
def impostor(target: Target) -> Iterator[Impostor]:
    made = Impostor(target)
    try:
        yield made
    finally:
        made.rows.close()
        await_true(lambda: made.number not in _remotes(target), 10.0, "it is forgotten")


def _remotes(target: Target) -> set[int]:
    numbers = (one["number"] for one in target.status()["producers"])
    return {number for number in numbers if number >= PLACES_MAX}


@attack("A90")
def joins_that_do_not_fit(target: Target) -> None:
    """Offer producers with other datasets, digests, libraries, long names and wrong types.

    Seen: SPEC_MISMATCH that names what differs, or MALFORMED; nobody joins.
    """
    with target.peer("port") as peer:
        wrong: list[Any] = [
            offer(target, datasets={}),
            offer(target, datasets={"photos": "0" * 32}),
            offer(target, datasets={"photos": "0" * 32, "more": ""}),
            offer(target, environment={}),
            offer(target, environment={"opencv": "x" * 256}),
        ]
        for message in wrong:
            peer.say(message)
            error = peer.hear()
            assert isinstance(error, msg.Error) and error.code == "SPEC_MISMATCH", error
        malformed = [
            codec.encode(offer(target, host="h" * 257)),
            codec.encode(offer(target, pid=-1)),
            codec.encode(offer(target, datasets={str(n): "" for n in range(1025)})),
            codec.encode(offer(target, environment={"a": 1})),
        ]
        assert peer.shout(malformed) == {"ERROR MALFORMED": len(malformed)}


@attack("A91")
def strangers_on_the_rows_socket(target: Target) -> None:
    """Say ATTACH with guessed numbers and tokens, and what only producers say, and random bytes.

    Seen: PART for each word, until they are too many; who brings rows is hung up on. Nobody's rows
    are taken.
    """
    with (
        impostor(target) as joined,
        Peer(rows_address(target.port, joined.port)) as stranger,
    ):
        said: list[Any] = [msg.AttachMessage(n, joined.token) for n in range(5)]
        said += [
            msg.AttachMessage(joined.number, token) for token in ("", "0" * 32, joined.token[:-1])
        ]
        said += [msg.AttachMessage(PLACES_MAX, ""), msg.AttachMessage(2**62, joined.token)]
        said += [msg.Ended("no", "signal"), msg.Beat(), msg.Alive(1), msg.Ping(), b""]
        said += [os.urandom(random.Random(n).randrange(300)) for n in range(_STRANGE_MAX - 20)]
        for message in said:
            stranger.say(message)
            answer = codec.decode_to_relay(stranger.socket.recv_multipart()[0])
            assert isinstance(answer, msg.Part), answer
        ended = stranger.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        for bulky in ([codec.encode(msg.Done(1)), bytes(1000)], [b"", b""]):
            stranger.say(bulky)
            assert ended.poll(10_000), "who brings rows is hung up on"
            ended.recv_multipart()
        stranger.socket.disable_monitor()
        ended.close(0)
        joined.attach()
        while isinstance(told := joined.hear(), msg.Revoke):
            pass  # of nothing: whether it is still there
        assert isinstance(told, msg.DatasetMessage), told


@attack("A92", peak_mb=40)
def rows_that_lie(target: Target) -> None:
    """Answer leases with no rows, too few, too many, too short, too long, and frames swapped.

    Seen: the producer is parted with at once; its leases are made by others.
    """
    lies: list[Callable[[list[bytes]], list[bytes]]] = [
        lambda rows: [],
        lambda rows: rows[:-1],
        lambda rows: [*rows, b""],
        lambda rows: [*rows, *[bytes(1000)] * 1000],
        lambda rows: [rows[0][:-1], *rows[1:]],
        lambda rows: [rows[0] + b"\0", *rows[1:]],
        lambda rows: [bytes(PIECE_BYTES), *rows[1:]],
        lambda rows: rows[::-1],
        lambda rows: [b"".join(rows)],
        lambda rows: [b""] * len(rows),
    ]
    for lie in lies:
        with impostor(target) as liar:
            liar.attach()
            lease = liar.lease()
            header = codec.encode(msg.Done(lease.lease))
            liar.rows.say([header, *lie(liar.rows_of(lease))])
            assert "its rows are not those of the lease" in liar.await_part()


@attack("A93", peak_mb=40)
def leases_of_others(target: Target) -> None:
    """Answer leases that it doesn't hold: of others, past and future, twice, and give them up.

    Seen: all of it is stale and counted; what it brings is dropped unread.
    """
    with impostor(target) as thief:
        thief.attach()
        lease = thief.lease()
        rows = thief.rows_of(lease)
        before = sum(target.status()["stale"].values())
        numbers = [n for n in range(lease.lease - 40, lease.lease + 4000, 7) if n >= 0]
        for number in numbers:
            if number < lease.lease or number > lease.lease + 1000:
                for message in (msg.Done(number), msg.Dropped(number), msg.Fail(number, "no")):
                    thief.rows.say([codec.encode(message), *rows])
        thief.rows.say(msg.Ended("done with", "outside", (lease.lease, 2**31 - 1, 2**62)))
        await_true(
            lambda: sum(target.status()["stale"].values()) > before, 10.0, "stale ones are counted"
        )


@attack("A94", peak_mb=64)
def a_flood_of_rows(target: Target) -> None:
    """Send 100 messages of 4 MB each, that answer nothing, as fast as they are taken.

    Seen: it is hung up on, after as many as it could have been leased; and as a stranger at once.
    """
    with impostor(target) as flood:
        flood.attach()
        flood.lease()
        pour(flood, 100)
        await_true(lambda: flood.number not in _remotes(target), 10.0, "it is parted with")


def pour(flood: Impostor, count: int) -> None:
    """Send messages of 4 MB that answer nothing, as fast as they are taken."""
    header, large = codec.encode(msg.Done(0)), bytes(PIECE_BYTES)
    flood.rows.socket.setsockopt(zmq.SNDTIMEO, 2_000)
    with contextlib.suppress(zmq.Again):  # hung up on, and nobody takes more
        for _ in range(count):
            flood.rows.say([header, large])


@attack("A98", peak_mb=160)
def four_floods_of_rows(target: Target) -> None:
    """Join as four producers, and have all of them send 100 messages of 4 MB each at once.

    Seen: each is hung up on after as many as it could have been leased.
    """
    with contextlib.ExitStack() as stack:
        floods = [stack.enter_context(impostor(target)) for _ in range(4)]
        for flood in floods:
            flood.attach()
            assert isinstance(flood.hear(), msg.DatasetMessage | msg.Revoke), "it was let in"
        threads = [threading.Thread(target=pour, args=(flood, 100)) for flood in floods]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gone = {flood.number for flood in floods}
        await_true(lambda: not gone & _remotes(target), 10.0, "they are parted with")


@attack("A95", peak_mb=100)
def a_flood_of_words(target: Target) -> None:
    """Join, and send 5,000 ALIVEs, BEATs, LAST_WORDS and FAILs of leases never held.

    Seen: the last words are kept, once; who says too many is hung up on.
    """
    with impostor(target) as talker:
        talker.attach()
        talker.lease()
        words: list[Any] = [
            msg.Alive(0),
            msg.Beat(True),
            msg.LastWords("x" * 16_000),
            msg.Fail(0, ""),
        ]
        talker.rows.socket.setsockopt(zmq.SNDTIMEO, 2_000)
        with contextlib.suppress(zmq.Again):
            for _ in range(5_000):  # 80 MB: a daemon that is busy meanwhile may hold all of it
                talker.rows.say(*words)
        await_true(lambda: talker.number not in _remotes(target), 10.0, "it is parted with")


@attack("A96", is_slow=True)
def joins_without_end(target: Target) -> None:
    """Say JOIN 5,000 times and attach nothing.

    Seen: OVER_LIMIT beyond REMOTES_MAX; they are forgotten when they don't attach.
    """
    with target.peer("port") as peer:
        join = offer(target)
        answers = peer.shout(join for _ in range(5_000))
        assert answers.keys() == {"JOINED", "ERROR OVER_LIMIT"}
        assert answers["JOINED"] >= REMOTES_MAX
        await_true(lambda: not _remotes(target), 20.0, "all are forgotten")


@attack("A97", peak_mb=40)
def crashes_in_a_row(target: Target) -> None:
    """Join, take leases, and leave without a word or with a crash, forty times.

    Seen: the leases are made by others; nobody is called unhealthy for one who left silently.
    """
    for number in range(40):
        with impostor(target) as one:
            one.attach()
            lease = one.lease()
            if number % 4 == 0:
                one.rows.say(msg.Done(lease.lease, num_bad=0))  # no rows
            time.sleep(0.01)
    assert not target.status()["unhealthy"]
