"""The broker's decisions about producers: who gets which chunk, and what a death costs."""

from __future__ import annotations

from collections import Counter

import pytest

from augd.protocol import messages as msg
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.producers import (
    DEPTH,
    LOW_WATER,
    PATIENCE_S,
    PAUSE_MAX_S,
    ProducerPool,
)
from tests.support.table import RECIPE, Table


def test_a_producer_is_filled_to_its_depth_and_again_at_low_water() -> None:
    table = Table()
    table.open(0)
    assert len(table.leases()) == DEPTH
    for count in range(1, DEPTH - LOW_WATER):
        table.done(0, table.leases()[count - 1])
        assert len(table.leases()) == DEPTH
    table.done(0, table.leases()[DEPTH - LOW_WATER - 1])
    assert len(table.leases()) == DEPTH + DEPTH - LOW_WATER


def test_hungry_producers_are_filled_in_turns() -> None:
    table = Table(producers=2)
    table.open(0)
    assert [number for number, m in table.told if isinstance(m, msg.Lease)] == [0, 1] * DEPTH


def test_many_producers_share_what_there_is() -> None:
    """Fewer chunks than all could hold: nobody queues up what others could do at once."""
    table = Table(producers=12)
    table.open(0, batch_size=256)
    held = Counter(number for number, m in table.told if isinstance(m, msg.Lease))
    assert len(held) == 12
    assert max(held.values()) - min(held.values()) <= 1


def test_chunks_of_a_batch_are_its_rows_once_and_in_order() -> None:
    table = Table(producers=3)
    table.open(0, batch_size=100)
    first = [lease for lease in table.leases() if lease.position == 0]
    assert [(lease.first_row, lease.rows) for lease in first] == [(0, 33), (33, 33), (66, 34)]


def test_the_chunk_of_a_dead_producer_goes_out_first_and_counts_as_suspect() -> None:
    table = Table()
    table.open(0)
    before = table.leases()
    table.told.clear()
    table.feed(ev.Reaped(0, "SIGSEGV", "signal"))
    assert any(isinstance(action, ev.StartProducer) for action in table.actions)
    table.feed(ev.FromLocalProducer(0, msg.Ready(1, {})))
    again = table.leases()
    places = [(lease.position, lease.first_row, lease.slot) for lease in before]
    assert [(lease.position, lease.first_row, lease.slot) for lease in again] == places
    # Only the one in the making can have killed it.
    assert [lease.attempt for lease in again] == [1] + [0] * (DEPTH - 1)
    assert not {lease.lease for lease in again} & {lease.lease for lease in before}


def test_a_late_done_after_a_seek_fills_nothing_but_frees_its_slot() -> None:
    table = Table()
    session = table.open(0, batch_size=32, prefetch=1)
    old = table.leases()
    assert len(old) == 2
    spec = msg.Spec("d", RECIPE, msg.Layout(32), prefetch=1)
    table.feed(ev.FromPeer(b"0", msg.Open(session, 2, spec, epoch=1, credit=2)))
    revokes = [message for _, message in table.told if isinstance(message, msg.Revoke)]
    assert revokes == [msg.Revoke(tuple(lease.lease for lease in old))]
    assert table.leases() == old  # no slot is free before the producer answered
    table.feed(ev.FromLocalProducer(0, msg.Dropped(old[1].lease)))
    assert [lease.epoch for lease in table.leases()[2:]] == [1]
    table.done(0, old[0])
    assert [lease.epoch for lease in table.leases()[2:]] == [1, 1]
    assert not any(isinstance(message, msg.BatchMessage) for message in table.sent[0])


def test_a_stream_that_ends_is_dropped_everywhere_and_its_leases_revoked() -> None:
    table = Table(producers=2)
    session = table.open(0)
    table.told.clear()
    actions = table.feed(ev.PeerGone(session))
    assert ev.EndSession(session) in actions
    assert sum(isinstance(action, ev.DropArena) for action in actions) == 1
    for producer in range(2):
        kinds = [type(message) for number, message in table.told if number == producer]
        assert kinds == [msg.Revoke, msg.Drop]


def test_fail_ends_the_stream_with_the_producers_words() -> None:
    table = Table()
    table.open(0)
    table.feed(ev.FromLocalProducer(0, msg.Fail(table.leases()[0].lease, "ValueError: no")))
    error = table.sent[0][-1]
    assert isinstance(error, msg.Error)
    assert (error.code, error.text) == ("INTERNAL", "a producer failed: ValueError: no")


def test_last_words_are_what_a_death_is_reported_as() -> None:
    table = Table()
    table.feed(ev.FromLocalProducer(0, msg.LastWords("MemoryError")))
    actions = table.feed(ev.Reaped(0, "status 1"))
    assert ev.Log(30, "producer 0 (pid 0) ended: MemoryError") in actions


@pytest.mark.parametrize(
    ("fraction", "num_samples", "allowed"), [(0.01, 1000, 10), (0.01, 50, 1), (0.0, 50, 0)]
)
def test_the_allowed_number_of_bad_samples_is_rounded_up(
    fraction: float, num_samples: int, allowed: int
) -> None:
    table = Table(num_samples=num_samples)
    table.open(0, batch_size=num_samples, max_bad_fraction=fraction)
    bad = (msg.BadRow(1, "1.jpg", "empty"),)
    first, second = table.leases()[:2]
    table.feed(ev.FromLocalProducer(0, msg.Done(first.lease, allowed, bad if allowed else ())))
    assert not any(isinstance(message, msg.Error) for message in table.sent[0])
    table.feed(ev.FromLocalProducer(0, msg.Done(second.lease, 1, bad)))
    error = table.sent[0][-1]
    assert isinstance(error, msg.Error)
    assert error.text.startswith(f"{allowed + 1} bad samples in epoch 0, more than the {allowed}")


def test_bad_samples_of_two_epochs_are_not_added_up() -> None:
    table = Table(num_samples=64)
    table.open(0, batch_size=32, prefetch=3)
    bad = (msg.BadRow(1, "1.jpg", "empty"),)
    first, _, ahead, _ = table.leases()
    assert (first.epoch, ahead.epoch) == (0, 1)
    for lease in (first, ahead):  # one is allowed in each; the first epoch is not yet sent whole
        table.feed(ev.FromLocalProducer(0, msg.Done(lease.lease, 1, bad)))
    assert not any(isinstance(message, msg.Error) for message in table.sent[0])


class Traffic:
    """One producer and clients that give back at once all but the batches they have in hand."""

    def __init__(self) -> None:
        self.table = Table()
        self.queue: list[msg.Lease] = []
        self.peers: dict[int, tuple[int, int, int]] = {}  # peer -> session, slots, in hand
        self.held: dict[int, list[msg.BatchMessage]] = {}
        self.released: Counter[int] = Counter()

    def join(self, peer: int, *, prefetch: int, in_hand: int = 0) -> None:
        self.table.told.clear()
        session = self.table.open(peer, prefetch=prefetch)
        self.queue += self.table.leases()
        self.peers[peer] = (session, prefetch + 1, in_hand)
        self.held[peer] = []

    def run(self, num_chunks: int = 4000) -> list[int]:
        """Make so many chunks; returns the rows of each stream, in the order that they joined."""
        rows: Counter[int] = Counter()
        for _ in range(num_chunks):
            lease = self.queue.pop(0)
            rows[lease.stream] += lease.rows
            self.table.told.clear()
            for sent in self.table.sent.values():
                sent.clear()
            self.table.done(0, lease)
            for peer in self.peers:
                self.give_back(peer)
            self.queue += self.table.leases()
        return [count for _, count in sorted(rows.items())]  # streams are numbered as they open

    def give_back(self, peer: int) -> None:
        session, slots, in_hand = self.peers[peer]
        held = self.held[peer]
        sent = self.table.sent[peer]
        held += [message for message in sent if isinstance(message, msg.BatchMessage)]
        while len(held) > in_hand:
            batch = held.pop(0)
            self.released[peer] += 1
            release = msg.Release(session, batch.slot, batch.generation)
            flow = msg.Flow(session, 1, self.released[peer] + slots)
            for message in (release, flow):
                self.table.feed(ev.FromPeer(b"%d" % peer, message))


def test_equally_hungry_streams_get_equal_shares() -> None:
    traffic = Traffic()
    traffic.join(0, prefetch=2)
    traffic.join(1, prefetch=2)
    first, second = traffic.run()
    assert 0.95 < first / second < 1.05


def test_a_stream_that_lacks_less_gets_less_but_does_not_starve() -> None:
    # Of its slots, the first lacks 4 in 5 and the second 1 in 2: shares of 8 to 5.
    traffic = Traffic()
    traffic.join(0, prefetch=4, in_hand=1)
    traffic.join(1, prefetch=1, in_hand=1)
    first, second = traffic.run()
    assert 1.4 < first / second < 1.8


def test_a_stream_that_comes_late_shares_from_its_first_moment() -> None:
    traffic = Traffic()
    traffic.join(0, prefetch=2)
    traffic.run(1000)
    traffic.join(1, prefetch=2)
    first, second = traffic.run(100)
    assert 0.8 < first / second < 1.25


def test_restarts_pause_longer_and_longer_until_a_chunk_is_finished() -> None:
    pool = ProducerPool(1, PATIENCE_S)
    backoff = []
    for _ in range(9):
        assert list(pool.due(100.0)) == [0]
        pool.remove_exited(0, "SIGSEGV", 0.0, is_draining=False)
        backoff.append(pool.restart_at[0])
    assert backoff == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, PAUSE_MAX_S, PAUSE_MAX_S]


def test_producers_that_died_together_come_back_one_after_another() -> None:
    pool = ProducerPool(4, PATIENCE_S)
    assert list(pool.due(0.0)) == [0, 1, 2, 3]
    pool.exits_in_row = 4
    for number in range(4):
        pool.exits_in_row = 4
        pool.remove_exited(number, "SIGSEGV", 0.0, is_draining=False)
    assert sorted(pool.restart_at.values()) == pytest.approx([0.8, 0.9, 1.0, 1.1])


def test_nobody_is_replaced_while_draining() -> None:
    table = Table(producers=2)
    table.feed(ev.DrainAsked("SIGTERM"))
    table.actions.clear()
    table.feed(ev.Reaped(0, "status 0"))
    assert table.actions == []
    table.feed(ev.Reaped(1, "status 0"))
    assert table.actions == [ev.Stop()]


def test_an_idle_producer_is_not_hanging() -> None:
    table = Table()
    table.now = 1e6
    assert table.feed(ev.Tick()) == []
    assert table.broker.next_deadline() is None
