"""Play every attack against a real daemon from which others stream; nobody may notice."""

from __future__ import annotations

import pytest

from augd.diagnostics.procfs import anonymous_bytes
from tests.attacks import catalogue
from tests.attacks.catalogue import MB, all_attacks
from tests.attacks.ground import Ground, Watcher, honest_clients
from tests.support.processes import await_true

# Allocators keep some of what was freed; a few hundred bytes leaked per message would be more.
GROWTH_BYTES = 16 * MB


def marked(attack: catalogue.Attack) -> object:
    marks: list[pytest.MarkDecorator] = [pytest.mark.slow] if attack.is_slow else []
    if attack.number == "A40":
        marks.append(pytest.mark.longer("a flood of 100,000 questions instead of 30,000"))
    if not attack.is_withstood:
        marks.append(pytest.mark.xfail(reason="a known weakness: see its docstring"))
    return pytest.param(attack, id=f"{attack.number}-{attack.play.__name__}", marks=marks)


@pytest.mark.parametrize("attack", [marked(attack) for attack in all_attacks()])
def test_nobody_else_notices(attack: catalogue.Attack, ground: Ground) -> None:
    fds, pid = ground.fds(), ground.daemon.pid
    watcher = Watcher(pid)
    try:
        with honest_clients(ground) as clients:
            attack.play(ground)
            is_same = ground.daemon.pid == pid
            assert attack.may_end or is_same or ground.has_met_the_assertion(pid), (
                "the daemon ended"
            )
            ground.status()
    finally:
        peak_bytes = watcher.finish()
    longest_s = max(client.longest_s for client in clients)
    print(f"{attack.number}: daemon grew by {peak_bytes / MB:.1f} MB, wait of {longest_s:.2f} s")
    ground.sessions_are_back_to(0)
    if ground.daemon.pid != pid:
        ground.warm_up()
    await_true(lambda: ground.fds() <= fds, 15.0, f"{fds} fds again, now {ground.fds()}")
    assert peak_bytes < attack.peak_bytes
    growth_bytes = anonymous_bytes(ground.daemon.pid) - watcher.before
    # Of a flood that a busy daemon held at once, allocators keep more.
    assert growth_bytes < max(GROWTH_BYTES, attack.peak_bytes // 3)
