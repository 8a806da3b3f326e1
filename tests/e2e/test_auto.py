"""What augd sees to by itself: as many processes and readers as are needed, and no byte changes."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

import augd
from augd.client.status import status
from augd.process.resource_limits import num_cores
from tests.support.processes import await_true, producers_of
from tests.support.programs import finish, start_by_hand
from tests.support.scenes import digest_epoch, make_folder

FAR = """
import time
import augd
from augd.dataset.readers.source import FolderSource

read = FolderSource.read

def read_slowly(self, sample):
    time.sleep(0.02)
    return read(self, sample)

FolderSource.read = read_slowly  # before any producer opens its files

class Nothing(augd.Plugin):
    \"\"\"Does nothing: a plug-in must have an op.\"\"\"

    def pixels(self, row, params):
        pass
"""


def test_files_that_come_slowly_are_read_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=160)
    address = f"ipc://{tmp_path}/d"
    with augd.serve(folder, producers=1) as near:
        undisturbed = digest_epoch(near.address, epochs=3)
    (tmp_path / "far_disk.py").write_text(FAR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    daemon = start_by_hand(folder, address, "--producers", "1", "--plugin", "far_disk")
    try:
        assert digest_epoch(address, epochs=3) == undisturbed
        (producer,) = status(address)["producers"]
        assert 2 <= producer["readers_added"] <= 14
    finally:
        daemon.terminate()
        code, said = finish(daemon)
    assert code == 0
    assert re.search(r"waits for its files: it reads \d+ more at a time", said)


@pytest.mark.slow
@pytest.mark.skipif(num_cores() < 2, reason="one core: there is nothing to drain")
def test_a_slow_trainer_leaves_one_producer_and_a_fast_one_has_all(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=160)
    address = f"ipc://{tmp_path}/d"
    daemon = start_by_hand(folder, address, "--producers", "auto")
    try:
        most = len(producers_of(daemon.pid))
        assert most == min(1024, num_cores())
        fast = digest_epoch(address, epochs=3)
        started = time.monotonic()

        def take_its_time(_: object) -> None:
            if len(producers_of(daemon.pid)) > 1 and time.monotonic() - started < 60:
                time.sleep(0.5)

        assert digest_epoch(address, epochs=3, on_batch=take_its_time) == fast
        await_true(lambda: len(producers_of(daemon.pid)) == 1, 5, "one is enough")
    finally:
        daemon.terminate()
        code, said = finish(daemon)
    assert code == 0
    assert "producers: changed from" in said and "died" not in said
