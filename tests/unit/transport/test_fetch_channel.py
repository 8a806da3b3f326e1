"""The fetch channel between producers and the fetcher: what is asked, asked again, and refused."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from augd.dataset.stores.object_store import ObjectFacts
from augd.dataset.stores.range_reader import BUFFER_SLOT_BYTES, ByteRange
from augd.dataset.stores.shard_ranges import RemoteShards
from augd.errors import StoreError
from augd.protocol import fetch_messages as said
from augd.server.fetcher.__main__ import Fetcher
from augd.transport.fetch_buffer import (
    FETCH_BUFFER_BYTES,
    NUM_BUFFER_SLOTS,
    FetchChannelEnd,
    make_fetch_channel,
)
from augd.transport.fetch_client import FetchClient
from augd.transport.unix_link import make_link, receive, send

SIZE = 40 << 20


class Shards(RemoteShards):
    """One shard in place of a store's; `gate` holds its reads back."""

    def __init__(self) -> None:
        self._facts = [ObjectFacts("a.tar", SIZE, '"x"', 7)]
        self.gate = threading.Event()
        self.gate.set()
        self.reads: list[int] = []
        self.failure = ""

    def read(self, shard: int, first: int, size: int) -> bytes:
        self.reads.append(first)
        assert self.gate.wait(20)
        if self.failure:
            raise StoreError(self.failure)
        return bytes([first % 251]) * size


class Running:
    """A fetcher in a thread, and the daemon's end of its link."""

    def __init__(self, shards: Shards) -> None:
        self.link, far = make_link()
        self.fetcher = Fetcher(far, None)
        self.fetcher._sets["set"] = shards
        self.thread = threading.Thread(target=self._run, name="fetcher")
        self.thread.start()

    def _run(self) -> None:
        with pytest.raises(EOFError):
            self.fetcher.run()

    def add(self, end: FetchChannelEnd) -> None:
        note = said.encode(said.UseFetchChannel(FETCH_BUFFER_BYTES))
        assert send(self.link, note, (end.socket.fileno(), end.fetch_buffer_fd))

    def close(self) -> None:
        self.link.close()
        self.thread.join()
        self.fetcher._pool.shutdown()
        for fetch_channel in self.fetcher._fetch_channels.values():
            fetch_channel.socket.close()
            os.close(fetch_channel.fetch_buffer_fd)
        self.fetcher._daemon.close()


@contextmanager
def running(shards: Shards) -> Iterator[Running]:
    one = Running(shards)
    try:
        yield one
    finally:
        one.close()


@contextmanager
def hatched(
    end: FetchChannelEnd, near: socket.socket, patience_s: float = 10.0
) -> Iterator[FetchClient]:
    """The producer's side; its thread ends with the last copy of the other end."""
    fetch_channel = FetchClient(near.detach(), os.dup(end.fetch_buffer_fd), patience_s)
    try:
        yield fetch_channel
    finally:
        end.close()
        deadline = time.monotonic() + 5
        while not fetch_channel._is_gone and time.monotonic() < deadline:
            time.sleep(0.01)
        fetch_channel._socket.close()


def check(fetch_channel: FetchClient, firsts: list[int], size: int = 100) -> None:
    pieces = [ByteRange(0, first, size, at * size) for at, first in enumerate(firsts)]
    with fetch_channel.reader("set").fetch(pieces) as memory:
        for piece in pieces:
            found = bytes(memory[piece.at : piece.at + size])
            assert found == bytes([piece.first % 251]) * size


@pytest.fixture
def shards() -> Shards:
    return Shards()


def test_bytes_of_several_ranges_and_threads_arrive_where_they_belong(shards: Shards) -> None:
    end, near = make_fetch_channel()
    failures: list[BaseException] = []

    def work(fetch_channel: FetchClient, number: int) -> None:
        try:
            for turn in range(20):
                check(fetch_channel, [number * 1000 + turn, turn, 5 * turn], 1000)
        except BaseException as error:
            failures.append(error)

    with hatched(end, near) as fetch_channel, running(shards) as fetcher:
        fetcher.add(end)
        threads = [
            threading.Thread(target=work, args=(fetch_channel, number))
            for number in range(2 * NUM_BUFFER_SLOTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check(fetch_channel, [3], BUFFER_SLOT_BYTES)
    assert not failures


def test_the_next_fetcher_is_asked_again_and_does_it_once(shards: Shards) -> None:
    """What the dead one had taken is asked anew; what it had not is not done twice."""
    end, near = make_fetch_channel()
    with hatched(end, near) as fetch_channel:
        lost = said.Ask(0, 1, "set", ((0, 7, 100, 0),))
        asking = threading.Thread(target=check, args=(fetch_channel, [7]))
        asking.start()
        frame, _ = receive_waiting(end.socket)
        assert said.decode_ask(frame).pieces[0][:3] == lost.pieces[0][:3]
        late = threading.Thread(target=check, args=(fetch_channel, [9]))
        late.start()  # and this lies in the socket still
        while len([one for one in fetch_channel._buffer_slots if one.frame]) < 2:
            time.sleep(0.01)
        with running(shards) as fetcher:
            fetcher.add(end)
            asking.join(10)
            late.join(10)
            assert not asking.is_alive() and not late.is_alive()
            check(fetch_channel, [11])
    assert sorted(shards.reads) == [7, 9, 11]


def receive_waiting(end: socket.socket) -> tuple[bytes, list[int]]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if (received := receive(end, wait=False)) is not None:
            return received
        time.sleep(0.01)
    raise AssertionError("nothing was asked")


def test_what_the_store_refuses_is_said_to_who_asked(shards: Shards) -> None:
    end, near = make_fetch_channel()
    with hatched(end, near) as fetch_channel, running(shards) as fetcher:
        fetcher.add(end)
        shards.failure = "s3://b/a.tar: it is not there (404)."
        with pytest.raises(StoreError, match=r"not there \(404\)"):
            check(fetch_channel, [1, 2, 3])
        shards.failure = ""
        check(fetch_channel, [1, 2, 3])


def test_a_lane_that_was_given_up_is_used_again_only_when_it_was_answered(shards: Shards) -> None:
    end, near = make_fetch_channel()
    with hatched(end, near, patience_s=0.2) as fetch_channel, running(shards) as fetcher:
        fetcher.add(end)
        shards.gate.clear()
        for _ in range(NUM_BUFFER_SLOTS):
            with pytest.raises(
                StoreError, match=r"no bytes came through the fetch channel within 0\.2 s"
            ):
                check(fetch_channel, [1])
        with pytest.raises(StoreError, match=r"no slot of the fetch buffer became free"):
            check(fetch_channel, [1])
        shards.gate.set()
        deadline = time.monotonic() + 5
        while len(fetch_channel._free) < NUM_BUFFER_SLOTS:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        check(fetch_channel, [5])


def test_nonsense_closes_its_channel_and_no_other(shards: Shards) -> None:
    """A producer that was taken over asks for other shards and other memory: it gets nothing."""
    places = [
        (1, 0, 10, 0),
        (0, SIZE - 5, 10, 0),
        (0, 0, 0, 0),
        (0, 0, 10, FETCH_BUFFER_BYTES - 5),
        (0, 2**62, 2**62, 0),
    ]
    frames = [said.encode(said.Ask(0, 1, "set", (place,))) for place in places]
    frames.append(said.encode(said.Ask(0, 1, "another", ((0, 0, 10, 0),))))
    frames.append(said.encode(said.Ask(said.BUFFER_SLOTS_MAX, 1, "set", ((0, 0, 10, 0),))))
    frames.append(b"\x93nonsense")
    end, near = make_fetch_channel()
    with hatched(end, near) as fetch_channel, running(shards) as fetcher:
        fetcher.add(end)
        for frame in frames:
            other, asking = make_fetch_channel()
            fetcher.add(other)
            other.close()
            assert receive(asking, wait=True) is not None, "AGAIN"
            assert send(asking, frame)
            with pytest.raises(EOFError):
                receive(asking, wait=True)
            asking.close()
        assert not shards.reads
        check(fetch_channel, [5])


def test_two_asks_at_once_in_one_lane_are_nonsense(shards: Shards) -> None:
    """Else a producer could have any number of requests queued."""
    other, asking = make_fetch_channel()
    with running(shards) as fetcher:
        fetcher.add(other)
        other.close()
        receive(asking, wait=True)
        shards.gate.clear()
        for turn in (1, 1, 2):
            send(asking, said.encode(said.Ask(0, turn, "set", ((0, 3, 10, 0),))))
        with pytest.raises(EOFError):
            receive(asking, wait=True)
        shards.gate.set()
    asking.close()
    assert shards.reads == [3]
