"""The made photos: deterministic, labelled, and to a decoder like real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.photos import CLASSES, make_photo, make_photos
from demo.sheet import contact_sheet


def test_photo_i_is_a_function_of_seed_and_i(tmp_path: Path) -> None:
    make_photos(tmp_path / "a", 7)
    make_photos(tmp_path / "b", 13)
    short = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.jpg"))
    assert len(short) == 7
    for path in short:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    assert make_photo("bricks", 3, seed=1) != make_photo("bricks", 3, seed=2)


def test_sizes_and_compression_are_those_of_photos(tmp_path: Path) -> None:
    make_photos(tmp_path, 120, flat=True)
    files = sorted(tmp_path.glob("*.jpg"))
    assert len(files) == 120
    sizes = []
    for path in files:
        with Image.open(path) as shown:
            assert shown.format == "JPEG"
            assert not shown.info.get("progressive")
            sizes.append(shown.size)
    assert 380 <= np.mean(sizes, axis=0)[0] <= 560
    bytes_per_pixel = np.median(
        [path.stat().st_size / (w * h) for path, (w, h) in zip(files, sizes, strict=True)]
    )
    assert 0.35 <= bytes_per_pixel <= 0.8, "ImageNet's are at 0.55"


def test_megapixels(tmp_path: Path) -> None:
    make_photos(tmp_path, 1, megapixels=3.0, classes=["waves"])
    (path,) = (tmp_path / "waves").iterdir()
    with Image.open(path) as shown:
        assert shown.width * shown.height == pytest.approx(3e6, rel=0.02)


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"classes: expected some of bricks.*got \['snow'\]"):
        make_photos(tmp_path, 1, classes=["snow"])
    with pytest.raises(ValueError, match="num_photos: expected 0 or more, got -1"):
        make_photos(tmp_path, -1)


def test_a_sheet_shows_the_pixels_as_they_are(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), np.uint8)
    contact_sheet(images, list(CLASSES[:5]), tmp_path / "sheet.png", columns=3)
    with Image.open(tmp_path / "sheet.png") as shown:
        sheet = np.asarray(shown.convert("RGB"))
    for image in images:
        places = np.argwhere((sheet == image[0, 0]).all(axis=2))
        assert any(np.array_equal(sheet[y : y + 20, x : x + 30], image) for y, x in places)
    with pytest.raises(ValueError, match="labels"):
        contact_sheet(images, ["one"], tmp_path / "sheet.png")
