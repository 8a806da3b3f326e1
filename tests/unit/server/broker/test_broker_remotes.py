"""The broker's decisions about producers of other hosts: who joins, whose rows count, who left."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from augd.plan.params_layout import NUM_PARAMS
from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.protocol.limits import PLACES_MAX
from augd.protocol.permissions import Rights
from augd.protocol.slot_layout import chunk_layout, row_frames, slot_layout
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.chunk_size import remote_rows_max
from augd.server.daemon.broker.producers import DEPTH, JOIN_S, PATIENCE_S, REAP_S, ProducerPool
from augd.server.daemon.broker.remote_producers import RowTarget
from tests.support.table import Table

clause = pytest.mark.clause

DIGEST = "0" * 32


def offer(**changes: object) -> msg.Join:
    fields = {"host": "node7", "pid": 9, "datasets": {"d": DIGEST}, "environment": {}, **changes}
    return msg.Join(**fields)  # type: ignore[arg-type]


def ask(table: Table, join: msg.Join, who: Rights | None = None) -> msg.ToClient:
    table.feed(ev.FromPeer(b"77", join, who))
    return table.sent[77][-1]


def join(table: Table, who: Rights | None = None) -> int:
    """Have a remote producer join and attach; returns its number."""
    joined = ask(table, offer(), who)
    assert isinstance(joined, msg.Joined)
    assert table.broker.admits_remote(joined.producer, joined.token)
    table.feed(ev.RemoteProducerAttached(joined.producer, joined.token))
    return joined.producer


def refused(
    table: Table, code: str, text: str, who: Rights | None = None, **changes: object
) -> None:
    error = ask(table, offer(**changes), who)
    assert isinstance(error, msg.Error)
    assert (error.code, error.is_retryable) == (code, False)
    assert text in error.text


@clause("P-130")
def test_numbers_begin_behind_all_places_and_none_comes_twice() -> None:
    table = Table(producers=2)
    numbers = [join(table), join(table)]
    table.feed(ev.RemoteProducerGone(numbers[0], "it left"))
    assert [*numbers, join(table)] == [PLACES_MAX, PLACES_MAX + 1, PLACES_MAX + 2]


@clause("P-131")
def test_what_differs_is_named() -> None:
    table = Table(producers=0)
    first = ask(table, offer(environment={"opencv": "5.0"}))
    assert isinstance(first, msg.Joined), "the first one decides"
    refused(table, "SPEC_MISMATCH", "'d' is missing: give it as d=PATH", datasets={})
    more = {"d": DIGEST, "e": DIGEST}
    refused(table, "SPEC_MISMATCH", "'e' is not served by this daemon: leave it out", datasets=more)
    other = {"d": "1" * 32}
    text = f"'d': expected the index digest {DIGEST}, got {'1' * 32}: the paths below"
    refused(table, "SPEC_MISMATCH", text, datasets=other)
    text = "opencv: expected 5.0 as the daemon's other producers have it, got 4.9 on node7; install"
    refused(table, "SPEC_MISMATCH", text, environment={"opencv": "4.9"})
    text = "plugin.ops: expected absent as the daemon's"
    both = {"opencv": "5.0", "plugin.ops": "aa"}
    refused(table, "SPEC_MISMATCH", text, environment=both)


@clause("P-131")
def test_the_daemons_own_producers_speak_first() -> None:
    table = Table(producers=0)
    table.broker._scheduler.pool.size = 1
    answer = ask(table, offer())
    assert isinstance(answer, msg.Error)
    assert (answer.code, answer.is_retryable) == ("PROTOCOL_STATE", True)


@clause("P-132")
def test_a_key_needs_the_right_to_produce_and_loses_it_at_once() -> None:
    table = Table(producers=1)
    text = "'alice' may not produce: the daemon's operator allows it by `produce = true`"
    refused(table, "FORBIDDEN", text, who=Rights("alice"))
    bob = Rights("bob", may_produce=True)
    number = join(table, bob)
    table.feed(ev.RightsChanged("alice", "changed"))
    assert number in table.broker._scheduler.pool.members
    actions = table.feed(ev.RightsChanged("bob", "changed"))
    assert ev.ForgetProducer(number, "changed") in actions
    assert number not in table.broker._scheduler.pool.members


@clause("P-133")
def test_only_who_joined_attaches_and_only_once() -> None:
    table = Table(producers=0)
    joined = ask(table, offer())
    assert isinstance(joined, msg.Joined)
    assert not table.broker.admits_remote(joined.producer, "wrong")
    assert not table.broker.admits_remote(joined.producer + 1, joined.token)
    table.feed(ev.RemoteProducerAttached(joined.producer, joined.token))
    assert not table.broker.admits_remote(joined.producer, joined.token)
    local = Table(producers=1)
    assert not local.broker.admits_remote(0, "")


@clause("P-133")
def test_who_joins_and_never_attaches_is_forgotten() -> None:
    table = Table(producers=0)
    joined = ask(table, offer())
    assert isinstance(joined, msg.Joined)
    assert table.broker.next_deadline() == JOIN_S
    table.now = JOIN_S
    table.feed(ev.Tick())
    assert not table.broker.admits_remote(joined.producer, joined.token)
    assert table.broker._scheduler.pool.members == {}


@clause("P-134")
def test_leases_are_of_its_own_memory_and_of_the_same_rows() -> None:
    table = Table(producers=0)
    join(table)
    table.open(0, batch_size=100)
    uses = [message for _, message in table.told if isinstance(message, msg.StreamMessage)]
    arrays, slot_bytes = chunk_layout(slot_layout(100, 8, 8)[0], 48)
    assert [(use.arrays, use.slot_bytes, use.num_slots) for use in uses] == [
        (arrays, slot_bytes, DEPTH)
    ]
    leases = table.leases()
    assert [(one.position, one.first_row, one.rows, one.slot) for one in leases] == [
        *((0, 0, 33, 0), (33, 0, 33, 1), (66, 0, 34, 2)),
        *((100, 0, 33, 3), (133, 0, 33, 4), (166, 0, 34, 5)),
    ]
    targets = [table.broker.target(PLACES_MAX, one.lease) for one in leases[:4]]
    whole, whole_bytes = slot_layout(100, 8, 8)
    assert targets == [
        RowTarget(leases[0].stream, slot * whole_bytes, whole, first, rows)
        for slot, first, rows in ((0, 0, 33), (0, 33, 33), (0, 66, 34), (1, 0, 33))
    ]


@pytest.mark.parametrize("batch_size", [1, 31, 32, 47, 48, 79, 80, 255, 256, 1000])
def test_no_chunk_is_larger_than_its_slot(batch_size: int) -> None:
    table = Table(producers=0, num_samples=batch_size + batch_size // 2 + 1)
    number = join(table)
    table.open(0, batch_size=batch_size, prefetch=3)
    sizes = set()
    while (leases := table.leases())[-1].epoch < 3:
        for lease in leases:
            sizes.add(lease.rows)
            table.feed(ev.FromRemoteProducer(number, msg.Done(lease.lease)))
        table.told = [one for one in table.told if one[1] not in leases]
        for batch in table.got(0, msg.BatchMessage):
            release = msg.Release(batch.session, batch.slot, batch.generation)
            table.feed(ev.FromPeer(b"0", release))
            table.feed(ev.FromPeer(b"0", msg.Flow(batch.session, 1, 1000)))
        table.sent[0].clear()
        if not table.leases():
            break
    assert max(sizes) <= remote_rows_max(batch_size)


def test_a_chunk_of_quick_rows_is_divided_for_a_remote_producer() -> None:
    table = Table(producers=1, num_samples=2048)
    session = table.open(0, batch_size=256, prefetch=3)
    table.make_all(row_ns=10_000)
    number, num_told = join(table), len(table.told)
    ready = table.got(0, msg.BatchMessage)
    for batch in ready:
        release = msg.Release(session, batch.slot, batch.generation)
        table.feed(ev.FromPeer(b"0", release))
    table.feed(ev.FromPeer(b"0", msg.Flow(session, 1, 8)))
    made = Counter[tuple[int, int]]()
    sizes: dict[bool, set[int]] = {True: set(), False: set()}
    for producer, lease in islice(table.told, num_told, None):  # and what is told meanwhile
        if not isinstance(lease, msg.Lease):
            continue
        is_remote = producer == number
        sizes[is_remote].add(lease.rows)
        first = lease.position % 256 if is_remote else lease.first_row
        made.update((lease.position // 256, row) for row in range(first, first + lease.rows))
        answer = ev.FromRemoteProducer if is_remote else ev.FromLocalProducer
        table.feed(answer(producer, msg.Done(lease.lease)))
        for batch in table.got(0, msg.BatchMessage)[len(ready) :]:
            assert sum(one == batch.number for one, _ in made) == 256, "none is half made"
    assert (max(sizes[True]), max(sizes[False])) == (32, 128), "as much as it has room for"
    assert set(made.values()) == {1} and len(made) == 4 * 256
    assert len(table.got(0, msg.BatchMessage)) == len(ready) + 4


def test_what_a_chunk_did_to_producers_is_known_of_its_parts() -> None:
    table = Table(producers=1, num_samples=2048)
    session = table.open(0, batch_size=256, prefetch=3)
    table.make_all(row_ns=10_000)
    for batch in table.got(0, msg.BatchMessage)[:2]:
        release = msg.Release(session, batch.slot, batch.generation)
        table.feed(ev.FromPeer(b"0", release))
    table.feed(ev.FromPeer(b"0", msg.Flow(session, 1, 6)))
    table.feed(ev.Reaped(0, "SIGSEGV", ExitReason.SIGNAL))
    number = join(table)
    for _ in range(3):  # one at a time while another producer starts
        table.feed(ev.FromRemoteProducer(number, msg.Done(table.leases(number)[-1].lease)))
    leases = [(one.rows, one.attempt) for one in table.leases(number)]
    assert leases[:4] == [(32, 1)] * 4


@clause("P-135")
@pytest.mark.parametrize("first", [0, 5])
def test_rows_travel_in_frames_that_cover_them_and_nothing_else(first: int) -> None:
    arrays, slot_bytes = slot_layout(40, 300, 300, has_colour=True, num_params=NUM_PARAMS)
    frames = row_frames(arrays, first, 30)
    assert all(0 < size <= 4 * 1024 * 1024 for _, size in frames)
    covered = {byte for at, size in frames for byte in range(at, at + size, 61)}
    assert sum(size for _, size in frames) == 30 * (300 * 300 * 3 + 8 + 8 + 1 + 48 + 240)
    assert max(covered) < slot_bytes
    images = arrays[0].offset + first * 270_000
    assert frames[0] == (images, 4 * 1024 * 1024)


@clause("P-136")
def test_rows_have_a_place_only_while_the_lease_is_that_producers() -> None:
    table = Table(producers=1)
    one, other = join(table), join(table)
    session = table.open(0)
    held = table.leases(one)
    assert held and table.leases(0)
    for lease in held:
        assert table.broker.target(one, lease.lease) is not None
        assert table.broker.target(other, lease.lease) is None
        assert table.broker.target(0, lease.lease) is None, "local ones write by themselves"
    assert table.broker.target(one, table.leases(0)[0].lease) is None
    table.feed(ev.FromRemoteProducer(one, msg.Done(held[0].lease)))
    assert table.broker.target(one, held[0].lease) is None
    table.feed(ev.FromRemoteProducer(one, msg.Done(held[0].lease)))
    assert table.broker.snapshot()["stale"]["lease"] == 1
    table.feed(ev.PeerGone(session))
    assert table.broker.target(one, held[1].lease) is None, "its arena is gone"


@clause("P-137")
def test_a_lost_connection_gives_its_leases_back_at_once_and_blames_nobody() -> None:
    table = Table(producers=0)
    one = join(table)
    table.open(0, batch_size=64, prefetch=1)
    lost = table.leases(one)
    other = join(table)
    table.told.clear()
    actions = table.feed(ev.RemoteProducerGone(one, "the connection to its host ended"))
    assert ev.ForgetProducer(one, "the connection to its host ended") in actions
    again = table.leases(other)
    assert [(lease.position, lease.attempt) for lease in again] == [
        (lease.position, 0) for lease in lost
    ]
    assert not any(isinstance(action, ev.StartProducer) for action in table.actions)
    assert table.broker._scheduler.pool.exits_in_row == 0
    table.feed(ev.FromRemoteProducer(one, msg.Done(lost[0].lease)))
    table.feed(ev.RemoteProducerGone(one, "twice"))
    assert table.broker.snapshot()["stale"]["producer"] == 1


@clause("P-137")
def test_a_host_that_falls_silent_is_given_up() -> None:
    table = Table(producers=0)
    number = join(table)
    table.now = PATIENCE_S - 1
    table.feed(ev.FromRemoteProducer(number, msg.Beat(is_idle=True)))
    table.now += PATIENCE_S - 1
    table.feed(ev.Tick())
    assert number in table.broker._scheduler.pool.members
    table.now += 1
    table.feed(ev.Tick())
    assert number not in table.broker._scheduler.pool.members


@clause("P-139", "P-140")
def test_a_hanging_producer_is_killed_though_its_relay_beats() -> None:
    table = Table(producers=0)
    number = join(table)
    table.open(0)
    for _ in range(3):  # idle: all is made, the link is slow
        table.now += PATIENCE_S - 1
        table.feed(ev.FromRemoteProducer(number, msg.Beat(is_idle=True)))
    table.now += PATIENCE_S - 1
    table.feed(ev.FromRemoteProducer(number, msg.Beat()))
    table.now += 1
    assert ev.KillProducer(number) in table.feed(ev.Tick())
    lease = table.leases(number)[0]
    ended = msg.Ended("SIGKILL", "killed", (lease.lease, 3, 41))
    actions = table.feed(ev.FromRemoteProducer(number, ended))
    assert ev.ForgetProducer(number, "") in actions
    fresh = join(table)
    suspects = [one for one in table.leases(fresh) if one.rows == 1]
    assert [one.position for one in suspects] == [lease.position + 3], "made again alone"


@clause("P-137", "P-140")
def test_a_kill_that_is_not_answered_ends_it_all_the_same() -> None:
    table = Table(producers=0)
    number = join(table)
    table.open(0)
    table.now = PATIENCE_S - 1
    table.feed(ev.FromRemoteProducer(number, msg.Beat()))
    table.now = PATIENCE_S
    assert ev.KillProducer(number) in table.feed(ev.Tick())
    assert table.broker.next_deadline() == PATIENCE_S + REAP_S
    table.now += REAP_S
    table.feed(ev.Tick())
    assert number not in table.broker._scheduler.pool.members


@clause("P-140")
def test_a_second_strike_on_another_host_quarantines() -> None:
    table = Table(producers=0)
    table.open(0, batch_size=64)
    for _ in range(2):
        number = join(table)
        lease = table.leases(number)[0]
        ended = msg.Ended("SIGSEGV", "signal", (lease.lease, 0, 41))
        table.feed(ev.FromRemoteProducer(number, ended))
    (entry,) = [action.entry for action in table.actions if isinstance(action, ev.KeepQuarantine)]
    assert entry == (41, 0, 0)


@clause("P-116", "P-140")
def test_a_busy_producer_becomes_idle_for_a_sample_that_ended_a_remote_one() -> None:
    """Nobody takes the place of a host that doesn't come back: no fresh producer will."""
    table = Table(producers=1)
    table.open(0, batch_size=320, prefetch=4)
    number = join(table)
    suspect = table.leases(number)[0]
    ended = msg.Ended("SIGSEGV", "signal", (suspect.lease, 0, 41))
    at = len(table.leases())
    table.feed(ev.FromRemoteProducer(number, ended))
    while not any(lease.rows == 1 for lease in table.leases()[at:]):
        lease = next(iter(table.broker._scheduler.pool.members[0].leases))
        table.feed(ev.FromLocalProducer(0, msg.Done(lease)))
    assert table.leases()[-1].rows == 1, "and nothing beside it"
    assert len(table.leases()) < 2 * at


@clause("P-141")
def test_leaving_is_no_death_and_a_drain_waits_for_it() -> None:
    table = Table(producers=0)
    one, other = join(table), join(table)
    table.open(0, batch_size=64, prefetch=3)
    table.feed(ev.FromRemoteProducer(one, msg.Ended("exit status 0", "drained")))
    assert table.broker._scheduler.pool.exits_in_row == 0
    table.told.clear()
    table.feed(ev.DrainAsked("SIGTERM"))
    assert table.told[-1] == (other, msg.Drain())
    late = ask(table, offer())
    assert isinstance(late, msg.Error) and late.code == "DRAINING"
    actions = table.feed(ev.FromRemoteProducer(other, msg.Ended("exit status 0", "drained")))
    assert actions[-1] == ev.Stop()


@clause("P-141")
def test_a_drain_ends_though_a_host_does_not_answer() -> None:
    table = Table(producers=0)
    join(table)
    table.feed(ev.DrainAsked("SIGTERM"))
    for _ in range(2):
        table.now += 5.0
        actions = table.feed(ev.Tick())
    assert actions[-1] == ev.Stop()


def test_a_place_that_is_given_up_while_its_producer_starts_stays_given_up() -> None:
    team = ProducerPool(2, PATIENCE_S)
    assert list(team.due(0.0)) == [0, 1]
    team.transition(team.members[0], "ready")
    assert team.shrink() is None, "who starts cannot be told yet"
    starting = team.members[1]
    assert starting.is_leaving
    team.transition(starting, "ready")
    assert team.remove_exited(1, "it ended", 1.0, is_draining=False) is starting
    assert not team.restart_at, "and is not replaced"
    team.grow(1.0)
    assert list(team.due(1.0)) == [1]
