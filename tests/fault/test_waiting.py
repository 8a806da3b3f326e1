"""A client that waits for a lost daemon says so in the log of its process, and when it is over."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import pytest

import augd
from augd.client import wait_notice
from tests.support.programs import begin_by_hand, finish, free_port, kill, start_by_hand
from tests.support.relays import running_relay
from tests.support.scenes import SMALL, make_folder


@pytest.mark.fault("daemon SIGKILL")
@pytest.mark.parametrize("kind", ["ipc", "tcp"])
def test_a_stream_says_that_it_waits_and_what_then(
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(wait_notice, "FIRST_S", 0.3)
    monkeypatch.setattr(wait_notice, "EVERY_S", 0.4)
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=24)
    address = f"ipc://{tmp_path}/d" if kind == "ipc" else f"tcp://127.0.0.1:{free_port()}"
    first = start_by_hand(f"small={folder}", address, "--producers", "1")
    after: list = []
    waits: list[bool] = []

    def told(record: logging.LogRecord) -> bool:
        # A daemon comes after the second line, its producers by and by.
        waits.append("Waiting for a daemon" in record.getMessage())
        if sum(waits) == 2 and not after:
            after.append(begin_by_hand(f"small={folder}", address, "--producers", "0"))
        return True

    caplog.handler.addFilter(told)
    stream = augd.connect(address, recipe=SMALL, batch_size=4, shuffle=False)
    try:
        batches = stream.epoch(0)
        ids = next(batches).ids.tolist()
        first.send_signal(signal.SIGKILL)
        finish(first)
        with running_relay(folder, address, "--producers", "1"):
            ids += [number for batch in batches for number in batch.ids.tolist()]
    finally:
        caplog.handler.removeFilter(told)
        stream.close()
        for one in (first, *after):
            kill(one)
    assert ids == list(range(24))
    said = [text for text in caplog.messages if "Waiting for a daemon" in text]
    assert len(said) >= 2, caplog.messages
    assert f"The daemon at {address}" in said[0] or f"the daemon at {address}" in said[0]
    assert "more: then the stream goes on at position" in said[0]
    assert sum("A daemon is back after" in text for text in caplog.messages) == 1


@pytest.mark.fault("daemon SIGKILL")
def test_a_short_loss_is_not_worth_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=24)
    first = start_by_hand(folder, f"ipc://{tmp_path}/d", "--producers", "1")
    second = None
    stream = augd.connect(f"ipc://{tmp_path}/d", recipe=SMALL, batch_size=4)
    try:
        batches = stream.epoch(0)
        next(batches)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wait_notice, "FIRST_S", 60.0)  # a busy machine is no long loss
            first.send_signal(signal.SIGKILL)
            finish(first)
            second = begin_by_hand(folder, f"ipc://{tmp_path}/d", "--producers", "1")
            assert sum(len(batch) for batch in batches) == 20
    finally:
        stream.close()
        for one in filter(None, (first, second)):
            kill(one)
    assert stream.stats()["lost"] == 1
    assert not [text for text in caplog.messages if "Waiting" in text]
