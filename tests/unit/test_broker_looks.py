"""What the broker tells to whoever looks on: counts that only grow, and the batch in hand."""

from __future__ import annotations

import pytest

from augd.broker import events as ev
from augd.wire import messages as msg
from tests.table import Table


def flow(table: Table, session: int, credit: int, waited_us: int, opening: int = 1) -> None:
    table.feed(ev.FromPeer(b"0", msg.Flow(session, opening, credit, waited_us)))


def release(table: Table, session: int, batch: msg.BatchReady) -> None:
    table.feed(ev.FromPeer(b"0", msg.Release(session, batch.slot, batch.generation)))


@pytest.mark.clause("P-69")
def test_a_client_says_how_long_it_waited() -> None:
    table = Table()
    session = table.open(0, batch_size=32, prefetch=2)
    flow(table, session, 4, 250_000)
    flow(table, session, 5, 1_000_000)
    flow(table, session, 6, 400_000)
    flow(table, session, 7, 9_000_000, opening=2)
    snapshot = table.broker.snapshot()
    assert snapshot["streams"][0]["waited_s"] == 1.0
    assert snapshot["datasets"]["d"]["sent"]["waited_s"] == 1.0


def test_what_was_sent_is_counted_also_when_the_stream_is_gone() -> None:
    table = Table()
    for _ in range(2):
        session = table.open(0, batch_size=32, prefetch=2)
        table.make_all()
        table.feed(ev.FromPeer(b"0", msg.Bye(session)))
    snapshot = table.broker.snapshot()
    assert snapshot["streams"] == []
    assert snapshot["datasets"]["d"]["sent"] == {
        **{"batches": 6, "images": 192},
        **{"bad": 0, "waited_s": 0.0},
    }
    assert snapshot["made"]["images"] == 192


def test_the_batch_in_hand_is_the_earliest_that_was_not_released() -> None:
    table = Table()
    session = table.open(0, batch_size=32, prefetch=2)
    (opened,) = table.got(0, msg.Opened)
    assert table.broker.look(opened.stream) is None
    table.make_all()
    first, second, *_ = table.got(0, msg.BatchReady)
    seen = table.broker.look(opened.stream)
    assert seen is not None
    assert (seen.slot, seen.generation) == (first.slot, first.generation)
    assert (seen.epoch, seen.number, seen.rows) == (0, 0, 32)
    release(table, session, first)
    later = table.broker.look(opened.stream)
    assert later is not None and later.number == second.number
    again = table.broker.look(opened.stream, seen.slot)
    assert again is not None and again.generation > seen.generation
    assert table.broker.look(opened.stream + 99) is None


def test_a_producer_that_gets_no_work_waits_all_the_same() -> None:
    """It reports with its next chunk, which may never come; the broker knows without it."""
    table = Table()
    began = table.now
    table.now += 3.0
    table.feed(ev.Tick())
    (idle,) = table.broker.snapshot()["producers"]
    assert idle["idle_s"] == 3.0
    assert table.broker.snapshot(table.now + 2.0)["producers"][0]["idle_s"] == 5.0
    table.open(0, batch_size=32, prefetch=2)
    table.now += 1.0
    (busy,) = table.broker.snapshot(table.now)["producers"]
    assert busy["idle_s"] == 3.0, "at work since then, and nothing is forgotten"
    done = msg.Done(table.leases()[0].lease, busy_ns=1_000_000_000, idle_ns=3_000_000_000)
    table.feed(ev.FromCrew(0, done))
    assert table.broker.snapshot()["producers"][0]["idle_s"] == 3.0, "its own word took the place"
    assert table.now - began == 4.0
