"""The training loop: epochs of steps, a validation after each, a checkpoint whenever it matters.

Where it stands: the last step of a batch's way. Rows that are not valid never reach the network,
whose BatchNorm would learn from them. After every step the run is at a place that a checkpoint
can hold: (epoch, batch), the stream's state, and everything that the step changed. The learning
rate is a function of the number of the step, so nothing has to remember it. Nothing here starts a
process or connects to one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import augd
from trainer.checkpoint import State, save_checkpoint
from trainer.client import Stream
from trainer.device import Batch
from trainer.interrupt import Interrupt
from trainer.models import check_input
from trainer.optimise import make_optimiser, set_rate, warm_cosine
from trainer.progress import Display, Pace
from trainer.splits import Splits
from trainer.tally import Tally

# On CUDA, reading a number waits for all work before it: so many steps' losses are read at once.
_UNREAD_MAX = 16
# BatchNorm cannot tell a single row's mean from its noise, and torch refuses to.
_ROWS_MIN = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the outcome of a run, beside the streams; a resume must have the same."""

    arch: str
    batch_size: int
    epochs: int
    optimizer: str
    lr: float
    weight_decay: float
    warmup_epochs: float
    seed: int
    amp: bool
    limit_train_batches: int | None


class Training:
    """One run: the network, what trains it, and how far it has come."""

    def __init__(
        self,
        settings: Settings,
        splits: Splits,
        network: nn.Module,
        display: Display,
        out: Path,
        checkpoint_every: int | None = None,
    ) -> None:
        """Stand before the first step; `checkpoint_every` counts steps."""
        self.settings, self.splits, self.display, self.out = settings, splits, display, out
        self.checkpoint_every = checkpoint_every
        self.device = splits.training.device
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.optimiser = make_optimiser(
            self.network, settings.optimizer, settings.lr, settings.weight_decay
        )
        self.scaler = torch.amp.GradScaler("cuda", enabled=settings.amp)
        self.batches_per_epoch = min(
            len(splits.training), settings.limit_train_batches or len(splits.training)
        )
        self.epoch = 0
        self.batch = 0  # of this epoch, how many are done
        self.tally = Tally()  # of this epoch's training
        self.history: list[dict[str, Any]] = []
        self.stream_state = splits.training.state_dict()
        self._has_checked_input = False

    def run(self, interrupt: Interrupt) -> None:
        """Train to the last epoch.

        Raises:
            AugdError: the loss is no number any more; the checkpoint is from before that.
            KeyboardInterrupt: between two steps; `save` holds all that was done.
        """
        while self.epoch < self.settings.epochs:
            pace = self.train_epoch(interrupt) if self.batch < self.batches_per_epoch else None
            validation = self.validate()
            with interrupt.held_back():
                self.finish_epoch(validation, pace)

    def train_epoch(self, interrupt: Interrupt) -> tuple[float, float]:
        """Train on what is left of this epoch; return images/s and the share of time waiting."""
        self.display.begin("training", self.epoch, self.batches_per_epoch, self.batch)
        self.network.train()
        pace = Pace(self.splits.training)
        for batch in self._batches_left():
            with interrupt.held_back():
                self.step(batch)
                self._save_at_intervals()
            self.display.advance(self.tally.loss, self.tally.accuracy, pace)
        self.read_losses()  # waits for the device, so that its time counts
        return pace.read()

    def _batches_left(self) -> Iterator[Batch]:
        batches = self.splits.training.epoch(self.epoch)
        if self.settings.limit_train_batches is None:
            return batches
        return islice(batches, self.batches_per_epoch - self.batch)

    def step(self, batch: Batch) -> None:
        """Predict, compare, go a step downhill."""
        images, labels = usable_rows(batch, self.splits.training)
        set_rate(self.optimiser, self.rate())
        if len(labels) >= _ROWS_MIN:
            self._check_input_once(images)
            loss, logits = self.loss_of(images, labels)
            self.optimiser.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.scaler.step(self.optimiser)
            self.scaler.update()
            self.tally.add(self.batch, loss, logits, labels)
        self.batch += 1
        self.stream_state = self.splits.training.state_dict()
        if self._is_worth_reading(self.tally):
            self.read_losses()

    def _is_worth_reading(self, tally: Tally) -> bool:
        return self.device.type == "cpu" or tally.num_unread >= _UNREAD_MAX

    def _check_input_once(self, images: Tensor) -> None:
        if not self._has_checked_input:
            check_input(self.network, self.settings.arch, images)
            self._has_checked_input = True

    def loss_of(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss and the logits (B, K)."""
        with torch.autocast(self.device.type, torch.float16, enabled=self.settings.amp):
            logits: Tensor = self.network(images)
            return nn.functional.cross_entropy(logits, labels), logits

    def rate(self) -> float:
        """Learning rate of the next step."""
        per_epoch = self.batches_per_epoch
        step = self.epoch * per_epoch + self.batch
        num_warm = round(self.settings.warmup_epochs * per_epoch)
        share = warm_cosine(step, num_warm, self.settings.epochs * per_epoch)
        return self.settings.lr * share

    def read_losses(self) -> None:
        """Add the losses up, and stop where one is no number."""
        failed = self.tally.read()
        if failed is not None:
            raise augd.AugdError(
                f"the loss is not finite in epoch {self.epoch + 1}, batch {failed + 1} of "
                f"{self.batches_per_epoch}: the training diverged. Start again with a lower --lr "
                f"(it was {self.settings.lr:g}) or a longer --warmup-epochs; what was saved "
                "before is unharmed."
            )

    @torch.no_grad()
    def validate(self) -> Tally:
        """Measure on the validation samples; nothing learns from them."""
        stream = self.splits.validation
        self.display.begin("validation", self.epoch, len(stream))
        self.network.eval()
        tally, pace = Tally(), Pace(stream)
        for number, batch in enumerate(stream.epoch(self.epoch)):
            images, labels = usable_rows(batch, stream)
            if len(labels):
                loss, logits = self.loss_of(images, labels)
                tally.add(number, loss, logits, labels)
            if self._is_worth_reading(tally):
                self._read_validation(tally)
            self.display.advance(tally.loss, tally.accuracy, pace)
        self._read_validation(tally)
        return tally

    def _read_validation(self, tally: Tally) -> None:
        if tally.read() is not None:
            raise augd.AugdError(
                f"the validation loss is not finite after epoch {self.epoch + 1}: the training "
                f"diverged. Start again with a lower --lr (it was {self.settings.lr:g})."
            )

    def finish_epoch(self, validation: Tally, pace: tuple[float, float] | None) -> None:
        """Note the results, stand before the next epoch, and save."""
        rate, waiting = pace or (None, None)
        record = {
            "epoch": self.epoch + 1,
            "train_loss": self.tally.loss,
            "train_accuracy": self.tally.accuracy,
            "val_loss": validation.loss,
            "val_accuracy": validation.accuracy,
            "images_per_s": rate,
            "waiting": waiting,
        }
        is_best = all(record["val_accuracy"] > past["val_accuracy"] for past in self.history)
        self.history.append(record)
        self.epoch, self.batch, self.tally = self.epoch + 1, 0, Tally()
        if is_best:
            self.save("best.pt")
        self.save("last.pt")  # the second: it says which epoch was best, so that one must exist
        self.display.finish_epoch(record)

    def _save_at_intervals(self) -> None:
        """Save in mid-epoch; its end saves by itself."""
        step = self.epoch * self.batches_per_epoch + self.batch
        is_end = self.batch == self.batches_per_epoch
        if self.checkpoint_every and step % self.checkpoint_every == 0 and not is_end:
            self.save("last.pt")

    def save(self, name: str) -> Path:
        """Write a checkpoint of the place after the last step; returns its path."""
        self.read_losses()  # weights that are no numbers are not worth a file
        path = self.out / name
        save_checkpoint(path, self.state_dict())
        return path

    def state_dict(self) -> State:
        """Return all that decides how the run goes on."""
        is_cuda = self.device.type == "cuda"
        return {
            "settings": self.settings_dict(),
            "recipes": self.splits.recipes._asdict(),
            "model": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "schedule": {"epoch": self.epoch, "batch": self.batch, "next_lr": self.rate()},
            "stream": self.stream_state,
            "tally": self.tally.sums(),
            "history": self.history,
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state(self.device) if is_cuda else None,
        }

    def settings_dict(self) -> dict[str, Any]:
        """Return what a resume must have in common."""
        return asdict(self.settings) | {"classes": self.splits.training.classes}

    def load_state_dict(self, state: State) -> None:
        """Stand where a state was taken, of a run with the same settings.

        Raises:
            SpecMismatch: the stream's content differs.
        """
        self.splits.training.load_state_dict(state["stream"])
        self.network.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.batch = state["schedule"]["epoch"], state["schedule"]["batch"]
        self.stream_state = state["stream"]
        self.tally = Tally(**state["tally"])
        self.history = list(state["history"])
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda" and state["rng_cuda"] is not None:
            torch.cuda.set_rng_state(state["rng_cuda"], self.device)


def usable_rows(batch: Batch, stream: Stream) -> tuple[Tensor, Tensor]:
    """Return images and labels of the valid rows.

    Raises:
        DatasetError: samples have several labels, or one has none.
    """
    images, labels = batch.images, batch.labels
    if labels.is_floating_point():
        raise augd.DatasetError(
            f"data set {stream.dataset!r} has several labels per image; trainer fit trains on one "
            "class per image"
        )
    if bool((labels >= 0).all()):  # one question to the device for the usual case: all rows good
        return images, labels
    images, labels, ids = (rows[batch.valid] for rows in (images, labels, batch.ids))
    if bool((labels < 0).any()):
        raise augd.DatasetError(
            f"sample {int(ids[labels < 0][0])} of data set {stream.dataset!r} has no class, where "
            f"others have one of {len(stream.classes)}: put it into a class folder, or take it out"
        )
    return images, labels
