"""Real daemon, real producers: what a client gets."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import augd
from tests.support.scenes import SMALL, digest_epoch, make_folder, read_epoch

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=3, per_class=40)


@pytest.fixture(scope="module")
def daemon(folder: Path):
    with augd.serve({"small": folder}, producers=2) as served:
        yield served


def test_an_epoch_yields_every_id_once(daemon):
    with augd.connect(daemon.address, recipe=SMALL, batch_size=32) as stream:
        assert (len(stream), stream.num_samples) == (4, 120)
        assert stream.classes == ["class0", "class1", "class2"]
        batches = read_epoch(stream, 0)
    assert [len(batch["ids"]) for batch in batches] == [32, 32, 32, 24]
    ids = np.concatenate([batch["ids"] for batch in batches])
    assert sorted(ids.tolist()) == list(range(120))
    assert not np.array_equal(ids, np.arange(120)), "shuffled"
    labels = np.concatenate([batch["labels"] for batch in batches])
    assert np.array_equal(labels, ids // 40)
    assert all(batch["valid"].all() for batch in batches)


def test_the_same_bytes_for_any_number_of_producers(folder, daemon):
    digests = {}
    for producers in (1, 5):
        with augd.serve({"small": folder}, producers=producers) as other:
            digests[producers] = digest_epoch(other.address, epochs=2)
    digests[2] = digest_epoch(daemon.address, epochs=2)
    assert digests[1] == digests[2] == digests[5]


@pytest.mark.parametrize("batch_size", [1, 7, 33, 120, 500])
def test_the_same_rows_whatever_the_batch_size(daemon, batch_size):
    with augd.connect(daemon.address, recipe=SMALL, batch_size=32) as stream:
        expected = np.concatenate([b["images"] for b in read_epoch(stream, 1)])
    with augd.connect(daemon.address, recipe=SMALL, batch_size=batch_size) as stream:
        got = np.concatenate([b["images"] for b in read_epoch(stream, 1)])
    assert np.array_equal(expected, got)


def test_ranks_share_an_epoch_and_the_tail_is_padded(daemon):
    whole = []
    for rank in range(3):
        with augd.connect(
            daemon.address, recipe=SMALL, batch_size=16, rank=rank, world=3
        ) as stream:
            assert len(stream) == 3
            batches = read_epoch(stream, 0)
        assert [len(b["ids"]) for b in batches] == [16, 16, 16]
        ids = np.concatenate([b["ids"] for b in batches])
        padding = ids < 0
        assert stream.num_samples == int((~padding).sum())
        labels = np.concatenate([b["labels"] for b in batches])
        valid = np.concatenate([b["valid"] for b in batches])
        images = np.concatenate([b["images"] for b in batches])
        assert (labels[padding] == -100).all()
        assert np.array_equal(valid, ~padding)
        assert not images[padding].any()
        whole.extend(ids[~padding].tolist())
    assert sorted(whole) == list(range(120))


def test_ranks_get_the_rows_of_the_global_batch(daemon):
    with augd.connect(daemon.address, recipe=SMALL, batch_size=32) as stream:
        whole = read_epoch(stream, 0)[0]
    for rank in range(2):
        with augd.connect(
            daemon.address, recipe=SMALL, batch_size=16, rank=rank, world=2
        ) as stream:
            part = read_epoch(stream, 0)[0]
        rows = slice(rank * 16, (rank + 1) * 16)
        assert np.array_equal(part["ids"], whole["ids"][rows])
        assert np.array_equal(part["images"], whole["images"][rows])


def test_drop_last(daemon):
    with augd.connect(daemon.address, recipe=SMALL, batch_size=50, drop_last=True) as stream:
        assert len(stream) == 2
        assert [len(b["ids"]) for b in read_epoch(stream, 0)] == [50, 50]
        assert stream.num_samples == 100


def test_epochs_follow_one_another_and_can_be_repeated(daemon):
    with augd.connect(daemon.address, recipe=SMALL, batch_size=32) as stream:
        first = read_epoch(stream, 0)
        second = read_epoch(stream, 1)
        assert not np.array_equal(first[0]["ids"], second[0]["ids"])
        again = read_epoch(stream, 0)
        for before, after in zip(first, again, strict=True):
            assert np.array_equal(before["images"], after["images"])


def test_break_ends_a_pass(daemon):
    with augd.connect(daemon.address, recipe=SMALL, batch_size=16) as stream:
        whole = read_epoch(stream, 0)
        for batch in stream.epoch(0):
            assert batch.number == 0
            break
        repeated = read_epoch(stream, 0)
        assert len(repeated) == len(whole)
        for before, after in zip(whole, repeated, strict=True):
            assert np.array_equal(before["images"], after["images"])


def test_pairs_are_the_short_form(daemon):
    with augd.connect(daemon.address, recipe=SMALL, batch_size=32) as stream:
        passes = [[labels.copy() for _, labels in stream] for _ in range(2)]
        expected = [[b["labels"] for b in read_epoch(stream, epoch)] for epoch in range(2)]
    for got, wanted in zip(passes, expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_a_view_keeps_its_batch(daemon):
    with augd.connect(daemon.address, recipe=SMALL, batch_size=16, prefetch=2) as stream:
        passing = stream.epoch(0)
        batch = next(passing)
        row = batch.images[3, ::2, ::-1, 1]
        before = row.copy()
        del batch
        for other in passing:
            del other
        assert np.array_equal(row, before), "the slot was reused while a view of it lived"


def test_holding_every_batch_is_a_named_error(daemon):
    with (
        augd.connect(daemon.address, recipe=SMALL, batch_size=16, prefetch=3) as stream,
        pytest.raises(augd.BatchesHeld, match=r"all 4 batches .* prefetch > 3"),
    ):
        list(stream.epoch(0))


def test_an_epoch_of_as_many_batches_as_slots_can_be_held(daemon):
    with augd.connect(daemon.address, recipe=SMALL, batch_size=30, prefetch=3) as stream:
        held = list(stream.epoch(0))
        assert len(held) == 4


def test_a_batch_in_a_cycle_does_not_hold_its_slot_for_ever(daemon):
    gc.disable()
    try:
        with augd.connect(daemon.address, recipe=SMALL, batch_size=16, prefetch=1) as stream:
            count = 0
            for batch in stream.epoch(0):
                cycle: list[object] = [batch]
                cycle.append(cycle)
                del cycle
                count += 1
            assert count == 8
    finally:
        gc.enable()


def test_release_in_another_thread(daemon):
    with augd.connect(daemon.address, recipe=SMALL, batch_size=16, prefetch=1) as stream:
        count = 0
        for batch in stream.epoch(0):
            thread = threading.Thread(target=batch.release)
            thread.start()
            thread.join()
            count += 1
        assert count == 8


def test_batches_outlive_their_stream(daemon):
    stream = augd.connect(daemon.address, recipe=SMALL, batch_size=16)
    batch = next(iter(stream.epoch(0)))
    before = batch.images.copy()
    stream.close()
    assert np.array_equal(batch.images, before)
    with pytest.raises(augd.StreamClosed, match="the stream was closed; connect again"):
        next(iter(stream.epoch(0)))


def test_a_stream_that_is_dropped_closes_itself(daemon):
    from augd.client.status import status as ask_status

    stream = augd.connect(daemon.address, recipe=SMALL, batch_size=16)
    del stream
    gc.collect()
    for _ in range(200):
        if not ask_status(daemon.address, 5.0)["streams"]:
            return
        threading.Event().wait(0.01)
    pytest.fail("the daemon still has the stream")


def test_a_second_pass_ends_the_first(daemon):
    with augd.connect(daemon.address, recipe=SMALL, batch_size=16) as stream:
        first = stream.epoch(0)
        next(first)
        next(stream.epoch(1))
        with pytest.raises(augd.StreamClosed, match="this pass over epoch 0 ended"):
            next(first)


def test_a_forked_child_is_told_to_connect_itself(daemon):
    with augd.connect(daemon.address, recipe=SMALL, batch_size=16) as stream:
        passing = stream.epoch(0)
        next(passing)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                next(passing)
                os.write(write, b"no error")
            except augd.ConnectError as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        said = os.read(read, 4096).decode()
        os.close(read)
        os.close(write)
        assert "sockets do not cross a fork" in said
        assert next(passing).number == 1, "the parent's stream is unharmed"


def test_a_corrupt_image_is_masked_and_counted(tmp_path):
    folder = make_folder(tmp_path / "set", num_classes=2, per_class=10)
    victim = sorted(folder.rglob("*.jpg"))[4]
    content = victim.read_bytes()
    victim.write_bytes(content[: len(content) // 2])
    with augd.serve({"small": folder}, producers=1) as served:
        with augd.connect(served.address, recipe=SMALL, batch_size=8) as stream:
            batches = read_epoch(stream, 0)
        ids = np.concatenate([b["ids"] for b in batches])
        valid = np.concatenate([b["valid"] for b in batches])
        labels = np.concatenate([b["labels"] for b in batches])
        images = np.concatenate([b["images"] for b in batches])
        assert sorted(ids.tolist()) == list(range(20))
        assert ids[~valid].tolist() == [4]
        assert labels[~valid].tolist() == [-100]
        assert not images[~valid].any()
        assert images[valid].any(axis=(1, 2, 3)).all()
        with augd.connect(served.address, recipe=SMALL, batch_size=8, bad="fail") as stream:
            for _ in range(2):  # asked again, it fails again, and does not wait for ever
                with pytest.raises(
                    augd.SampleFailed,
                    match=r"4 \(class0/.*\): JPEG without an end marker, and not whole",
                ):
                    list(stream.epoch(0))
        with (
            augd.connect(
                served.address, recipe=SMALL, batch_size=8, max_bad_fraction=0.0
            ) as stream,
            pytest.raises(augd.SampleFailed, match="1 bad samples in epoch 0, more than the 0"),
        ):
            for batch in stream.epoch(0):
                batch.release()


def test_a_file_changed_in_mid_epoch_is_a_bad_sample(tmp_path):
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=12)
    with augd.serve({"small": folder}, producers=1) as served:
        files = sorted(folder.rglob("*.jpg"))
        files[3].write_bytes(files[4].read_bytes())
        files[7].unlink()
        with augd.connect(
            served.address, recipe=SMALL, batch_size=12, max_bad_fraction=0.5
        ) as stream:
            (batch,) = read_epoch(stream, 0)
        assert sorted(batch["ids"][~batch["valid"]].tolist()) == [3, 7]


def test_sizes_learnt_by_one_epoch_change_no_byte(tmp_path):
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=50)
    with augd.serve({"small": folder}, producers=2) as served:
        cold = digest_epoch(served.address, epochs=1)
        warm = digest_epoch(served.address, epochs=1)
    assert cold == warm


def test_the_none_preset_needs_one_size(tmp_path):
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=6, size_px=(48, 40))
    with (
        augd.serve({"small": folder}, producers=1) as served,
        augd.connect(served.address, recipe="none", batch_size=6, shuffle=False) as stream,
    ):
        (batch,) = read_epoch(stream, 0)
    assert batch["images"].shape == (6, 40, 48, 3)
    assert batch["ids"].tolist() == list(range(6))


def test_a_flat_folder_has_label_minus_one(tmp_path):
    folder = make_folder(tmp_path / "set", num_classes=0, per_class=5)
    with (
        augd.serve(folder, producers=1) as served,
        augd.connect(served.address, recipe=SMALL, batch_size=5) as stream,
    ):
        assert stream.classes == []
        assert stream.dataset == "set"
        (batch,) = read_epoch(stream, 0)
    assert (batch["labels"] == -1).all()
    assert batch["valid"].all()


@pytest.mark.skipif(not SHARED.exists(), reason="the development photos are not on this machine")
def test_real_photos():
    with augd.serve(
        {"photos": SHARED / "photos", "catdog": SHARED / "catdog" / "train"}, producers=2
    ) as served:
        for name, count, classes in (("photos", 300, []), ("catdog", 1000, ["cat", "dog"])):
            with augd.connect(served.address, dataset=name, batch_size=100) as stream:
                assert stream.classes == classes
                ids, valid = [], []
                for batch in stream.epoch(0):
                    ids.append(batch.ids.copy())
                    valid.append(batch.valid.copy())
                assert sorted(np.concatenate(ids).tolist()) == list(range(count))
                assert np.concatenate(valid).all()


def test_import_of_the_client_does_not_load_torch_or_opencv(daemon):
    code = (
        "import sys, augd\n"
        f"augd.connect({daemon.address!r}, recipe='eval', batch_size=4).close()\n"
        "print([name for name in ('cv2', 'torch', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
