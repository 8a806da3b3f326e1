"""Several trainers on one production: each batch is decoded once and every one gets it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import augd
import trainer
from augd.client.status import status
from tests.support.processes import await_true
from tests.support.scenes import SMALL, make_folder

NUM_SAMPLES = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=NUM_SAMPLES // 2)


@pytest.fixture(scope="module")
def one_daemon(folder: Path):
    with augd.serve({"small": folder}, producers=2) as served:
        yield served


@pytest.fixture
def daemon(one_daemon: augd.ServedDaemon):
    yield one_daemon
    await_true(lambda: not status(one_daemon.address)["streams"], 5, "all productions end")


def connect(daemon: augd.ServedDaemon, **options: object) -> augd.Stream:
    return augd.connect(daemon.address, **{"recipe": SMALL, "batch_size": 16, **options})


def rows_made(daemon: augd.ServedDaemon) -> int:
    return sum(producer["rows"] for producer in status(daemon.address)["producers"])


def leases_out(daemon: augd.ServedDaemon) -> int:
    return sum(producer["leases"] for producer in status(daemon.address)["producers"])


def read(stream: augd.Stream, epoch: int, pause_s: float = 0.0) -> dict[str, object]:
    for batch in stream.epoch(epoch):
        time.sleep(pause_s)
        batch.release()
    return stream.receipt(epoch)


def read_together(streams: list[augd.Stream], epoch: int, backoff: list[float]) -> list[object]:
    """Read in threads, as trainers in processes of their own would."""
    receipts: list[object] = [None] * len(streams)

    def run(place: int) -> None:
        receipts[place] = read(streams[place], epoch, backoff[place])

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(streams))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return receipts


def test_sharers_get_the_same_bytes_and_each_row_is_made_once(daemon):
    with connect(daemon) as stream:
        alone = [read(stream, epoch) for epoch in range(2)]
    await_true(lambda: not leases_out(daemon), 5, "what was made ahead is made or given up")
    before = rows_made(daemon)
    with (
        connect(daemon, shared=3) as a,
        connect(daemon, shared=3) as b,
        connect(daemon, shared=3, transport="frames") as c,
    ):
        for epoch in range(2):
            receipts = read_together([a, b, c], epoch, [0.0, 0.001, 0.002])
            assert receipts == [alone[epoch]] * 3
        (stream,) = status(daemon.address)["streams"]
        assert len(stream["sessions"]) == 3
        assert stream["is_shared"]
    made = rows_made(daemon) - before
    ahead = 5 * 16  # slots
    assert 2 * NUM_SAMPLES <= made <= 2 * NUM_SAMPLES + ahead


def test_nothing_is_sent_before_all_sharers_came(daemon):
    with connect(daemon, shared=2, timeout_s=30) as a:
        time.sleep(0.3)
        assert not a.is_ready()
        with connect(daemon, shared=2, timeout_s=30) as b:
            assert next(a.epoch(0)).number == next(b.epoch(0)).number == 0


def test_sharers_that_never_come_are_not_waited_for_longer_than_said(daemon):
    with connect(daemon, shared=2, timeout_s=2) as stream:
        assert read(stream, 0)["is_complete"]
        (notice,) = stream.notices
    assert notice.startswith("1 of 2 sharers of stream ")
    assert notice.endswith(" came in 1 s; it begins without the others")


def test_one_that_comes_late_joins_at_the_next_batch(daemon):
    with connect(daemon) as stream:
        whole = [batch.digest for batch in stream.epoch(0)]
    with connect(daemon, shared=True) as first:
        passing = first.epoch(0)
        mine = [next(passing).digest for _ in range(3)]
        with connect(daemon, shared=True) as second:
            state = second.state_dict()
            begin = state["position"] // 16
            assert 3 <= begin <= 3 + 6
            theirs: list[str] = []

            def read_rest() -> None:
                for batch in second.epoch(0):
                    theirs.append(batch.digest)
                    batch.release()

            reader = threading.Thread(target=read_rest)
            reader.start()
            for batch in passing:
                mine.append(batch.digest)
                batch.release()
            reader.join(30)
            assert mine == whole
            assert theirs == whole[begin:]
            assert not second.receipt(0)["is_complete"]
            assert len(status(daemon.address)["streams"]) == 1


def test_the_arrays_are_read_only_and_tensors_are_made_without_a_word(daemon):
    with connect(daemon, shared=True) as stream:
        batch = next(stream.epoch(0))
        with pytest.raises(ValueError, match="read-only"):
            batch.images[0] = 0
        with pytest.raises(TypeError):
            memoryview(stream.arena)[0] = 0
        del batch
    options = {"recipe": SMALL, "batch_size": 16, "device": "cpu", "shared": True}
    with trainer.connect(daemon.address, **options) as tensors:
        assert next(tensors.epoch(0)).images.dtype.is_floating_point


def test_a_seek_leaves_the_sharers_and_what_is_held_stays(daemon):
    with connect(daemon) as stream:
        second = read(stream, 1)
    options = {"shared": 2, "timeout_s": 10}  # a half of it is for the other to come along
    with connect(daemon, **options) as a, connect(daemon, **options) as b:
        passing = a.epoch(0)
        held = next(passing)
        before = held.images.copy()
        others = b.epoch(0)
        for _ in range(2):
            next(others).release()
        del passing
        assert read(a, 1) == second, "elsewhere, hence by itself"
        for batch in others:
            batch.release()
        assert np.array_equal(held.images, before), "its slot was not filled anew"
        assert len(status(daemon.address)["streams"]) == 2
        held.release()


def test_a_sharer_that_leaves_holds_nobody_up(daemon):
    with connect(daemon) as stream:
        alone = read(stream, 0)
    a, b = connect(daemon, shared=2), connect(daemon, shared=2)
    held = next(a.epoch(0))
    before = held.images.copy()
    a.close()
    assert read(b, 0) == alone
    assert np.array_equal(held.images, before), "closed, and still the batch that it was"
    del held
    b.close()


def test_the_others_wait_for_a_slow_one(daemon):
    with connect(daemon) as stream:
        alone = read(stream, 0)
    with connect(daemon, shared=2) as slow, connect(daemon, shared=2) as fast:
        receipts = read_together([slow, fast], 0, [0.03, 0.0])
        assert receipts == [alone, alone]
        assert slow.stats()["detached"] == fast.stats()["detached"] == 0
        assert fast.stats()["wait_s"] > 0.2


def test_a_laggard_goes_on_by_itself_and_gets_the_same(daemon):
    with connect(daemon) as stream:
        alone = read(stream, 0)
    options = {"shared": 2, "max_lag": 1}
    with connect(daemon, **options) as slow, connect(daemon, **options) as fast:
        passing = slow.epoch(0)
        held = next(passing)
        before = held.images.copy()
        assert read(fast, 0) == alone, "without waiting for the one that holds a batch"
        assert np.array_equal(held.images, before)
        held.release()
        for batch in passing:
            batch.release()
        assert slow.receipt(0) == alone
        assert slow.stats()["detached"] == 1
        assert fast.stats()["detached"] == 0


def test_a_sharer_that_is_killed_holds_nobody_up(daemon):
    code = (
        "import time, augd\n"
        "from tests.support.scenes import SMALL\n"
        f"stream = augd.connect({daemon.address!r}, recipe=SMALL, batch_size=16, shared=2)\n"
        "held = next(stream.epoch(0)); print('holding', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with connect(daemon) as stream:
        alone = read(stream, 0)
    with connect(daemon, shared=2) as stream:
        assert other.stdout is not None
        assert "holding" in other.stdout.readline()
        other.kill()
        other.communicate()
        assert read(stream, 0) == alone


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shared": 0.5}, "shared: expected True, False or the number of trainers"),
        ({"shared": 0}, "shared: expected True, False or the number of trainers"),
        ({"max_lag": 2}, "max_lag: only a shared stream has one"),
        ({"shared": True, "max_lag": 9}, "max_lag: expected a whole number in 0..4"),
    ],
)
def test_what_cannot_be_is_refused(daemon, options, says):
    with pytest.raises(augd.OptionError, match=says):
        connect(daemon, **options)
