"""Recipes with policies, served: the same bytes whatever makes, breaks or carries them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import augd
from tests.support.processes import producers_of
from tests.support.scenes import make_folder, read_epoch

CROP = {"op": "random_resized_crop", "size": 32}
RECIPES: dict[str, dict[str, Any]] = {
    "timm": {
        "filter": "bicubic",
        "fill": "constant",
        "fill_value": [124, 116, 104],
        "ops": [
            CROP,
            {"op": "mirror"},
            {"op": "rand_augment", "spec": "rand-m9-mstd0.5-inc1-n3"},
            {"op": "erase", "p": 0.25, "fill": "pixel"},
        ],
    },
    "torchvision": {
        "fill": "constant",
        "ops": [CROP, {"op": "mirror"}, {"op": "trivial_augment"}, {"op": "erase", "p": 0.1}],
    },
    "auto": {"ops": [CROP, {"op": "auto_augment"}, {"op": "three_augment"}], "views": 2},
    "steps": {
        "ops": [
            CROP,
            {"op": "gaussian_blur", "p": 0.5},
            {
                "op": "one_of",
                "ops": [{"op": "gaussian_noise", "std": 9}, {"op": "sharpness", "factor": 2}],
            },
            {"op": "jpeg", "quality": [20, 90], "p": 0.5},
            {"op": "coarse_dropout", "count": [1, 4], "fill": "pixel"},
            {"op": "cutout", "fill": "random"},
        ]
    },
    "mixed": {"ops": [CROP, {"op": "brightness"}, {"op": "aug_mix"}, {"op": "erase", "p": 0.5}]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=60)


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Any]:
    with augd.serve({"small": folder}, producers=2) as served:
        yield served


def rows(address: str, name: str, batch_size: int, epoch: int = 1) -> np.ndarray:
    with augd.connect(address, recipe=RECIPES[name], batch_size=batch_size, seed=4) as stream:
        return np.concatenate([batch["images"] for batch in read_epoch(stream, epoch)])


@pytest.fixture(scope="module")
def expected(daemon: Any) -> dict[str, np.ndarray]:
    return {name: rows(daemon.address, name, 16) for name in RECIPES}


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_rows_whatever_the_batch_size(daemon: Any, expected: Any, name: str) -> None:
    np.testing.assert_array_equal(rows(daemon.address, name, 7), expected[name])


def test_the_same_rows_for_one_producer(folder: Path, expected: dict[str, np.ndarray]) -> None:
    with augd.serve({"small": folder}, producers=1) as other:
        for name, of_two in expected.items():
            np.testing.assert_array_equal(rows(other.address, name, 50), of_two)


def test_a_policy_changes_rows_from_epoch_to_epoch(daemon: Any) -> None:
    first, second = (rows(daemon.address, "torchvision", 40, epoch) for epoch in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize("name", RECIPES)
def test_producers_killed_in_the_middle_change_no_byte(
    daemon: Any, expected: dict[str, np.ndarray], name: str
) -> None:
    found = []
    with augd.connect(daemon.address, recipe=RECIPES[name], batch_size=8, seed=4) as stream:
        for batch in stream.epoch(1):
            if batch.number % 6 == 2:
                os.kill(producers_of(daemon.pid)[0], signal.SIGKILL)
            found.append(batch.images.copy())
            batch.release()
    np.testing.assert_array_equal(np.concatenate(found), expected[name])


@pytest.mark.parametrize("name", RECIPES)
def test_a_resume_in_the_middle_gives_the_rest(
    folder: Path, daemon: Any, expected: dict[str, np.ndarray], name: str
) -> None:
    """By another daemon with another number of producers, from a state that was saved."""
    options = {"recipe": RECIPES[name], "batch_size": 16, "seed": 4}
    with augd.connect(daemon.address, **options) as stream:
        for batch in stream.epoch(1):
            batch.release()
            if batch.number == 2:
                break
        state = stream.state_dict()
    with (
        augd.serve({"small": folder}, producers=1) as other,
        augd.connect(other.address, **options) as stream,
    ):
        stream.load_state_dict(state)
        rest = np.concatenate([batch["images"] for batch in read_epoch(stream, 1)])
    np.testing.assert_array_equal(rest, expected[name][-len(rest) :])
    assert len(rest) == len(expected[name]) - 3 * 16


def test_plans_do_not_depend_on_the_chunk() -> None:
    """Chunks of 1, 5 and 32 samples plan every row alike, mixtures included."""
    from augd.plan.planner.planner import Planner
    from augd.plan.recipe.recipe import parse_recipe

    for recipe in RECIPES.values():
        planner = Planner(parse_recipe(recipe), 4, (32, 32))
        ids, sides = np.arange(32), np.full(32, 80, np.int32)
        whole = planner.plan(ids, ids * 0, sides, sides)
        step = planner.num_views
        for first, end in ((0, 1), (3, 8), (31, 32)):
            part = slice(first, end)
            alone = planner.plan(ids[part], ids[part] * 0, sides[part], sides[part])
            at = slice(first * step, end * step)
            assert_equal_plans(whole, alone, at)


def assert_equal_plans(whole: Any, alone: Any, at: slice) -> None:
    for field in ("crop", "matrix", "bent", "halvings", "picture"):
        if getattr(whole, field) is not None:
            np.testing.assert_array_equal(getattr(whole, field)[at], getattr(alone, field))
    if whole.program is not None:
        np.testing.assert_array_equal(whole.program.kinds[at], alone.program.kinds)
        np.testing.assert_array_equal(whole.program.values[at], alone.program.values)
    if whole.mixture is None:
        return
    np.testing.assert_array_equal(whole.mixture.weights[at], alone.mixture.weights)
    for chain, chain_alone in zip(whole.mixture.chains, alone.mixture.chains, strict=True):
        assert_equal_plans(chain, chain_alone, at)
