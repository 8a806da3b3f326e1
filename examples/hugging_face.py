"""Hugging Face's Trainer on augd's batches: `python -m examples.hugging_face photos/`.

The Trainer calls its own method for a loader. Here that method returns the stream, whose batches
are on the device already and need no collator.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

import augd
import augd.torch

RECIPE = {"ops": [{"op": "random_resized_crop", "size": 64}, {"op": "mirror"}]}


class Named:
    """Batches by the names of a model's arguments."""

    def __init__(self, loader: DataLoader[tuple[Tensor, Tensor]]) -> None:
        """Wrap a loader of pairs."""
        self._loader = loader
        self.dataset = loader.dataset

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield one epoch."""
        for images, labels in self._loader:
            yield {"pixel_values": images, "labels": labels}


class StreamTrainer(Trainer):  # type: ignore[misc, unused-ignore]
    """A Trainer that is fed by a stream."""

    def __init__(self, stream: augd.torch.Stream, **options: Any) -> None:
        """Take the options of `transformers.Trainer`."""
        super().__init__(**options)
        self._stream = stream

    def get_train_dataloader(self) -> Any:
        """Give the stream instead of a loader over `train_dataset`."""
        return Named(augd.torch.as_dataloader(self._stream))


def main(photos: str, **options: Any) -> Any:
    """Train on a folder of class folders; `options` are those of `TrainingArguments`."""
    arguments = TrainingArguments(
        **{"output_dir": "run", "num_train_epochs": 5, "report_to": [], **options}
    )
    with (
        augd.serve(photos) as daemon,
        augd.torch.connect(
            daemon.address,
            recipe=RECIPE,
            split="train",
            batch_size=arguments.train_batch_size,
            device=str(arguments.device),
        ) as stream,
    ):
        config = ResNetConfig(
            embedding_size=16,
            hidden_sizes=[16, 32],
            depths=[1, 1],
            layer_type="basic",
            num_labels=len(stream.classes),
        )
        model = ResNetForImageClassification(config)
        return StreamTrainer(stream, model=model, args=arguments).train()


if __name__ == "__main__":
    main(sys.argv[1])
