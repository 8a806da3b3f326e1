"""One run from its settings to its end: where it begins, what it says, and how it stops.

`trainer fit` and `augd.torch.fit` are made of this, so that both come to the same bits.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

import augd
from augd.errors import counted

from ..data.constants import constants_of
from ..data.splits import Splits
from ..models.build_network import StagedNetwork
from .checkpoint import State, check_same_run, load_checkpoint
from .distributed import Ranks
from .interrupt import Interrupt
from .loop import Training, settings_dict
from .options import FitOptions
from .progress import Display
from .settings import Settings
from .settle import settle_classes, settle_strategy

# Errors of the stream, between two steps: all that was learnt is worth keeping.
_STREAM_ENDED = (
    augd.ConnectError,
    augd.Forbidden,
    augd.ProducersUnhealthy,
    augd.ReceiptMismatch,
    augd.SampleFailed,
)


class Place(NamedTuple):
    """The folder of a run, and the state that it goes on from; None begins one."""

    out: Path
    state: State | None


def find_place(out: Path, *, resume: bool, resume_auto: bool) -> Place:
    """Find where a run begins.

    Raises:
        OptionError: a run is there, and it is not to go on; or none is there, and it is.
    """
    last = out / "last.pt"
    if resume or (resume_auto and last.exists()):
        return Place(out, load_checkpoint(last))
    if last.exists():
        raise augd.OptionError(
            f"--out: {last} exists already. Go on with that run by --resume, or choose another "
            "--out."
        )
    return Place(out, None)


def settle_with(
    settings: Settings, options: FitOptions, splits: Splits, ranks: Ranks
) -> tuple[Settings, list[str]]:
    """Put in what the data decide; returns lines that say what and why, too.

    Raises:
        OptionError: an option does not fit the data or the device.
    """
    if settings.amp and splits.training.device.type != "cuda":
        raise augd.OptionError("--amp: is for CUDA devices, and this run is on the CPU")
    num_images = _num_images(splits, ranks)
    settings, why = settle_strategy(settings, num_images, is_similar=options.similar)
    return settle_classes(settings, options.class_weight, splits.training.classes), why


def _num_images(splits: Splits, ranks: Ranks) -> int:
    """Count the images to train on, of all ranks."""
    return int(ranks.sums(splits.training.num_samples)[0])


def begin(
    settings: Settings,
    splits: Splits,
    staged: StagedNetwork,
    place: Place,
    *,
    display: Display,
    checkpoint_every: int | None = None,
    ranks: Ranks | None = None,
    replay: Callable[[int, int], str] | None = None,
) -> Training:
    """Return a run that stands where it begins, or was left.

    Raises:
        SpecMismatch: the run that was left had other settings.
    """
    ranks = ranks or Ranks()
    state = place.state
    if state is not None:
        here = settings_dict(settings, splits.training.classes, ranks)
        saved = state["settings"] | constants_of(state["settings"])._asdict()
        check_same_run(place.out / "last.pt", saved, here)
    if ranks.world > 1:
        torch.manual_seed(settings.seed + ranks.rank)  # equal weights, dropout of one's own
    training = Training(
        settings,
        splits.training,
        splits.validation,
        staged,
        display,
        place.out,
        recipes=splits.recipes._asdict(),
        checkpoint_every=checkpoint_every,
        ranks=ranks,
        replay=replay,
    )
    if state is not None:
        training.load_state_dict(state)
    return training


def train(training: Training, interrupt: Interrupt) -> int | None:
    """Train to the end; returns the signal that ended the run before, which saved."""
    is_alone = training.ranks.world == 1
    try:
        training.run(interrupt)
    except KeyboardInterrupt:
        ended_by = interrupt.signal or signal.SIGINT
        if not is_alone:  # the ranks stand at different steps
            training.display.say("Stopped. To go on from last.pt: the same command with --resume.")
            return ended_by
        path = training.save("last.pt")  # no second signal gets in here
        training.display.say(
            f"Stopped {_told(training)}; saved {path}. To go on: the same command with --resume."
        )
        return ended_by
    except _STREAM_ENDED as error:
        # Damaged files that are found in the first epoch: the same command, with a larger
        # --max-bad-fraction, begins again.
        is_early = isinstance(error, augd.SampleFailed) and not training.epoch
        if not is_alone or not training.num_steps or is_early:
            raise
        path = training.save("last.pt")
        raise type(error)(
            f"{error} Saved {path} {_told(training)}; to go on: the same command with --resume."
        ) from error
    return None


def best_of(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the record of the first epoch with the best validation accuracy."""
    return max(history, key=lambda record: float(record["val_accuracy"]))


def _told(training: Training) -> str:
    if training.batch:
        batch = f"batch {training.batch} of {training.batches_per_epoch}"
        return f"in epoch {training.epoch + 1}, after {batch}"
    return f"after epoch {training.epoch}" if training.epoch else "before the first step"


def introduction(training: Training, splits: Splits, why: list[str]) -> list[str]:
    """Return the lines that a run begins with."""
    settings, learner = training.settings, training.learner
    num_weights = sum(parameter.numel() for parameter in learner.network.parameters())
    (num_validating,) = training.ranks.sums(splits.validation.num_samples)
    ranks = f", {training.ranks.world} ranks" if training.ranks.world > 1 else ""
    line = (
        f"{settings.arch}, {num_weights / 1e6:.1f} million weights, "
        f"{len(splits.training.classes)} classes, on {training.device}{ranks}: "
        f"{counted(_num_images(splits, training.ranks), 'image')} to train on, "
        f"{num_validating:.0f} to validate with (split {splits.validation_name!r})"
    )
    if training.epoch or training.batch:
        line += f"\nResumed {_told(training)}."
    return [line, *why, *_plan(training)]


def _plan(training: Training) -> list[str]:
    """Say what each phase trains, where not everything learns at one rate."""
    if training.settings.strategy == "scratch":
        return []
    names = [stage.name for stage in training.learner.stages.stages]
    lines = []
    for phase in training.learner.phases:
        shares = ", ".join(f"{name} {share:g}" for name, share in phase.shares.items())
        still = [name for name in names if name not in phase.shares]
        frozen = f"; frozen: {', '.join(still)}" if still else ""
        norms = "; norms frozen" if phase.freezes_norms else ""
        lines.append(
            f"Phase {phase.name}, {counted(phase.epochs, 'epoch')}: shares of the learning rate: "
            f"{shares}{frozen}{norms}"
        )
    return lines
