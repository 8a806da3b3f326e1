"""Lightning trains on augd's batches: `python -m examples.lightning_fit photos/`.

`as_dataloader` makes a stream the DataLoader that Lightning needs. Its state goes into Lightning's
checkpoints, so that a run continues in the middle of an epoch.
"""

from __future__ import annotations

import sys
from typing import Any

import lightning
import torch
from torch import Tensor, nn

import augd
import augd.torch

RECIPE = {"ops": [{"op": "random_resized_crop", "size": 64}, {"op": "mirror"}]}


class Classifier(lightning.LightningModule):  # type: ignore[misc, unused-ignore]
    """A small network; yours stands here."""

    def __init__(self, num_classes: int) -> None:
        """Make it."""
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 16, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4)),
            *(nn.Flatten(), nn.Linear(256, num_classes)),
        )

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self.layers(images), labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return what learns."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main(photos: str, **options: Any) -> lightning.Trainer:
    """Train on a folder of class folders; `options` are those of `lightning.Trainer`."""
    fit = lightning.Trainer(**{"max_epochs": 5, "devices": 1, **options})
    with (
        augd.serve(photos) as daemon,
        augd.torch.connect(
            daemon.address,
            recipe=RECIPE,
            split="train",
            batch_size=32,
            device=str(fit.strategy.root_device),
        ) as stream,
    ):
        fit.fit(Classifier(len(stream.classes)), augd.torch.as_dataloader(stream))
    return fit


if __name__ == "__main__":
    main(sys.argv[1])
