"""What the way to a CUDA device issues, in which order, on CPU tensors and a CUDA that keeps a log.

The real device has its tests in tests/e2e/test_trainer.py, marked `gpu`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import augd
import trainer.data.cuda_feed
from trainer.data.cuda_feed import CudaCopier, DeviceNormaliser
from trainer.data.host_feed import HostNormaliser

CPU = torch.device("cpu")


class LoggingCuda:
    """The part of torch.cuda that `trainer.data.cuda_feed` uses."""

    def __init__(self) -> None:
        self.log: list[tuple[str, ...]] = []
        self.current = "consumer"
        self.registered: list[int] = []
        self.num_events = 0

    def Stream(self, device: torch.device) -> LoggedStream:
        return LoggedStream("side", self)

    def Event(self) -> LoggedEvent:
        self.num_events += 1
        return LoggedEvent(f"event{self.num_events - 1}", self)

    @contextlib.contextmanager
    def stream(self, stream: LoggedStream) -> Iterator[None]:
        before, self.current = self.current, stream.name
        try:
            yield
        finally:
            self.current = before

    def device(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def current_stream(self, device: torch.device) -> LoggedStream:
        return LoggedStream(self.current, self)

    def cudart(self) -> LoggingCuda:
        return self

    def cudaHostRegister(self, pointer: int, size_bytes: int, flags: int) -> int:
        self.log.append(("register", str(size_bytes)))
        return 0

    def cudaHostUnregister(self, pointer: int) -> int:
        self.log.append(("unregister",))
        return 0


class LoggedStream:
    def __init__(self, name: str, cuda: LoggingCuda) -> None:
        self.name = name
        self._cuda = cuda

    def wait_event(self, event: LoggedEvent) -> None:
        self._cuda.log.append((self.name, "waits for", event.name))

    def synchronize(self) -> None:
        self._cuda.log.append((self.name, "synchronized"))


class LoggedEvent:
    def __init__(self, name: str, cuda: LoggingCuda) -> None:
        self.name = name
        self._cuda = cuda

    def record(self, stream: LoggedStream) -> None:
        self._cuda.log.append((stream.name, "records", self.name))

    def query(self) -> bool:
        return True


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> LoggingCuda:
    logging = LoggingCuda()
    monkeypatch.setattr(trainer.data.cuda_feed, "_cuda", logging)
    monkeypatch.setattr(
        torch.Tensor,
        "record_stream",
        lambda tensor, stream: logging.log.append((stream.name, "uses", str(tensor.dtype))),
    )
    return logging


def make_batch(rows: int = 4, number: int = 0) -> SimpleNamespace:
    rng = np.random.default_rng(number)
    return SimpleNamespace(
        images=rng.integers(0, 256, (rows, 6, 5, 3), np.uint8),
        labels=np.arange(rows) + number,
        ids=np.arange(rows) * 3 + number,
        valid=np.arange(rows) % 2 == 0,
        epoch=2,
        number=number,
        position=number * rows,
        colour=None,
        params=None,
        views={},
        mixing=None,
        targets=None,
    )


def make_lane(*, normalize: bool = True, arena: memoryview | None = None) -> CudaCopier:
    normaliser = DeviceNormaliser(CPU, torch.float32, channels_last=True) if normalize else None
    arena = memoryview(bytearray(8192)) if arena is None else arena
    return CudaCopier(CPU, normaliser, lambda: arena)


def test_the_order_on_both_streams(cuda):
    copier = make_lane()
    copied, event = copier.copy(make_batch(), 1)
    assert cuda.log == [
        ("register", "8192"),
        ("side", "waits for", "event1"),  # the last reader of buffer 1
        ("side", "records", event.name),
    ]
    cuda.log.clear()
    copier.finish(copied, 1)
    assert cuda.log == [
        ("consumer", "waits for", event.name),
        ("consumer", "uses", "torch.uint8"),
        ("consumer", "uses", "torch.int64"),
        ("consumer", "uses", "torch.int64"),
        ("consumer", "uses", "torch.bool"),
        ("consumer", "records", "event1"),
    ]


def test_rows_are_mixed_after_they_were_normalised(cuda):
    copier, batch = make_lane(), make_batch()
    plain = copier.finish(copier.copy(batch, 0)[0], 0)
    assert plain.targets is None
    batch.mixing = augd.Mixing(
        partners=np.array([3, 1, 2, 0]),
        share=np.array([0.25, 1, 1, 0.25], np.float32),
        is_cut=np.zeros(4, np.bool_),
        box=np.zeros((4, 4)),
    )
    batch.targets = np.eye(4, dtype=np.float32)
    mixed = copier.finish(copier.copy(batch, 1)[0], 1)
    expected = 0.25 * plain.images[0] + 0.75 * plain.images[3]
    assert torch.allclose(mixed.images[0], expected, atol=1e-6)
    assert torch.equal(mixed.images[1:3], plain.images[1:3])
    assert torch.equal(mixed.targets, torch.eye(4))
    assert mixed.partners.tolist() == [3, 1, 2, 0]


def test_the_arena_is_registered_once_and_let_go_when_nothing_reads_it(cuda):
    copier = make_lane()
    for number in range(3):
        copier.finish(copier.copy(make_batch(number=number), 0)[0], 0)
    copier.close()
    copier.close()
    assert [entry for entry in cuda.log if entry[0] in ("register", "unregister")] == [
        ("register", "8192"),
        ("unregister",),
    ]
    assert cuda.log[-2:] == [("side", "synchronized"), ("unregister",)]


def test_another_arena_is_registered_in_its_place(cuda):
    arenas = [memoryview(bytearray(4096)), memoryview(bytearray(12288))]
    copier = CudaCopier(CPU, None, lambda: arenas[0])
    copier.copy(make_batch(), 0)
    del arenas[0]
    copier.copy(make_batch(), 0)
    assert [entry for entry in cuda.log if "register" in entry[0]] == [
        ("register", "4096"),
        ("unregister",),
        ("register", "12288"),
    ]


def test_two_buffers_carry_batches_of_changing_size(cuda):
    copier = make_lane()
    expected = HostNormaliser(torch.float32, channels_last=True)
    staged = copier.copy(make_batch(2, 0), 0)[0]
    for number, rows in enumerate((5, 5, 3, 6, 1), start=1):
        batch = make_batch(rows, number)
        ahead = copier.copy(batch, number % 2)[0]
        done = copier.finish(staged, (number + 1) % 2)
        before = make_batch(len(done), number - 1)
        assert torch.allclose(
            done.images, expected(torch.from_numpy(before.images)), atol=1e-6, rtol=0
        )
        assert done.labels.tolist() == before.labels.tolist()
        assert done.ids.tolist() == before.ids.tolist()
        assert done.valid.tolist() == before.valid.tolist()
        assert (done.epoch, done.number) == (2, number - 1)
        staged = ahead


def test_without_normalising_the_bytes_go_as_they_are(cuda):
    copier = make_lane(normalize=False)
    batch = make_batch()
    done = copier.finish(copier.copy(batch, 0)[0], 0)
    assert done.images.dtype == torch.uint8
    assert np.array_equal(done.images.numpy(), batch.images)
    assert not any("waits for" in entry and entry[0] == "side" for entry in cuda.log)


def test_what_was_made_in_inference_mode_serves_training(cuda):
    copier = make_lane()
    with torch.inference_mode():
        copier.finish(copier.copy(make_batch(), 0)[0], 0)
        ahead = copier.copy(make_batch(), 1)[0]
    for staged, buffer in ((ahead, 1), (copier.copy(make_batch(), 0)[0], 0)):
        batch = copier.finish(staged, buffer)
        weight = torch.ones(3, requires_grad=True)
        scores = torch.einsum("bchw,c->bc", batch.images, weight)
        torch.nn.functional.cross_entropy(scores[:, :3], batch.labels % 3).backward()
        assert weight.grad is not None


def out_of_memory(*_: object, **__: object) -> None:
    raise RuntimeError("out of memory")


def test_a_copy_that_fails_half_way_is_waited_for(cuda, monkeypatch):
    copier = make_lane()
    batch = make_batch()
    batch.valid = None
    with pytest.raises(TypeError):
        copier.copy(batch, 0)
    batch = make_batch()
    monkeypatch.setattr(torch.Tensor, "copy_", out_of_memory)
    with pytest.raises(RuntimeError):
        copier.copy(batch, 0)
    assert cuda.log[-1] == ("side", "synchronized")
    assert cuda.current == "consumer"


def test_views_go_by_name_each_with_buffers_of_its_own(cuda):
    """Batches of view groups, whose sizes may change at the border of two phases."""
    copier = make_lane()
    expected = HostNormaliser(torch.float32, channels_last=True)
    for number, side in enumerate((6, 6, 9, 4)):
        batch = make_batch(number=number)
        rng = np.random.default_rng(number)
        batch.views = {
            "global": rng.integers(0, 256, (4, 2, side, side, 3), np.uint8),
            "local": rng.integers(0, 256, (4, 5, 3, 3, 3), np.uint8),
        }
        done = copier.finish(copier.copy(batch, number % 2)[0], number % 2)
        assert list(done.views) == ["global", "local"]
        for name, rows in done.views.items():
            torch.testing.assert_close(rows, expected(torch.from_numpy(batch.views[name])))
        with pytest.raises(AttributeError, match=r"its rows are batch.views\['global'\] and"):
            done.images  # noqa: B018


@pytest.mark.parametrize(("memory", "flags"), [(bytearray(64), 0), (bytes(64), 8)])
def test_a_shared_arena_is_registered_for_reading_only(memory: bytes, flags: int) -> None:
    asked: list[int] = []
    cudart = SimpleNamespace(
        cudaHostRegister=lambda pointer, size_bytes, given: asked.append(given) or 0,
        cudaHostUnregister=lambda pointer: 0,
    )
    trainer.data.cuda_feed.PinnedArena(memoryview(memory), cudart).close()
    assert asked == [flags]


@pytest.mark.parametrize(("error", "said"), [(0, "pinned"), (2, "not pinned")])
def test_pinning_is_tried_with_shared_memory(monkeypatch, error: int, said: str) -> None:
    registered: list[int] = []
    cudart = SimpleNamespace(
        cudaHostRegister=lambda pointer, size_bytes, flags: registered.append(size_bytes) or error,
        cudaHostUnregister=lambda pointer: 0,
    )
    monkeypatch.setattr(trainer.data.cuda_feed, "_forget_last_error", lambda: None)
    fake = SimpleNamespace(is_available=lambda: True, cudart=lambda: cudart)
    monkeypatch.setattr(trainer.data.cuda_feed, "_cuda", fake)
    assert trainer.data.cuda_feed.try_pinning() == said
    assert registered and registered[0] > 0
