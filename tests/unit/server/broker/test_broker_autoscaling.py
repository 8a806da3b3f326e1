"""How many producers are enough, and how a daemon follows that: at once upwards, slowly down."""

from __future__ import annotations

import pytest

from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.autoscaling import LOOK_S, QUIET_LOOKS, Autoscaler
from tests.support.table import Table


@pytest.mark.parametrize(
    ("at_work", "needed"),
    [(0.0, 1), (0.3, 1), (1.0, 1), (1.2, 2), (3.5, 4), (7.1, 8), (7.2, 10), (8.0, 10)],
)
def test_what_is_needed_is_what_is_taken_over_what_one_makes(at_work: float, needed: int) -> None:
    """At work: how many of eight producers are, on average. From 90 % on they are the limit."""
    staffing = Autoscaler()
    assert not staffing.look(0.0, 8, has_streams=True)
    staffing.add_busy(int(at_work * LOOK_S * 1e9))
    assert staffing.look(LOOK_S, 8, has_streams=True)
    assert staffing.needed == needed


def test_nothing_is_told_of_a_daemon_that_nobody_reads_from() -> None:
    staffing = Autoscaler()
    staffing.look(0.0, 2, has_streams=True)
    staffing.look(LOOK_S, 2, has_streams=True)
    assert (staffing.needed, staffing.next_look()) == (1, 2 * LOOK_S)
    staffing.look(LOOK_S + 1, 2, has_streams=False)
    assert (staffing.needed, staffing.next_look()) == (None, None)


class Auto:
    """A daemon with four producers of at most eight, and a trainer; work is counted by hand."""

    def __init__(self) -> None:
        self.table = Table(producers=4)
        self.table.broker._scheduler.producers_max = 8
        self.table.open(0)
        self.table.told.clear()
        self.table.feed(ev.Tick())

    @property
    def pool(self) -> int:
        return self.table.broker._scheduler.pool.size

    def pass_by(self, at_work: float, looks: int = 1) -> list[ev.Action]:
        actions = []
        for _ in range(looks):
            self.table.broker._scheduler.autoscaler.add_busy(int(at_work * LOOK_S * 1e9))
            self.table.now += LOOK_S
            for number in range(4):
                self.table.feed(ev.FromLocalProducer(number, msg.Alive(0)))
            actions += self.table.feed(ev.Tick())
        return actions


def test_producers_are_hired_at_once_and_never_more_than_there_may_be() -> None:
    auto = Auto()
    auto.pass_by(4.0)
    assert ev.StartProducer(4) in auto.table.actions
    assert auto.pool == 5
    auto.table.feed(ev.FromLocalProducer(4, msg.Ready(4, {})))
    for _ in range(9):
        auto.pass_by(100.0)
        for number in range(5, auto.pool):
            auto.table.feed(ev.FromLocalProducer(number, msg.Ready(number, {})))
    assert auto.pool == 8


def test_producers_are_drained_only_after_some_quiet_and_not_replaced() -> None:
    auto = Auto()
    assert auto.pass_by(1.5, QUIET_LOOKS - 1) == []
    auto.pass_by(4.0)  # a busy look: the count begins anew
    assert auto.pool == 5
    auto.table.feed(ev.FromLocalProducer(4, msg.Ready(4, {})))
    auto.pass_by(1.5, QUIET_LOOKS)
    assert auto.pool == 3, "half of what is too much"
    assert {n for n, m in auto.table.told if m == msg.Drain()} == {3, 4}
    auto.table.told.clear()
    actions = auto.table.feed(ev.Reaped(4, "exit status 0", ExitReason.DRAINED))
    assert not any(isinstance(action, ev.StartProducer) for action in actions)
    assert auto.table.broker._scheduler.pool.exits_in_row == 0
    assert all(number != 4 for number, _ in auto.table.told)


def test_what_is_needed_stands_in_the_snapshot() -> None:
    auto = Auto()
    auto.pass_by(2.5)
    assert auto.table.broker.snapshot()["needed_producers"] == 3
