"""Links: whole messages, fds along, and the end of either side."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from augd.protocol.limits import HEADER_BYTES_MAX
from augd.transport import unix_link
from augd.transport.unix_link import make_link, peer_uid, receive, send

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = make_link()
    with near, far:
        yield near, far


def num_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_messages_arrive_whole_and_in_order(pair: Pair) -> None:
    near, far = pair
    assert send(near, b"one")
    assert send(near, b"x" * HEADER_BYTES_MAX)
    assert receive(far, wait=True) == (b"one", [])
    assert receive(far, wait=False) == (b"x" * HEADER_BYTES_MAX, [])
    assert receive(far, wait=False) is None


def test_fds_ride_along_and_are_not_inherited(pair: Pair) -> None:
    near, far = pair
    read_fd, write_fd = os.pipe()
    send(near, b"a pipe", (read_fd, write_fd))
    received = receive(far, wait=True)
    assert received is not None
    frame, fds = received
    assert frame == b"a pipe"
    assert not any(os.get_inheritable(fd) for fd in fds)
    os.write(fds[1], b"through")
    assert os.read(read_fd, 10) == b"through"
    for fd in (read_fd, write_fd, *fds):
        os.close(fd)


@pytest.mark.parametrize("wait", [True, False])
def test_the_end_of_the_other_side_is_an_end(pair: Pair, wait: bool) -> None:
    near, far = pair
    send(far, b"last words")
    far.close()
    assert receive(near, wait=wait) == (b"last words", [])
    with pytest.raises(EOFError):
        receive(near, wait=wait)
    assert send(near, b"anybody?") is False


def test_a_message_that_is_too_long_ends_the_link_and_leaks_no_fd(pair: Pair) -> None:
    near, far = pair
    before = num_fds()
    send(near, b"x" * (HEADER_BYTES_MAX + 1), (near.fileno(),))
    with pytest.raises(
        EOFError, match="a message was truncated: the other side sends more than a head"
    ):
        receive(far, wait=True)
    assert num_fds() == before


def test_more_fds_than_a_message_has_end_the_link_and_leak_none(pair: Pair) -> None:
    near, far = pair
    before = num_fds()
    send(near, b"many", [near.fileno()] * (unix_link._FDS_MAX + 3))
    with pytest.raises(EOFError, match="a message was truncated"):
        receive(far, wait=True)
    assert num_fds() == before


def test_sending_never_blocks(pair: Pair) -> None:
    near, _ = pair
    num_sent = 0
    while send(near, b"x" * 10_000):
        num_sent += 1
        assert num_sent < 1000
    assert num_sent > 0


def test_the_kernel_names_the_peer(pair: Pair) -> None:
    assert peer_uid(pair[0]) == os.getuid()
