"""Kills under a recipe with phases and views: at a border, and in the middle, no byte changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import augd
from tests.support.processes import await_true, producers_of
from tests.support.programs import begin_by_hand, follow, kill, start_by_hand
from tests.support.scenes import GROUPS_IN_PHASES, PHASES, make_folder

RECIPES = {"sizes": PHASES, "views": GROUPS_IN_PHASES}
EPOCHS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=60)


@pytest.mark.fault("producer SIGKILL in the middle of a row")
@pytest.mark.parametrize("name", RECIPES)
def test_producers_killed_at_a_border_change_no_byte(folder: Path, name: str) -> None:
    """Batches of the next phase are in work when the last ones of a phase are handed out."""
    killed = 0
    with augd.serve({"small": folder}, producers=2) as daemon:
        options = {"recipe": RECIPES[name], "batch_size": 16, "verify": True, "timeout_s": 40}
        with augd.connect(daemon.address, **options) as stream:
            undisturbed = follow(stream, EPOCHS)
            last = len(stream) - 1

        def disturb(batch: augd.Batch) -> None:
            nonlocal killed
            if batch.number in (0, 3, last):
                await_true(lambda: len(producers_of(daemon.pid)) == 2, 20, "both are there")
                os.kill(producers_of(daemon.pid)[0], signal.SIGKILL)
                killed += 1

        with augd.connect(daemon.address, **options) as stream:
            assert follow(stream, EPOCHS, disturb) == undisturbed
    assert killed == 3 * EPOCHS


@pytest.mark.fault("daemon SIGKILL")
@pytest.mark.parametrize("transport", ["memfd", "frames"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_daemon_killed_at_a_border_changes_no_byte(
    folder: Path, tmp_path: Path, name: str, transport: str
) -> None:
    address = f"ipc://{tmp_path}/d"
    daemons = [start_by_hand(folder, address, "--producers", "2")]
    options = {"recipe": RECIPES[name], "batch_size": 16, "transport": transport, "timeout_s": 40}
    try:
        with augd.connect(address, **options) as stream:
            undisturbed = follow(stream, EPOCHS)
            last = len(stream) - 1

        def disturb(batch: augd.Batch) -> None:
            if (batch.epoch, batch.number) in ((0, last), (1, 5)):
                kill(daemons[-1])
                daemons.append(begin_by_hand(folder, address, "--producers", "2"))

        with augd.connect(address, **options) as stream:
            assert follow(stream, EPOCHS, disturb) == undisturbed
            assert stream.stats()["lost"] == 2
    finally:
        for daemon in daemons:
            if daemon.poll() is None:
                kill(daemon)


TRAINER = """
import json, os, signal, sys
import augd
from tests.support import scenes
from tests.support.programs import follow

address, name, saved = sys.argv[1:]
with augd.connect(address, recipe=getattr(scenes, name), batch_size=16) as stream:
    for epoch in (0, 1):
        for batch in stream.epoch(epoch):
            with open(saved + ".new", "w") as file:
                json.dump(stream.state_dict(), file)
            os.replace(saved + ".new", saved)
            if (epoch, batch.number) == (1, 1):
                os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.fault("trainer SIGKILL")
@pytest.mark.parametrize("name", ["PHASES", "GROUPS_IN_PHASES"])
def test_a_trainer_killed_after_a_border_resumes(folder: Path, tmp_path: Path, name: str) -> None:
    """It goes on from the state that it saved last, and receipts are those of one run."""
    import json

    recipe = {"PHASES": PHASES, "GROUPS_IN_PHASES": GROUPS_IN_PHASES}[name]
    saved = tmp_path / "state.json"
    with augd.serve({"small": folder}, producers=2) as daemon:
        with augd.connect(daemon.address, recipe=recipe, batch_size=16) as stream:
            whole = [receipt for _, receipt in follow(stream, EPOCHS)]
        command = [sys.executable, "-c", TRAINER, daemon.address, name, str(saved)]
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
        assert done.returncode == -signal.SIGKILL, done.stderr
        with augd.connect(daemon.address, recipe=recipe, batch_size=16) as stream:
            state = json.loads(saved.read_text())
            assert (state["epoch"], state["position"]) == (1, 32)
            stream.load_state_dict(state)
            follow(stream, EPOCHS - 1, first=1)
            found = [stream.receipt(epoch) for epoch in (1, 2)]
    assert found == whole[1:]
