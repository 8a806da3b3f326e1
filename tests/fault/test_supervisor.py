"""A daemon that dies unasked is started again at its addresses, and everybody goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import augd
from augd.client.status import status
from tests.support.commands import run_augd
from tests.support.processes import (
    await_true,
    command_of,
    daemon_of,
    family_of,
    is_alive,
    producers_of,
)
from tests.support.programs import begin_by_hand, finish, follow, put_in_place, start_by_hand
from tests.support.relays import await_remotes, running_relay
from tests.support.scenes import SMALL, make_folder

OPTIONS: dict[str, Any] = {"recipe": SMALL, "batch_size": 16, "timeout_s": 40}

# A program's own deed at a place of its start, which a file counts: it is done so many times only.
AT_START = """
import os, sys
if "--supervisor" in sys.orig_argv and {module!r} in sys.orig_argv[2:8]:
    marks = os.open({marks!r}, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(marks, b".")
    if os.fstat(marks).st_size in {which!r}:
        {deed}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=60)


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[augd.ServedDaemon]:
    listen = ("ipc://" + str(folder.parent / "d"), "tcp://127.0.0.1:0")
    with augd.serve({"small": folder}, producers=1, listen=listen) as daemon:
        yield daemon


def at(epoch: int, number: int, act: Callable[[], object]) -> Callable[[augd.Batch], None]:
    return lambda batch: (batch.epoch, batch.number) == (epoch, number) and act() and None


@pytest.mark.fault("daemon dies unasked: SIGABRT, SIGKILL, any other end")
@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL])
@pytest.mark.parametrize("where", [0, 1], ids=["by path", "by port"])
def test_it_is_started_again_and_streams_go_on(served, number, where):
    """At the same port, though that was any free one."""
    address, first = served.addresses[where], served.pid
    with augd.connect(address, **OPTIONS) as stream:
        undisturbed = follow(stream, 2)
    deaths = status(address, 5)["daemon_deaths"]

    def kill() -> None:
        os.kill(first, number)

    with augd.connect(address, **OPTIONS) as stream:
        assert follow(stream, 2, at(0, 3, kill)) == undisturbed
        assert stream.stats()["lost"] == 1
    told = status(address, 5)
    assert told["daemon_deaths"] == deaths + 1
    assert told["last_daemon_death"] == number.name
    assert (told["pid"], told["supervisor_pid"]) == (served.pid, served.supervisor_pid)
    assert served.pid != first


@pytest.mark.fault("daemon dies unasked: SIGABRT, SIGKILL, any other end")
def test_who_lends_producers_goes_on_by_itself(folder, tmp_path):
    listen = (f"ipc://{tmp_path}/d", "tcp://127.0.0.1:0")
    with augd.serve({"small": folder}, producers=0, listen=listen) as served:
        port = served.addresses[1]
        with running_relay(folder, port, "--producers", "1") as relay:
            await_remotes(port, 1)
            with augd.connect(served.address, **OPTIONS) as stream:
                undisturbed = follow(stream, 1)
                killed = at(0, 3, lambda: os.kill(served.pid, signal.SIGABRT))
                assert follow(stream, 1, killed) == undisturbed
            relay.end()


@pytest.mark.fault("daemon dies unasked: SIGABRT, SIGKILL, any other end")
def test_it_is_said_in_log_status_and_metrics(folder, tmp_path):
    pytest.importorskip("prometheus_client")
    from augd.protocol.dashboard_messages import Snapshot
    from augd.server.dashboard.metrics import render

    address = f"ipc://{tmp_path}/d"
    process = start_by_hand(folder, address, "--producers", "1", "--log-format", "json")
    first = daemon_of(process.pid)
    os.kill(first, signal.SIGABRT)
    await_true(lambda: daemon_of(process.pid) not in (first, process.pid), 10, "another one")
    await_true(Path(f"{tmp_path}/d").exists, 10, "it serves")
    snapshot = status(address, 10)
    assert b"augd_daemon_restarts_total 1.0" in render(Snapshot(snapshot, 1.0, 1.0))
    done = run_augd("status", address)
    said = "The daemon was started again, as it ended unasked: deaths so far 1, the last by SIGABRT"
    assert said in done.stdout
    process.send_signal(signal.SIGTERM)
    code, errors = finish(process)
    assert code == 0
    (line,) = [one for one in map(json.loads, errors.splitlines()) if one["pid"] == process.pid]
    assert line["level"] == "warning"
    assert f"the daemon (pid {first}) ended unasked by SIGABRT" in line["message"]
    assert "it is started again at once (death 1)" in line["message"]


@pytest.mark.fault("supervisor SIGKILL")
def test_kill_9_of_the_supervisor_ends_all_within_a_second_and_a_start_waits(folder, tmp_path):
    address = f"ipc://{tmp_path}/d"
    process = start_by_hand(folder, address)
    with augd.connect(address, **OPTIONS) as stream:
        next(stream.epoch(0)).release()
        relatives = family_of(process.pid)
        assert len(producers_of(process.pid)) >= 1
        process.kill()
        again = begin_by_hand(folder, address)  # at once, while the lock is the dying daemon's
        await_true(lambda: not any(map(is_alive, relatives)), 1.0, "nobody is left")
        finish(process)
        assert len(follow(stream, 1)) == 1
    again.send_signal(signal.SIGTERM)
    assert finish(again)[0] == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.fault("supervisor SIGKILL")
def test_a_stopped_daemon_ends_with_its_supervisor(folder, tmp_path):
    process = start_by_hand(folder, f"ipc://{tmp_path}/d", "--producers", "1")
    relatives = family_of(process.pid)
    os.kill(daemon_of(process.pid), signal.SIGSTOP)
    process.kill()
    await_true(lambda: not any(map(is_alive, relatives)), 1.0, "nobody is left")
    finish(process)
    await_true(lambda: not list(tmp_path.iterdir()), 2.0, "no file is left")


def test_a_signal_to_the_daemon_itself_is_a_wish(folder, tmp_path):
    """Who reads its pid in `augd status` and sends SIGTERM wants it to end."""
    process = start_by_hand(folder, f"ipc://{tmp_path}/d", "--producers", "1")
    os.kill(daemon_of(process.pid), signal.SIGTERM)
    code, errors = finish(process)
    assert code == 0
    assert "started again" not in errors


@pytest.mark.fault("daemon SIGTERM, Ctrl-C")
@pytest.mark.parametrize(
    ("which", "number"), [(1, signal.SIGTERM), (2, signal.SIGTERM), (2, signal.SIGINT)]
)
def test_a_wish_in_the_first_moments_of_a_daemon_is_no_failure(
    folder, tmp_path, monkeypatch, which, number
):
    """Before it heeds signals, at its start or when it takes a dead one's place."""
    marks = tmp_path / "marks"
    deed = "import time; time.sleep(60)"
    hook = AT_START.format(module="augd", marks=str(marks), which=(which,), deed=deed)
    put_in_place(hook, tmp_path, monkeypatch)
    process = begin_by_hand(folder, f"ipc://{tmp_path}/d", "--producers", "1")
    if which == 2:
        assert process.stdout is not None
        assert "serving" in process.stdout.readline()
        os.kill(daemon_of(process.pid), signal.SIGKILL)
    await_true(lambda: marks.exists() and marks.stat().st_size == which, 20, "it is starting")
    process.send_signal(number)
    code, errors = finish(process)
    assert code == 0, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "d").exists()


def test_a_line_that_cannot_be_is_refused_once(tmp_path):
    process = begin_by_hand(tmp_path / "nowhere", f"ipc://{tmp_path}/d")
    code, errors = finish(process)
    assert code == 1
    assert errors.startswith("augd: error: ") and len(errors.splitlines()) == 1
    assert f"{tmp_path}/nowhere" in errors


def test_one_that_dies_before_it_ever_served_is_tried_again_with_pauses(
    folder, tmp_path, monkeypatch
):
    marks = tmp_path / "marks"
    deed = "os.abort()"
    put_in_place(
        AT_START.format(module="augd", marks=str(marks), which=(1, 2), deed=deed),
        tmp_path,
        monkeypatch,
    )
    began = time.monotonic()
    with augd.serve({"small": folder}, producers=1) as served:
        assert time.monotonic() - began > 0.5 + 1.0
        assert status(served.address, 5)["daemon_deaths"] == 2
        assert marks.stat().st_size == 3


def test_one_that_cannot_start_ends_with_its_status(folder, tmp_path, monkeypatch):
    marks = tmp_path / "marks"
    put_in_place(
        "import augd.server.supervisor.loop as one; one.STARTS_MAX = 2\n"
        + AT_START.format(module="augd", marks=str(marks), which=range(99), deed="os.abort()"),
        tmp_path,
        monkeypatch,
    )
    process = begin_by_hand(folder, f"ipc://{tmp_path}/d")
    code, errors = finish(process)
    assert code == 128 + signal.SIGABRT
    assert "before it served; it is started again in 0.5 s (death 1)" in errors
    assert marks.stat().st_size == 2


def test_after_too_many_deaths_it_waits(folder, tmp_path, monkeypatch):
    """And a signal ends the wait."""
    put_in_place(
        "import augd.server.supervisor.loop as one; one.AT_ONCE_MAX = 2", tmp_path, monkeypatch
    )
    place = tmp_path / "place"
    place.mkdir()
    process = start_by_hand(folder, f"ipc://{place}/d", "--producers", "1")
    for _ in range(3):
        await_true((place / "d").exists, 20, "it serves")
        status(f"ipc://{place}/d", 20)
        pid = daemon_of(process.pid)
        assert b"--supervisor" in command_of(pid)
        os.kill(pid, signal.SIGKILL)
        await_true(lambda pid=pid: not is_alive(pid), 5, "its death")
        await_true(lambda: not (place / "d").exists(), 5, "its files are gone")
    await_true(lambda: daemon_of(process.pid) == process.pid, 5, "nobody")
    process.send_signal(signal.SIGTERM)
    code, errors = finish(process)
    assert code == 0
    assert "it is started again at once (death 2)" in errors
    assert "it is started again in " in errors.splitlines()[-1]
    await_true(lambda: not list(place.iterdir()), 5, "all is gone")


def test_the_supervisor_is_thin():
    code = (
        "import sys, augd.cli.entry, augd.server.supervisor.loop\n"
        "heavy = {'subprocess', 'json', 'logging', 'socket', 'msgspec', 'zmq', 'numpy', 'typer'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
