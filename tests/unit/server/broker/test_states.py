"""The tables of legal transitions: closed, reachable, and without a way back from the end."""

from __future__ import annotations

import pytest

from augd.server.daemon.broker.states import CHUNK, PRODUCER, SESSION, SLOT, Table, step

TABLES = {"slot": SLOT, "chunk": CHUNK, "session": SESSION, "producer": PRODUCER}
STARTS = {"slot": "free", "chunk": "pending", "session": "new", "producer": "starting"}
ENDS = {"slot": set(), "chunk": {"done"}, "session": {"closed"}, "producer": {"gone"}}


@pytest.mark.parametrize("name", TABLES)
def test_every_state_is_reached_from_the_first_and_every_target_exists(name: str) -> None:
    table = TABLES[name]
    reached = {STARTS[name]}
    while more := {after for state in reached for after in table[state].values()} - reached:
        reached |= more
    assert reached == set(table)
    assert {state for state, verbs in table.items() if not verbs} == ENDS[name]


def test_a_transition_that_is_not_in_the_table_cannot_happen() -> None:
    with pytest.raises(AssertionError, match="no transition 'send' from state 'filling'"):
        step(SLOT, "filling", "send")


def test_a_slot_that_was_abandoned_is_free_only_after_draining() -> None:
    table: Table = SLOT
    for state in ("filling", "ready"):
        assert step(table, step(table, state, "abandon"), "drained") == "free"
    assert "abandon" not in table["sent"]
