"""A network and its optimiser: training steps, phase after phase.

Runs in the training process, below the loop (`trainer.training.loop`), which knows epochs, streams
and files. The learning rate and the phase are functions of the place in the run.

Invariants: after a step, everything that it changed is in `state_dict`; nothing here waits for the
device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..models.build_network import StagedNetwork
from .distributed import Ranks
from .finetune import Phase, freeze, parameter_groups, plan_phases
from .optimizers import make_optimiser, set_rate, share_of_rate
from .regularization import Average, Mixed, loss_of, mixup, soft_loss_of
from .settings import Settings

# BatchNorm cannot tell a single row's mean from its noise, and torch refuses to.
ROWS_MIN = 2


class RunPosition(NamedTuple):
    """Where a run stands: in which epoch, and how many batches of it are done."""

    epoch: int
    batch: int


class Learner:
    """The network of a run, its optimiser, and its phases.

    Attributes:
        network: on the device; with the weights of the last step, not their average.
        phases: in order; `phase` is the one that the run is in.
        optimiser: of the current phase; its groups are named after stages.
    """

    def __init__(
        self,
        settings: Settings,
        staged: StagedNetwork,
        device: torch.device,
        batches_per_epoch: int,
        ranks: Ranks | None = None,
    ) -> None:
        self.settings, self.stages, self.device = settings, staged.stages, device
        self.ranks = ranks or Ranks()
        self.network: nn.Module = staged.network.to(device).to(memory_format=torch.channels_last)
        self.phases = plan_phases(settings.plan, staged.stages)
        self.batches_per_epoch = batches_per_epoch
        self.scaler = torch.amp.GradScaler("cuda", enabled=settings.amp)
        self.average = None if settings.ema is None else Average(self.network, settings.ema)
        weights = settings.class_weights
        self._class_weights = None if weights is None else torch.tensor(weights, device=device)
        self._frozen = freeze(self.network, self.stages, self.phases[0])
        self._begin(0)

    def enter(self, epoch: int) -> None:
        """Begin the phase of an epoch, unless it is the current one; the last one never ends."""
        number, end = 0, self.phases[0].epochs
        while epoch >= end and number + 1 < len(self.phases):
            number += 1
            end += self.phases[number].epochs
        if number != self._number:
            self._begin(number)

    def _begin(self, number: int) -> None:
        self._number = number
        self._frozen.remove()
        self._frozen = freeze(self.network, self.stages, self.phase)
        settings = self.settings
        groups = parameter_groups(self.network, self.stages, self.phase)
        lr, weight_decay = settings.lr, settings.weight_decay
        self.optimiser = make_optimiser(groups, settings.optimizer, lr, weight_decay)
        self._parallel = self.ranks.parallel(self.network)

    @property
    def phase(self) -> Phase:
        return self.phases[self._number]

    @property
    def phase_begin(self) -> int:
        """The epoch with which this phase begins."""
        return sum(phase.epochs for phase in self.phases[: self._number])

    @property
    def phase_end(self) -> int:
        """The epoch before which this phase ends."""
        return self.phase_begin + self.phase.epochs

    def rate(self, place: RunPosition) -> float:
        """Return the learning rate of the step at a place; stages have shares of it."""
        epochs, per_epoch = self.phase.epochs, self.batches_per_epoch
        step = (place.epoch - self.phase_begin) * per_epoch + place.batch
        warm = self.settings.warmup_epochs * epochs / self.settings.epochs
        share = share_of_rate(
            self.settings.schedule, step, round(warm * per_epoch), epochs * per_epoch
        )
        return self.settings.lr * share

    def step(
        self, images: Tensor, labels: Tensor, place: RunPosition, targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Make one optimiser step; return the mean loss () and the logits (B, K).

        With `targets`, float (B, K), the images are mixed already, and the loss is of these.

        None if this rank has fewer than `ROWS_MIN` rows. Ranks make a step together, weighted by
        their rows: the gradient is that of all ranks' rows in one batch.
        """
        set_rate(self.optimiser, self.rate(place))
        own = len(labels) if len(labels) >= ROWS_MIN else 0
        (num_rows,) = self.ranks.sums(own)
        if not num_rows:
            return None
        self.optimiser.zero_grad(set_to_none=True)
        result = self._forward(images, labels, targets) if own else None
        loss = self._nothing(images) if result is None else result[0]
        if self.ranks.world > 1:
            loss = loss * (own * self.ranks.world / num_rows)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update()
        return result

    def _nothing(self, images: Tensor) -> Tensor:
        """Take part in the other ranks' step: a loss with gradient 0, and unchanged statistics."""
        self.network.eval()
        logits: Tensor = self._parallel(images.new_zeros(1, *images.shape[1:]))
        self.network.train()
        return logits.sum() * 0

    def _forward(
        self, images: Tensor, labels: Tensor, targets: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if targets is not None:
            with self._precision():
                logits: Tensor = self._parallel(images)
                return soft_loss_of(logits, targets, self._class_weights), logits
        mixed = Mixed(images, labels, labels, 1.0)
        if self.settings.mixup:
            mixed = mixup(images, labels, self.settings.mixup)
        with self._precision():
            logits = self._parallel(mixed.images)
            smoothing = self.settings.label_smoothing
            return loss_of(logits, mixed, smoothing, self._class_weights), logits

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.float16, enabled=self.settings.amp)

    def evaluate_batch(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the plain cross-entropy and the logits; inside `judging` and `torch.no_grad`."""
        with self._precision():
            logits: Tensor = self.network(images)
            return nn.functional.cross_entropy(logits, labels), logits

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the network into evaluation mode, with averaged weights if there are any.

        All ranks evaluate with the statistics of rank 0, which are the ones that are saved.
        """
        self.network.eval()
        self.ranks.broadcast(self.network.buffers())
        if self.average is not None:
            self.ranks.broadcast(self.average.state_dict().values())
        if self.average is None:
            yield
            return
        with self.average.in_place():
            yield

    def rows_that_fit(self, images: Tensor, labels: Tensor) -> int:
        """Find by halving how many rows of a batch fit into memory; 0 if not even two.

        Called after a step ran out of memory. Changes buffers, and no weight.
        """
        rows = len(labels) // 2
        while rows >= ROWS_MIN:
            self.optimiser.zero_grad(set_to_none=True)
            if self._fits(images[:rows], labels[:rows]):
                return rows
            rows //= 2
        return 0

    def _fits(self, images: Tensor, labels: Tensor) -> bool:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            with self._precision():
                loss = nn.functional.cross_entropy(self.network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
        except torch.OutOfMemoryError:
            return False
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return all that a step changes, without the states of random generators."""
        average = self.average
        return {
            "model": self.network.state_dict(),
            "ema": None if average is None else average.state_dict(),
            "ema_updates": 0 if average is None else average.num_updates,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], epoch: int) -> None:
        """Restore a state, in the phase of an epoch."""
        self.enter(epoch)
        self.network.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["ema"], state["ema_updates"])
