"""Several clients on one production, message by message."""

from __future__ import annotations

import itertools

import pytest

from augd.protocol import messages as msg
from tests.protocol.harness import Client, FakeWire, Wire, make_spec

clause = pytest.mark.clause
NEXT = msg.Share("next")
HERE = msg.Share("here")


# Streams of tests before may still be on their way out: another seed's are not joined.
SEEDS = itertools.count(100)


def join(
    wire: Wire,
    share: msg.Share = NEXT,
    *,
    credit: int = 2,
    spec: msg.Spec | None = None,
    **place: int,
) -> Client:
    client = Client(wire).join()
    client.open(spec or make_spec(), credit=credit, share=share, **place)
    return client


def batches(client: Client) -> list[msg.BatchMessage]:
    return [heard for heard in client.settle() if isinstance(heard, msg.BatchMessage)]


def opened_together(wire: Wire, share: msg.Share, *, credit: int = 2) -> tuple[Client, Client]:
    first, second = join(wire, share, credit=credit), join(wire, share, credit=credit)
    for client in (first, second):
        client.hear(msg.Opened)
    return first, second


def sessions_of(client: Client, number: int) -> list[int]:
    """Sessions of one stream: those of tests before may still be on their way out."""
    streams = {stream["stream"]: stream for stream in client.status()["streams"]}
    sessions: list[int] = streams[number]["sessions"]
    return sessions


@clause("P-110", "P-112")
def test_who_comes_later_joins_at_the_next_batch_and_counts_for_himself(wire: Wire) -> None:
    spec = make_spec(seed=next(SEEDS))
    first = join(wire, spec=spec)
    opened = first.hear(msg.Opened)
    assert (opened.epoch, opened.position, opened.is_shared) == (0, 0, True)
    assert [batch.position for batch in batches(first)] == [0, 3]
    second = join(wire, spec=spec)
    joined = second.hear(msg.Opened)
    assert (joined.stream, joined.epoch, joined.position) == (opened.stream, 0, 6)
    assert batches(second) == [], "the first has no credit for what comes next"
    first.flow(3)
    (mine,), (theirs,) = batches(first), batches(second)
    assert (mine.position, mine.sequence) == (6, 2)
    assert (theirs.position, theirs.sequence) == (6, 0)
    assert (mine.slot, mine.generation, mine.digest) == (
        *(theirs.slot, theirs.generation),
        theirs.digest,
    )
    assert first.ids(mine) == second.ids(theirs) == [6, 7, 8]


@clause("P-110")
@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"prefetch": 3}, {"batch_size": 2}, {"bad": "fail"}]
)
def test_who_asks_for_something_else_joins_nobody(fake: FakeWire, changes: dict[str, int]) -> None:
    first = join(fake)
    second = Client(fake).join()
    second.open(make_spec(**changes), share=NEXT)
    other = Client(fake).join()
    other.open(share=msg.Share("next", max_lag=1))
    alone = Client(fake).join()
    alone.open()
    streams = {client.hear(msg.Opened).stream for client in (first, second, other, alone)}
    assert len(streams) == 4


@clause("P-110")
def test_a_place_is_joined_where_it_can_still_be_sent(fake: FakeWire) -> None:
    first = join(fake, credit=1)
    stream = first.hear(msg.Opened).stream
    assert [batch.position for batch in batches(first)] == [0]
    assert join(fake, HERE, position=3).hear(msg.Opened).stream == stream
    assert join(fake, HERE, position=0).hear(msg.Opened).stream != stream, "it was sent already"


@clause("P-111")
def test_nothing_is_begun_before_all_sharers_came(wire: Wire) -> None:
    share = msg.Share("here", sharers=2, wait_s=60)
    first = join(wire, share)
    first.hear(msg.Opened)
    assert first.settle() == []
    second = join(wire, share)
    second.hear(msg.Opened)
    assert [b.position for b in batches(first)] == [b.position for b in batches(second)] == [0, 3]


@clause("P-111")
def test_sharers_that_do_not_come_are_given_up(fake: FakeWire) -> None:
    client = join(fake, msg.Share("here", sharers=3, wait_s=5))
    client.hear(msg.Opened)
    assert fake.broker.next_deadline() == fake.now + 5
    fake.turn_clock(4.9)
    assert client.rest() == []
    fake.turn_clock(0.2)
    assert client.hear(msg.Notice).text.startswith("1 of 3 sharers of stream ")
    assert client.hear(msg.BatchMessage).position == 0


@clause("P-112")
def test_a_slot_is_free_when_all_have_released_it(wire: Wire) -> None:
    share = msg.Share("here", sharers=2, wait_s=60)
    first, second = join(wire, share, credit=9), join(wire, share, credit=9)
    for client in (first, second):
        client.hear(msg.Opened)
    mine, theirs = batches(first), batches(second)
    assert len(mine) == len(theirs) == 3, "as many as there are slots"
    first.release(mine[0])
    assert batches(first) == batches(second) == []
    second.release(theirs[1])
    assert batches(second) == batches(first) == []
    second.release(theirs[0])
    assert len(batches(second)) == 1  # what it said has arrived, on a connection of its own
    (more,) = batches(first)
    assert (more.slot, more.generation) == (mine[0].slot, mine[0].generation + 1)


@clause("P-113")
def test_a_shared_stream_does_not_seek(wire: Wire) -> None:
    client = join(wire)
    client.hear(msg.Opened)
    client.settle()
    client.open(share=HERE, epoch=1)
    error = client.hear(msg.Error)
    assert (error.code, error.text) == (
        "BAD_OPTION",
        "a shared stream does not seek; connect again at the other place",
    )


@clause("P-114")
def test_who_leaves_keeps_what_he_holds_and_holds_nobody_up(wire: Wire) -> None:
    share = msg.Share("here", sharers=2, wait_s=60)
    first, second = join(wire, share), join(wire, share)
    stream = first.hear(msg.Opened).stream
    second.hear(msg.Opened)
    held, let_go = batches(second)
    second.say(msg.Bye(second.session, ((held.slot, held.generation),)))
    for batch in batches(first):
        first.release(batch)
    first.flow(9)
    slots = [batch.slot for batch in batches(first)]
    assert held.slot not in slots
    assert let_go.slot in slots
    assert second.rest() == [], "nothing more is sent"
    assert second.ids(held) == [0, 1, 2]
    assert second.session in sessions_of(second, stream)
    second.release(held)
    assert second.session not in sessions_of(second, stream)


@clause("P-115")
def test_a_laggard_is_left_behind_with_what_it_holds(wire: Wire) -> None:
    share = msg.Share("here", sharers=2, wait_s=60, max_lag=1)
    slow, fast = join(wire, share), join(wire, share)
    opened = slow.hear(msg.Opened)
    fast.hear(msg.Opened)
    assert opened.num_slots == make_spec().prefetch + 1 + 3
    held = batches(slow)
    first, second = batches(fast)
    fast.release(first)
    fast.flow(3)
    assert batches(fast) == [], "the slow one has no credit for it, and is waited for"
    assert slow.settle() == []
    fast.release(second)
    (third,) = batches(fast)
    assert third.position == 6
    detached = slow.hear(msg.Detached)
    assert detached.text == (
        f"session {slow.session} is 2 batches behind its fastest sharer, more than max_lag=1; it "
        "goes on by itself"
    )
    fast.release(third)
    fast.flow(9)
    assert not {batch.slot for batch in batches(fast)} & {batch.slot for batch in held}
    assert [slow.ids(batch) for batch in held] == [[0, 1, 2], [3, 4, 5]]
