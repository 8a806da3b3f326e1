"""Kill it: each row of the fault table with real processes and real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import augd
from augd.client.status import StatusClient
from augd.client.status import status as ask_status
from tests.support.processes import (
    await_true,
    children_of,
    family_of,
    is_alive,
    num_fds,
    producers_of,
)
from tests.support.programs import begin_by_hand, finish, is_up, start_by_hand
from tests.support.scenes import SMALL, digest_epoch, make_folder, read_epoch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=200)


@pytest.fixture
def daemon(folder: Path):
    with augd.serve({"small": folder}, producers=2) as served:
        yield served


def mapped_arenas(daemon_pid: int) -> list[str]:
    """Mappings of arenas in a daemon and its producers."""
    return [
        line
        for pid in (daemon_pid, *producers_of(daemon_pid))
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
        if "augd-arena" in line
    ]


@pytest.mark.fault("producer SIGKILL in the middle of a row")
def test_a_producer_killed_in_mid_epoch_changes_no_byte(folder, daemon):
    undisturbed = digest_epoch(daemon.address, epochs=3)
    assert len(producers_of(daemon.pid)) == 2
    import hashlib

    digests = []
    killed = 0
    with augd.connect(daemon.address, recipe=SMALL, batch_size=16) as stream:
        for epoch in range(3):
            digest = hashlib.blake2b()
            for batch in stream.epoch(epoch):
                if batch.number % 6 == 3:
                    for pid in producers_of(daemon.pid)[: 1 + batch.number % 2]:
                        os.kill(pid, signal.SIGKILL)
                        killed += 1
                for array in (batch.images, batch.labels, batch.ids, batch.valid):
                    digest.update(array.tobytes())
            digests.append(digest.hexdigest())
    assert killed > 8
    assert digests == undisturbed
    await_true(lambda: len(producers_of(daemon.pid)) == 2, 10, "dead producers are replaced")
    assert ask_status(daemon.address, 5)["restarts"] == killed


@pytest.mark.fault("producer SIGKILL in the middle of a row")
def test_a_dead_producer_is_noticed_at_once(daemon):
    """Within 100 ms; on a busy machine it may take the daemon longer to get its turn, at times."""
    took_s = []
    inquirer = StatusClient(daemon.address)
    for count in range(1, 6):
        await_true(lambda: is_up(daemon.address, 2), 20, "both are up")
        os.kill(producers_of(daemon.pid)[0], signal.SIGKILL)
        took_s.append(
            await_true(
                lambda count=count: inquirer.status()["restarts"] == count, 5, "the death is seen"
            )
        )
        if took_s[-1] < 0.1:
            break
    inquirer.close()
    assert min(took_s) < 0.1


@pytest.mark.fault("daemon SIGKILL")
def test_kill_9_of_the_daemon_leaves_nothing(folder, tmp_path):
    address = f"ipc://{tmp_path}/d"
    process = start_by_hand(folder, address)
    stream = augd.connect(address, recipe=SMALL, batch_size=16, timeout_s=2)
    passing = stream.epoch(0)
    held = next(passing)
    before = held.images.copy()
    relatives = family_of(process.pid)
    assert len(relatives) >= 4, "the daemon, two producers and the janitor"
    process.kill()
    await_true(lambda: not any(map(is_alive, relatives)), 1.0, "its children are gone")
    await_true(lambda: not list(tmp_path.iterdir()), 1.0, "its files are gone")
    with pytest.raises(
        augd.ConnectError,
        match=r"the daemon at ipc://.* ended.* No daemon was back within 2 s: no d",
    ):
        for batch in passing:
            batch.release()
    assert np.array_equal(held.images, before), "what is held stays readable"
    stream.close()
    finish(process)
    with pytest.raises(augd.ConnectError, match=r"no daemon at ipc://.*augd serve PATH --listen"):
        augd.connect(address, recipe=SMALL)


@pytest.mark.fault("daemon SIGKILL")
def test_a_new_daemon_at_the_address_of_a_killed_one_gives_the_same_bytes(folder, tmp_path):
    address = f"ipc://{tmp_path}/d"
    digests = []
    for _ in range(2):
        process = start_by_hand(folder, address)
        digests.append(digest_epoch(address, epochs=1))
        process.kill()
        finish(process)
    assert digests[0] == digests[1]


@pytest.mark.fault("daemon SIGKILL")
def test_what_a_kill_of_everything_at_once_left_is_cleared_by_the_next_start(folder, tmp_path):
    address = f"ipc://{tmp_path}/d"
    process = start_by_hand(folder, address)
    family = [process.pid, *family_of(process.pid)]
    for number in (signal.SIGSTOP, signal.SIGKILL):  # so that nobody acts on another's end
        for pid in family:
            os.kill(pid, number)
    finish(process)
    assert (tmp_path / "d").exists(), "the janitor was killed, too: its work is left"
    again = start_by_hand(folder, address)
    digest_epoch(address, epochs=1)
    again.send_signal(signal.SIGTERM)
    assert finish(again)[0] == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.fault("daemon SIGTERM, Ctrl-C")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_daemon(folder, tmp_path, number):
    address = f"ipc://{tmp_path}/d"
    process = start_by_hand(folder, address)
    stream = augd.connect(address, recipe=SMALL, batch_size=16, timeout_s=3)
    passing = stream.epoch(0)
    next(passing)
    relatives = family_of(process.pid)
    process.send_signal(number)
    status, errors = finish(process)
    assert status == 0
    assert "Traceback" not in errors
    assert not any(map(is_alive, relatives))
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        augd.ConnectError, match=r"the daemon .*ended.* No daemon was back within 3 s"
    ):
        for batch in passing:
            batch.release()
    stream.close()


@pytest.mark.fault("daemon SIGTERM, Ctrl-C")
def test_ctrl_c_while_starting_leaves_nothing(folder, tmp_path):
    for pause_s in (0.05, 0.15, 0.3, 0.5):
        process = begin_by_hand(folder, f"ipc://{tmp_path}/d")
        time.sleep(pause_s)
        relatives = family_of(process.pid) if children_of(process.pid) else []
        process.send_signal(signal.SIGINT)
        status, errors = finish(process)
        # Before the program's first line the interpreter has its own ways to end by Ctrl-C.
        is_early = "Fatal Python error: init" in errors or "Could not import runpy" in errors
        is_early = is_early or errors.strip() == "KeyboardInterrupt"
        assert status in (0, 130, -signal.SIGINT) or is_early, errors
        await_true(lambda pids=relatives: not any(map(is_alive, pids)), 2.0, "no child is left")
        await_true(lambda: not list(tmp_path.iterdir()), 2.0, "no file is left")


@pytest.mark.fault("trainer SIGKILL")
def test_a_trainer_killed_with_9_frees_its_memory(folder, daemon):
    code = (
        "import sys, time, augd\n"
        f"stream = augd.connect({daemon.address!r}, recipe='eval', batch_size=64)\n"
        "held = [batch for batch, _ in zip(stream.epoch(0), range(3))]\n"
        "print('holding', flush=True); time.sleep(60)"
    )
    await_true(lambda: len(ask_status(daemon.address, 5)["producers"]) == 2, 10, "started")
    before = num_fds(daemon.pid)
    trainer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    assert "holding" in trainer.stdout.readline()
    with augd.connect(daemon.address, recipe=SMALL, batch_size=16) as other:
        trainer.kill()
        await_true(
            lambda: len(ask_status(daemon.address, 5)["streams"]) == 1, 1.0, "its stream is gone"
        )
        assert len(read_epoch(other, 0)) == 25, "the other trainer is unaffected"
    trainer.communicate()
    await_true(lambda: num_fds(daemon.pid) <= before, 5.0, "the daemon's fds are back")
    await_true(lambda: not mapped_arenas(daemon.pid), 1.0, "nobody maps the dead trainer's slots")


@pytest.mark.fault("daemon SIGKILL")
def test_a_daemon_dies_with_the_script_that_started_it(folder):
    code = (
        "import time, augd\n"
        f"daemon = augd.serve({{'small': {str(folder)!r}}}, producers=2)\n"
        "print(daemon.pid, daemon.address, flush=True); time.sleep(60)"
    )
    script = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert script.stdout is not None
    pid, address = script.stdout.readline().split()
    relatives = family_of(int(pid))
    script.kill()
    script.communicate()
    await_true(lambda: not any(map(is_alive, relatives)), 3.0, "the daemon and its children end")
    assert not Path(address.removeprefix("ipc://")).exists()


@pytest.mark.fault("second daemon on the same address")
def test_a_second_daemon_at_the_address_is_refused(folder, daemon):
    with pytest.raises(
        augd.AddressInUse, match=rf"a daemon \(pid {daemon.pid}\) already serves {daemon.address}"
    ):
        augd.serve({"small": folder}, listen=daemon.address)
    assert digest_epoch(daemon.address, epochs=1), "the first is unharmed"


@pytest.mark.fault("every producer crashes at start")
def test_producers_that_all_crash_are_a_named_error(folder, tmp_path, monkeypatch):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL is not here')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    with augd.serve({"small": folder}, producers=2) as served:
        started = time.monotonic()
        with pytest.raises(
            augd.ProducersUnhealthy, match=r"died in a row.*ImportError: libGL is not here"
        ):
            augd.connect(served.address, recipe=SMALL, timeout_s=30)
        assert time.monotonic() - started < 10
        assert len(producers_of(served.pid)) <= 2


def test_pinned_producers_keep_their_cores_also_when_replaced(folder, tmp_path):
    """`--pin`: one core each, in turns; a replacement takes the core of the dead."""
    cores = sorted(os.sched_getaffinity(0))
    address = f"ipc://{tmp_path}/pinned"
    words = ["serve", str(folder), "--producers", "2", "--pin", "--listen", address, "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "augd", *words])
    try:
        await_true(lambda: Path(f"{tmp_path}/pinned").exists(), 20.0, "the socket")
        await_true(lambda: is_up(address, 2), 20.0, "two producers")

        def pinned() -> list[set[int]]:
            return sorted((os.sched_getaffinity(pid) for pid in producers_of(process.pid)), key=min)

        expected = sorted(({cores[place % len(cores)]} for place in range(2)), key=min)
        assert pinned() == expected
        assert len(digest_epoch(address, epochs=1)) == 1
        victim = producers_of(process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        await_true(lambda: victim not in producers_of(process.pid), 20.0, "its end")
        await_true(lambda: pinned() == expected and is_up(address, 2), 20.0, "a replacement")
    finally:
        process.terminate()
        process.wait(20)
