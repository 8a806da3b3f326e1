"""`stream.paths(ids)`: from the rows of a batch to the files that they were made of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import augd
from augd.dataset.scan.build_index import load_or_build
from tests.support.scenes import SMALL

NUM = 300  # more than are asked for at a time


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("paths") / "photos"
    for number in range(NUM):
        name = f"{number % 3}/{number:03}.png"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (number % 256, number // 256, 7)).save(root / name)
    return root


@pytest.fixture(scope="module")
def daemon(photos: Path) -> Iterator[augd.ServedDaemon]:
    with augd.serve(photos, producers=1) as served:
        yield served


def test_rows_are_of_the_files_that_are_named(daemon: augd.ServedDaemon, photos: Path) -> None:
    recipe = {"ops": [{"op": "resize", "size": [32, 32]}]}
    with augd.connect(daemon.address, recipe=recipe, batch_size=128, seed=3) as stream:
        named: list[str] = []
        for batch in stream.epoch(0):
            paths = stream.paths(batch.ids)
            assert len(paths) == len(batch.ids)
            for path, image, is_real in zip(paths, batch.images, batch.valid, strict=True):
                if is_real:
                    number = int(Path(path).stem)
                    assert image[0, 0].tolist() == [number % 256, number // 256, 7]
                    named.append(path)
        assert sorted(named) == sorted(
            str(path.relative_to(photos)) for path in photos.rglob("*.png")
        )


def test_any_number_of_ids_and_of_rows_without_a_sample(daemon: augd.ServedDaemon) -> None:
    with augd.connect(daemon.address, recipe=SMALL, batch_size=4) as stream:
        everything = stream.paths(range(NUM))
        assert len(set(everything)) == NUM
        ids = np.array([-1, 7, 7, NUM - 1, -1])
        assert stream.paths(ids) == ["", everything[7], everything[7], everything[-1], ""]
        assert stream.paths([]) == [] and stream.paths([-1]) == [""]
        with pytest.raises(augd.OptionError, match=rf"ids: expected 0\.\.{NUM - 1} of dataset"):
            stream.paths([NUM])
    with pytest.raises(augd.StreamClosed):
        stream.paths([0])


def test_long_paths_come_in_several_answers(tmp_path: Path) -> None:
    names = [f"{'d' * 200}/{'e' * 200}/{k:03}{'f' * 200}.png" for k in range(200)]
    for name in names:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(b"x")
    with closing(load_or_build(tmp_path / "set", cache_dir=tmp_path / "c")) as index:
        some = index.paths_of(range(200), 60_000)
        assert some == [os.fsencode(name) for name in names[: len(some)]] and len(some) == 97
        assert index.paths_of([5], 10) == [os.fsencode(names[5])[:10]], "one at least, cut"
