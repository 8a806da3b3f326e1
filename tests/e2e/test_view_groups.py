"""View groups, end to end: the same bytes however they were made and however they arrive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import augd
from augd.client.status import status as ask_status
from augd.protocol.row_digest import rows_digest
from tests.support.commands import run_augd
from tests.support.relays import await_remotes, running_relay
from tests.support.scenes import GROUPS, arrays_of, digest_epoch, make_folder, read_epoch

DEVICE = {
    "colour_on": "device",
    "views": [
        {**group, "ops": [*group["ops"], {"op": "brightness", "v": 0.4}]}
        for group in GROUPS["views"]
        if group["name"] == "local" or group["ops"][1]["op"] == "mirror"
    ],
}
OPTIONS: dict[str, Any] = {"batch_size": 16, "seed": 5, "timeout_s": 30}


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
    return digest_epoch(daemon.address, epochs=2, recipe=GROUPS, **OPTIONS_OF_DIGEST)


OPTIONS_OF_DIGEST: dict[str, Any] = {"seed": 5, "verify": True}


def test_a_batch_has_an_array_for_each_name(daemon: augd.ServedDaemon) -> None:
    with augd.connect(daemon.address, recipe=GROUPS, params=True, **OPTIONS) as stream:
        batch = next(iter(stream.epoch(0)))
        assert list(batch.views) == ["global", "local"]
        assert batch.views["global"].shape == (16, 2, 24, 24, 3)
        assert batch.views["local"].shape == (16, 3, 16, 16, 3)
        assert batch.views["local"].dtype == np.uint8
        assert batch.params["global"]["view"].tolist() == [[0, 1]] * 16
        assert batch.params["local"]["view"].tolist() == [[2, 3, 4]] * 16
        assert batch.params["local"]["crop"].shape == (16, 3, 4)
        assert repr(batch) == (
            "<Batch 0 of epoch 0, global (16, 2, 24, 24, 3), local (16, 3, 16, 16, 3)>"
        )
        with pytest.raises(AttributeError, match=r"its rows are batch.views\['global'\] and batch"):
            batch.images  # noqa: B018
        with pytest.raises(KeyError, match=r"expected one of the recipe's views 'global', 'local'"):
            batch.views["globl"]
        for views, labels in stream:
            assert [len(rows) for rows in views.values()] == [len(labels)] * 2
            break


def test_a_plain_recipe_has_no_views(daemon: augd.ServedDaemon) -> None:
    with augd.connect(daemon.address, **OPTIONS) as stream:
        batch = next(iter(stream.epoch(0)))
        assert batch.views == {} and batch.images.shape == (16, 224, 224, 3)
        with pytest.raises(KeyError, match=r"expected a recipe with a list of views, got 'global'"):
            batch.views["global"]


def test_the_views_are_those_of_plain_recipes(daemon: augd.ServedDaemon) -> None:
    """The first view of a group that comes first is a plain recipe's row."""
    first, _, local = GROUPS["views"]
    plain = {"filter": "linear", "ops": first["ops"], "views": 4}
    grouped = {
        "filter": "linear",
        "views": [
            {"name": "a", "count": 1, "ops": first["ops"]},
            {"name": "b", "count": 2, "ops": local["ops"], "fill": "constant"},
            {"name": "a", "count": 1, "ops": first["ops"]},
        ],
    }
    with (
        augd.connect(daemon.address, recipe=plain, **OPTIONS) as one,
        augd.connect(daemon.address, recipe=grouped, **OPTIONS) as other,
    ):
        for whole, parts in zip(one.epoch(0), other.epoch(0), strict=True):
            np.testing.assert_array_equal(whole.images[:, [0, 3]], parts.views["a"])


def test_two_views_of_one_recipe_differ(daemon: augd.ServedDaemon) -> None:
    group = {"name": "global", "ops": [{"op": "random_resized_crop", "size": 24}]}
    with augd.connect(daemon.address, recipe={"views": [group] * 2}, **OPTIONS) as stream:
        for batch in stream.epoch(0):
            one, two = batch.views["global"].swapaxes(0, 1)
            assert (one != two).any(axis=(1, 2, 3)).all()


def test_the_digest_of_a_batch_covers_every_array(daemon: augd.ServedDaemon) -> None:
    with augd.connect(daemon.address, recipe=DEVICE, verify=True, **OPTIONS) as stream:
        for batch in stream.epoch(0):
            arrays = [tuple(named.values()) for named in (batch.views, batch.colour)]
            found = rows_digest(batch.ids, batch.labels, *arrays)
            assert f"{found:032x}" == batch.digest
            changed = [rows.copy() for rows in batch.views.values()]
            changed[1][0, 2, 0, 0, 0] ^= 1
            assert rows_digest(batch.ids, batch.labels, changed, arrays[1]) != found


@pytest.mark.parametrize("producers", [1, 5])
def test_any_number_of_producers_makes_the_same(
    folder: Path, producers: int, undisturbed: list[str]
) -> None:
    with augd.serve({"small": folder}, producers=producers) as daemon:
        options = {**OPTIONS_OF_DIGEST, "transport": "frames"}
        assert digest_epoch(daemon.address, epochs=2, recipe=GROUPS, **options) == undisturbed


def test_frames_remote_producers_and_sharers_get_the_same(
    folder: Path, tmp_path: Path, undisturbed: list[str]
) -> None:
    listen = [f"ipc://{tmp_path}/d", "tcp://127.0.0.1:0"]
    with augd.serve({"small": folder}, producers=0, listen=listen) as daemon:
        path, port = daemon.addresses
        with running_relay(folder, port, "--producers", "2"):
            await_remotes(port, 2)
            for address, shared in ((path, True), (port, False)):
                found = digest_epoch(
                    address, epochs=2, recipe=GROUPS, shared=shared, **OPTIONS_OF_DIGEST
                )
                assert found == undisturbed


def test_a_state_goes_on_in_another_layout(daemon: augd.ServedDaemon) -> None:
    with augd.connect(daemon.address, recipe=GROUPS, **OPTIONS) as stream:
        whole = read_epoch(stream, 1)
        for batch in stream.epoch(1):
            if batch.number == 1:
                break
        state = json.loads(json.dumps(stream.state_dict()))
    with augd.connect(daemon.address, recipe=GROUPS, **{**OPTIONS, "batch_size": 7}) as again:
        again.load_state_dict(state)
        rest = read_epoch(again, 1)
    for name in whole[0]:
        expected = np.concatenate([batch[name] for batch in whole])[32:]
        np.testing.assert_array_equal(np.concatenate([b[name] for b in rest]), expected)
    with (
        augd.connect(daemon.address, recipe=DEVICE, **OPTIONS) as stream,
        pytest.raises(augd.SpecMismatch, match=r"recipe.views\[1\].name"),
    ):
        stream.load_state_dict(state)


def test_a_recipe_that_does_not_fit_is_refused_by_the_daemon(daemon: augd.ServedDaemon) -> None:
    group = {"name": "a", "ops": [{"op": "my_own"}]}
    with pytest.raises(augd.RecipeError, match=r"recipe.views\[0\].ops\[0\].op: expected one of"):
        augd.connect(daemon.address, recipe={"views": [group]}, **OPTIONS)
    far = {"name": "a", "count": 40, "ops": [{"op": "resize", "size": 1000}]}
    with pytest.raises(augd.OverLimit, match="slots of"):
        augd.connect(daemon.address, recipe={"views": [far]}, **{**OPTIONS, "batch_size": 8192})


def test_bad_samples_are_zeros_in_every_array(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=6)
    (folder / "class0" / "0002.jpg").write_bytes(b"no image")
    with augd.serve(folder, producers=1) as daemon:
        options = {**OPTIONS, "max_bad_fraction": 1.0, "shuffle": False, "params": True}
        with augd.connect(daemon.address, recipe=DEVICE, split="all", **options) as stream:
            (batch,) = stream.epoch(0)
            assert batch.valid.tolist() == [True, True, False, True, True, True]
            for rows in batch.views.values():
                assert not rows[2].any() and rows[1].any()
            assert batch.colour["local"][2].tolist() == [np.eye(3, 4).tolist()] * 3
            assert not batch.params["local"]["crop"][2].any()


def test_replay_explain_and_preview_show_every_view(
    folder: Path, daemon: augd.ServedDaemon, tmp_path: Path
) -> None:
    recipe = tmp_path / "views.json.toml"
    printed = tmp_path / "in.toml"
    printed.write_text(
        'filter = "linear"\n'
        "[[views]]\n"
        'name = "global"\ncount = 2\nops = [{op = "random_resized_crop", size = 24}]\n'
        "[[views]]\n"
        'name = "local"\ncount = 3\n'
        'ops = [{op = "random_resized_crop", size = 16}, {op = "mirror"}]\n'
    )
    recipe.write_text(run_augd("recipes", str(printed)).stdout)
    with augd.connect(daemon.address, recipe=recipe, **OPTIONS) as stream:
        batch = next(iter(stream.epoch(1)))
        digest, first = batch.digest, int(batch.ids[0])
        rows = {name: array[0].copy() for name, array in arrays_of(batch).items()}
    out = tmp_path / "batch.npz"
    asked = (str(folder), "--recipe", str(recipe), "--batch-size", "16", "--seed", "5")
    place = ("--epoch", "1", "--batch", "0")
    done = run_augd("replay", *asked, *place, "--expect", digest, "--out", str(out))
    assert done.returncode == 0 and "the same bytes" in done.stdout, done
    done = run_augd("replay", *asked, *place, "--against", str(out))
    assert "the same bytes" in done.stdout
    with np.load(out) as file:
        np.testing.assert_array_equal(file["images.local"][0], rows["images.local"])
    done = run_augd("replay", *asked, "--epoch", "0", "--batch", "0", "--against", str(out))
    assert "DIFFERS   images.local: 16 of 16 rows" in done.stdout

    asked = (str(folder), "--recipe", str(recipe), "--seed", "5", "--epoch", "1")
    done = run_augd("explain", *asked, "--id", str(first), "--json")
    views = json.loads(done.stdout)["views"]
    assert [view["name"] for view in views] == [
        "global 0", "global 1", "local 0", "local 1", "local 2",
    ]  # fmt: skip
    assert [view["view"] for view in views] == [0, 1, 2, 3, 4]
    done = run_augd("explain", *asked, "--id", str(first))
    assert "\nlocal 2   crop " in done.stdout
    sheet = tmp_path / "sheet.png"
    done = run_augd("preview", *asked, "--rows", "2", "--out", str(sheet))
    assert "each in 5 views" in done.stdout and sheet.stat().st_size > 1000


def test_the_page_shows_every_view(daemon: augd.ServedDaemon) -> None:
    """Views of two sizes stand side by side in one picture of a row."""
    import io

    from PIL import Image

    from augd.server.dashboard.batch_images import Copied

    with augd.connect(daemon.address, recipe=DEVICE, **OPTIONS) as stream:
        batch = next(iter(stream.epoch(0)))
        copied = Copied(
            None,  # type: ignore[arg-type]
            0,
            dict(batch.views),
            batch.labels,
            batch.ids,
            batch.valid,
            dict(batch.colour),
        )
        shown = Image.open(io.BytesIO(copied.image(3)))
        assert shown.size == (24 + 3 * 16, 24)
        assert ask_status(daemon.address, 5)["streams"]
