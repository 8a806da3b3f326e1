"""A test of the tester: every rule of the protocol, taken out, makes some schedule fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from augd.errors import ProtocolError, ReceiptMismatch
from tests.simulation.rows import Violation
from tests.simulation.rules import deaths, knowledge, remotes, sessions, slots
from tests.simulation.world import run

SCHEDULES = 500
# Where the lack of a rule shows only in some later schedule: that one is run first. A change of the
# protocol may make a number old; then the others find it, which takes longer.
NOTICED_BY = {
    "sessions_belong_to_their_peers": 123,
    "an_opening_counts_once": 24,
    "credit_is_of_an_opening": 137,
    "the_client_drops_what_is_of_another_opening": 26,
    "the_client_finds_what_was_lost": 17,
    "a_release_names_its_generation": 24,
    "a_departed_reader_keeps_what_it_holds": 127,
    "a_disconnected_reader_that_lives_says_what_it_holds": 173,
    "who_kills_from_outside_accuses_nobody": 9,
    "who_was_stopped_accuses_nobody": 12,
    "a_verdict_makes_anew_what_was_made_beyond_its_place": 16,
    "what_sharers_were_told_does_not_change": 9,
    "a_state_counts_what_was_yielded": 44,
    "rows_are_written_only_while_the_lease_is_that_producers": 56,
    "a_host_that_falls_silent_is_given_up": 14,
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


def test_what_is_run_first_is_of_rules_that_there_are() -> None:
    assert NOTICED_BY.keys() <= {rule.__name__ for rule in RULES}
