"""Samples that kill: suspected, made alone, convicted by a second strike, masked from there on."""

from __future__ import annotations

import pytest

from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.protocol.quarantine import as_entries, united
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.quarantine import QuarantineRegister
from tests.support.table import Table

SAMPLE, ROW = 77, 5


def rows_of(leases: list[msg.Lease]) -> list[tuple[int, int]]:
    return [(lease.first_row, lease.rows) for lease in leases]


def places_sent(table: Table) -> list[int]:
    return [batch.position for batch in table.got(0, msg.BatchMessage)]


def suspected(producers: int = 1, **spec: object) -> tuple[Table, msg.Lease]:
    """A table where one producer died of a sample, which another one now makes alone."""
    table = Table(producers)
    table.open(0, batch_size=32, **spec)  # type: ignore[arg-type]
    table.die(0, table.leases()[0], ROW, SAMPLE)
    return table, next(one for one in table.leases() if rows_of([one]) == [(ROW, 1)])


def test_a_suspect_is_cut_out_and_made_by_a_fresh_producer_alone() -> None:
    table, suspect = suspected(producers=2)
    for lease in table.leases(1):
        table.done(1, lease)
    others = [one for one in table.leases(1) if one.slot == suspect.slot]
    assert sorted(rows_of(others)) == [(0, ROW), (ROW + 1, 32 - ROW - 1)]
    assert table.leases(0)[1:] == [suspect]
    table.done(0, suspect)
    table.make_all()
    assert places_sent(table)[:2] == [0, 32]


def test_a_second_strike_is_the_verdict_and_is_kept_before_it_is_told() -> None:
    table, suspect = suspected()
    actions = table.die(0, suspect, 0, SAMPLE)
    entry = (SAMPLE, 0, ROW)
    kinds = [type(action) for action in actions]
    keep = next(action for action in actions if isinstance(action, ev.KeepQuarantine))
    assert (keep.dataset, keep.entry) == ("d", entry)
    assert keep.how == f"sample {SAMPLE} ended its producer twice (SIGSEGV)"
    assert kinds.index(ev.KeepQuarantine) < kinds.index(ev.SendToClient)
    (news,) = table.got(0, msg.QuarantinedMessage)
    assert news.entries == (entry,)
    assert news.text == f"{keep.how}: quarantined from position {ROW} of epoch 0 on"
    last_told = [m for _, m in table.told if isinstance(m, msg.Mask | msg.Lease)]
    mask = last_told.index(msg.Mask(suspect.stream, (entry,)))
    assert rows_of([m for m in last_told[mask:] if isinstance(m, msg.Lease)])[0] == (0, 32)
    assert last_told[mask:].count(msg.Mask(suspect.stream, (entry,))) == 1


def test_the_place_of_a_rank_counts_the_rows_of_the_others() -> None:
    table = Table()
    table.open(1, layout=msg.Layout(32, rank=1, world=2), place=(3, 64))
    table.die(0, table.leases()[0], ROW, SAMPLE)
    table.die(0, next(one for one in table.leases() if one.rows == 1), 0, SAMPLE)
    (news,) = table.got(1, msg.QuarantinedMessage)
    assert news.entries == ((SAMPLE, 3, 64 + 32 + ROW),)


def test_a_sample_that_is_made_alone_is_forgiven() -> None:
    table, suspect = suspected()
    table.done(0, suspect)
    again = table.leases()[-1]
    table.die(0, again, 0, SAMPLE)
    assert table.got(0, msg.QuarantinedMessage) == []


@pytest.mark.parametrize(
    "kind", [ExitReason.OUTSIDE, ExitReason.STOPPED, ExitReason.ERROR, ExitReason.DRAINED]
)
def test_who_did_not_die_of_itself_accuses_nobody(kind: ExitReason) -> None:
    table = Table()
    table.open(0, batch_size=32)
    for _ in range(3):
        lease = table.leases()[-2]  # the first of the two that the last life got
        table.feed(ev.Reaped(0, "SIGKILL", kind, (lease.lease, ROW, SAMPLE)))
        table.now += 10.0
        table.feed(ev.Tick())
        table.feed(ev.FromLocalProducer(0, msg.Ready(1, {})))
    assert rows_of(table.leases()) == [(0, 32)] * 8
    assert table.got(0, msg.QuarantinedMessage) == []


def test_a_silent_producer_accuses_the_sample_in_its_hand_unless_another_killed_it() -> None:
    for kind, is_suspect in ((ExitReason.KILLED, True), (ExitReason.OUTSIDE, False)):
        table = Table()
        table.open(0, batch_size=32)
        lease = table.leases()[0]
        table.now = 100.0
        assert ev.KillProducer(0) in table.feed(ev.Tick())
        actions = table.feed(ev.Reaped(0, "SIGKILL", kind, (lease.lease, ROW, SAMPLE)))
        text = "producer 0 (pid 0) ended: silent for too long at work, killed"
        assert ev.Log(30, text) in actions
        table.now += 10.0
        table.feed(ev.Tick())
        table.feed(ev.FromLocalProducer(0, msg.Ready(1, {})))
        assert ((ROW, 1) in rows_of(table.leases())) == is_suspect


def test_with_bad_fail_the_stream_ends_and_nothing_is_quarantined() -> None:
    table, suspect = suspected(bad="fail")
    actions = table.die(0, suspect, 0, SAMPLE)
    assert not any(isinstance(action, ev.KeepQuarantine) for action in actions)
    (error,) = table.got(0, msg.Error)
    assert (error.code, error.text) == (
        "SAMPLE_FAILED",
        f"sample {SAMPLE} ended its producer twice (SIGSEGV). Mend or remove the file, or connect "
        'with bad="mask".',
    )


def test_a_sample_known_from_another_content_needs_one_strike() -> None:
    table = Table(quarantine={"other": ((SAMPLE, 0, 9),)})
    table.open(0, batch_size=32, place=(2, 64))
    (opened,) = table.got(0, msg.Opened)
    assert opened.quarantine == ((SAMPLE, 2, 64),)  # known deadly: not even tried
    register = QuarantineRegister({"other": [(SAMPLE, 0, 9)]})
    assert register.strike(SAMPLE) and not register.strike(SAMPLE + 1)


def test_a_stream_masks_what_its_client_names_and_what_was_written_down() -> None:
    first = Table()
    first.open(0, batch_size=32)
    content = first.got(0, msg.Opened)[0].content
    table = Table(quarantine={content: ((1, 0, 9), (2, 5, 0))})
    table.open(0, batch_size=32, quarantine=((2, 4, 0), (3, 1, 1)))
    united_entries = ((1, 0, 9), (2, 4, 0), (3, 1, 1))
    assert table.got(0, msg.Opened)[0].quarantine == united_entries
    assert (0, msg.Mask(table.leases()[0].stream, united_entries)) in table.told


def test_entries_only_move_to_earlier_places() -> None:
    register = QuarantineRegister({})
    assert register.add("c", [(1, 2, 3)]) == ((1, 2, 3),)
    assert register.add("c", [(1, 2, 4), (2, 0, 0)]) == ((2, 0, 0),)
    assert register.add("c", [(1, 1, 9)]) == ((1, 1, 9),)
    assert register.entries("c", (7, 7)) == ((1, 1, 9), (2, 0, 0))
    assert as_entries(united([(1, 5, 0)], [(1, 4, 9), (3, 0, 0)])) == ((1, 4, 9), (3, 0, 0))


@pytest.mark.parametrize("sample", [100_000, 2**62])
def test_a_producer_that_names_a_sample_of_no_such_number_accuses_nobody(sample: int) -> None:
    table = Table()
    table.open(0, batch_size=32)
    for _ in range(2):
        table.die(0, table.leases()[-1], 0, sample)
    assert table.got(0, msg.QuarantinedMessage) == []
    assert not any(isinstance(action, ev.KeepQuarantine) for action in table.actions)
