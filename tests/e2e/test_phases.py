"""Schedules, end to end: each epoch has the bytes of its phase's recipe, whatever lies between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import augd
from tests.support.commands import run_augd
from tests.support.relays import await_remotes, running_relay
from tests.support.scenes import (
    GROUPS_IN_PHASES,
    PHASES,
    digest_epoch,
    make_folder,
    read_epoch,
)

OPTIONS: dict[str, Any] = {"batch_size": 16, "seed": 5, "timeout_s": 30}
EPOCHS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=30)


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[augd.ServedDaemon]:
    with augd.serve({"small": folder}, producers=2) as served:
        yield served


@pytest.fixture(scope="module")
def undisturbed(daemon: augd.ServedDaemon) -> dict[str, list[str]]:
    return {name: digests(daemon.address, recipe) for name, recipe in RECIPES.items()}


RECIPES = {"sizes": PHASES, "views": GROUPS_IN_PHASES}


def digests(address: str, recipe: Any, **options: Any) -> list[str]:
    return digest_epoch(address, epochs=EPOCHS, recipe=recipe, seed=5, verify=True, **options)


@pytest.mark.clause("P-166")
@pytest.mark.parametrize("name", RECIPES)
def test_each_epoch_has_the_bytes_of_its_phase(
    daemon: augd.ServedDaemon, undisturbed: dict[str, list[str]], name: str
) -> None:
    for epoch in range(EPOCHS):
        phase = [one for one in RECIPES[name]["phases"] if one["from_epoch"] <= epoch][-1]
        alone = {key: value for key, value in phase.items() if key != "from_epoch"}
        assert digests(daemon.address, alone)[epoch] == undisturbed[name][epoch]


def test_shapes_change_at_the_border(daemon: augd.ServedDaemon) -> None:
    with augd.connect(daemon.address, recipe=PHASES, params=True, **OPTIONS) as stream:
        shapes = [next(iter(stream.epoch(epoch))).images.shape for epoch in (2, 0, 1, 2)]
        assert shapes == [(16, side, side, 3) for side in (24, 16, 32, 24)]
        slots = len(stream.arena)
    with augd.connect(daemon.address, recipe={"ops": PHASES["phases"][1]["ops"]}, **OPTIONS) as big:
        next(iter(big.epoch(0)))
        assert len(big.arena) <= slots, "slots are those of the largest phase"


@pytest.mark.parametrize("producers", [1, 5])
def test_any_number_of_producers_makes_the_same(
    folder: Path, producers: int, undisturbed: dict[str, list[str]]
) -> None:
    with augd.serve({"small": folder}, producers=producers) as served:
        for name, recipe in RECIPES.items():
            assert digests(served.address, recipe, transport="frames") == undisturbed[name]


def test_remote_producers_and_sharers_get_the_same(
    folder: Path, tmp_path: Path, undisturbed: dict[str, list[str]]
) -> None:
    listen = [f"ipc://{tmp_path}/d", "tcp://127.0.0.1:0"]
    with augd.serve({"small": folder}, producers=0, listen=listen) as served:
        path, port = served.addresses
        with running_relay(folder, port, "--producers", "2"):
            await_remotes(port, 2)
            for name, recipe in RECIPES.items():
                assert digests(path, recipe, shared=True) == undisturbed[name]
                assert digests(port, recipe) == undisturbed[name]


@pytest.mark.parametrize("name", RECIPES)
def test_a_state_goes_on_across_a_border(daemon: augd.ServedDaemon, name: str) -> None:
    """Saved before the last batch of a phase, after it, and in the next; with another layout."""
    recipe = RECIPES[name]
    with augd.connect(daemon.address, recipe=recipe, **OPTIONS) as stream:
        whole = {epoch: read_epoch(stream, epoch) for epoch in range(EPOCHS)}
        last = len(stream) - 1
    for moment in ((0, last - 1), (0, last), (1, 1)):
        with augd.connect(daemon.address, recipe=recipe, **OPTIONS) as stream:
            for batch in stream.epoch(moment[0]):
                if batch.number == moment[1]:
                    break
            state = json.loads(json.dumps(stream.state_dict()))
        with augd.connect(daemon.address, recipe=recipe, **{**OPTIONS, "batch_size": 8}) as again:
            again.load_state_dict(state)
            for epoch in range(state["epoch"], EPOCHS):
                rest = read_epoch(again, epoch)
                first = state["position"] if epoch == state["epoch"] else 0
                for part in whole[epoch][0]:
                    expected = np.concatenate([one[part] for one in whole[epoch]])[first:]
                    found = np.concatenate([one[part] for one in rest])
                    np.testing.assert_array_equal(found, expected)
                assert again.receipt(epoch)["is_complete"]


def test_a_state_of_another_schedule_is_refused(daemon: augd.ServedDaemon) -> None:
    with augd.connect(daemon.address, recipe=PHASES, **OPTIONS) as stream:
        state = stream.state_dict()
    later = {"phases": [*PHASES["phases"][:2], {**PHASES["phases"][2], "from_epoch": 7}]}
    with (
        augd.connect(daemon.address, recipe=later, **OPTIONS) as stream,
        pytest.raises(augd.SpecMismatch, match=r"recipe.phases\[2\].from_epoch: 2 when saved, 7"),
    ):
        stream.load_state_dict(state)


def test_mixing_begins_and_ends_with_its_phase(daemon: augd.ServedDaemon) -> None:
    first, second, third = PHASES["phases"]
    recipe = {"phases": [first, {**second, "mix": {"mixup": 0.8, "cutmix": 1.0}}, third]}
    with augd.connect(daemon.address, recipe=recipe, **OPTIONS) as stream:
        for epoch, is_mixed in ((0, False), (1, True), (2, False)):
            for batch in stream.epoch(epoch):
                assert (batch.targets is not None) is is_mixed
                assert (batch.mixing is not None) is is_mixed


def test_explain_preview_and_replay_take_the_phase_of_the_epoch(
    folder: Path, daemon: augd.ServedDaemon, tmp_path: Path
) -> None:
    recipe = tmp_path / "phases.toml"
    recipe.write_text(
        "[[phases]]\nfrom_epoch = 0\n"
        'ops = [{op = "random_resized_crop", size = 16}, {op = "mirror"}]\n'
        "[[phases]]\nfrom_epoch = 4\n"
        'ops = [{op = "random_resized_crop", size = 40}]\n'
    )
    printed = run_augd("recipes", str(recipe)).stdout
    assert printed.count("[[phases]]") == 2 and "[[phases.ops]]" in printed
    recipe.write_text(printed)
    with augd.connect(daemon.address, recipe=recipe, **OPTIONS) as stream:
        batch = next(iter(stream.epoch(4)))
        digest, first = batch.digest, int(batch.ids[0])
    asked = (str(folder), "--recipe", str(recipe), "--seed", "5")
    for epoch, side, begins in (("3", 16, 0), ("4", 40, 4)):
        done = run_augd("explain", *asked, "--id", str(first), "--epoch", epoch, "--json")
        report = json.loads(done.stdout)
        assert (report["phase"], report["scaled"]) == (begins, [side, side])
        done = run_augd("explain", *asked, "--id", str(first), "--epoch", epoch)
        assert f"\nphase     the one from epoch {begins} on\n" in done.stdout
    sheet = tmp_path / "sheet.png"
    options = ("--epoch", "3", "--columns", "2", "--rows", "2", "--out", str(sheet))
    done = run_augd("preview", *asked, *options)
    assert done.returncode == 0 and sheet.stat().st_size > 1000, done
    place = ("--epoch", "4", "--batch", "0", "--batch-size", "16")
    done = run_augd("replay", *asked, *place, "--expect", digest)
    assert done.returncode == 0 and "the same bytes" in done.stdout, done


def test_tensors_change_their_size_with_the_phase(daemon: augd.ServedDaemon) -> None:
    torch = pytest.importorskip("torch")
    import augd.torch

    with (
        augd.connect(daemon.address, recipe=GROUPS_IN_PHASES, **OPTIONS) as arrays,
        augd.torch.connect(
            daemon.address, recipe=GROUPS_IN_PHASES, device="cpu", **OPTIONS
        ) as tensors,
    ):
        for epoch in (0, 1):
            for plain, batch in zip(arrays.epoch(epoch), tensors.epoch(epoch), strict=True):
                for name, rows in plain.views.items():
                    mean, std = (
                        torch.tensor(one).view(3, 1, 1)
                        for one in (augd.torch.IMAGENET_MEAN, augd.torch.IMAGENET_STD)
                    )
                    floats = torch.from_numpy(rows).permute(0, 1, 4, 2, 3) / 255
                    torch.testing.assert_close(batch.views[name], (floats - mean) / std)
