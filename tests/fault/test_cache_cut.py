"""Somebody cuts a file of the disk cache off while a daemon uses it: rows stay what they were."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import augd
from augd.client.status import status as ask_status
from augd.dataset.scan.build_index import load_or_build
from augd.server.daemon.decoded_cache import CacheStore, parse_cache
from tests.support.processes import await_true, producers_of
from tests.support.programs import follow, is_up
from tests.support.scenes import SMALL, make_folder

NUM = 80
OPTIONS = {"recipe": SMALL, "batch_size": 8, "timeout_s": 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=NUM // 2)


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> list[object]:
    with (
        augd.serve(folder, producers=1) as daemon,
        augd.connect(daemon.address, **OPTIONS) as stream,
    ):
        return list(follow(stream, 4))


@pytest.mark.fault("a file of the disk cache cut off under a daemon")
@pytest.mark.parametrize(("name", "left"), [("augd.pixels", 0), ("augd.pixels", 9999), ("*", 4100)])
def test_rows_are_made_without_it(folder, undisturbed, tmp_path, name, left) -> None:
    where = tmp_path / "c"
    with augd.serve(folder, producers=2, cache=f"disk:{where}:4MB") as daemon:
        await_true(lambda: is_up(daemon.address, 2), 20, "two producers")
        instance = ask_status(daemon.address, 10)["instance"]
        (cut,) = where.glob("augd-*.table" if name == "*" else name)

        def cut_off(batch: augd.Batch) -> None:
            if (batch.epoch, batch.number) == (1, 3):
                os.truncate(cut, left)
            if (batch.epoch, batch.number) == (2, 3):
                for pid in producers_of(daemon.pid):  # who comes next finds it cut off
                    os.kill(pid, signal.SIGKILL)

        with augd.connect(daemon.address, **OPTIONS) as stream:
            assert follow(stream, 4, cut_off) == undisturbed
            assert stream.stats()["quarantined"] == 0
        status = ask_status(daemon.address, 10)
        assert status["instance"] == instance, "the daemon did not die of it"
        assert status["datasets"][folder.name]["quarantined"] == []
        assert cut.stat().st_size == left, "it is not made longer while it is mapped"
    with (
        augd.serve(folder, producers=2, cache=f"disk:{where}:4MB") as daemon,
        augd.connect(daemon.address, **OPTIONS) as stream,
    ):
        assert follow(stream, 4) == undisturbed, "the next start makes it anew"


def test_a_cut_file_gets_no_space_and_no_record(folder: Path, tmp_path: Path) -> None:
    index = load_or_build(folder)
    store = CacheStore(parse_cache(f"disk:{tmp_path}/c:4MB"), {"set": index})
    try:
        store.take_space((64, 4096))
        assert not store.is_cut()
        pixels = tmp_path / "c" / "augd.pixels"
        size_bytes = pixels.stat().st_size
        os.truncate(pixels, 100)
        with pytest.raises(OSError, match=r"a file in .* was truncated; .*daemon is restarted"):
            store.take_space((64, 4096))
        assert pixels.stat().st_size == 100
        os.truncate(pixels, size_bytes)
        assert store.is_cut(), "what was there is gone"
    finally:
        store.close()
        index.close()


def test_a_start_removes_tables_of_its_own_alone(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "c"
    index = load_or_build(folder)
    CacheStore(parse_cache(f"disk:{place}:4MB"), {"set": index}).close()
    (own,) = place.glob("augd-*.table")
    stale = place / f"augd-{'a' * 16}.table"
    stale.write_bytes(own.read_bytes())
    kept = [place / "augd-photos.table", place / f"augd-{'b' * 16}.table"]
    for path in kept:
        path.write_text("mine")
    link = place / f"augd-{'c' * 16}.table"
    link.symlink_to(kept[0])
    CacheStore(parse_cache(f"disk:{place}:4MB"), {"set": index}).close()
    index.close()
    assert not stale.exists()
    assert own.exists()
    assert [path.read_text() for path in kept] == ["mine", "mine"]
    assert link.is_symlink()
