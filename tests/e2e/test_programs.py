"""Recipes of steps and groups, end to end: the same bytes from any producers, and their numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import augd
from augd.plan.program import StepKind
from tests.support.scenes import digest_epoch, make_folder, read_epoch

SIZE = {"op": "resize", "size": 24}
RECIPE: dict[str, Any] = {
    "views": 2,
    "ops": [
        {"op": "random_resized_crop", "size": 24},
        {
            "op": "all_of",
            "p": 0.8,
            "shuffle": True,
            "ops": [
                {"op": "color_jitter", "brightness": 0.4, "contrast": 0.4, "hue": 0.1},
                {"op": "solarize", "threshold": [0, 256], "p": 0.5},
                {"op": "rotate", "degrees": 20, "p": 0.5},
            ],
        },
        {
            "op": "one_of",
            "ops": [
                {"op": "equalize"},
                {"op": "sharpness", "factor": [0, 2]},
                {"op": "gaussian_blur"},
                {"op": "gaussian_noise", "std": [1, 20]},
                {"op": "jpeg", "quality": [20, 90]},
            ],
        },
        {"op": "gamma", "gamma": [0.7, 1.4], "p": 0.5},
    ],
}
OPTIONS: dict[str, Any] = {"seed": 5, "verify": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(
        tmp_path_factory.mktemp("set"), num_classes=2, per_class=30, size_px=(120, 90)
    )


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[augd.ServedDaemon]:
    with augd.serve({"small": folder}, producers=2) as served:
        yield served


@pytest.fixture(scope="module")
def undisturbed(daemon: augd.ServedDaemon) -> list[str]:
    return digest_epoch(daemon.address, epochs=2, recipe=RECIPE, **OPTIONS)


@pytest.mark.parametrize("producers", [1, 5])
def test_any_number_of_producers_makes_the_same(
    folder: Path, producers: int, undisturbed: list[str]
) -> None:
    with augd.serve({"small": folder}, producers=producers, cache="ram:64MB") as daemon:
        assert digest_epoch(daemon.address, epochs=2, recipe=RECIPE, **OPTIONS) == undisturbed
        frames = {**OPTIONS, "transport": "frames"}
        assert digest_epoch(daemon.address, epochs=2, recipe=RECIPE, **frames) == undisturbed


def test_a_state_goes_on_in_the_middle(daemon: augd.ServedDaemon) -> None:
    options: dict[str, Any] = {"batch_size": 16, "seed": 5, "timeout_s": 30}
    with augd.connect(daemon.address, recipe=RECIPE, **options) as stream:
        whole = read_epoch(stream, 1)
        for batch in stream.epoch(1):
            if batch.number == 1:
                del batch
                break
        state = json.loads(json.dumps(stream.state_dict()))
    with augd.connect(daemon.address, recipe=RECIPE, **{**options, "batch_size": 7}) as again:
        again.load_state_dict(state)
        rest = read_epoch(again, 1)
    expected = np.concatenate([batch["images"] for batch in whole])[32:]
    np.testing.assert_array_equal(np.concatenate([one["images"] for one in rest]), expected)


def test_the_steps_that_parameters_name_are_those_of_the_pixels(daemon: augd.ServedDaemon) -> None:
    ops = [
        {"op": "posterize", "bits": [1, 7]},
        {"op": "solarize", "threshold": [0, 255]},
        {"op": "invert"},
    ]
    with augd.connect(daemon.address, recipe={"ops": [SIZE]}, batch_size=60, params=True) as plain:
        batch = next(iter(plain.epoch(0)))
        ids, rows = batch.ids.copy(), batch.images.copy()
        assert "steps" not in batch.params
    recipe = {"ops": [SIZE, {"op": "one_of", "ops": ops, "p": 0.9}]}
    with augd.connect(daemon.address, recipe=recipe, batch_size=60, params=True) as stream:
        batch = next(iter(stream.epoch(0)))
        assert np.array_equal(batch.ids, ids)
        steps = batch.params["steps"]
        assert steps.shape == (60, 8, 22)
        kinds = steps[:, 0, 0].astype(int)
        assert set(kinds) == {0, StepKind.POSTERIZE, StepKind.SOLARIZE, StepKind.INVERT}
        assert not steps[:, 1:].any()
        for row, kind, number, made in zip(rows, kinds, steps[:, 0, 1], batch.images, strict=True):
            image = Image.fromarray(row)
            if kind == StepKind.POSTERIZE:
                image = ImageOps.posterize(image, int(number))
            elif kind == StepKind.SOLARIZE:
                image = image.point([x if x < number else 255 - x for x in range(256)] * 3)
            elif kind == StepKind.INVERT:
                image = ImageOps.invert(image)
            np.testing.assert_array_equal(np.asarray(image), made)
