"""Producers on other hosts that die, fall silent, hang or come back: no byte changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import augd
from augd.client.status import status
from tests.support.processes import await_true, daemon_of, is_alive
from tests.support.programs import finish, free_port, kill, put_in_place, start_by_hand
from tests.support.proxy import Proxy
from tests.support.relays import at, await_remotes, remotes, running_relay
from tests.support.scenes import SMALL, digest_epoch, make_folder, opencv_decodes

pytestmark = pytest.mark.fault("remote producer, its relay, its host or its link ends")

PRODUCERS = ("--producers", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=150)


@pytest.fixture(scope="module")
def local(folder: Path) -> list[str]:
    with augd.serve({"small": folder}, producers=2) as daemon:
        return digest_epoch(daemon.address, epochs=2)


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    with augd.serve({"small": folder}, producers=0, listen="tcp://127.0.0.1:0") as daemon:
        yield daemon.address


@contextmanager
def started(folder: Path, address: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon without producers, at an address where another one may come after it."""
    process = start_by_hand(Path(f"small={folder}"), address, "--producers", "0")
    try:
        yield process
    finally:
        process.terminate()
        finish(process)


@pytest.mark.clause("P-137")
def test_a_host_that_dies_in_mid_epoch_changes_no_byte(
    folder: Path, address: str, local: list[str]
) -> None:
    with (
        running_relay(folder, address, "--producers", "1"),
        running_relay(folder, address, "--producers", "1") as hit,
    ):
        await_remotes(address, 2)
        producers = hit.producers()
        dies = at(0, 5, hit.process.kill)
        assert digest_epoch(address, epochs=2, on_batch=dies) == local
        await_true(lambda: not any(map(is_alive, producers)), 1.0, "its producers died with it")
        assert len(remotes(address)) == 1


@pytest.mark.clause("P-140")
def test_a_remote_producer_that_is_killed_is_replaced_by_its_relay(
    folder: Path, address: str, local: list[str]
) -> None:
    with running_relay(folder, address, "--producers", "2") as relay:
        await_remotes(address, 2)

        def on_batch(batch: augd.Batch) -> None:
            if batch.number % 6 == 3:
                for pid in relay.producers()[:1]:
                    os.kill(pid, signal.SIGKILL)

        assert digest_epoch(address, epochs=2, on_batch=on_batch) == local
        await_remotes(address, 2)
        assert status(address)["restarts"] >= 2
        assert {one["number"] for one in remotes(address)} - {1024, 1025}
        assert "ended: SIGKILL" in relay.end()


@pytest.mark.clause("P-138")
def test_a_new_daemon_has_the_old_ones_producers(folder: Path, local: list[str]) -> None:
    port = f"tcp://127.0.0.1:{free_port()}"
    daemons = ExitStack()
    with daemons, running_relay(folder, port, "--producers", "2") as relay:
        first = daemons.enter_context(started(folder, port))
        await_remotes(port, 2)
        pids = relay.producers()

        def crash() -> None:
            kill(first)
            daemons.enter_context(started(folder, port))

        assert digest_epoch(port, epochs=2, on_batch=at(0, 6, crash), timeout_s=30) == local
        assert relay.producers() == pids, "they had no part in it"


@pytest.mark.slow
@pytest.mark.clause("P-137", "P-138")
def test_a_host_that_stops_is_missed_by_nobody_and_welcome_again(
    folder: Path, address: str, local: list[str]
) -> None:
    with (
        running_relay(folder, address, "--producers", "1"),
        running_relay(folder, address, "--producers", "1") as hit,
    ):
        await_remotes(address, 2)

        def stop() -> None:
            for pid in (hit.pid, *hit.producers()):
                os.kill(pid, signal.SIGSTOP)

        assert digest_epoch(address, epochs=2, on_batch=at(0, 4, stop)) == local
        await_remotes(address, 1)
        for pid in (hit.pid, *hit.producers()):
            os.kill(pid, signal.SIGCONT)
        await_remotes(address, 2)
        assert digest_epoch(address, epochs=2) == local


@pytest.mark.clause("P-116", "P-140")
def test_a_sample_that_kills_remote_producers_is_quarantined(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deed is done in the relay's producers; the daemon has none, and hears of the current
    sample."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    victim = sorted(folder.rglob("*.jpg"))[11]
    text = f"""
import sys
if "augd.server.producer" in sys.orig_argv:
    import cv2, os, signal
    imdecode, whole = cv2.imdecode, open({str(victim)!r}, "rb").read()
    def hooked(data, flags):
        if len(data) == len(whole) and bytes(data[-64:]) == whole[-64:]:  # its header is changed
            os.kill(os.getpid(), signal.SIGSEGV)
        return imdecode(data, flags)
    cv2.imdecode = hooked
"""
    put_in_place(text, tmp_path, monkeypatch)
    with (
        opencv_decodes(),
        augd.serve({"small": folder}, producers=0, listen="tcp://127.0.0.1:0") as daemon,
        running_relay(folder, daemon.address, "--producers", "2"),
        augd.connect(daemon.address, recipe=SMALL, batch_size=50) as stream,
    ):
        for batch in stream.epoch(0):
            masked = batch.ids[~batch.valid].tolist()
            assert masked == [11][: len(masked)]
        assert [entry[0] for entry in stream.state_dict()["quarantine"]] == [11]


# networks


@pytest.fixture
def network(folder: Path) -> Iterator[tuple[str, Proxy]]:
    """A daemon without producers, and a proxy that these come through."""
    port = free_port()
    direct = f"tcp://127.0.0.1:{port}"
    with started(folder, direct) as process, Proxy(port, daemon_of(process.pid)) as proxy:
        yield direct, proxy


def test_resets_in_the_middle_of_rows_lose_and_double_nothing(
    folder: Path, network: tuple[str, Proxy], local: list[str]
) -> None:
    direct, proxy = network

    def on_batch(batch: augd.Batch) -> None:
        if batch.number % 5 == 2:
            proxy.reset("rows")

    with running_relay(folder, proxy.address, "--producers", "2") as relay:
        await_remotes(direct, 2)
        assert digest_epoch(direct, epochs=2, on_batch=on_batch) == local
        assert proxy.num_resets >= 6
        assert "the connection to tcp://" in relay.end()


@pytest.mark.slow
def test_a_partition_of_five_seconds_heals(
    folder: Path, network: tuple[str, Proxy], local: list[str]
) -> None:
    direct, proxy = network

    def part() -> None:
        proxy.freeze("up", "down")
        threading.Timer(5.0, proxy.heal).start()

    with running_relay(folder, proxy.address, "--producers", "2"):
        await_remotes(direct, 2)
        numbers = {one["number"] for one in remotes(direct)}
        assert digest_epoch(direct, epochs=2, on_batch=at(0, 3, part)) == local
        assert {one["number"] for one in remotes(direct)} == numbers, "TCP sent again what was lost"


@pytest.mark.slow
@pytest.mark.clause("P-137")
def test_a_link_that_died_is_noticed_by_heartbeats(
    folder: Path, network: tuple[str, Proxy], local: list[str]
) -> None:
    direct, proxy = network
    started = time.monotonic()
    with (
        running_relay(folder, proxy.address, *PRODUCERS),
        running_relay(folder, direct, *PRODUCERS),
    ):
        await_remotes(direct, 2)
        dies = at(0, 3, lambda: proxy.freeze("up", "down"))
        assert digest_epoch(direct, epochs=2, on_batch=dies) == local
        assert 5 < time.monotonic() - started < 60
        await_remotes(direct, 2)


def test_one_that_finds_no_daemon_waits_for_it(folder: Path, local: list[str]) -> None:
    port = f"tcp://127.0.0.1:{free_port()}"
    with running_relay(folder, port, *PRODUCERS) as relay:
        time.sleep(1.0)
        assert relay.process.poll() is None
        with started(folder, port):
            assert digest_epoch(port, epochs=2) == local
        code, errors = relay.finish()
        assert (code, errors.count("no answer")) == (0, 0), errors


HASTY = """
import augd.server.relay.remote_producer
augd.server.relay.remote_producer.ANSWER_S = 1.0
from augd.cli.entry import main
main()
"""


@pytest.mark.clause("P-133")
def test_lent_producers_stay_while_there_is_no_stream(folder: Path, address: str) -> None:
    """A relay waits so long for a word of the daemon, which has nothing to be made."""
    command = [sys.executable, "-c", HASTY, "produce", f"small={folder}", "--producers", "1"]
    relay = subprocess.Popen([*command, "--connect", address], stderr=subprocess.PIPE, text=True)
    try:
        await_remotes(address, 1)
        number = remotes(address)[0]["number"]
        deadline = time.monotonic() + 1.8
        while time.monotonic() < deadline:
            assert [one["number"] for one in remotes(address)] == [number]
            time.sleep(0.25)
    finally:
        relay.terminate()
        _, errors = relay.communicate(timeout=30)
    assert "did not accept the producer" not in errors
