"""From uint8 to normalised floats on the CPU, and the memory that it takes."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

import augd
from trainer.data.constants import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NAMED,
    choose_constants,
    constants_of,
    parse_choice,
)
from trainer.data.cuda_feed import DeviceNormaliser, PinnedArena
from trainer.data.host_feed import Batch, HostBlocks, HostNormaliser

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def random_images(count: int = 5, height: int = 7, width: int = 9) -> torch.Tensor:
    rng = np.random.default_rng(3)
    return torch.from_numpy(rng.integers(0, 256, (count, height, width, 3), np.uint8))


def by_hand(images: torch.Tensor) -> np.ndarray:
    unit = images.numpy().astype(np.float64) / 255
    return ((unit - IMAGENET_MEAN) / IMAGENET_STD).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_are_those_computed_by_hand(dtype, channels_last):
    images = random_images()
    kept = images.clone()
    device = DeviceNormaliser(torch.device("cpu"), dtype, channels_last=channels_last)
    for normalise in (HostNormaliser(dtype, channels_last=channels_last), device):
        out = normalise(images)
        assert out.shape == (5, 3, 7, 9) and out.dtype == dtype
        order = torch.channels_last if channels_last else torch.contiguous_format
        assert out.is_contiguous(memory_format=order)
        # A float of this dtype next to the exact value, whose size is at most 2.64.
        tolerance = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 1e-6)
        assert np.abs(out.double().numpy() - by_hand(images)).max() < tolerance
        assert torch.equal(images, kept)


def test_every_grey_level_of_every_channel():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    images = levels.contiguous()
    out = HostNormaliser(torch.float32, channels_last=True)(images)
    assert np.abs(out.double().numpy() - by_hand(images)).max() < 1e-6


def test_batches_of_changing_size():
    for channels_last in (True, False):
        normalise = HostNormaliser(torch.float32, channels_last=channels_last)
        for count, height, width in ((2, 4, 4), (8, 4, 4), (3, 4, 4), (3, 9, 2), (1, 1, 1)):
            images = random_images(count, height, width)
            out = normalise(images)
            assert np.abs(out.double().numpy() - by_hand(images)).max() < 1e-6


def test_what_the_caller_keeps_is_never_written_again():
    normalise = HostNormaliser(torch.float32, channels_last=True)
    images = random_images()
    kept = []
    for shift in range(6):
        moved = images.roll(shift, 0)
        out = normalise(moved)
        # A view of a part, and a tensor that only autograd knows.
        weight = torch.ones((), requires_grad=True)
        kept.append((by_hand(moved), out[2:, 1], (out * weight).sum(), weight))
        del out
    gc.collect()
    for expected, part, total, weight in kept:
        assert np.abs(part.numpy() - expected[2:, 1]).max() < 1e-6
        total.backward()
        assert weight.grad is not None
        assert weight.grad.item() == pytest.approx(expected.sum(), rel=1e-4)


def test_memory_is_used_again_once_nobody_has_it():
    blocks = HostBlocks()
    first = blocks.take(1000)
    where = first.data_ptr()
    second = blocks.take(1000)
    assert second.data_ptr() != where
    part = first[10:20]
    del first
    assert blocks.num_free == 0, "a view still lives"
    del part
    assert blocks.num_free == 1
    assert blocks.take(900).data_ptr() == where


def test_few_blocks_wait_and_small_ones_are_given_up():
    blocks = HostBlocks()
    taken = [blocks.take(100) for _ in range(5)]
    taken.clear()
    assert blocks.num_free == 2
    large = blocks.take(10_000)
    assert len(large) == 10_000 and blocks.num_free == 0


def test_a_batch_names_itself():
    images = torch.zeros(2, 3, 4, 4)
    rows = torch.zeros(2, dtype=torch.int64)
    batch = Batch((images, rows, rows, rows > 0), (1, 7, 14))
    assert repr(batch) == "<Batch 7 of epoch 1, images (2, 3, 4, 4) torch.float32 on cpu>"
    assert len(batch) == 2
    batch.release()
    assert batch.images.sum() == 0


class FakeCudart:
    """Registers, or says why not."""

    def __init__(self, error: int) -> None:
        self.error = error
        self.registered: dict[int, int] = {}

    def cudaHostRegister(self, pointer: int, size_bytes: int, flags: int) -> int:
        if not self.error:
            self.registered[pointer] = size_bytes
        return self.error

    def cudaHostUnregister(self, pointer: int) -> int:
        del self.registered[pointer]
        return 0


def test_an_arena_is_registered_whole_and_unregistered_once():
    arena = bytearray(4096 * 3)
    cudart = FakeCudart(0)
    pinned = PinnedArena(memoryview(arena), cudart)
    assert pinned.is_pinned
    assert list(cudart.registered.values()) == [4096 * 3]
    pinned.close()
    pinned.close()
    assert cudart.registered == {}


@pytest.mark.fault("arena cannot be allocated; `cudaHostRegister` fails")
def test_a_registration_that_fails_warns_and_goes_on():
    arena = memoryview(bytearray(2_000_000))
    expected = r"CUDA did not register the arena of 2 MB \(2\): copies to the GPU are not pinned"
    with pytest.warns(RuntimeWarning, match=expected):
        pinned = PinnedArena(arena, FakeCudart(2))
    assert not pinned.is_pinned
    pinned.close()


@pytest.mark.parametrize("name", NAMED)
def test_constants_by_name_or_as_numbers(name):
    chosen = choose_constants(name)
    assert chosen == NAMED[name] == choose_constants(std=name)
    assert chosen == choose_constants(list(chosen.mean), np.array(chosen.std))
    images = random_images()
    by_these = (images.numpy() / 255 - chosen.mean) / chosen.std
    device = DeviceNormaliser(
        torch.device("cpu"), torch.float32, channels_last=True, constants=chosen
    )
    host = HostNormaliser(torch.float32, channels_last=True, constants=chosen)
    for normalise in (host, device):
        out = normalise(images).permute(0, 2, 3, 1).double().numpy()
        assert np.abs(out - by_these).max() < 2e-6


def test_constants_that_are_not_named_are_imagenets():
    assert choose_constants() == (IMAGENET_MEAN, IMAGENET_STD)
    assert choose_constants("clip", "none") == (NAMED["clip"].mean, NAMED["none"].std)
    assert constants_of({"arch": "resnet18"}) == NAMED["imagenet"]
    assert constants_of({"mean": (0.5,) * 3, "std": (0.5,) * 3}) == NAMED["inception"]


@pytest.mark.parametrize(
    ("mean", "std", "told"),
    [
        ("imagnet", None, "mean: expected imagenet, inception, clip, none or three numbers"),
        ((0.5, 0.5), "clip", r"mean: expected .*three numbers .*, got \(0.5, 0.5\)"),
        ((0.5,) * 3, None, "std: expected three numbers or a name beside mean="),
        (None, (0.5,) * 3, "mean: expected three numbers or a name beside std="),
        ((124, 116, 104), "imagenet", "mean: expected numbers 0 or more, .*divide grey levels"),
        ("none", (0, 1, 1), "std: expected numbers above 0"),
        ("none", (float("nan"), 1, 1), "std: expected numbers above 0"),
        (7, "none", "mean: expected imagenet, .* got 7"),
    ],
)
def test_constants_that_cannot_be_are_refused(mean, std, told):
    with pytest.raises(augd.OptionError, match=told):
        choose_constants(mean, std)


def test_constants_of_a_command_line():
    assert parse_choice("--mean", "clip") == "clip" and parse_choice("--mean", None) is None
    assert parse_choice("--mean", "0.5, 0.25,0") == (0.5, 0.25, 0.0)
    with pytest.raises(augd.OptionError, match=r"--mean: expected imagenet, .* got '0.5,x,1'"):
        parse_choice("--mean", "0.5,x,1")
