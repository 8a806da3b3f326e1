"""Samples that kill, hang, vanish or lie: theirs is the only row that anybody sees it in."""

from __future__ import annotations

import json
import os
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import augd
from augd.client.status import status as ask_status
from augd.diagnostics.procfs import anonymous_bytes
from tests.support.commands import run_augd
from tests.support.processes import await_true, is_alive, producers_of
from tests.support.programs import HOOK, VICTIM_BYTES, follow, is_up, mark_victim, put_in_place
from tests.support.scenes import SMALL, make_folder, opencv_decodes, read_epoch

VICTIM = 11
OPTIONS = {"recipe": SMALL, "batch_size": 8, "timeout_s": 60}

ALWAYS, ONCE = 10**6, 1


@pytest.fixture(scope="module", autouse=True)
def without_kernels() -> Iterator[None]:
    with opencv_decodes():
        yield


def make_photos(folder: Path) -> Path:
    made = make_folder(folder, num_classes=1, per_class=40)
    mark_victim(sorted(made.rglob("*.jpg"))[VICTIM])
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos that a test may change."""
    return make_photos(tmp_path / "set")


@pytest.fixture
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "augd" / "quarantine"


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], Path]:
    def put(deed: str, times: int) -> Path:
        marks = tmp_path / "marks"
        text = HOOK.format(marks=str(marks), size_bytes=VICTIM_BYTES, times=times, deed=deed)
        put_in_place(text, tmp_path, monkeypatch)
        return marks

    return put


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, np.ndarray]]]:
    """Two epochs of the same photos, with which nothing happens."""
    with (
        augd.serve({"set": make_photos(tmp_path_factory.mktemp("set"))}, producers=2) as served,
        augd.connect(served.address, **OPTIONS) as stream,
    ):
        return [read_epoch(stream, epoch) for epoch in range(2)]


def assert_equal_but(
    found: list[list[dict[str, np.ndarray]]],
    whole: list[list[dict[str, np.ndarray]]],
    masked: set[int],
) -> None:
    """Each byte as it was, and zeros, -100 and not valid for these samples."""
    for epoch, expected in zip(found, whole, strict=True):
        for batch, other in zip(epoch, expected, strict=True):
            is_masked = np.isin(batch["ids"], list(masked))
            assert np.array_equal(batch["ids"], other["ids"])
            for name in ("images", "labels", "valid"):
                assert np.array_equal(batch[name][~is_masked], other[name][~is_masked]), name
            assert not batch["images"][is_masked].any()
            assert (batch["labels"][is_masked] == -100).all()
            assert not batch["valid"][is_masked].any()
        assert sum(np.isin(batch["ids"], list(masked)).sum() for batch in epoch) == len(masked)


@pytest.mark.fault("producer SIGSEGV always on sample s")
def test_a_sample_that_kills_its_decoder_is_quarantined_for_good(
    folder, undisturbed, state_home, hook
):
    ids = np.concatenate([batch["ids"] for batch in undisturbed[0]])
    place = [VICTIM, 0, int(np.flatnonzero(ids == VICTIM)[0])]
    marks = hook("ctypes.string_at(0)", ALWAYS)
    with augd.serve({"set": folder}, producers=2) as served:
        with augd.connect(served.address, **OPTIONS) as stream:
            found = [read_epoch(stream, epoch) for epoch in range(2)]
            assert stream.state_dict()["quarantine"] == [place]
            assert stream.stats()["quarantined"] == 1
            assert any("ended its producer twice (SIGSEGV)" in said for said in stream.notices)
            (shown,) = ask_status(served.address, 10)["streams"]
            assert shown["quarantined"] == [place]
        assert marks.stat().st_size == 2, "two strikes"
        status = ask_status(served.address, 10)
        assert status["restarts"] == 2
        assert status["datasets"]["set"]["quarantined"] == [VICTIM]
        done = run_augd("status", served.address)
        assert f"set: samples that killed their decoder are masked: {VICTIM}\n" in done.stdout
    assert_equal_but(found, undisturbed, {VICTIM})
    (kept,) = state_home.iterdir()
    line = json.loads(kept.read_text())
    assert [line["sample"], line["epoch"], line["position"]] == place
    assert line["path"].endswith("0011.jpg")
    assert kept.stat().st_mode & 0o777 == 0o600
    with (
        augd.serve({"set": folder}, producers=2) as served,
        augd.connect(served.address, **OPTIONS) as stream,
    ):
        again = [read_epoch(stream, epoch) for epoch in range(2)]
        assert ask_status(served.address, 10)["restarts"] == 0, "it is never tried again"
    assert_equal_but(again, undisturbed, {VICTIM})


@pytest.mark.fault("producer SIGSEGV once", "producer SIGKILL in the middle of a row")
@pytest.mark.parametrize("deed", ["ctypes.string_at(0)", "os.kill(os.getpid(), 9)"])
def test_a_death_in_mid_row_that_comes_once_costs_nothing(
    folder, undisturbed, state_home, hook, deed
):
    marks = hook(deed, ONCE)
    with augd.serve({"set": folder}, producers=2) as served:
        with augd.connect(served.address, **OPTIONS) as stream:
            found = [read_epoch(stream, 0)]
            assert stream.state_dict()["quarantine"] == []
        assert ask_status(served.address, 10)["restarts"] == 1
    assert marks.stat().st_size == 1
    assert_equal_but(found, undisturbed[:1], set())
    assert not state_home.exists()


@pytest.mark.fault("producer SIGSTOP or endless loop")
def test_a_decoder_that_never_returns_is_ended_at_its_deadline(
    folder, undisturbed, state_home, hook
):
    hook("while True: pass", ONCE)
    with augd.serve({"set": folder}, producers=2, patience_s=2) as served:
        with augd.connect(served.address, **OPTIONS) as stream:
            found = [read_epoch(stream, 0)]
        assert ask_status(served.address, 10)["restarts"] == 1
    assert_equal_but(found, undisturbed[:1], set())
    assert not state_home.exists(), "once is not enough"


@pytest.mark.fault("producer SIGSTOP or endless loop")
def test_a_stopped_producer_is_ended_at_its_deadline(folder, state_home):
    stopped: list[int] = []

    with augd.serve({"set": folder}, producers=2, patience_s=2) as served:
        with augd.connect(served.address, **OPTIONS) as stream:
            whole = follow(stream, 3)
        await_true(lambda: is_up(served.address, 2), 20, "both are up")

        def stop_one(batch: augd.Batch) -> None:
            if (batch.epoch, batch.number) == (1, 1):
                stopped.append(producers_of(served.pid)[0])
                os.kill(stopped[0], signal.SIGSTOP)

        with augd.connect(served.address, **OPTIONS) as stream:
            assert follow(stream, 3, stop_one) == whole
            # It may have had nothing to do just then: only work has a deadline.
            deadline = time.monotonic() + 60
            while is_alive(stopped[0]):
                assert time.monotonic() < deadline, "it is killed and reaped"
                assert follow(stream, 3) == whole
            with pytest.raises(ProcessLookupError):
                os.kill(stopped[0], signal.SIGCONT)
            assert follow(stream, 3) == whole, "and writes nothing more"
            assert stream.state_dict()["quarantine"] == []
        await_true(lambda: is_up(served.address, 2), 20, "it is replaced")


# files


def truncate(path: Path, outside: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def delete(path: Path, outside: Path) -> None:
    path.unlink()


def replace(path: Path, outside: Path) -> None:
    path.write_bytes(outside.read_bytes())


def link_out(path: Path, outside: Path) -> None:
    beside = outside.with_name("link")
    beside.symlink_to(outside)
    beside.replace(path)  # at once: a producer may be reading ahead


def wait_for_nobody(path: Path, outside: Path) -> None:
    beside = outside.with_name("fifo")
    os.mkfifo(beside)
    beside.replace(path)


DEEDS = pytest.mark.parametrize(
    ("deed", "says"),
    [
        (truncate, "changed since it was indexed"),
        (delete, "deleted since it was indexed"),
        (replace, "changed since it was indexed"),
        (link_out, "leaves the dataset's root"),
        (wait_for_nobody, "not a regular file"),
    ],
)


@pytest.mark.fault("file truncated, deleted or replaced in mid-epoch; link out of the root")
@DEEDS
def test_a_file_that_changes_in_mid_epoch_is_a_bad_row(folder, tmp_path, deed, says):
    outside = tmp_path / "outside.jpg"
    cv2.imwrite(str(outside), np.full((60, 60, 3), 255, np.uint8))
    with augd.serve({"set": folder}, producers=1) as served:
        options = {**OPTIONS, "prefetch": 1}
        with augd.connect(served.address, **options) as stream:
            whole = [read_epoch(stream, epoch) for epoch in range(2)]
        with augd.connect(served.address, **options) as stream:
            first = read_epoch(stream, 0)
            passing = stream.epoch(3)  # what was made ahead of epoch 1 is not used
            next(passing).release()
            deed(folder / "class0" / "0011.jpg", outside)
            second = read_epoch(stream, 1)
            (shown,) = ask_status(served.address, 10)["streams"]
    assert_equal_but([first], whole[:1], set())
    assert_equal_but([second], whole[1:], {VICTIM})
    assert {row[0] for row in shown["last_bad"]} == {VICTIM}
    assert says in shown["last_bad"][0][2]


@pytest.mark.fault("file truncated, deleted or replaced in mid-epoch; link out of the root")
def test_the_other_policy_ends_the_stream_by_name(folder, tmp_path):
    with (
        augd.serve({"set": folder}, producers=1) as served,
        augd.connect(served.address, **OPTIONS, bad="fail") as stream,
    ):
        read_epoch(stream, 0)
        (folder / "class0" / "0011.jpg").unlink()
        with pytest.raises(
            augd.SampleFailed, match=r"bad sample 11 \(.*0011\.jpg\): deleted since"
        ):
            read_epoch(stream, 7)


@pytest.mark.fault("decompression bomb")
def test_a_bomb_is_refused_before_it_is_decoded(folder):
    """An image of a gigapixel in few bytes: 3 GB, if anything decoded it."""
    row = np.zeros((1, 64, 3), np.uint8)
    whole, encoded = cv2.imencode(".png", row)
    assert whole
    png = bytearray(encoded.tobytes())
    png[16:24] = (32_768).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    (folder / "class0" / "0011.jpg").write_bytes(png)
    with augd.serve({"set": folder}, producers=1) as served:
        await_true(lambda: is_up(served.address, 1), 20, "it is up")
        before = anonymous_bytes(producers_of(served.pid)[0])
        with augd.connect(served.address, **OPTIONS) as stream:
            rows = read_epoch(stream, 0)
            (shown,) = ask_status(served.address, 10)["streams"]
        assert anonymous_bytes(producers_of(served.pid)[0]) - before < 50e6
        assert ask_status(served.address, 10)["restarts"] == 0
    assert sum((~batch["valid"]).sum() for batch in rows) == 1
    assert "too large: expected at most 64,000,000 pixels" in shown["last_bad"][0][2]


@pytest.mark.fault("arena cannot be allocated; `cudaHostRegister` fails")
def test_an_arena_that_cannot_be_had_is_refused_with_its_size(folder):
    recipe = {"ops": [{"op": "resize", "size": 4096}], "filter": "linear"}
    with augd.serve({"set": folder}, producers=1) as served:
        with pytest.raises(augd.OverLimit, match=r"9 slots of \d+\.\d MB for batch_size=65536 can"):
            augd.connect(served.address, recipe=recipe, batch_size=65_536, prefetch=8)
        with augd.connect(served.address, **OPTIONS) as stream:
            assert len(read_epoch(stream, 0)) == 5, "others are unaffected"


@pytest.mark.fault("trainer stopped (slow)")
def test_a_trainer_that_takes_nothing_pins_its_own_arena_only(folder):
    with (
        augd.serve({"set": folder}, producers=2) as served,
        augd.connect(served.address, **OPTIONS) as fast,
    ):
        whole = follow(fast, 1)
        slow = augd.connect(served.address, **OPTIONS, prefetch=2)
        held = next(slow.epoch(0))
        copy = held.images.copy()
        follow(fast, 20)
        pids = [served.pid, *producers_of(served.pid)]
        before = [anonymous_bytes(pid) for pid in pids]
        assert follow(fast, 1, first=20) != whole
        follow(fast, 60)
        growth = [anonymous_bytes(pid) - was for pid, was in zip(pids, before, strict=True)]
        assert max(growth) < 1e6
        assert follow(fast, 1) == whole
        shown = ask_status(served.address, 10)["streams"]
        (stalled,) = [one for one in shown if len(one["slots"]) == 1 and one["sent"] == 3]
        assert stalled["slots"] == {"sent": 3}, "every slot is with the trainer"
        done = run_augd("status", served.address)
        assert f"stream {stalled['session']}: slow: its trainer has every slot" in done.stdout
        assert np.array_equal(held.images, copy)
        slow.close()
