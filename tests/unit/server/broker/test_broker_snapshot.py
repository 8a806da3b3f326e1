"""What the broker tells to whoever looks on: counts that only grow, and the batch in hand."""

from __future__ import annotations

import pytest

from augd.protocol import messages as msg
from augd.server.daemon.broker import chunk_size
from augd.server.daemon.broker import events as ev
from tests.support.table import Table


def flow(table: Table, session: int, credit: int, *times_us: int, opening: int = 1) -> None:
    table.feed(ev.FromPeer(b"0", msg.Flow(session, opening, credit, *times_us)))


def release(table: Table, session: int, batch: msg.BatchMessage) -> None:
    table.feed(ev.FromPeer(b"0", msg.Release(session, batch.slot, batch.generation)))


@pytest.mark.clause("P-69")
def test_a_client_says_how_long_it_waited_and_handed_over() -> None:
    table = Table()
    session = table.open(0, batch_size=32, prefetch=2)
    flow(table, session, 4, 250_000, 300_000, 100_000)
    flow(table, session, 5, 1_000_000, 500_000, 750_000)
    flow(table, session, 6, 400_000, 400_000, 400_000)
    flow(table, session, 7, 9_000_000, 9_000_000, 9_000_000, opening=2)
    snapshot = table.broker.snapshot()
    for told in (snapshot["streams"][0], snapshot["datasets"]["d"]["sent"]):
        assert (told["waited_s"], told["transfer_s"], told["fetch_s"]) == (1.0, 0.5, 0.75)


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
        **{"bad": 0, "waited_s": 0.0, "transfer_s": 0.0, "fetch_s": 0.0},
    }
    assert snapshot["made"]["images"] == 192


def test_the_batch_in_hand_is_the_earliest_that_was_not_released() -> None:
    table = Table()
    session = table.open(0, batch_size=32, prefetch=2)
    (opened,) = table.got(0, msg.Opened)
    assert table.broker.look(opened.stream) is None
    table.make_all()
    first, second, *_ = table.got(0, msg.BatchMessage)
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
    table.feed(ev.FromLocalProducer(0, done))
    assert table.broker.snapshot()["producers"][0]["idle_s"] == 3.0, "its own word took the place"
    assert table.now - began == 4.0


def test_chunks_take_no_longer_than_usual_rows_would(monkeypatch) -> None:
    """Photos of 12 megapixels: a new stream would wait for seconds behind what is leased."""
    monkeypatch.setattr(chunk_size, "CHUNK_ROWS_UNKNOWN", 8)
    table = Table(producers=2)
    session = table.open(0, batch_size=64, prefetch=1)
    assert {lease.rows for lease in table.leases()} == {8}, "nobody knows yet"
    table.make_all(row_ns=25_000_000)
    said = [action for action in table.actions if isinstance(action, ev.Log)]
    text = "stream 2: a row takes 25 ms of CPU time: chunks of about 2 rows"
    assert [one.text for one in said if "a row takes" in one.text] == [text]
    num_before = len(table.leases())
    first = table.got(0, msg.BatchMessage)[0]
    release(table, session, first)
    flow(table, session, 3, 0)
    assert {lease.rows for lease in table.leases()[num_before:]} == {2}
    (one,) = table.broker.snapshot()["streams"]
    assert (one["chunk_rows"], one["row_s"]) == (2, 0.025)


def test_of_quick_rows_each_producer_finds_some_in_the_slots() -> None:
    found = []
    for producers in (1, 2, 4, 8, 16):
        table = Table(producers=producers)
        table.open(0, batch_size=256, prefetch=4)
        table.make_all(row_ns=10_000)
        found.append(table.broker.snapshot()["streams"][0]["chunk_rows"])
    assert found == [256, 160, 80, 40, 32]


def test_large_chunks_are_of_what_can_be_made_at_once() -> None:
    """A laggard's slots, and those without credit, are filled by nobody."""
    table = Table(producers=4)
    share = msg.Share(max_lag=0)
    session = table.open(0, batch_size=256, prefetch=16, share=share, credit=2)
    table.make_all(row_ns=10_000)
    release(table, session, table.got(0, msg.BatchMessage)[0])
    flow(table, session, 3)
    table.make_all(row_ns=10_000)
    assert len(table.got(0, msg.BatchMessage)) == 3
    assert table.broker.snapshot()["streams"][0]["chunk_rows"] == 32


def test_rows_that_wait_for_a_disk_are_not_quick() -> None:
    table = Table(producers=1)
    table.open(0, batch_size=256, prefetch=4)
    for lease in table.leases():
        done = msg.Done(lease.lease, cpu_ns=10_000 * lease.rows, busy_ns=2_000_000 * lease.rows)
        table.feed(ev.FromLocalProducer(0, done))
    assert table.broker.snapshot()["streams"][0]["chunk_rows"] == 32


def test_it_is_said_that_files_come_slowly() -> None:
    table = Table(producers=2)
    table.open(0, batch_size=256, prefetch=4)
    first, second, third = table.leases(1)[:3]
    for lease, added in ((first, 2), (second, 0), (third, 6)):
        table.feed(ev.FromLocalProducer(1, msg.Done(lease.lease, readers_added=added)))
    said = [one.text for one in table.actions if isinstance(one, ev.Log) and "files" in one.text]
    assert said == [
        f"producer 1 (pid 1) waits for its files: it reads {added} more at a time"
        for added in (2, 6)
    ]
    told = table.broker.snapshot()["producers"]
    assert [one["readers_added"] for one in told] == [0, 6]


def test_padding_is_no_quick_row() -> None:
    """The last batches of high ranks may be nothing else."""
    table = Table(producers=1, num_samples=300)
    table.open(0, prefetch=4, layout=msg.Layout(256, rank=1, world=2))
    padding = 0
    for _, lease in table.told:  # and what is told meanwhile
        if isinstance(lease, msg.Lease):
            rows = min(lease.rows, max(0, 44 - lease.first_row))
            padding += not rows
            table.done(0, lease, 10_000_000 * rows // lease.rows + 1_000)
    (one,) = table.broker.snapshot()["streams"]
    assert padding > 8
    assert one["row_s"] == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize(
    ("batch_size", "row_ns", "rows"),
    [
        *((64, 1_500_000, 32), (64, 1_700_000, 29), (64, 10**9, 1), (64, 0, 8)),
        *((1024, 10**9, 4), (4096, 0, 16), (2**16, 10**9, 32), (2**16, 0, 32)),
        # Quick rows: 20 ms of them, and a fourth of the two slots at most.
        *((64, 100, 32), (256, 100, 128), (256, 200_000, 100), (256, 700_000, 32), (4096, 9, 512)),
    ],
)
def test_rows_of_a_chunk(monkeypatch, batch_size: int, row_ns: int, rows: int) -> None:
    monkeypatch.setattr(chunk_size, "CHUNK_ROWS_UNKNOWN", 8)
    table = Table()
    table.open(0, batch_size=batch_size, prefetch=1)
    table.make_all(row_ns=row_ns)
    assert table.broker.snapshot()["streams"][0]["chunk_rows"] == rows
