"""The page docs/from-dataloader.md: both halves run as they are written, with equal statistics."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demo.photos import make_photos

PAGE = Path(__file__).resolve().parents[2] / "docs" / "from-dataloader.md"
EPOCHS = 2


class Seen:
    """What a training step was given, in numbers."""

    def __init__(self) -> None:
        self.labels: list[int] = []
        self.means: list[np.ndarray] = []
        self.stds: list[np.ndarray] = []
        self.edges: list[float] = []

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        assert images.shape[1:] == (3, 64, 64)
        assert images.dtype == torch.float32
        self.labels += labels.tolist()
        self.means.append(images.mean((2, 3)).numpy())
        self.stds.append(images.std((2, 3)).numpy())
        self.edges += (images.diff(dim=3).abs().mean((1, 2, 3))).tolist()


def run_block(number: int, train_step: Callable[..., None]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    scope: dict[str, Any] = {"train_step": train_step}
    exec(compile(blocks[number], str(PAGE), "exec"), scope)
    if "stream" in scope:
        scope["stream"].close()


@pytest.fixture(scope="module")
def working_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    make_photos(folder / "photos", 240, classes=["bricks", "leaves", "waves"], megapixels=0.06)
    return folder


def test_both_halves_give_the_same_statistics(working_folder, monkeypatch):
    monkeypatch.chdir(working_folder)
    torch.manual_seed(0)
    before, after = Seen(), Seen()
    run_block(0, before)
    run_block(1, after)
    for seen in (before, after):
        assert np.bincount(seen.labels).tolist() == [80 * EPOCHS] * 3
    for name in ("means", "stds"):
        one, other = (np.concatenate(getattr(seen, name)) for seen in (before, after))
        assert one.shape == other.shape == (240 * EPOCHS, 3)
        # Four standard errors of the difference; crops of the same photos vary this much.
        bound = 4 * np.sqrt(one.var(0) / len(one) + other.var(0) / len(other))
        assert (np.abs(one.mean(0) - other.mean(0)) < bound).all(), name
    # Sharpness tells another filter or another crop law at once.
    one, other = np.array(before.edges), np.array(after.edges)
    bound = 4 * np.sqrt(one.var() / len(one) + other.var() / len(other))
    assert abs(one.mean() - other.mean()) < bound
