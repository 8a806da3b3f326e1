"""One production for several clients: joined, waited for, left behind, left; and its receipts."""

from __future__ import annotations

from augd.protocol import messages as msg
from augd.server.daemon.broker import events as ev
from tests.support.table import RECIPE, Table

NEXT = msg.Share("next")
HERE = msg.Share("here")
OF_TWO = msg.Share("here", sharers=2, wait_s=5.0)


def places(table: Table, peer: int) -> list[tuple[int, int]]:
    return [(batch.epoch, batch.position) for batch in table.got(peer, msg.BatchMessage)]


def release(table: Table, peer: int, session: int, batch: msg.BatchMessage) -> list[ev.Action]:
    message = msg.Release(session, batch.slot, batch.generation)
    return table.feed(ev.FromPeer(b"%d" % peer, message))


def grant(table: Table, peer: int, session: int, credit: int) -> None:
    table.feed(ev.FromPeer(b"%d" % peer, msg.Flow(session, 1, credit)))


def test_sharers_get_each_batch_once_made_and_a_slot_waits_for_both() -> None:
    table = Table()
    sessions = [table.open(peer, batch_size=32, share=HERE) for peer in (0, 1)]
    table.make_all()
    first, other = (table.got(peer, msg.BatchMessage)[0] for peer in (0, 1))
    assert (first.slot, first.generation) == (other.slot, other.generation)
    assert len(table.leases()) == 2 and places(table, 0) == places(table, 1) == [(0, 0), (0, 32)]
    for peer, batch in ((0, first), (1, other)):
        assert len(table.leases()) == 2
        grant(table, peer, sessions[peer], 3)
        release(table, peer, sessions[peer], batch)
    assert [lease.slot for lease in table.leases()[2:]] == [first.slot]


def test_the_next_batch_is_where_a_sharer_joins() -> None:
    table = Table()
    table.open(0, batch_size=32, share=NEXT)
    table.make_all()
    session = table.open(1, batch_size=32, share=NEXT, place=(9, 0))
    (opened,) = table.got(1, msg.Opened)
    assert (opened.epoch, opened.position, opened.is_shared) == (0, 64, True)
    assert ev.GiveArena(opened.stream, session, True) in table.actions


def test_who_asks_for_a_place_that_is_past_gets_a_production_of_its_own() -> None:
    table = Table()
    table.open(0, batch_size=32, share=HERE)
    table.make_all()
    table.open(1, batch_size=32, share=HERE, place=(0, 64))
    table.open(2, batch_size=32, share=HERE)
    streams = [table.got(peer, msg.Opened)[0].stream for peer in range(3)]
    assert streams[0] == streams[1] != streams[2]


def test_a_production_waits_for_its_sharers_and_not_for_ever() -> None:
    table = Table()
    table.open(0, batch_size=32, share=OF_TWO)
    assert table.leases() == [] and table.broker.next_deadline() == 5.0
    table.open(1, batch_size=32, share=OF_TWO)
    assert len(table.leases()) == 2
    table.open(2, batch_size=64, share=OF_TWO)
    table.now = 5.0
    table.feed(ev.Tick())
    (notice,) = table.got(2, msg.Notice)
    assert notice.text.startswith("1 of 2 sharers of stream")
    assert notice.text.endswith("came in 5 s; it begins without the others")
    assert table.broker.next_deadline() is None or table.broker.next_deadline() > 5.0
    (stream,) = (one for one in table.broker.snapshot()["streams"] if one["batch_size"] == 64)
    assert stream["slots"] == {"filling": 2}


def test_what_a_gathering_stream_told_its_first_sharer_stays_true() -> None:
    table = Table()
    table.open(0, batch_size=32, share=OF_TWO)
    table.open(1, batch_size=32)
    table.die(0, table.leases()[0], 5, 77)
    table.die(0, next(one for one in table.leases() if one.rows == 1), 0, 77)
    assert table.got(1, msg.QuarantinedMessage) != []
    table.open(2, batch_size=32, share=OF_TWO)
    first, second = (table.got(peer, msg.Opened)[0] for peer in (0, 2))
    assert first.stream == second.stream
    assert first.quarantine == second.quarantine == ()


def test_a_laggard_is_left_behind_and_keeps_what_it_holds() -> None:
    table = Table()
    share = msg.Share("here", max_lag=1)
    fast, slow = (table.open(peer, batch_size=32, prefetch=1, share=share) for peer in (0, 1))
    table.make_all()
    for batch in table.got(0, msg.BatchMessage):
        release(table, 0, fast, batch)
    (detached,) = table.got(1, msg.Detached)
    assert detached.text == (
        f"session {slow} is 2 batches behind its fastest sharer, more than max_lag=1; "
        "it goes on by itself"
    )
    grant(table, 0, fast, 4)
    table.make_all()
    held = table.got(1, msg.BatchMessage)
    assert len(places(table, 0)) == 4 and len(held) == 2
    slots = {batch.slot for batch in held}
    assert slots.isdisjoint(batch.slot for batch in table.got(0, msg.BatchMessage)[2:])
    release(table, 1, slow, held[0])
    assert ev.EndSession(slow) in release(table, 1, slow, held[1])


def test_a_sharer_that_leaves_keeps_what_it_names_and_is_waited_for_no_more() -> None:
    table = Table()
    stays, leaves = (table.open(peer, batch_size=32, share=HERE) for peer in (0, 1))
    table.make_all()
    first, second = table.got(1, msg.BatchMessage)
    bye = msg.Bye(leaves, ((first.slot, first.generation),))
    assert ev.EndSession(leaves) not in table.feed(ev.FromPeer(b"1", bye))
    for batch in (first, second):
        grant(table, 0, stays, 4)
        release(table, 0, stays, batch)
    assert [lease.slot for lease in table.leases()[2:]] == [second.slot]
    assert ev.EndSession(leaves) in release(table, 1, leaves, first)
    assert [lease.slot for lease in table.leases()[3:]] == [first.slot]


def test_a_shared_stream_does_not_seek_and_an_opening_counts_once() -> None:
    table = Table()
    session = table.open(0, batch_size=32, share=NEXT)
    spec = msg.Spec("d", RECIPE, msg.Layout(32), prefetch=1)
    again = msg.Open(session, 1, spec, credit=2, share=NEXT)
    assert table.feed(ev.FromPeer(b"0", again)) == []
    assert table.broker.snapshot()["stale"] == {"opening": 1}
    table.feed(ev.FromPeer(b"0", msg.Open(session, 2, spec, 3, credit=2, share=NEXT)))
    (error,) = table.got(0, msg.Error)
    assert error.text == "a shared stream does not seek; connect again at the other place"


def test_an_early_opening_that_comes_again_does_not_replace_a_later_one() -> None:
    table = Table()
    table.feed(ev.FromPeer(b"0", msg.Hello("n")))
    (welcome,) = table.got(0, msg.Welcome)
    spec = msg.Spec("d", RECIPE, msg.Layout(32), prefetch=1)
    first, second = (msg.Open(welcome.session, n, spec, epoch=n, credit=2) for n in (1, 2))
    for message in (first, second, first):
        table.feed(ev.FromPeer(b"0", message))
    table.feed(ev.PeerAttached(welcome.session, welcome.token))
    (opened,) = table.got(0, msg.Opened)
    assert (opened.opening, opened.epoch) == (2, 2)


def test_a_sharer_that_grants_less_does_not_starve_the_stream() -> None:
    table = Table()
    table.open(0, batch_size=32, prefetch=3, share=HERE)
    spec = msg.Spec("d", RECIPE, msg.Layout(32), prefetch=3)
    table.feed(ev.FromPeer(b"1", msg.Hello("n")))
    (welcome,) = table.got(1, msg.Welcome)
    table.feed(ev.PeerAttached(welcome.session, welcome.token))
    request = msg.Open(welcome.session, 1, spec, share=HERE)
    table.feed(ev.FromPeer(b"1", request))
    (stream,) = table.broker._scheduler.streams.values()
    assert len(stream.clients) == 2 and stream.demand() == 1.0


def test_an_epoch_ends_with_the_sums_of_its_chunks() -> None:
    table = Table(num_samples=64)
    table.open(0, batch_size=64, prefetch=1)
    first, second = table.leases()[:2]
    for lease, digest, ids in ((second, 1 << 127, 3), (first, (1 << 127) + 5, (1 << 64) - 1)):
        done = msg.Done(
            lease.lease, 0, (), digest.to_bytes(16, "little"), ids.to_bytes(8, "little")
        )
        table.feed(ev.FromLocalProducer(0, done))
    (batch,) = table.got(0, msg.BatchMessage)
    (end,) = table.got(0, msg.EpochEnd)
    assert batch.digest == end.digest == (5).to_bytes(16, "little")
    assert end.ids_digest == (2).to_bytes(8, "little")
    assert (end.batches, end.samples) == (1, 64)


def test_a_drain_with_a_producer_due_wants_no_tick_that_changes_nothing() -> None:
    table = Table()
    for _ in range(2):
        table.feed(ev.Reaped(0, "SIGSEGV"))
        table.feed(ev.FromLocalProducer(0, msg.Ready(1, {})))
    assert table.broker.next_deadline() is not None
    table.feed(ev.DrainAsked("SIGTERM"))
    assert table.actions[-1] == ev.Stop()


def test_what_was_rewound_for_readers_that_left_is_not_made_for_nobody() -> None:
    table = Table()
    first = table.open(0, batch_size=32, prefetch=3, share=NEXT)
    table.open(1, batch_size=32, prefetch=3, share=NEXT)
    (stream,) = table.broker._scheduler.streams.values()
    stream.rewind(stream.batches[0])
    num_before = len(table.leases())
    table.feed(ev.PeerGone(first))
    table.make_all()
    assert [lease.position for lease in table.leases()[num_before:]] == [128, 160, 192, 224]
    assert places(table, 1) == [(0, 128), (0, 160), (0, 192), (0, 224)]
