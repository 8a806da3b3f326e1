"""Mixed batches: as NumPy and as tensors, before and after deaths and resumes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import augd
import augd.torch
from augd.client.status import status
from augd.torch import IMAGENET_MEAN, IMAGENET_STD
from tests.support.scenes import make_folder

CROP = {"op": "random_resized_crop", "size": 32}
ROWS = {
    "ops": [CROP],
    "mix": {
        "mixup": 0.4,
        "cutmix": 1.0,
        "scope": "row",
        "partner": "permutation",
        "smoothing": 0.1,
    },
}
PAIRS = {"ops": [CROP], "mix": {"mixup": 0.4, "cutmix": 1.0, "scope": "pair"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=3, per_class=20)


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[augd.ServedDaemon]:
    with augd.serve({"small": folder}, producers=2) as served:
        yield served


def read(stream: augd.Stream, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(batch.images.copy(), batch.targets.copy()) for batch in stream.epoch(epoch)]


def same(one, other) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, b)
        for left, right in zip(one, other, strict=True)
        for a, b in zip(left, right, strict=True)
    )


def test_images_are_mixed_and_digests_are_of_unmixed_rows(daemon):
    options = {"recipe": ROWS, "batch_size": 16, "verify": True}
    with (
        augd.connect(daemon.address, **options) as mixed,
        augd.connect(daemon.address, mixed=False, **options) as plain,
    ):
        num_changed = 0
        for one, other in zip(mixed.epoch(0), plain.epoch(0), strict=True):
            assert one.digest == other.digest
            assert np.array_equal(one.share, other.share)
            assert np.allclose(one.targets.sum(axis=1), 1, atol=1e-6)
            for row, partner in enumerate(one.partners):
                is_equal = np.array_equal(one.images[row], other.images[row])
                assert not is_equal or one.share[row] > 0.99 or partner == row
                num_changed += not is_equal
        assert num_changed > 30
        assert mixed.receipt(0)["bytes"] == plain.receipt(0)["bytes"]


def test_tensors_are_mixed_as_arrays_are(daemon):
    options = {"recipe": ROWS, "batch_size": 16}
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    with (
        augd.connect(daemon.address, **options) as arrays,
        augd.torch.connect(daemon.address, device="cpu", normalize=False, **options) as raw,
        augd.torch.connect(daemon.address, device="cpu", **options) as floats,
    ):
        for one, two, three in zip(arrays.epoch(0), raw.epoch(0), floats.epoch(0), strict=True):
            assert np.array_equal(one.images, two.images)
            assert np.array_equal(one.targets, two.targets)
            assert np.array_equal(one.partners, three.partners)
            assert np.array_equal(one.share, three.share)
            back = (three.images.permute(0, 2, 3, 1) * std + mean) * 255
            assert np.abs(back.numpy() - one.images).max() < 0.51  # bytes are rounded


def test_views_of_a_sample_are_mixed_alike(daemon):
    recipe = {"ops": [CROP], "views": 2, "mix": {"mixup": 1.0}}
    with (
        augd.connect(daemon.address, recipe=recipe, batch_size=8) as mixed,
        augd.connect(daemon.address, recipe=recipe, batch_size=8, mixed=False) as plain,
    ):
        one, other = next(iter(mixed.epoch(0))), next(iter(plain.epoch(0)))
        assert one.images.shape == (8, 2, 32, 32, 3)
        share = float(one.share[0])
        exact = share * other.images + (1 - share) * other.images[::-1].astype(float)
        assert np.abs(one.images - exact).max() <= 0.51


def test_a_resume_and_dead_producers_mix_the_same(daemon):
    options = {"recipe": ROWS, "batch_size": 16}
    with augd.connect(daemon.address, **options) as stream:
        whole = read(stream, 1)
    with augd.connect(daemon.address, **options) as stream:
        passing = stream.epoch(1)
        first = next(passing)
        begun = [(first.images.copy(), first.targets.copy())]
        state = stream.state_dict()
        for producer in status(daemon.address, 5)["producers"]:
            os.kill(producer["pid"], signal.SIGKILL)
    with augd.connect(daemon.address, **options) as stream:
        stream.load_state_dict(state)
        assert same(begun + read(stream, 1), whole)


def test_pairs_stay_mixed_alike_with_another_batch_size(daemon):
    found = []
    for size in (4, 12, 60):
        with augd.connect(daemon.address, recipe=PAIRS, batch_size=size) as stream:
            parts = read(stream, 0)
            found.append([np.concatenate(arrays) for arrays in zip(*parts, strict=True)])
    assert same(found[:1], found[1:2])
    assert same(found[:1], found[2:])


def test_ranks_mix_their_own_rows(daemon):
    seen = []
    for rank in range(2):
        options = {"rank": rank, "world": 2, "recipe": ROWS, "batch_size": 8}
        with augd.connect(daemon.address, **options) as stream:
            seen.append([batch.partners.tolist() for batch in stream.epoch(0)])
    assert len(seen[0]) == len(seen[1])
    assert seen[0][0] != seen[1][0]
    assert all(max(rows) < 8 for part in seen for rows in part)


def test_what_cannot_be_mixed_is_named(daemon):
    recipe = {**ROWS, "colour_on": "device"}
    with pytest.raises(augd.OptionError, match=r"mixed: .*colour_on=\"device\""):
        augd.connect(daemon.address, recipe=recipe)
    with pytest.raises(augd.OptionError, match=r"mixed: expected True or False, got 1"):
        augd.connect(daemon.address, recipe=ROWS, mixed=1)
    colour = {**recipe, "ops": [CROP, {"op": "brightness", "v": 0.4}]}
    with augd.torch.connect(daemon.address, recipe=colour, batch_size=8, device="cpu") as stream:
        batch = next(stream.epoch(0))
        assert batch.targets.shape == (8, 3)


def test_a_state_of_another_mix_is_refused(daemon):
    with augd.connect(daemon.address, recipe=PAIRS, batch_size=8) as stream:
        state = stream.state_dict()
    with (
        augd.connect(daemon.address, recipe=ROWS, batch_size=8) as stream,
        pytest.raises(augd.SpecMismatch, match=r"recipe\.mix\.scope"),
    ):
        stream.load_state_dict(state)


def test_a_phase_ends_the_mixing(daemon):
    plain = {key: value for key, value in ROWS.items() if key != "mix"}
    recipe = {"phases": [{"from_epoch": 0, **ROWS}, {"from_epoch": 1, **plain}]}
    with (
        augd.connect(daemon.address, recipe=recipe, batch_size=16) as stream,
        augd.connect(daemon.address, recipe=ROWS, batch_size=16) as mixed,
    ):
        first = read(stream, 0)
        assert same(first, read(mixed, 0))
        assert all(batch.targets is None for batch in stream.epoch(1))
