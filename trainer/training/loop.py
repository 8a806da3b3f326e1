"""The training loop: epochs of steps, a validation after each, and checkpoints.

Runs in the training process. It starts no process and opens no connection.

Invariants: invalid rows never reach the network, whose BatchNorm would learn from them. After every
step a checkpoint can hold the whole state. That is (epoch, batch), the stream's state, and
everything that the step changed (`trainer.training.learner`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import augd
from augd.errors import counted

from ..data.host_feed import Batch
from ..data.recipes import sizes_of_phases
from ..data.source import BatchSource, usable_rows
from ..models.build_network import StagedNetwork, check_input
from .checkpoint import State, save_checkpoint
from .class_counts import ClassCounts
from .distributed import Ranks
from .interrupt import Interrupt
from .learner import Learner, RunPosition
from .progress import Display, Pace
from .running_metrics import RunningMetrics
from .settings import Settings
from .tensorboard import TensorBoardLog

# On CUDA, reading a number waits for all earlier work, so losses are read every so many steps.
_UNREAD_MAX = 16


class Training:
    """One run: the network, its data, and the progress.

    Attributes:
        epoch, batch: where the run stands: `batch` batches of this epoch are done.
        history: a record per epoch that was finished.
    """

    def __init__(
        self,
        settings: Settings,
        training: BatchSource,
        validation: BatchSource,
        staged: StagedNetwork,
        display: Display,
        out: Path,
        *,
        recipes: dict[str, Any],
        checkpoint_every: int | None = None,
        ranks: Ranks | None = None,
        replay: Callable[[int, int], str] | None = None,
    ) -> None:
        """Begin before the first step.

        Args:
            settings: of this run.
            training, validation: on the same device.
            staged: the network, on any device.
            display: shows the progress.
            out: the folder of checkpoints and logs.
            recipes: of both streams, kept in checkpoints for later evaluations.
            checkpoint_every: counts steps; None saves after epochs only.
            ranks: the processes that train together.
            replay: returns the command that makes a batch again, given epoch and number from 0 on.
        """
        self.settings, self.display, self.out = settings, display, out
        self.training, self.validation, self.recipes = training, validation, recipes
        self.checkpoint_every = checkpoint_every
        self.ranks = ranks or Ranks()
        self.device = training.device
        self.batches_per_epoch = min(len(training), settings.limit_train_batches or len(training))
        self.learner = Learner(settings, staged, self.device, self.batches_per_epoch, self.ranks)
        self.epoch = 0
        self.batch = 0
        self.metrics = RunningMetrics()  # of this epoch's training
        self.history: list[dict[str, Any]] = []
        self.stream_state = training.state_dict()
        self._replay = replay
        self._has_checked_input = False
        self._class_counts: ClassCounts | None = None
        self._log = TensorBoardLog(None)

    @property
    def place(self) -> RunPosition:
        """Epoch and batch of the next step."""
        return RunPosition(self.epoch, self.batch)

    @property
    def num_steps(self) -> int:
        """Steps that the run would have made by now, had no phase ended early."""
        return self.epoch * self.batches_per_epoch + self.batch

    def run(self, interrupt: Interrupt) -> None:
        """Train to the last epoch.

        Raises:
            AugdError: the loss is no number any more; the checkpoint is from before that.
            KeyboardInterrupt: between two steps; `save` holds all that was done.
        """
        folder = self.out / "tensorboard" if self.ranks.is_first else None
        with TensorBoardLog(folder, self.num_steps) as self._log:
            while self.epoch < self.settings.epochs:
                pace = self.train_epoch(interrupt) if self.batch < self.batches_per_epoch else None
                validation = self.validate()
                with interrupt.deferred():
                    self.finish_epoch(validation, pace)

    def train_epoch(self, interrupt: Interrupt) -> tuple[float, float]:
        """Train on what is left of this epoch; return images/s and the share of time waiting."""
        self.display.begin("training", self.epoch, self.batches_per_epoch, self.batch)
        self.learner.network.train()
        self._class_counts = self._begin_counting()
        pace = Pace(self.training)
        for batch in self._batches_left():
            with interrupt.deferred():
                self.step(batch)
                self._save_at_intervals()
            self.display.advance(self.metrics.loss, self.metrics.accuracy, pace)
        self.read_losses()  # waits for the device, so that its time counts
        if self._class_counts is not None:
            is_balanced = self.settings.balance is not None or bool(self.settings.class_weights)
            self._say(self._class_counts.told_of_training(self.ranks, is_balanced=is_balanced))
        return pace.read()

    def _batches_left(self) -> Iterator[Batch]:
        batches = self.training.epoch(self.epoch)
        if self.settings.limit_train_batches is None:
            return batches
        return islice(batches, self.batches_per_epoch - self.batch)

    def step(self, batch: Batch) -> None:
        images, labels = usable_rows(batch, self.training)
        if not self.num_steps:
            self._show(images)
        if len(labels):
            self._check_input_once(images)
            if self._class_counts is not None:
                self._class_counts.add(labels)
        targets = batch.targets
        if targets is not None and len(targets) != len(labels):
            targets = targets[batch.valid]
        result = self._learn(images, labels, targets)
        if result is not None:
            self.metrics.add(self.batch, *result, labels)
        self.batch += 1
        self.stream_state = self.training.state_dict()
        if self._is_worth_reading(self.metrics):
            self.read_losses()

    def _learn(
        self, images: Tensor, labels: Tensor, targets: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        try:
            return self.learner.step(images, labels, self.place, targets)
        except torch.OutOfMemoryError:
            pass  # frees what the error's frames hold, before less is tried
        rows = self.learner.rows_that_fit(images, labels)
        advice = f"{rows} do: try --batch-size {rows}" if rows else "not even two do"
        raise augd.OverLimit(
            f"{counted(len(labels), 'image')} of {' x '.join(map(str, images.shape[2:]))} px do "
            f"not fit into "
            f"the memory of {self.device}, {advice}, --amp, a smaller --size or another network"
        )

    def _is_worth_reading(self, metrics: RunningMetrics) -> bool:
        return self.device.type == "cpu" or metrics.num_unread >= _UNREAD_MAX

    def _check_input_once(self, images: Tensor) -> None:
        """Try the size of the first images, and those that later phases of the recipe have."""
        if self._has_checked_input:
            return
        sizes = sizes_of_phases(self.recipes["training"])
        later = [images.new_zeros((1, images.shape[1], *size_px)) for size_px in sizes]
        for tried in (images, *later):
            check_input(
                self.learner.network, self.settings.arch, tried, is_of_phases=len(sizes) > 1
            )
        self._has_checked_input = True

    def _begin_counting(self) -> ClassCounts | None:
        """Count the classes of a whole first epoch."""
        is_whole = self.num_steps == 0 and self.batches_per_epoch == len(self.training)
        return ClassCounts(self.training.classes, self.device) if is_whole else None

    def _say(self, lines: list[str]) -> None:
        for line in lines:
            self.display.say(line)

    def _show(self, images: Tensor) -> None:
        """Log the first batch, as the network sees it; of none but bad samples there is
        nothing."""
        if len(images) and images.dim() == 4:
            from ..evaluation.images import contact_sheet

            self._log.image(0, "batch", contact_sheet(images, self.settings.constants))

    def read_losses(self) -> None:
        """Add up the losses; raise if one is not finite."""
        failed = self.metrics.read()
        if failed is None:
            return
        again = f" See that batch: {self._replay(self.epoch, failed)}." if self._replay else ""
        raise augd.AugdError(
            f"the loss is not finite in epoch {self.epoch + 1}, batch {failed + 1} of "
            f"{self.batches_per_epoch}: the training diverged. Start again with a lower --lr "
            f"(it was {self.settings.lr:g}) or a longer --warmup-epochs; what was saved "
            f"before is unharmed.{again}"
        )

    @torch.no_grad()
    def validate(self) -> RunningMetrics:
        """Measure on the validation samples; no weight and no statistic changes."""
        self.display.begin("validation", self.epoch, len(self.validation))
        metrics, pace = RunningMetrics(), Pace(self.validation)
        counts = None if self.history else ClassCounts(self.training.classes, self.device)
        with self.learner.evaluating():
            for number, batch in enumerate(self.validation.epoch(self.epoch)):
                images, labels = usable_rows(batch, self.validation)
                if len(labels):
                    metrics.add(number, *self.learner.evaluate_batch(images, labels), labels)
                    if counts is not None:
                        counts.add(labels)
                if self._is_worth_reading(metrics):
                    self._read_validation(metrics)
                self.display.advance(metrics.loss, metrics.accuracy, pace)
        self._read_validation(metrics)
        if counts is not None:
            self._say(counts.told_of_validation(self.ranks))
        return self._summed(metrics)

    def _summed(self, metrics: RunningMetrics) -> RunningMetrics:
        loss_sum, hits, rows = self.ranks.sums(metrics.loss_sum, metrics.hits, metrics.rows)
        return RunningMetrics(loss_sum, int(hits), int(rows))

    def _read_validation(self, metrics: RunningMetrics) -> None:
        if metrics.read() is not None:
            raise augd.AugdError(
                f"the validation loss is not finite after epoch {self.epoch + 1}: the training "
                f"diverged. Start again with a lower --lr (it was {self.settings.lr:g})."
            )

    def finish_epoch(self, validation: RunningMetrics, pace: tuple[float, float] | None) -> None:
        """Record the results, move to the next epoch, and save."""
        rate, waiting = pace or (None, None)
        metrics = self._summed(self.metrics)
        record = {
            "epoch": self.epoch + 1,
            "phase": self.learner.phase.name,
            "lr": self.learner.rate(RunPosition(self.epoch, self.batches_per_epoch - 1)),
            "train_loss": metrics.loss,
            "train_accuracy": metrics.accuracy,
            "val_loss": validation.loss,
            "val_accuracy": validation.accuracy,
            "images_per_s": rate,
            "waiting": waiting,
        }
        is_best = all(record["val_accuracy"] > past["val_accuracy"] for past in self.history)
        self.history.append(record)
        self._log_epoch(record)
        has_stalled = self._has_stalled()
        end = self.learner.phase_end
        self.epoch, self.batch, self.metrics = self.epoch + 1, 0, RunningMetrics()
        if has_stalled:
            self.epoch = end
        ended = self.learner.phase.name
        self.learner.enter(self.epoch)
        if is_best:
            self.save("best.pt")
        self.save("last.pt")  # after best.pt, to which its history refers
        self.display.finish_epoch(record)
        if has_stalled:
            self.display.say(
                f"No better validation accuracy in "
                f"{counted(self.settings.patience or 0, 'epoch')}: "
                f"the phase {ended!r} ends here."
            )

    def _has_stalled(self) -> bool:
        """Say whether this phase has run out of patience, with epochs left."""
        if self.settings.patience is None or self.epoch + 1 >= self.learner.phase_end:
            return False
        phase = self.learner.phase.name
        values = [record["val_accuracy"] for record in self.history if record["phase"] == phase]
        return len(values) - 1 - values.index(max(values)) >= self.settings.patience

    def _log_epoch(self, record: dict[str, Any]) -> None:
        names = {
            "loss/training": "train_loss",
            "loss/validation": "val_loss",
            "accuracy/training": "train_accuracy",
            "accuracy/validation": "val_accuracy",
            "speed/images_per_s": "images_per_s",
            "speed/share_of_time_waiting": "waiting",
        }
        rates = {
            f"rate/{group['name']}": record["lr"] * group["share"]
            for group in self.learner.optimiser.param_groups
        }
        step = (self.epoch + 1) * self.batches_per_epoch
        self._log.numbers(step, {name: record[key] for name, key in names.items()} | rates)

    def _save_at_intervals(self) -> None:
        """Save within an epoch; `finish_epoch` saves at its end."""
        is_end = self.batch == self.batches_per_epoch
        if self.checkpoint_every and self.num_steps % self.checkpoint_every == 0 and not is_end:
            self.save("last.pt")

    def save(self, name: str) -> Path:
        """Write a checkpoint of the place after the last step; returns its path.

        Ranks do this together: each has its own generator and its own shard of the stream.
        """
        self.read_losses()  # never save weights that are not finite
        path = self.out / name
        state = self.state_dict()
        if self.ranks.is_first:
            save_checkpoint(path, state)
        return path

    def state_dict(self) -> State:
        """Return everything that decides the rest of the run."""
        is_cuda = self.device.type == "cuda"
        return {
            "settings": self.settings_dict(),
            "recipes": self.recipes,
            **self.learner.state_dict(),
            "schedule": {**self.place._asdict(), "next_lr": self.learner.rate(self.place)},
            "stream": self.stream_state,
            "tally": self._summed(self.metrics).sums(),
            "history": self.history,
            "rng": self.ranks.gather(torch.get_rng_state()),
            "rng_cuda": self.ranks.gather(torch.cuda.get_rng_state(self.device))
            if is_cuda
            else None,
        }

    def settings_dict(self) -> dict[str, Any]:
        """Return the settings that a resume must share."""
        return settings_dict(self.settings, self.training.classes, self.ranks)

    def load_state_dict(self, state: State) -> None:
        """Restore the state of a run with the same settings.

        Raises:
            SpecMismatch: the stream's content differs.
        """
        self.training.load_state_dict(state["stream"])
        self.epoch, self.batch = state["schedule"]["epoch"], state["schedule"]["batch"]
        self.learner.load_state_dict(state, self.epoch)
        self.stream_state = state["stream"]
        if self.ranks.is_first:  # the sums are of all ranks
            self.metrics = RunningMetrics(**state["tally"])
        self.history = list(state["history"])
        torch.set_rng_state(state["rng"][self.ranks.rank])
        if self.device.type == "cuda" and state["rng_cuda"] is not None:
            torch.cuda.set_rng_state(state["rng_cuda"][self.ranks.rank], self.device)


def settings_dict(settings: Settings, classes: list[str], ranks: Ranks) -> dict[str, Any]:
    """Return the settings that a run and its resume must share."""
    return asdict(settings) | {"world": ranks.world, "classes": classes}
