"""The driver of the broker: the order of events and actions, and an action for each kind."""

from typing import Any

import pytest

from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.broker import Broker
from augd.server.daemon.broker_driver import BrokerDriver


class TwoActions:
    """Answers the first event by two actions, and each later one by none."""

    def __init__(self) -> None:
        self.seen: list[ev.Event] = []

    def handle(self, event: ev.Event, _: float) -> list[ev.Action]:
        self.seen.append(event)
        return [ev.MakeArena(1, 4096), ev.Log(20, "made")] if len(self.seen) == 1 else []


def test_an_event_of_an_action_is_handled_after_all_actions_of_the_current_event() -> None:
    driver, order = BrokerDriver(), list[str]()

    def make_arena(_: ev.MakeArena) -> None:
        driver.handle(ev.ArenaMade(1))
        order.append(f"arena, {len(broker.seen)} handled")

    def log(_: ev.Log) -> None:
        order.append(f"log, {len(broker.seen)} handled")

    broker: Any = TwoActions()
    actions: Any = dict.fromkeys(ev.Action.__args__)
    driver.connect(broker, {**actions, ev.MakeArena: make_arena, ev.Log: log})
    driver.handle(ev.Tick())
    assert order == ["arena, 1 handled", "log, 1 handled"]
    assert broker.seen == [ev.Tick(), ev.ArenaMade(1)]


def test_every_kind_of_action_needs_a_function() -> None:
    with pytest.raises(AssertionError, match="Stop"):
        actions: Any = {kind: print for kind in ev.Action.__args__ if kind is not ev.Stop}
        BrokerDriver().connect(Broker("i", "", {}, 0), actions)
