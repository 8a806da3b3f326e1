"""The demo: a daemon, a small network that trains on its batches, and what the network saw.

`python -m demo.train [--data FOLDER]`. Makes a labelled set of photos unless it is given one,
starts a daemon on it, trains for a fixed number of steps through `augd.torch.connect`, and prints
how the loss falls, how many images came per second and how long the network waited for them.
Writes a contact sheet of what the network received. Leaves nothing else behind.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import augd
import augd.torch
from augd.errors import counted
from demo.photos import make_photos
from demo.sheet import contact_sheet

RECIPE = {
    "ops": [
        {"op": "random_resized_crop", "size": 96, "scale": [0.25, 1.0]},
        {"op": "mirror", "p": 0.5},
        {"op": "pca", "alpha_std": 0.1},
    ]
}
NUM_PHOTOS = 900
BATCH_SIZE = 64
SHEET = Path("demo-sheet.png")
SHEET_IMAGES = 32
_LABELS = 12  # lines printed


def small_convnet(num_classes: int) -> nn.Module:
    """Make a network that tells six textures apart within a minute on two cores."""
    layers: list[nn.Module] = []
    before = 3
    for width in (16, 32, 64, 96):
        convolution = nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes)]
    return nn.Sequential(*layers, *head)


def batches(stream: augd.torch.Stream, num_steps: int) -> Iterator[augd.torch.Batch]:
    """Yield batches, one epoch after another."""
    done = 0
    epoch = 0
    while True:
        for batch in stream.epoch(epoch):
            yield batch
            done += 1
            if done == num_steps:
                return
        epoch += 1


class Run:
    """One training run: the network, its optimiser, and what is told of it."""

    def __init__(self, stream: augd.torch.Stream, num_steps: int) -> None:
        """Start from a fixed seed."""
        torch.manual_seed(0)
        network = small_convnet(len(stream.classes)).to(stream.device)
        self.network = network.to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=2e-3, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, max_lr=4e-3, total_steps=num_steps
        )
        self.losses: list[float] = []
        self.hits: list[float] = []

    def step(self, batch: augd.torch.Batch) -> None:
        """Train on one batch; bad samples are left out before the loss."""
        images, labels = _valid(batch)
        logits = self.network(images)
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=0.05)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.schedule.step()
        self.losses.append(loss.item())
        self.hits.append((logits.argmax(1) == labels).float().mean().item())


def _valid(batch: augd.torch.Batch) -> tuple[Tensor, Tensor]:
    if bool(batch.valid.all()):
        return batch.images, batch.labels
    return batch.images[batch.valid], batch.labels[batch.valid]


def train(stream: augd.torch.Stream, num_steps: int) -> None:
    """Train and tell."""
    run = Run(stream, num_steps)
    print(f"{'step':>6} {'loss':>7} {'accuracy':>9} {'images/s':>9} {'waiting':>8}")
    started = told = time.perf_counter()
    waited_before = stream.stats()["wait_s"]
    every = max(1, num_steps // _LABELS)
    samples = samples_told = 0
    waited_told = waited_before
    for number, batch in enumerate(batches(stream, num_steps), 1):
        run.step(batch)
        samples += len(batch)
        if number % every == 0 or number == num_steps:
            now, waited = time.perf_counter(), stream.stats()["wait_s"]
            rate = (samples - samples_told) / (now - told)
            share = (waited - waited_told) / (now - told)
            loss, accuracy = np.mean(run.losses[-every:]), np.mean(run.hits[-every:])
            print(f"{number:6} {loss:7.3f} {accuracy:9.1%} {rate:9.0f} {share:8.1%}", flush=True)
            told, samples_told, waited_told = now, samples, waited
    passed_s = time.perf_counter() - started
    share = (stream.stats()["wait_s"] - waited_before) / passed_s
    print(
        f"\n{counted(samples, 'image')} in {passed_s:.1f} s: {samples / passed_s:.0f} images/s, "
        f"training "
        f"included; {share:.1%} of the time was waiting for images.\n"
        f"Loss {np.mean(run.losses[:every]):.3f} -> {np.mean(run.losses[-every:]):.3f}."
    )


def receive(stream: augd.torch.Stream, num_steps: int) -> None:
    """Only receive: a folder without classes has nothing to train on."""
    started = time.perf_counter()
    samples = sum(len(batch) for batch in batches(stream, num_steps))
    passed_s = time.perf_counter() - started
    print(
        "This folder has no class folders, hence no labels to train on: batches were received "
        f"and normalised, no more.\n{counted(samples, 'image')} in {passed_s:.1f} s: "
        f"{samples / passed_s:.0f} images/s."
    )


def draw_sheet(address: str, path: Path) -> None:
    """Write what the network receives: the first images of epoch 0."""
    with augd.connect(address, recipe=RECIPE, split="train", batch_size=SHEET_IMAGES) as stream:
        batch = next(iter(stream.epoch(0)))
        names = stream.classes
        labels = [names[label] if 0 <= label < len(names) else "" for label in batch.labels]
        contact_sheet(batch.images, labels, path)


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder of images or of class folders")
    parser.add_argument("--steps", type=int, default=240, help="training steps [240]")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the producers need the other cores more
    with contextlib.ExitStack() as cleaning:
        folder = options.data
        if folder is None:
            folder = Path(cleaning.enter_context(tempfile.TemporaryDirectory(prefix="augd-demo-")))
            print(f"Making {NUM_PHOTOS} photos ...", flush=True)
            make_photos(folder, NUM_PHOTOS)
        try:
            daemon = cleaning.enter_context(augd.serve({"photos": folder}))
            stream = augd.torch.connect(
                daemon.address, recipe=RECIPE, split="train", batch_size=BATCH_SIZE
            )
            cleaning.callback(stream.close)
            if stream.num_targets:
                raise augd.DatasetError(
                    f"{folder} has {counted(stream.num_targets, 'target')} per image, and no "
                    f"class: "
                    f"the demo learns one class per image; give it a column 'label'"
                )
            draw_sheet(daemon.address, SHEET)
            classes = counted(len(stream.classes), "class", "classes")
            print(f"{counted(stream.num_samples, 'image')}, {classes}, {stream.device}\n")
            (train if stream.classes else receive)(stream, options.steps)
        except augd.AugdError as error:
            print(f"make demo: {error}", file=sys.stderr)
            return 1
    print(f"What the network received: {SHEET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
