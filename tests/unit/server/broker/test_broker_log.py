"""What the broker says, and how often: to the log, to who joins, of how producers ended."""

from __future__ import annotations

import pytest

from augd.plan.size_mismatch import resize_first
from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.server.daemon.broker import bad_sample_log
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.bad_sample_log import BadSampleLog
from tests.support.table import Table
from tests.unit.server.broker.test_broker_remotes import ask, join, offer


def logged(actions: list[ev.Action]) -> list[str]:
    return [one.text for one in actions if isinstance(one, ev.Log)]


def test_a_bad_file_is_logged_once_however_many_epochs_and_streams_meet_it() -> None:
    table = Table(num_samples=64)
    table.open(0, batch_size=32, prefetch=3, max_bad_fraction=1.0)
    two = msg.BadRow(1, "1.jpg", "empty"), msg.BadRow(2, "2.jpg", "no end marker")
    said = []
    for number, lease in enumerate(table.leases()):
        done = msg.Done(lease.lease, 2, two[: 1 + number])
        said += logged(table.feed(ev.FromLocalProducer(0, done)))
    told = [line for line in said if "bad sample" in line]
    assert told == [
        "bad sample, masked: d: sample 1 (1.jpg): empty",
        "bad sample, masked: d: sample 2 (2.jpg): no end marker",
    ]
    (stream,) = table.broker.snapshot(table.now)["streams"]
    assert stream["bad"] == 8, "counted all the same"


def test_another_reason_or_another_data_set_is_told() -> None:
    said = BadSampleLog()
    row = msg.BadRow(1, "1.jpg", "empty")
    assert len(list(said.new("d", [row, row]))) == 1
    assert len(list(said.new("e", [row]))) == 1
    assert len(list(said.new("d", [msg.BadRow(1, "1.jpg", "deleted")]))) == 1
    assert not list(said.new("d", [row]))


def test_a_recipe_that_does_not_fit_is_one_line_and_no_files_fault() -> None:
    reasons = [f"crop: expected 64x64, got {side}x9. {resize_first('crop')}" for side in (9, 8, 7)]
    bad = tuple(msg.BadRow(number, "x.jpg", reason) for number, reason in enumerate(reasons))
    table = Table(num_samples=64)
    table.open(0, batch_size=32, prefetch=1, max_bad_fraction=0.02)
    actions = []
    for number, rows in enumerate((bad[:2], bad[2:])):
        done = msg.Done(table.leases()[number].lease, len(rows), rows)
        actions += table.feed(ev.FromLocalProducer(0, done))
    said = logged(actions)
    assert [line for line in said if "first" in line] == [
        "the recipe does not fit all images, and rows are masked, of which this is the first: "
        f"d: sample 0 (x.jpg): {reasons[0]}"
    ]
    refusal = [one for one in map(repr, actions) if "max_bad_fraction" in one]
    assert len(refusal) == 2, "told to the client, and logged"
    for text in refusal:
        assert "The files are good, and the recipe does not fit them" in text
        assert "augd check" not in text


def test_beyond_so_many_they_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bad_sample_log, "NAMED_MAX", 3)
    said = BadSampleLog()
    rows = [msg.BadRow(number, "x.jpg", "empty") for number in range(9)]
    lines = list(said.new("d", rows))
    assert len(lines) == 4
    assert lines[-1] == "3 bad samples were named: further ones are only counted"
    assert not list(said.new("d", rows))


def test_an_end_for_want_of_memory_is_called_that() -> None:
    table = Table(producers=1)
    actions = table.feed(ev.Reaped(0, "SIGKILL", ExitReason.MEMORY))
    why = (
        "SIGKILL: the kernel killed it because memory ran out; "
        "use fewer producers, or a larger limit"
    )
    assert logged(actions) == [f"producer 0 (pid 0) ended: {why}"]
    assert table.broker.snapshot(table.now)["last_death"] == why


def test_other_ends_are_not() -> None:
    table = Table(producers=1)
    actions = table.feed(ev.Reaped(0, "SIGSEGV", ExitReason.SIGNAL))
    assert logged(actions) == ["producer 0 (pid 0) ended: SIGSEGV"]
    actions = table.feed(ev.Reaped(0, "SIGKILL", ExitReason.OUTSIDE))
    assert all("memory" not in line for line in logged(actions))


@pytest.mark.clause("P-133")
def test_who_attaches_is_told_at_once_that_it_was_let_in() -> None:
    """There is no stream, and there may be none for hours: silence would look like a refusal."""
    table = Table(producers=0)
    number = join(table)
    assert table.told == [(number, msg.Revoke(()))]


@pytest.mark.clause("P-133")
def test_who_is_refused_is_not() -> None:
    table = Table(producers=0)
    joined = ask(table, offer())
    assert isinstance(joined, msg.Joined)
    table.feed(ev.RemoteProducerAttached(joined.producer, "wrong"))
    assert table.told == []
