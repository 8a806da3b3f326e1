"""Real daemon, real producers: what `trainer.connect` hands out."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import augd
import trainer
from tests.support.scenes import SMALL, make_folder, read_epoch
from trainer.data.copy_schedule import CopySchedule, Feed

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
NUM_PHOTOS = 24


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory):
    folder = make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=NUM_PHOTOS // 2)
    spoilt = make_folder(tmp_path_factory.mktemp("bad"), num_classes=2, per_class=NUM_PHOTOS // 2)
    for path in bad_paths(spoilt):
        path.write_bytes(path.read_bytes()[:150])
    with augd.serve({"small": folder, "spoilt": spoilt}, producers=2) as served:
        yield served


def bad_paths(folder: Path) -> list[Path]:
    return [folder / "class0" / "0003.jpg", folder / "class1" / "0007.jpg"]


def connect(daemon, **options):
    options = {"dataset": "small", "recipe": SMALL, "batch_size": 5, "device": "cpu"} | options
    return trainer.connect(daemon.address, **options)


def rendered(daemon, epoch: int = 0, **options) -> list[dict[str, np.ndarray]]:
    """Read what the producers made, by the NumPy client."""
    options = {"dataset": "small", "recipe": SMALL, "batch_size": 5} | options
    with augd.connect(daemon.address, **options) as stream:
        return read_epoch(stream, epoch)


def by_hand(images: np.ndarray) -> np.ndarray:
    unit = images.astype(np.float64) / 255
    return ((unit - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(0, 3, 1, 2)


def assert_equal(batches: list[trainer.Batch], expected: list[dict[str, np.ndarray]], **limits):
    for number, (batch, made) in enumerate(zip(batches, expected, strict=True)):
        assert batch.number == number
        for name in ("labels", "ids", "valid"):
            got = getattr(batch, name)
            assert got.device == batch.images.device
            assert np.array_equal(got.cpu().numpy(), made[name]), name
            assert got.cpu().numpy().dtype == made[name].dtype, name
        difference = batch.images.cpu().double().numpy() - by_hand(made["images"])
        assert np.abs(difference).max() < limits.get("tolerance", 1e-6)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)],
    ids=str,
)
def test_normalised_values(daemon, dtype, tolerance):
    with connect(daemon, dtype=dtype) as stream:
        assert (len(stream), stream.num_samples) == (5, NUM_PHOTOS)
        assert stream.classes == ["class0", "class1"] and stream.dataset == "small"
        assert stream.device == torch.device("cpu")
        batches = list(stream.epoch(0))
    assert_equal(batches, rendered(daemon), tolerance=tolerance)
    for batch in batches:
        assert batch.images.dtype == dtype and batch.epoch == 0
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == batch.ids.dtype == torch.int64
        assert batch.valid.dtype == torch.bool
    assert sorted(torch.cat([batch.ids for batch in batches]).tolist()) == list(range(NUM_PHOTOS))


def test_the_constants_of_the_weights(daemon):
    named = {"inception": (0.5, 0.5), "none": (0, 1)}
    with connect(daemon) as stream:
        content = stream.content
        assert stream.constants == (trainer.IMAGENET_MEAN, trainer.IMAGENET_STD)
    for name, (mean, std) in named.items():
        for given in ({"mean": name}, {"mean": [mean] * 3, "std": [std] * 3}):
            with connect(daemon, **given) as stream:
                assert stream.constants == ((mean,) * 3, (std,) * 3)
                assert stream.content == content, "the rows are the same"
                for batch, made in zip(stream.epoch(0), rendered(daemon), strict=True):
                    pixels = batch.images.permute(0, 2, 3, 1).double().numpy()
                    expected = (made["images"] / 255 - mean) / std
                    assert np.abs(pixels - expected).max() < 1e-6
    with connect(daemon, normalize=False) as stream:
        assert stream.constants is None
    with pytest.raises(augd.OptionError, match=r"^std: normalize=False gives uint8 images"):
        connect(daemon, normalize=False, std="clip")
    with pytest.raises(augd.OptionError, match=r"^mean: expected imagenet, inception, clip, none"):
        connect(daemon, mean="cifar")


def test_planes_when_asked_for(daemon):
    with connect(daemon, channels_last=False) as stream:
        batches = list(stream.epoch(0))
    assert all(batch.images.is_contiguous() for batch in batches)
    assert_equal(batches, rendered(daemon))


def test_uint8_without_a_copy(daemon):
    with connect(daemon, normalize=False) as stream:
        arena = np.frombuffer(stream._stream.arena, np.uint8)
        for batch, made in zip(stream.epoch(0), rendered(daemon), strict=True):
            assert batch.images.dtype == torch.uint8 and batch.images.shape[1:] == (32, 32, 3)
            for name in ("images", "labels", "ids", "valid"):
                tensor = getattr(batch, name)
                assert np.shares_memory(tensor.numpy(), arena), name
                assert np.array_equal(tensor.numpy(), made[name]), name
        del batch, tensor, arena


def test_slots_of_views_are_held_and_given_back(daemon):
    with connect(daemon, normalize=False, prefetch=2) as stream:
        parts = []
        with pytest.raises(augd.BatchesHeld, match="connect with prefetch > 2"):
            for batch in stream.epoch(0):
                parts.append(batch.images[1])
        assert len(parts) == 3
        parts.clear()
        del batch
        kept = []
        for batch in stream.epoch(0):
            kept.append(batch)
            batch.release()
        assert len(kept) == 5


def test_the_caller_may_keep_every_normalised_batch(daemon):
    with connect(daemon, prefetch=1) as stream:
        batches = list(stream.epoch(0)) + list(stream.epoch(1))
    gc.collect()
    assert_equal(batches[:5], rendered(daemon, 0))
    assert_equal(batches[5:], rendered(daemon, 1))


def test_break_and_the_same_epoch_again(daemon):
    with connect(daemon) as stream:
        for batch in stream.epoch(1):
            first = batch.images.clone()
            break
        again = list(stream.epoch(1))
    assert torch.equal(again[0].images, first)
    assert_equal(again, rendered(daemon, 1))


def test_a_pass_in_inference_mode_does_not_spoil_the_next(daemon):
    with connect(daemon, channels_last=False) as stream:
        with torch.inference_mode():
            evaluated = list(stream.epoch(0))
        trained = list(stream.epoch(1))
    for batch in evaluated + trained:
        assert not batch.images.is_inference() and not batch.labels.is_inference()
    assert_equal(trained, rendered(daemon, 1))


def test_pairs_go_from_epoch_to_epoch(daemon):
    with connect(daemon) as stream:
        for epoch in range(3):
            pairs = list(stream)
            made = rendered(daemon, epoch)
            assert [labels.tolist() for _, labels in pairs] == [m["labels"].tolist() for m in made]
            assert np.abs(pairs[0][0].double().numpy() - by_hand(made[0]["images"])).max() < 1e-6


def test_bad_samples_are_masked(daemon):
    with connect(daemon, dataset="spoilt", max_bad_fraction=0.2) as stream:
        batches = list(stream.epoch(0))
    ids = torch.cat([batch.ids for batch in batches])
    valid = torch.cat([batch.valid for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    images = torch.cat([batch.images for batch in batches])
    assert sorted(ids.tolist()) == list(range(NUM_PHOTOS))
    assert sorted(ids[~valid].tolist()) == [3, 12 + 7]
    assert labels[~valid].tolist() == [-100, -100]
    assert (labels[valid] >= 0).all()
    black = torch.from_numpy(by_hand(np.zeros((1, 1, 1, 3), np.uint8)))
    assert (images[~valid] - black).abs().max() < 1e-6


def test_stats(daemon):
    with connect(daemon) as stream:
        assert stream.stats()["transfer_s"] == 0
        passing = stream.epoch(0)
        next(passing)
        next(passing)
        stats = stream.stats()
    assert (stats["batches"], stats["samples"]) == (2, 10)
    assert 0 < stats["transfer_s"] < 10 and 0 <= stats["wait_s"] < 60


def open_fds() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def arena_maps() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:")


def held_beyond(before: tuple[int, int]) -> list[int]:
    """Say how many fds and maps of arenas are open now that were not before; empty for none."""
    more = [now - then for now, then in zip((open_fds(), arena_maps()), before, strict=True)]
    return more if max(more) > 0 else []


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_stream_that_was_closed_or_dropped_leaves_nothing(daemon, normalize, closes):
    def use():
        stream = connect(daemon, normalize=normalize)
        for _ in stream.epoch(0):
            pass
        if closes:
            stream.close()
            with pytest.raises(augd.StreamClosed):
                next(stream.epoch(0))

    use()  # opens what a process opens once, for good
    gc.collect()
    before = open_fds(), arena_maps()  # the first stream's sockets may be closing yet
    for _ in range(3):
        use()
    gc.collect()
    # A socket's fds are closed by ZeroMQ's own thread, a moment after it was told to.
    deadline = time.monotonic() + 5
    while (left := held_beyond(before)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, "fds, maps of arenas"


def test_is_ready_never_waits_and_loses_nothing(daemon):
    expected = [entry["ids"].tolist() for entry in rendered(daemon, 1)]
    with augd.connect(daemon.address, dataset="small", recipe=SMALL, batch_size=5) as stream:
        read_epoch(stream, 0)
        for _ in range(2):
            passing = stream.epoch(1)
            seen = []
            for _ in expected:
                seen.append(next(passing).ids.tolist())
                deadline = time.monotonic() + 30
                while not stream.is_ready():
                    assert time.monotonic() < deadline
            assert seen == expected
            # The epoch's end is read and not handled: the next pass seeks in spite of it.
        assert next(passing, None) is None
        assert len(stream.arena) > 5 * 5 * 32 * 32 * 3
    assert not stream.is_ready()
    assert len(stream.arena) == 0


class LateCopy:
    """A copy that reads its slot as late as it may: when it is asked for the last time."""

    def __init__(self, batch: augd.Batch, num_queries: int) -> None:
        self.name = (batch.epoch, batch.number)
        self.read: dict[str, np.ndarray] = {}
        self._batch: augd.Batch | None = batch
        self._num_queries = num_queries

    def query(self) -> bool:
        self._num_queries -= 1
        if self._num_queries < 0:
            self.synchronize()
        return self._batch is None

    def synchronize(self) -> None:
        batch, self._batch = self._batch, None
        if batch is not None:
            names = ("images", "labels", "ids", "valid")
            self.read = {name: getattr(batch, name).copy() for name in names}


class LateLane:
    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def copy(self, batch: augd.Batch, buffer: int) -> tuple[LateCopy, LateCopy]:
        copy = LateCopy(batch, self._rng.randrange(5))
        return copy, copy

    def finish(self, copied: LateCopy, buffer: int) -> LateCopy:
        return copied


@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_slots_are_not_written_while_their_copies_run(daemon, prefetch):
    made = {epoch: rendered(daemon, epoch) for epoch in range(3)}
    with augd.connect(
        daemon.address, dataset="small", recipe=SMALL, batch_size=5, prefetch=prefetch
    ) as stream:
        feed = Feed(stream, CopySchedule(LateLane(prefetch), max_in_flight=prefetch))
        copies = []
        for epoch, length in ((0, 5), (1, 5), (1, 2), (1, 5), (2, 1), (0, 5), (1, 3), (2, 5)):
            passing = feed.epoch(epoch)
            taken = [next(passing) for _ in range(length)]
            assert [copy.name for copy in taken] == [(epoch, n) for n in range(length)]
            if length == 5:
                assert next(passing, None) is None
            copies += taken
        feed.close()
    for copy in copies:
        epoch, number = copy.name
        for name, array in made[epoch][number].items():
            assert np.array_equal(copy.read[name], array), (copy.name, name)


def test_a_bad_epoch_and_a_bad_recipe(daemon):
    with (
        connect(daemon) as stream,
        pytest.raises(augd.OptionError, match=r"epoch: expected .* 0\.\."),
    ):
        stream.epoch(-1)
    with pytest.raises(augd.RecipeError, match="recipe"):
        connect(daemon, recipe={"ops": [{"op": "blur"}]})


def test_no_thread_takes_part_in_normalising():
    """Torch's pool is not woken; its grain, which decides that, is not in torch's interface."""
    script = """
import os, torch
from trainer.data.host_feed import HostNormaliser
torch.set_num_threads(4)
images = torch.empty(8, 224, 224, 3, dtype=torch.uint8)
before = len(os.listdir("/proc/self/task"))
for dtype in (torch.float32, torch.bfloat16):
    for channels_last in (True, False):
        HostNormaliser(dtype, channels_last=channels_last)(images)
during = len(os.listdir("/proc/self/task"))
images.float()
print(during - before, len(os.listdir("/proc/self/task")) - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    normalising, torch_itself = map(int, done.stdout.split())
    assert normalising == 0
    assert torch_itself == 3, "the count sees threads at all"


@gpu
@needs_gpu
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)],
    ids=str,
)
def test_cuda_values(daemon, dtype, tolerance, channels_last):
    with connect(daemon, device="cuda", dtype=dtype, channels_last=channels_last) as stream:
        for epoch in (0, 1, 0):
            batches = list(stream.epoch(epoch))
            assert batches[0].images.is_cuda and batches[0].images.dtype == dtype
            assert_equal(batches, rendered(daemon, epoch), tolerance=tolerance)


@gpu
@needs_gpu
def test_cuda_uint8(daemon):
    with connect(daemon, device="cuda", normalize=False) as stream:
        for batch, made in zip(stream.epoch(0), rendered(daemon), strict=True):
            assert batch.images.is_cuda
            assert np.array_equal(batch.images.cpu().numpy(), made["images"])


@gpu
@needs_gpu
def test_cuda_registers_the_arena(daemon):
    with connect(daemon, device="cuda") as stream:
        list(stream.epoch(0))
        assert stream._feed._lane._pinned.is_pinned


@gpu
@needs_gpu
def test_cuda_allocates_nothing_after_the_first_batches(daemon):
    with connect(daemon, device="cuda") as stream:
        for epoch in (0, 1):
            list(stream.epoch(epoch))
        before = torch.cuda.memory_stats()["num_device_alloc"]
        for epoch in range(2, 8):
            list(stream.epoch(epoch))
        assert torch.cuda.memory_stats()["num_device_alloc"] == before


@gpu
@needs_gpu
def test_cuda_behind_a_busy_consumer(daemon):
    """Copies are issued long before the device gets to them, and nothing is mixed up."""
    with connect(daemon, device="cuda", prefetch=2) as stream:
        work = torch.rand(4096, 4096, device="cuda")
        sums = []
        for epoch in range(3):
            for batch in stream.epoch(epoch):
                work = (work @ work).clamp(0, 1)
                sums.append((batch.images.double().sum() + 0 * work.sum(), batch.ids.clone()))
        torch.cuda.synchronize()
    made = [entry for epoch in range(3) for entry in rendered(daemon, epoch)]
    for (total, ids), entry in zip(sums, made, strict=True):
        assert ids.tolist() == entry["ids"].tolist()
        assert total.item() == pytest.approx(by_hand(entry["images"]).sum(), rel=1e-4, abs=1e-2)


@gpu
@needs_gpu
def test_cuda_goes_on_unpinned_when_registering_fails(daemon, monkeypatch):
    cudart = torch.cuda.cudart()
    register = cudart.cudaHostRegister
    pointers = []

    def register_twice(pointer: int, size_bytes: int, flags: int) -> object:
        # What is registered already CUDA refuses, and remembers that as its last error.
        pointers.append(pointer)
        assert int(register(pointer, size_bytes, flags)) == 0
        return register(pointer, size_bytes, flags)

    monkeypatch.setattr(cudart, "cudaHostRegister", register_twice)
    with connect(daemon, device="cuda") as stream:
        with pytest.warns(RuntimeWarning, match="CUDA did not register the arena"):
            batches = list(stream.epoch(0))
        assert_equal(batches, rendered(daemon))
        torch.cuda.synchronize()
        assert int(cudart.cudaHostUnregister(pointers[0])) == 0
