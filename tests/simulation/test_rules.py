"""A test of the tester: every rule of the protocol, taken out, makes some schedule fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from augd.errors import ProtocolError, ReceiptMismatch
from tests.simulation.rows import Violation
from tests.simulation.rules import deaths, knowledge, remotes, sessions, slots
from tests.simulation.world import run

SCHEDULES = 500
# A schedule that notices each, where none of the first few does: it is tried before all others.
NOTICED_BY = {
    "sessions_belong_to_their_peers": 123,
    "an_opening_counts_once": 24,
    "credit_is_of_an_opening": 137,
    "the_client_drops_what_is_of_another_opening": 26,
    "the_client_finds_what_was_lost": 17,
    "credit_is_absolute": 14,
    "a_release_names_its_generation": 24,
    "a_departed_reader_keeps_what_it_holds": 127,
    "a_disconnected_reader_that_lives_says_what_it_holds": 173,
    "the_dead_are_not_replaced_in_a_drain": 37,
    "the_quarantine_is_written_down": 9,
    "a_verdict_makes_anew_what_was_made_beyond_its_place": 16,
    "what_sharers_were_told_does_not_change": 9,
    "a_state_counts_what_was_yielded": 44,
    "rows_are_written_only_while_the_lease_is_that_producers": 56,
}
RULES = (*sessions.RULES, *slots.RULES, *deaths.RULES, *knowledge.RULES, *remotes.RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_schedules_notice_when_it_is_taken_out(
    rule: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rule(monkeypatch)
    with pytest.raises((Violation, ProtocolError, ReceiptMismatch)):
        for seed in (NOTICED_BY.get(rule.__name__, 0), *range(SCHEDULES)):
            run(seed)
