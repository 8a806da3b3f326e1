"""Datasets whose labels are targets: served, and refused by name where one class is learnt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import augd
import demo.train
from augd.client.serve import ServedDaemon
from trainer.data.recipes import choose_recipes
from trainer.data.splits import open_splits

RECIPE = {"ops": [{"op": "resize", "size": 8}]}
TABLES = {
    "age": "path,age\n" + "".join(f"{n}.png,{n / 2}\n" for n in range(12)),
    "tags": "path,sky,sea\n" + "".join(f"{n}.png,{n % 2},1\n" for n in range(12)),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("targets")
    for number in range(12):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / f"{number}.png")
    for name, text in TABLES.items():
        (root / f"{name}.csv").write_text(text)
    return root


@pytest.fixture(scope="module")
def daemon(root: Path) -> Iterator[ServedDaemon]:
    with augd.serve({name: root / f"{name}.csv" for name in TABLES}, producers=1) as daemon:
        yield daemon


def test_one_column_of_numbers_is_served_as_targets(daemon: ServedDaemon) -> None:
    with augd.connect(
        daemon.address, dataset="age", recipe=RECIPE, batch_size=4, shuffle=False
    ) as stream:
        assert (stream.classes, stream.num_targets, stream.num_unlabelled) == (["age"], 1, 0)
        labels = np.concatenate([batch.labels.copy() for batch in stream.epoch(0)])
    assert labels.dtype == np.float32
    assert labels.tolist() == [[number / 2] for number in range(12)]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("age", "dataset 'age' has 1 target per image ('age'), and no class: the trainer learns"),
        ("tags", "dataset 'tags' has 2 targets per image ('sky', 'sea'), and no class: the"),
    ],
)
def test_the_trainer_refuses_targets_before_it_makes_a_network(
    daemon: ServedDaemon, name: str, says: str
) -> None:
    recipes = choose_recipes("imagenet", 32)
    with pytest.raises(augd.DatasetError) as caught:
        open_splits(daemon.address, recipes, dataset=name, batch_size=4, device="cpu")
    assert str(caught.value).startswith(says)


def test_the_demo_refuses_targets_before_it_writes_anything(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["demo", "--data", str(root / "tags.csv"), "--steps", "1"])
    assert demo.train.main() == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "make demo" in line]
    assert said == (
        f"make demo: {root}/tags.csv has 2 targets per image, and no class: the demo learns one "
        f"class per image; give it a column 'label'"
    )
    assert list(tmp_path.iterdir()) == []
