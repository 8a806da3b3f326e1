"""A cache while those who fill it are killed: nothing half written is ever served."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import augd
from augd.client.status import status as ask_status
from tests.support.processes import await_true, producers_of
from tests.support.programs import finish, follow, is_up, kill, put_in_place, start_by_hand
from tests.support.scenes import SMALL, make_folder

NUM = 80
OPTIONS = {"recipe": SMALL, "batch_size": 8, "timeout_s": 60}

# A producer that dies when half of an image is in the cache, and the rest is what was there.
HOOK = """
import sys
if "augd.server.producer" in sys.orig_argv:
    import os, signal
    marks = open({marks!r}, "ab")
    from augd.server.producer import decoded_cache as pixelcache
    decode_whole = pixelcache.decode_whole
    seen = []

    def hooked(content, header, out):
        seen.append(1)
        if len(seen) == 12 and os.fstat(marks.fileno()).st_size < {times}:
            os.write(marks.fileno(), b".")
            decode_whole(content, header, out)
            out[len(out) // 2 :] = 77
            os.kill(os.getpid(), signal.SIGKILL)
        decode_whole(content, header, out)

    pixelcache.decode_whole = hooked
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=NUM // 2)


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> list[object]:
    with (
        augd.serve(folder, producers=2) as daemon,
        augd.connect(daemon.address, **OPTIONS) as stream,
    ):
        return list(follow(stream, 3))


def cache_of(address: str) -> dict[str, int]:
    found: dict[str, int] = ask_status(address, 10)["cache"]
    return found


@pytest.mark.fault("producer SIGKILL in the middle of an image of the cache")
@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_producers_killed_in_the_middle_of_a_image(
    folder, undisturbed, tmp_path, monkeypatch, kind
) -> None:
    marks, times = tmp_path / "marks", 4
    put_in_place(HOOK.format(marks=str(marks), times=times), tmp_path, monkeypatch)
    where = "ram:4MB" if kind == "ram" else f"disk:{tmp_path}/c:4MB"
    with augd.serve(folder, producers=2, cache=where) as daemon:
        with augd.connect(daemon.address, **OPTIONS) as stream:
            assert follow(stream, 3) == undisturbed
        assert marks.stat().st_size >= times
        found = cache_of(daemon.address)
        assert found["entries"] == NUM, "what was lost was made again, and room is left for it"
        assert ask_status(daemon.address, 10)["restarts"] >= times
    with (
        augd.serve(folder, producers=2, cache=where) as daemon,
        augd.connect(daemon.address, **OPTIONS) as stream,
    ):
        assert follow(stream, 3) == undisturbed
        assert (cache_of(daemon.address)["misses"] == 0) == (kind == "disk")


@pytest.mark.fault("producer SIGKILL in the middle of an image of the cache")
def test_producers_killed_at_any_moment_while_the_cache_fills(folder, undisturbed) -> None:
    killed = 0

    def kill_one(batch: augd.Batch) -> None:
        nonlocal killed
        if batch.number % 3 == 1:
            for pid in producers_of(daemon.pid)[batch.number % 2 :][:1]:
                os.kill(pid, signal.SIGKILL)
                killed += 1

    with augd.serve(folder, producers=2, cache="ram:4MB") as daemon:
        with augd.connect(daemon.address, **OPTIONS) as stream:
            assert follow(stream, 3, kill_one) == undisturbed
        assert killed >= 6
        await_true(lambda: is_up(daemon.address, 2), 20, "both are up")
        with augd.connect(daemon.address, **OPTIONS) as stream:
            assert follow(stream, 3) == undisturbed
        found = cache_of(daemon.address)
        assert found["entries"] == NUM


@pytest.mark.fault("daemon SIGKILL with a cache on disk")
def test_a_daemon_killed_while_it_fills_a_disk_is_followed_by_one_that_goes_on(
    folder, undisturbed, tmp_path
) -> None:
    address, where = f"ipc://{tmp_path}/a", f"disk:{tmp_path}/c:4MB"
    options = ("--producers", "2", "--cache", where)
    process = start_by_hand(folder, address, *options)
    entries = 0
    with augd.connect(address, **OPTIONS) as stream:
        for batch in stream.epoch(0):
            if batch.number == 5:
                entries = cache_of(address)["entries"]
                kill(process)
                break
    assert entries > 0
    process = start_by_hand(folder, address, *options)
    try:
        assert cache_of(address)["entries"] >= entries
        with augd.connect(address, **OPTIONS) as stream:
            assert follow(stream, 3) == undisturbed
        found = cache_of(address)
        assert found["entries"] == NUM
        assert found["hits"] >= entries
    finally:
        process.terminate()
        status, errors = finish(process)
    assert status == 0, errors


@pytest.mark.fault("daemon SIGKILL with a cache on disk")
def test_nothing_is_left_of_a_cache_in_memory(folder, tmp_path) -> None:
    """The fixture of every test looks at /dev/shm; here at what producers still map."""
    address = f"ipc://{tmp_path}/a"
    process = start_by_hand(folder, address, "--producers", "2", "--cache", "ram:4MB")
    with augd.connect(address, **OPTIONS) as stream:
        next(iter(stream.epoch(0))).release()
        producers = producers_of(process.pid)
        assert len(producers) == 2
        assert any("augd-cache" in Path(f"/proc/{pid}/maps").read_text() for pid in producers)
        kill(process)
        await_true(
            lambda: not any(Path(f"/proc/{pid}/maps").exists() for pid in producers),
            5,
            "the producers are gone, and with them the memory",
        )
