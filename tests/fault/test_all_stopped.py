"""A whole group that stands still: nobody is late who had no time to answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from augd.client.status import status as ask_status
from tests.support.processes import await_true, children_of, producers_of
from tests.support.programs import finish, kill, put_in_place, start_by_hand
from tests.support.scenes import make_folder

PATIENCE_S = 2
PAUSE_S = 3.5
# A producer at work, whenever it is stopped: its photos are decoded slowly.
SLOW = """
import sys
if "augd.server.producer" in sys.orig_argv:
    import time
    from augd.server.producer import row_maker
    making = row_maker.RowMaker.make_row
    def make_row(self, *arguments):
        time.sleep(0.03)
        return making(self, *arguments)
    row_maker.RowMaker.make_row = make_row
"""
CLIENT = """
import sys
import augd
from tests.support.scenes import SMALL
options = dict(recipe=SMALL, batch_size=4, prefetch=1, timeout_s=2)
with augd.connect(sys.argv[1], **options) as stream:
    print("reads", flush=True)
    count = sum(len(batch) for epoch in range(2) for batch in stream.epoch(epoch))
    print(count, stream.stats()["lost"], flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=20)


def test_nobody_is_silent_who_stood_still_with_all_others(folder, tmp_path, monkeypatch):
    put_in_place(SLOW, tmp_path, monkeypatch)
    address = f"ipc://{tmp_path}/d"
    daemon = start_by_hand(folder, address, "--producers", "1", "--patience", str(PATIENCE_S))
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, address], stdout=subprocess.PIPE, text=True
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "reads\n"
        (held,) = children_of(daemon.pid)
        producers = producers_of(daemon.pid)
        # The producer first, so that the others wait for it; it goes on last.
        group = [*producers, held, daemon.pid, client.pid]
        time.sleep(0.3)
        for pid in group[:1]:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(0.3)
        for pid in group[1:]:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(PAUSE_S)
        for pid in reversed(group):
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.05)
        said, _ = client.communicate(timeout=60)
        assert said == "80 0\n"
        assert client.returncode == 0
        assert ask_status(address, 10)["restarts"] == 0
        assert producers_of(daemon.pid) == producers
    finally:
        kill(client)
        daemon.send_signal(signal.SIGTERM)
        status, errors = finish(daemon)
    assert status == 0
    assert "hangs" not in errors


def test_a_producer_that_alone_stands_still_is_noticed_all_the_same(folder, tmp_path, monkeypatch):
    put_in_place(SLOW, tmp_path, monkeypatch)
    address = f"ipc://{tmp_path}/d"
    daemon = start_by_hand(folder, address, "--producers", "1", "--patience", str(PATIENCE_S))
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT.replace("timeout_s=2", "timeout_s=60"), address],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "reads\n"
        for pid in producers_of(daemon.pid):
            os.kill(pid, signal.SIGSTOP)
        await_true(lambda: ask_status(address, 10)["restarts"], 20, "it is killed for its silence")
        said, _ = client.communicate(timeout=60)
        assert said == "80 0\n"
    finally:
        kill(client)
        daemon.send_signal(signal.SIGTERM)
        finish(daemon)
