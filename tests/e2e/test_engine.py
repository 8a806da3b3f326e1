"""Recipes of the whole engine, end to end: views, colours on the device, drawn parameters."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import augd
import trainer
from augd.plan.recipe.recipe import PRESETS
from tests.support.scenes import make_folder

CROP = {"op": "random_resized_crop", "size": 32}
COLOURS = [
    {"op": "pca", "alpha_std": 0.1},
    {"op": "saturation", "v": 0.4},
    {"op": "contrast", "v": 0.4},
]
BENT = [{"op": "rotate", "factor": 0.1, "p": 0.5}, {"op": "zoom", "height": 0.2}]
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(
        tmp_path_factory.mktemp("set"), num_classes=2, per_class=10, size_px=(80, 60)
    )


@pytest.fixture(scope="module")
def daemon(folder: Path):
    with augd.serve({"small": folder}, producers=2) as served:
        yield served


def read(daemon: augd.ServedDaemon, recipe: object, **options: object) -> list[dict[str, object]]:
    found = []
    asked = {"batch_size": 8, "verify": True, **options}
    with augd.connect(daemon.address, recipe=recipe, **asked) as stream:
        for batch in stream.epoch(0):
            assert batch.valid.all()
            arrays = {name: getattr(batch, name) for name in ("images", "ids", "colour", "params")}
            found.append({name: _copied(array) for name, array in arrays.items()})
            del batch, arrays
    return found


def _copied(array: object) -> object:
    if isinstance(array, dict):
        return {name: value.copy() for name, value in array.items()}
    return None if array is None else array.copy()


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "none"])
def test_every_preset_gives_rows(daemon, name):
    asked = {"batch_size": 4, "limit": 4, "prefetch": 1, "verify": True}
    with augd.connect(daemon.address, recipe=name, **asked) as stream:
        (batch,) = stream.epoch(0)
        assert len(batch) == 4 and batch.valid.all()
        arrays = batch.views.values() if "views" in PRESETS[name] else [batch.images]
        assert all(images.std() > 5 for images in arrays)
        if name == "dino":
            shapes = {view: images.shape for view, images in batch.views.items()}
            assert shapes == {"global": (4, 2, 224, 224, 3), "local": (4, 8, 96, 96, 3)}
        del batch, arrays


@pytest.mark.parametrize(
    ("recipe", "shape"),
    [
        ({"ops": [{"op": "resize", "short": 40}, {"op": "five_crop", "size": 32}]}, (5, 32, 32, 3)),
        ({"ops": [{"op": "resize", "short": 40}, {"op": "ten_crop", "size": 32}]}, (10, 32, 32, 3)),
        ({"ops": [CROP, *BENT, *COLOURS], "views": 2}, (2, 32, 32, 3)),
        ({"ops": [CROP, *BENT]}, (32, 32, 3)),
    ],
)
def test_views_have_an_axis_of_their_own(daemon, recipe, shape):
    first, *_ = read(daemon, recipe)
    assert first["images"].shape == (8, *shape)
    with trainer.connect(daemon.address, recipe=recipe, batch_size=8, device="cpu") as stream:
        batch = next(stream.epoch(0))
        height, width, _ = shape[-3:]
        assert batch.images.shape == (8, *shape[:-3], 3, height, width)
        flat = torch.from_numpy(first["images"]).movedim(-1, -3).float() / 255
        assert torch.allclose(batch.images, (flat - MEAN) / STD, atol=1e-5)


def test_views_of_one_photo_are_drawn_apart_and_the_first_is_that_of_one(daemon):
    (two, *_), (one, *_) = (
        read(daemon, {"ops": [CROP, *BENT, *COLOURS], "views": views}) for views in (2, 1)
    )
    assert np.array_equal(two["images"][:, 0], one["images"])
    assert not np.array_equal(two["images"][:, 0], two["images"][:, 1])


@pytest.mark.parametrize("transport", ["memfd", "frames"])
def test_colours_on_the_device_are_those_of_the_producer_unrounded(daemon, transport):
    ops = [CROP, *COLOURS]
    here, *_ = read(daemon, {"ops": ops}, transport=transport)
    there, *_ = read(daemon, {"ops": ops, "colour_on": "device"}, transport=transport)
    plain, *_ = read(daemon, {"ops": [CROP]})
    assert np.array_equal(there["images"], plain["images"]), "pixels as they were resampled"
    assert there["colour"].shape == (8, 3, 4)
    assert here["colour"] is None
    mixed = np.einsum("nij,nhwj->nhwi", there["colour"][:, :, :3], there["images"])
    mixed += there["colour"][:, None, None, :, 3]
    apart = np.abs(np.clip(mixed, 0, 255) - here["images"])
    assert apart.max() <= 1.5, "one rounding, and the fixed point of the producer's pass"
    assert apart.mean() < 0.5


@pytest.mark.parametrize("views", [1, 2])
def test_a_trainer_folds_colours_into_its_normalisation(daemon, views):
    recipe = {"ops": [CROP, *COLOURS], "colour_on": "device", "views": views}
    first, *_ = read(daemon, recipe)
    colour = torch.from_numpy(first["colour"])
    pixels = torch.from_numpy(first["images"]).float()
    mixed = torch.einsum("...ij,...hwj->...hwi", colour[..., :3], pixels)
    mixed += colour[..., None, None, :, 3]
    expected = (mixed.movedim(-1, -3) / 255 - MEAN) / STD
    for dtype, channels_last in [(torch.float32, True), (torch.float32, False), (torch.half, True)]:
        options = {"dtype": dtype, "channels_last": channels_last, "device": "cpu"}
        with trainer.connect(daemon.address, recipe=recipe, batch_size=8, **options) as stream:
            images = next(stream.epoch(0)).images
        assert images.dtype == dtype
        assert torch.allclose(images.float(), expected, atol=1e-4 if dtype.itemsize > 2 else 5e-3)


def test_colours_for_the_device_need_a_normalisation(daemon):
    recipe = {"ops": [CROP, *COLOURS], "colour_on": "device"}
    with pytest.raises(augd.OptionError, match="normalize: False gives the pixels as they were"):
        trainer.connect(daemon.address, recipe=recipe, device="cpu", normalize=False)


def test_params_say_where_each_row_comes_from(daemon, folder):
    """Rows are made again from the files by the matrices alone."""
    recipe = {"ops": [CROP, {"op": "mirror"}, {"op": "rotate", "factor": 0.1, "p": 0.5}]}
    files = sorted(folder.rglob("*.jpg"))
    seen = set()
    for batch in read(daemon, {**recipe, "filter": "linear"}, params=True):
        params = batch["params"]
        assert params["matrix"].shape == (8, 2, 3)[: params["matrix"].ndim] or len(batch["ids"]) < 8
        for row, sample in enumerate(batch["ids"].tolist()):
            photo = cv2.imread(str(files[sample]))[:, :, ::-1].astype(np.float64)
            matrix = params["matrix"][row]
            seen.add((bool(params["bent"][row]), bool(params["mirror"][row])))
            linear = matrix[:, :2]
            if np.linalg.svd(linear)[1].max() > 1.4:
                continue  # reduced: the sampler below has no filter
            again = _sample(photo, matrix)
            assert np.abs(again - batch["images"][row]).mean() < 3.0
    assert {(False, False), (False, True), (True, False)} <= seen


def _sample(photo: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[0:32, 0:32] + 0.5
    sx, sy = np.einsum("ij,jhw->ihw", matrix, np.stack([x, y, np.ones_like(x)])) - 0.5
    height, width = photo.shape[:2]
    x0, y0 = np.floor(sx), np.floor(sy)
    fx, fy = (sx - x0)[..., None], (sy - y0)[..., None]

    def at(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        rows = np.abs(np.clip(rows, -height, 2 * height - 1) + 0.5) - 0.5
        columns = np.abs(np.clip(columns, -width, 2 * width - 1) + 0.5) - 0.5
        rows = np.where(rows >= height, 2 * height - 1 - rows, rows).astype(int)
        columns = np.where(columns >= width, 2 * width - 1 - columns, columns).astype(int)
        return photo[rows, columns]

    top = at(y0, x0) * (1 - fx) + at(y0, x0 + 1) * fx
    bottom = at(y0 + 1, x0) * (1 - fx) + at(y0 + 1, x0 + 1) * fx
    return top * (1 - fy) + bottom * fy


def test_a_trainer_gets_params_too(daemon):
    options = {"recipe": {"ops": [CROP]}, "batch_size": 8, "device": "cpu"}
    with trainer.connect(daemon.address, params=True, **options) as stream:
        batch = next(stream.epoch(0))
        assert batch.params is not None
        assert batch.params["crop"].shape == (8, 4)
        assert batch.params["colour"].shape == (8, 3, 4)
    with trainer.connect(daemon.address, **options) as stream:
        assert next(stream.epoch(0)).params is None


def test_photos_stand_upright_where_the_recipe_says_so(tmp_path):
    """Rotated and plain photos in one folder: sizes differ from what is stored, row by row."""
    rng = np.random.default_rng(3)
    shown = []
    for number, orientation in enumerate([1, 6, 3, 8, 5, 1]):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = orientation
        small.resize((64, 48)).save(tmp_path / f"{number}.png", exif=exif)
        turned = ImageOps.exif_transpose(Image.open(tmp_path / f"{number}.png"))
        shown.append(np.asarray(turned.convert("RGB"))[:40, :40])
    ops = [{"op": "center_crop", "size": 40}]
    with augd.serve(tmp_path, producers=2) as served:
        for epoch in range(2):
            options = {"batch_size": 6, "shuffle": False}
            recipe = {"ops": ops, "exif": "apply"}
            with augd.connect(served.address, recipe=recipe, **options) as stream:
                (batch,) = stream.epoch(epoch)
                assert batch.valid.all()
                for row, image in enumerate(shown):
                    height, width = _whole(tmp_path, row)
                    top, left = round((height - 40) / 2), round((width - 40) / 2)
                    whole = _upright(tmp_path, row)
                    part = whole[top : top + 40, left : left + 40]
                    assert image.shape == part.shape
                    assert np.array_equal(batch.images[row], part)
                applied = stream.content
                del batch
            with augd.connect(served.address, recipe={"ops": ops}, **options) as stream:
                assert stream.content != applied


IMPOSSIBLE = [
    ({"op": "center_crop", "size": 50}, "center_crop: expected an image of at least 50x50"),
    ({"op": "ten_crop", "size": 50}, "ten_crop: expected an image of at least 50x50"),
]


@pytest.mark.parametrize(("op", "says"), IMPOSSIBLE)
@pytest.mark.parametrize("scaled", ["off", "auto"])
def test_what_cannot_be_made_of_one_photo_is_a_bad_sample_by_name(tmp_path, op, says, scaled):
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=8, size_px=(80, 60))
    Image.fromarray(np.full((49, 70, 3), 9, np.uint8)).save(folder / "class0" / "0003.jpg")
    recipe = {"ops": [*COLOURS, op], "scaled_decode": scaled}
    with augd.serve(folder, producers=1) as served:
        asked = {"recipe": recipe, "batch_size": 8, "shuffle": False}
        with augd.connect(served.address, max_bad_fraction=0.2, **asked) as stream:
            batch = next(stream.epoch(0))
            assert batch.valid.tolist() == [number != 3 for number in range(8)]
            assert batch.labels[3] == -100
            assert not batch.images[3].any()
            assert batch.images[4].any()
            del batch
        named = re.escape(f"3 (class0/0003.jpg): {says}, got 70x49")
        with (
            augd.connect(served.address, bad="fail", **asked) as stream,
            pytest.raises(augd.SampleFailed, match=named),
        ):
            next(stream.epoch(0))


def test_scaled_photos_are_the_same_for_any_batch_size_and_number_of_producers(tmp_path):
    """JPEGs that the decoder scales and PNGs that it doesn't, upright or not."""
    rng = np.random.default_rng(4)
    for number, orientation in enumerate([1, 6, 3, 8, 5, 1, 1, 6]):
        small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = orientation
        kind = "png" if number % 4 == 3 else "jpg"
        small.resize((403, 301), Image.Resampling.BICUBIC).save(
            tmp_path / f"{number}.{kind}", exif=exif
        )
    recipe = {
        "ops": [CROP, {"op": "mirror"}, {"op": "rotate", "degrees": 20, "p": 0.5}],
        "views": 2,
        "exif": "apply",
    }
    found = {}
    for producers, choices in ((1, ["auto"]), (2, ["auto", "off"])):
        with augd.serve(tmp_path, producers=producers) as served:
            asked = {"batch_size": 8 if producers == 1 else 3, "params": True}
            for scaled in choices:
                batches = read(served, {**recipe, "scaled_decode": scaled}, **asked)
                found[producers, scaled] = (
                    np.concatenate([batch["images"] for batch in batches]),
                    np.concatenate([batch["params"]["crop"] for batch in batches]),
                )
    assert all(map(np.array_equal, found[1, "auto"], found[2, "auto"]))
    (plain, exact), (images, crops) = found[2, "off"], found[2, "auto"]
    assert not np.array_equal(images, plain), "else nothing was scaled"
    assert np.abs(crops - exact).max() <= 8, "an edge moves by 4 px at most, a side by 8"
    # Smooth images of 400 px: where a crop's edge moved, by a part of a pixel of the row.
    assert np.abs(images.astype(int) - plain).mean() < 4


def _upright(folder: Path, number: int) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(folder / f"{number}.png"))
    return np.asarray(image.convert("RGB"))


def _whole(folder: Path, number: int) -> tuple[int, int]:
    return _upright(folder, number).shape[:2]
