"""The settings of a run, which decide its outcome together with the streams.

Made once from the options of a command (`trainer.training.settle`), read by the whole training, and
kept in every checkpoint. Plain data, never changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..data.constants import Constants, Numbers
from .finetune import Strategy, TrainingPlan


@dataclass(frozen=True, slots=True)
class Settings:
    """A resume must have the same. Meanings are those of the options of `trainer fit`.

    Attributes:
        head: name of the module that tells classes apart; None finds it.
        weights: a published name or a file, as it was given; None is random ones.
        strategy: any but "auto", which is settled when the number of images is known.
        norms: "frozen" or "learn"; "auto" is settled with the strategy.
        class_weights: of the loss, by class, 1 on the average; None is 1 each.
        lr: the head's highest learning rate; stages have shares of it.
        mixup: alpha of the Beta distribution; 0 is none.
        dropout: share of the head's inputs; None is what the network has.
        ema: decay of the averaged weights; None is none.
        mean, std: what images are normalised with.
        patience: epochs without a better validation accuracy that end a phase; None is never.
    """

    arch: str
    head: str | None
    weights: str | None
    strategy: Strategy
    unfreeze: int
    stage_share: float | None
    layer_decay: float | None
    norms: str
    low_share: float
    head_epochs: int
    val_fraction: float
    batch_size: int
    balance: str | None
    class_weights: tuple[float, ...] | None
    epochs: int
    optimizer: str
    schedule: str
    lr: float
    weight_decay: float
    warmup_epochs: float
    label_smoothing: float
    mixup: float
    dropout: float | None
    drop_connect: float
    ema: float | None
    patience: int | None
    seed: int
    amp: bool
    mean: Numbers
    std: Numbers
    limit_train_batches: int | None

    @property
    def constants(self) -> Constants:
        """What images are normalised with."""
        return Constants(self.mean, self.std)

    @property
    def plan(self) -> TrainingPlan:
        """What of it decides the phases."""
        return TrainingPlan(
            strategy=self.strategy,
            epochs=self.epochs,
            head_epochs=self.head_epochs,
            unfreeze=self.unfreeze,
            stage_share=self.stage_share,
            layer_decay=self.layer_decay,
            freezes_norms=self.norms == "frozen",
            low_share=self.low_share,
        )
