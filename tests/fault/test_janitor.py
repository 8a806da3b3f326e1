"""A daemon that is told to end leaves no file, whoever killed its janitor before."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.processes import await_true, command_of, is_alive, staff_of
from tests.support.programs import finish, start_by_hand
from tests.support.scenes import make_folder


@pytest.mark.fault("daemon SIGTERM, Ctrl-C")
def test_the_janitor_was_killed_before(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=2)
    place = tmp_path / "run"
    place.mkdir(mode=0o700)
    process = start_by_hand(folder, f"ipc://{place}/d", "--producers", "0")
    (janitor,) = [one for one in staff_of(process.pid) if b"augd-janitor" in command_of(one)]
    assert len(list(place.iterdir())) == 5
    os.kill(janitor, signal.SIGKILL)
    await_true(lambda: not is_alive(janitor), 5, "the janitor's end")
    process.send_signal(signal.SIGTERM)
    status, _ = finish(process)
    assert status == 0
    assert list(place.iterdir()) == []
