"""Settings and small networks that the trainer's tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.cli.app import main
from trainer.models.build_network import StagedNetwork, build_staged_network
from trainer.training.learner import Learner, RunPosition
from trainer.training.options import FitOptions
from trainer.training.settings import Settings
from trainer.training.settle import settle, settle_strategy

OPTIONS: dict[str, Any] = {
    "path": "photos", "connect": None, "dataset": None, "arch": "resnet18", "recipe": "imagenet",
    "size": None, "val_fraction": 0.1, "batch_size": 64, "epochs": 10, "optimizer": "sgd",
    "lr": None, "weight_decay": None, "warmup_epochs": None, "seed": 0, "producers": None,
    "device": None, "amp": False, "out": Path("run"), "resume": False, "checkpoint_every": None,
    "limit_train_batches": None, "as_json": False,
}  # fmt: skip
# Buffers and normalisations, and a tenth of a second to build and to train.
ARCH = "shufflenet_v2_x0_5"
NUM_CLASSES = 3


def settings_of(**changed: Any) -> Settings:
    return settle(FitOptions(**OPTIONS | changed))


def subject_of(arch: str = ARCH, num_classes: int = NUM_CLASSES, **options: Any) -> StagedNetwork:
    torch.manual_seed(5)
    return build_staged_network(arch, num_classes, (32, 32), **options)


def learner_of(staged: StagedNetwork | None = None, per_epoch: int = 2, **changed: Any) -> Learner:
    changed = {"weights": "DEFAULT", "arch": ARCH, "lr": 0.1} | changed
    if changed.get("strategy") == "scratch":
        changed["weights"] = None
    staged = staged or subject_of(changed["arch"])
    settings, _ = settle_strategy(settings_of(**changed), num_images=10, is_similar=True)
    return Learner(settings, staged, torch.device("cpu"), per_epoch)


def rows(number: int = 8, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose colour tells their class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % NUM_CLASSES
    images = torch.randn(number, 3, 32, 32, generator=generator)
    images[torch.arange(number), labels] += 2
    return images, labels


def train(learner: Learner, epochs: range | None = None) -> None:
    """Go all steps of some epochs, or of the whole run."""
    for epoch in epochs or range(learner.settings.epochs):
        learner.enter(epoch)
        for batch in range(learner.batches_per_epoch):
            learner.network.train()
            learner.step(*rows(seed=10 * epoch + batch), RunPosition(epoch, batch))


def copy_of(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in learner.network.state_dict().items()}


def changed_names(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name, one in before.items() if not torch.equal(one, after[name])}


def run_trainer(*arguments: object) -> int:
    """Run a `trainer` command in this process, on one thread; returns its exit status."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
    finally:
        torch.set_num_threads(before)
    return int(ended.value.code or 0)


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def assert_same(a: object, b: object) -> None:
    """Compare bit by bit, but for what a clock measured."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a.keys() - {"images_per_s", "waiting"}:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple)
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    else:
        assert a == b
