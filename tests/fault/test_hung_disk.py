"""A file system that does not answer, or fails for a while: a FUSE server of the tests' own."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import augd
from augd.client.status import status as ask_status
from tests.support.fuse import Mount, is_possible, mounted
from tests.support.processes import await_true, is_alive, producers_of
from tests.support.programs import finish, follow, put_in_place, start_by_hand
from tests.support.scenes import SMALL, make_folder

pytestmark = pytest.mark.skipif(
    not is_possible(), reason="no FUSE server may be mounted here (/dev/fuse, root)"
)
OPTIONS = {"recipe": SMALL, "batch_size": 16, "timeout_s": 30}
SHORT = """
import sys
if "--supervisor" in sys.orig_argv:
    import augd.server.daemon.broker.broker as core, augd.server.daemon.broker.scheduler as works
    core.DRAIN_S = core.REAP_S = works.REAP_S = 1.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=60)


@pytest.fixture
def disk(folder: Path, tmp_path: Path) -> Iterator[Mount]:
    try:
        with mounted(folder, tmp_path / "disk") as mount:
            yield mount
    except OSError as error:
        pytest.skip(f"no FUSE server may be mounted here: {error}")


@pytest.mark.fault("a disk that does not answer")
def test_a_daemon_whose_disk_hangs_says_so_and_ends(disk, tmp_path, monkeypatch):
    put_in_place(SHORT, tmp_path, monkeypatch)
    address = f"ipc://{tmp_path}/d"
    process = start_by_hand(disk.folder, address, "--producers", "2", "--patience", "2")
    with augd.connect(address, **OPTIONS) as stream:
        producers = producers_of(process.pid)
        disk.do("hang")
        with pytest.raises(augd.ConnectError, match=r"nothing came from the daemon|ended"):
            stream._connection.current.timeout_s = stream._connection.timeout_s = 6.0
            follow(stream, 5)
    process.send_signal(signal.SIGTERM)
    took_s = await_true(lambda: process.poll() is not None, 15, "its end")
    # Its first thread may be gone, while one that reads ahead waits.
    left = [pid for pid in producers if Path(f"/proc/{pid}").exists()]
    disk.abort()
    status, errors = finish(process)
    assert status == 0
    assert took_s < 5, "DRAIN_S and REAP_S, and what the end itself takes"
    assert left, "it did not wait for them"
    assert "hangs: silent for too long at work, killed" in errors
    assert "was killed 1 s ago and has not exited: the kernel keeps it" in errors
    assert "killed producers have not exited: " in errors
    assert not [
        path
        for path in tmp_path.iterdir()
        if path.name.startswith("d.") and "deed" not in path.name
    ]
    await_true(lambda: not any(map(is_alive, producers)), 5, "the system reaps them")


@pytest.mark.fault("a file system that fails for a while")
@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT])
def test_a_file_system_that_fails_for_two_seconds_costs_two_seconds(disk, tmp_path, number):
    """Longer than a producer may be silent; no bad sample, no death, the same bytes."""
    address = f"ipc://{tmp_path}/d"
    process = start_by_hand(disk.folder, address, "--producers", "2", "--patience", "2")
    try:
        with augd.connect(address, **OPTIONS) as stream:
            undisturbed = follow(stream, 2)

        def fail(batch: augd.Batch) -> None:
            if (batch.epoch, batch.number) == (0, 2):
                disk.do(number)
                threading.Timer(2.5, disk.do, ["answer"]).start()

        with augd.connect(address, **OPTIONS) as stream:
            assert follow(stream, 2, fail) == undisturbed
            assert stream.stats()["lost"] == 0
        told = ask_status(address, 10)
        assert told["restarts"] == 0
    finally:
        process.send_signal(signal.SIGTERM)
        status, errors = finish(process)
    assert status == 0
    assert f"{os.strerror(number)}; tried again for 60 s" in errors


@pytest.mark.fault("a file system that fails for a while")
def test_one_that_fails_for_longer_ends_the_stream_and_blames_no_file(disk, tmp_path, monkeypatch):
    monkeypatch.setenv("AUGD_STORE_PATIENCE", "1")
    address = f"ipc://{tmp_path}/d"
    process = start_by_hand(disk.folder, address, "--producers", "1")
    try:
        with augd.connect(address, max_bad_fraction=1.0, **OPTIONS) as stream:
            undisturbed = follow(stream, 1)
            disk.do(errno.EIO)
            says = r"class\d/\d+\.jpg cannot be read: Input/output error, tried again for 1 s"
            with pytest.raises(augd.StoreError, match=says):
                follow(stream, 3, first=1)
        disk.do("answer")
        with augd.connect(address, **OPTIONS) as stream:
            assert follow(stream, 1) == undisturbed
    finally:
        process.send_signal(signal.SIGTERM)
        status, _ = finish(process)
    assert status == 0
