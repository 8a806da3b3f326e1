"""What a script started ends with it, and with the last reference, whatever it has forked."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import augd
from augd.client.status import status as ask_status
from tests.support.processes import await_true, is_alive, producers_of
from tests.support.scenes import SMALL, make_folder

FORKS = """\
import os, signal, sys, augd
daemon = augd.serve(sys.argv[1], producers=1)
child = os.fork()
if not child:
    os.closerange(0, 3)
    signal.pause()
print(child, daemon.supervisor_pid, daemon.pid, *os.listdir(os.environ["AUGD_RUNTIME_DIR"]))
sys.stdout.flush()
signal.pause()
"""

TRAINS = """\
import os, signal, sys, augd
stream = augd.connect(sys.argv[1], recipe={"ops": [{"op": "resize", "size": [8, 8]}]}, batch_size=2)
batches = stream.epoch(0)
first = next(batches)
child = os.fork()
if not child:
    os.closerange(0, 3)
    signal.pause()
second = next(batches)  # the parent goes on as if nothing was
print(child, int(second.valid.sum()), flush=True)
signal.pause()
"""

ENDS = """\
import os, sys, augd
daemon = augd.serve(sys.argv[1], producers=1)
print(daemon.supervisor_pid, daemon.pid, flush=True)
if sys.argv[2] == "forks" and not os.fork():
    sys.exit()  # as a library's child may, with all that runs at an interpreter's exit
if sys.argv[2] == "forks":
    os.wait()
    augd.connect(daemon.address, recipe="cifar", batch_size=2).close()
    print("still there")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=4)


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[augd.ServedDaemon]:
    with augd.serve(folder, producers=1) as served:
        yield served


def test_a_forked_child_of_a_killed_script_keeps_no_daemon(folder: Path) -> None:
    script = subprocess.Popen(
        [sys.executable, "-c", FORKS, folder], stdout=subprocess.PIPE, text=True
    )
    assert script.stdout is not None
    with script.stdout:
        child, *family = map(int, script.stdout.readline().split()[:3])
    family += producers_of(family[1])
    try:
        script.kill()
        script.wait()
        await_true(lambda: not any(map(is_alive, family)), 6, "daemon and producer ended")
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_of_a_killed_trainer_keeps_no_session(daemon: augd.ServedDaemon) -> None:
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINS, daemon.address], stdout=subprocess.PIPE, text=True
    )
    assert trainer.stdout is not None
    with trainer.stdout:
        child, num_valid = map(int, trainer.stdout.readline().split())
    try:
        assert num_valid == 2
        assert len(ask_status(daemon.address)["streams"]) == 1
        trainer.kill()
        trainer.wait()
        await_true(lambda: not ask_status(daemon.address)["streams"], 6, "its stream ended")
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_cell_that_is_run_again_leaves_one_daemon(folder: Path) -> None:
    pids, daemon = [], None
    for _ in range(3):
        daemon = augd.serve(folder, producers=1)
        pids.append(daemon.supervisor_pid)
        with augd.connect(daemon.address, recipe=SMALL, batch_size=4) as stream:
            assert sum(int(batch.valid.sum()) for batch in stream.epoch(0)) == 8
        del stream
    gc.collect()
    assert [is_alive(pid) for pid in pids] == [False, False, True]
    assert daemon is not None
    daemon.close()
    assert not is_alive(pids[-1])
    daemon.close()  # twice is fine


@pytest.mark.parametrize("how", ["plainly", "forks"])
def test_a_script_that_ends_waits_for_its_daemon(folder: Path, how: str) -> None:
    """And a forked child that ends leaves its parent's daemon alone."""
    done = subprocess.run(
        [sys.executable, "-c", ENDS, folder, how], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    pids, *more = done.stdout.splitlines()
    assert not any(is_alive(int(pid)) for pid in pids.split())
    assert more == (["still there"] if how == "forks" else [])
