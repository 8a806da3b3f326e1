"""A test of the tester: every rule of the protocol, taken out, makes some schedule fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from augd.errors import ProtocolError, ReceiptMismatch
from tests.simulation.rows import Violation
from tests.simulation.rules import deaths, knowledge, remotes, sessions, slots
from tests.simulation.world import run

SCHEDULES = 500
RULES = (*sessions.RULES, *slots.RULES, *deaths.RULES, *knowledge.RULES, *remotes.RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_schedules_notice_when_it_is_taken_out(
    rule: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rule(monkeypatch)
    with pytest.raises((Violation, ProtocolError, ReceiptMismatch)):
        for seed in range(SCHEDULES):
            run(seed)
