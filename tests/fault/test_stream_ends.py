"""Who reads a stream hears what ended it, where neither its samples nor its producers did."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

import augd
from augd.client.status import status as ask_status
from augd.client.wait_notice import describe_standstill, sentence
from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.producers import DEATHS_MIN
from tests.support.processes import await_true, producers_of
from tests.support.programs import finish, kill, start_by_hand
from tests.support.scenes import SMALL, make_folder
from tests.support.table import Table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=20)


@pytest.mark.parametrize(
    ("kind", "signal_name", "says"),
    [
        (ExitReason.MEMORY, "SIGKILL", "the kernel killed it because memory ran out"),
        (
            ExitReason.OUTSIDE,
            "SIGTERM",
            "another process sent the signal, and no sample is blamed",
        ),
        (ExitReason.STOPPED, "SIGKILL", "it had been stopped from outside (SIGSTOP, a debugger)"),
    ],
)
def test_an_end_from_outside_is_called_that_by_the_error(
    kind: ExitReason, signal_name: str, says: str
) -> None:
    table = Table(producers=1)
    table.open(0)
    for _ in range(DEATHS_MIN):  # before they made anything
        table.feed(ev.Reaped(0, signal_name, kind))
        table.now += 10.0
        table.feed(ev.Tick())
    (error,) = table.got(0, msg.Error)
    assert error.code == "PRODUCERS_UNHEALTHY"
    assert f"the last: {signal_name}: {says}" in error.text


def test_a_stopped_producer_that_was_killed_for_it_is_said_to_have_been_stopped() -> None:
    table = Table(producers=1)
    table.feed(ev.FromLocalProducer(0, msg.LastWords("silent for too long at work, killed")))
    table.feed(ev.Reaped(0, "SIGKILL", ExitReason.STOPPED))
    last = table.broker.snapshot(table.now)["last_death"]
    assert last.startswith("silent for too long at work, killed: it had been stopped from outside")


def test_producers_that_somebody_kills_are_not_said_to_be_at_fault(folder: Path) -> None:
    """Each is killed as soon as it stands, before it has made a chunk."""
    with augd.serve({"small": folder}, producers=1) as daemon:
        is_over = threading.Event()

        def hunt() -> None:
            while not is_over.wait(0.002):
                for pid in producers_of(daemon.pid):
                    with contextlib.suppress(ProcessLookupError):  # it was reaped meanwhile
                        os.kill(pid, signal.SIGKILL)

        hunter = threading.Thread(target=hunt)
        hunter.start()
        try:
            with pytest.raises(
                augd.ProducersUnhealthy,
                match=r"died in a row.*the last: SIGKILL: another process sent the signal, and no",
            ):
                while True:  # one that stood longer than the hunter looked away has served
                    augd.connect(daemon.address, recipe=SMALL, batch_size=8, timeout_s=60).close()
        finally:
            is_over.set()
            hunter.join()


def test_nothing_came_says_who_is_there_and_who_died(folder: Path, tmp_path: Path) -> None:
    """The daemon is asked beside the stream, at its end: it alone knows."""
    address = f"ipc://{tmp_path}/d"
    process = start_by_hand(folder, address, "--producers", "1")
    try:
        await_true(lambda: producers_of(process.pid), 20, "there is a producer")
        (first,) = producers_of(process.pid)
        await_true(lambda: ask_status(address, 10)["producers"][0]["pid"], 20, "it is ready")
        os.kill(first, signal.SIGKILL)
        await_true(lambda: ask_status(address, 10)["restarts"], 20, "its death is seen")
        await_true(lambda: producers_of(process.pid), 20, "there is another")
        await_true(lambda: ask_status(address, 10)["producers"][0]["pid"], 20, "it is ready")
        (second,) = producers_of(process.pid)
        os.kill(second, signal.SIGSTOP)
        with (
            pytest.raises(
                augd.ConnectError,
                match=r"nothing came from the daemon .*1 of its 1 producer is ready; 1 died, the "
                r"last: SIGKILL: another process sent the signal",
            ),
            augd.connect(address, recipe=SMALL, batch_size=8, timeout_s=1) as stream,
        ):
            next(stream.epoch(0))
        os.kill(second, signal.SIGCONT)
    finally:
        process.send_signal(signal.SIGTERM)
        finish(process)


def test_a_daemon_that_does_not_answer_at_all_is_called_that(folder: Path) -> None:
    with (
        augd.serve({"small": folder}, producers=1) as daemon,
        augd.connect(daemon.address, recipe=SMALL, batch_size=8) as first,
    ):
        next(first.epoch(0)).release()  # its producer is ready
        stream = augd.connect(daemon.address, recipe=SMALL, batch_size=8, timeout_s=3)
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            with pytest.raises(augd.ConnectError, match=r"it did not answer a STATUS either"):
                for epoch in range(10):
                    for batch in stream.epoch(epoch):
                        batch.release()
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
            stream.close()


def test_what_stands_still_is_said_in_one_line() -> None:
    base = {
        "producers": [],
        "num_places": 2,
        "restarts": 0,
        "last_death": "",
        "daemon_deaths": 0,
        "last_daemon_death": "",
    }
    assert describe_standstill(base) == "0 of its 2 producers are ready; no batch is made"
    ready = {**base, "producers": [{"state": "ready"}] * 2}
    assert describe_standstill(ready) == (
        "2 of its 2 producers are ready; it may be overloaded or its storage slow"
    )
    died = {**ready, "daemon_deaths": 3, "last_daemon_death": "SIGABRT"}
    assert describe_standstill(died) == (
        "2 of its 2 producers are ready; before it 3 daemons died there, the last by SIGABRT"
    )


def test_a_drain_that_nobody_follows_is_said_in_whole_sentences(
    folder: Path, tmp_path: Path
) -> None:
    address = f"ipc://{tmp_path}/d"
    process = start_by_hand(folder, address, "--producers", "1")
    try:
        with augd.connect(address, recipe=SMALL, batch_size=4, timeout_s=1) as stream:
            batches = stream.epoch(0)
            next(batches)
            process.send_signal(signal.SIGTERM)
            finish(process)
            with pytest.raises(
                augd.ConnectError,
                match=r"start it again and connect\. No daemon was back within 1 s: no daemon at",
            ):
                list(batches)
    finally:
        kill(process)


def test_a_sentence_ends_once() -> None:
    assert sentence("It ended") == "It ended."
    assert sentence("It ended.") == "It ended."
