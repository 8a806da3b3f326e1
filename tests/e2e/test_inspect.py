"""`trainer inspect` with a real daemon: every image is there, and errors are one line."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import augd
from tests.support.learning import run_trainer
from tests.support.scenes import make_coloured


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):
    """A small network that tells green from red; one photo has a white square, one is broken."""
    root = tmp_path_factory.mktemp("served")
    for split, count in (("train", 8), ("val", 5)):
        make_coloured(root / "photos" / split, count)
    marked = root / "photos" / "val" / "red" / "002.jpg"
    image = cv2.resize(cv2.imread(str(marked)), (240, 240))
    image[120:180, 60:120] = 255
    cv2.imwrite(str(marked), image)
    bad = root / "photos" / "val" / "green" / "001.jpg"
    bad.write_bytes(bad.read_bytes()[:150])
    with augd.serve({"photos": root / "photos"}, producers=1) as daemon:
        status = run_trainer(
            "fit", "--connect", daemon.address, "--arch", "small-convnet", "--recipe",
            "keras-small", "--size", 80, "--batch-size", 8, "--optimizer", "rmsprop", "--epochs",
            2, "--device", "cpu", "--out", root / "run",
        )  # fmt: skip
        assert status == 0
        yield daemon, root


def inspect(served, out: Path, *more: object) -> int:
    daemon, root = served
    return run_trainer(
        "inspect", "--connect", daemon.address, "--checkpoint", root / "run", "--device", "cpu",
        "--batch-size", 4, "--split", "val", "--out", out, *more,
    )  # fmt: skip


def image(path: Path) -> np.ndarray:
    found = np.asarray(Image.open(path))
    assert found.dtype == np.uint8 and found.shape[2] == 3 and found.std() > 5
    return found


def test_every_image_is_drawn(served, tmp_path, capsys):
    # The first convolution's third channel sees 3 x 3 pixels: nine of the photo's per patch side.
    more = ["--layer", "features.0", "--channel", 3, "--channel", 5, "--thumbnails", "--cams", 4]
    assert inspect(served, tmp_path, *more) == 0
    names = ["filters", "pca", "tsne", "patches", "grad-cam"]
    assert capsys.readouterr().out.split() == [
        part for name in names for part in ("Written:", f"{tmp_path}/{name}.png")
    ]
    for name in names:
        image(tmp_path / f"{name}.png")
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_patches_come_from_the_photo_at_its_own_detail(served, tmp_path, monkeypatch):
    """A channel that looks for white finds the one white square, three times as large."""
    _, root = served
    state = torch.load(root / "run" / "best.pt", weights_only=True)
    state["model"]["features.0.weight"][0] = 1.0
    state["model"]["features.0.bias"][0] = 0.0
    torch.save(state, tmp_path / "white.pt")
    cuts = []
    from trainer.cli import inspect as inspect_command

    real = inspect_command.cut
    monkeypatch.setattr(
        inspect_command,
        "cut",
        lambda *given: cuts.append((given[0].shape, given[1])) or real(*given),
    )
    more = ["--checkpoint", tmp_path / "white.pt", "--layer", "features.0", "--channel", 0]
    assert inspect(served, tmp_path / "out", *more) == 0
    shape, box = cuts[0]
    assert shape == (240, 240, 3)
    # The square of the photo, whose 240 px are all of it.
    assert box.bottom - box.top == box.right - box.left == 9
    assert box.top >= 118 and box.bottom <= 182
    assert box.left >= 58 and box.right <= 122
    assert len(cuts) == 8


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--layer", "nothing"], "--layer: there is no 'nothing'; did you mean one of"),
        (["--channel", 999], "--channel: features.11 has channels 0..255, got 999"),
        (["--checkpoint", "/nowhere.pt"], "--checkpoint: /nowhere.pt does not exist."),
        (["--limit", 2], "a scatter needs 4"),
    ],
)
def test_refused(served, tmp_path, capsys, more, says):
    assert inspect(served, tmp_path, *more) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trainer: error: ") and says in line, line
