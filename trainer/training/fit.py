"""`augd.torch.fit`: `trainer fit` as a function, for a network and streams of one's own.

Runs in the training process. It comes to the same bits as the command with the same options.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

import augd

from ..data.splits import Splits
from ..models.build_network import (
    StagedNetwork,
    build_staged_network,
    check_arch,
    stage_network,
)
from ..models.pretrained_weights import find_weights, put_weights
from .distributed import Ranks
from .interrupt import Interrupt
from .options import FitOptions, SamplesOptions, check_ranges
from .progress import Display
from .run import begin, best_of, find_place, introduction, settle_with, train
from .settings import Settings
from .settle import settle

_OF_SPLITS = (
    *("recipe", "size", "val_fraction", "batch_size", "balance", "mean", "std", "device"),
    *("mixup", "cutmix", "label_smoothing"),
)
_NOT_HERE = ("arch", "producers", "as_json", "resume", "resume_auto")
# What settings say of a network that was given with its weights.
_GIVEN = "given"


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a run came to.

    Attributes:
        network: with the weights of the last step, on the streams' device.
        classes: what it tells apart, by label.
        history: a record per epoch: losses, accuracies, rate, images/s.
        best_epoch, best_val_accuracy: of the first epoch with the best validation accuracy.
        out: the folder with last.pt and best.pt.
    """

    network: nn.Module
    classes: list[str]
    history: list[dict[str, Any]]
    best_epoch: int
    best_val_accuracy: float
    out: Path


def fit(
    network: nn.Module | str,
    splits: Splits,
    *,
    pretrained: bool = False,
    arch: str | None = None,
    resume: bool | Literal["auto"] = False,
    quiet: bool = False,
    **options: Any,
) -> FitResult:
    """Train a network and validate it after every epoch, as `trainer fit` does.

    Args:
        network: a module, images (B, 3, H, W) to logits (B, K); or a name as `--arch` takes it,
            built after `torch.manual_seed(seed)`. A module is trained itself. Its head is replaced
            if it is of another number of classes.
        splits: of `augd.torch.splits`.
        pretrained: a module has learnt something, so that stages may be frozen or learn slower
            (`strategy`); for a name give `weights`.
        arch: the name by which commands build a module again, as in `--arch MODULE:CALLABLE`; None
            is its class.
        resume: go on from `out`; "auto" if a run is there.
        quiet: print nothing.
        options: those of `trainer fit` by their names: `epochs`, `optimizer`, `lr`, `strategy`,
            `norms`, `ema`, `out` and so on. Those of the streams were given to `splits`.

    Returns:
        A `FitResult`.

    Raises:
        OptionError: an option is out of range, or does not fit the network.
        KeyboardInterrupt: after Ctrl-C, when `out` has all that was learnt.
        AugdError: as `trainer fit` says.
    """
    chosen = _choose(network, splits, options, pretrained=pretrained, arch=arch, resume=resume)
    check_ranges(chosen)
    settings = settle(chosen)
    if isinstance(network, str):
        check_arch(network)
    place = find_place(chosen.out, resume=chosen.resume, resume_auto=chosen.resume_auto)
    weights = None
    if isinstance(network, str) and settings.weights is not None and place.state is None:
        weights = find_weights(network, settings.weights)
    settings, why = settle_with(settings, chosen, splits, Ranks())
    staged = _stage(network, settings, splits)
    if weights is not None:
        why.append(put_weights(staged, weights, splits.training.classes))
    display = Display(settings.epochs, is_json=False, is_silent=quiet)
    every = chosen.checkpoint_every
    training = begin(settings, splits, staged, place, display=display, checkpoint_every=every)
    with ExitStack() as cleaning:
        cleaning.enter_context(display)
        for line in introduction(training, splits, why):
            display.say(line)
        is_main = threading.current_thread() is threading.main_thread()
        interrupt = Interrupt()
        cleaning.enter_context(interrupt if is_main else nullcontext())
        if train(training, interrupt) is not None:
            raise KeyboardInterrupt
    best = best_of(training.history)
    return FitResult(
        network=staged.network,
        classes=splits.training.classes,
        history=training.history,
        best_epoch=best["epoch"],
        best_val_accuracy=best["val_accuracy"],
        out=chosen.out,
    )


def _choose(
    network: nn.Module | str,
    splits: Splits,
    given: dict[str, Any],
    *,
    pretrained: bool,
    arch: str | None,
    resume: bool | Literal["auto"],
) -> FitOptions:
    """Return the options of the command that does the same."""
    known = {one.name for one in fields(FitOptions)} - {one.name for one in fields(SamplesOptions)}
    for name in given:
        if name in _OF_SPLITS:
            raise augd.OptionError(f"{name}: is of the streams; give it to augd.torch.splits")
        if name not in known or name in _NOT_HERE:
            raise TypeError(f"fit() got an unexpected keyword argument {name!r}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise augd.OptionError(
            "fit: WORLD_SIZE is set, and fit trains in one process; under torchrun use the command "
            "trainer fit"
        )
    if isinstance(network, str):
        if pretrained or arch is not None:
            raise augd.OptionError(
                "fit: pretrained and arch are for a module; for a name give weights"
            )
        named: dict[str, Any] = {"arch": network}
    else:
        kind = type(network)
        named = {"arch": arch or f"{kind.__module__}:{kind.__qualname__}"}
        if given.get("weights") is not None:
            raise augd.OptionError("fit: weights are for a name; load them into the module")
        has_learnt = pretrained or given.get("strategy") not in (None, "scratch", "auto")
        named["weights"] = _GIVEN if has_learnt else None
    of_streams = {name: one for name, one in splits.options.items() if name in _OF_SPLITS}
    of_streams.pop("device", None)
    how = {"resume": resume is True, "resume_auto": resume == "auto"}
    seed = {"seed": splits.options.get("seed", 0)}
    places = {"out": Path(given.get("out", "run"))}
    return FitOptions(**{**seed, **of_streams, **given, **named, **how, **places})


def _stage(network: nn.Module | str, settings: Settings, splits: Splits) -> StagedNetwork:
    num_classes, size_px = len(splits.training.classes), splits.recipes.size_px
    more: dict[str, Any] = {
        "head": settings.head,
        "dropout": settings.dropout,
        "drop_connect": settings.drop_connect,
    }
    if isinstance(network, str):
        torch.manual_seed(settings.seed)
        return build_staged_network(network, num_classes, size_px, **more)
    return stage_network(settings.arch, network, num_classes, size_px, **more)
