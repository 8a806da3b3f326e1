"""Settings from options: what was left open is put in, and what cannot work is refused.

Used before anything is started. `settle` needs the options alone; `settle_strategy` the number of
images, too, which decides what "auto" means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

import augd
from augd.errors import counted

from ..data.constants import choose_constants, parse_choice
from ..models.build_network import constants_of_weights
from .finetune import MANY_IMAGES, NORMS_CHOICES, STRATEGIES, choose_strategy
from .learner import ROWS_MIN
from .optimizers import OPTIMISERS, SCHEDULES
from .options import FitOptions
from .settings import Settings

# (learning rate, weight decay): of SGD for 256 images a batch, scaled with the batch.
_DEFAULTS = {"sgd": (0.1, 1e-4), "adamw": (1e-3, 0.05), "rmsprop": (1e-3, 0.0)}
_SGD_BATCH = 256
# Share of the run that warms up unless told otherwise; a constant rate has none, as in Keras.
_WARMUP_SHARE = {"cosine": 0.05, "constant": 0.0}
# Strategies that go on with stages of the weights.
_TUNING = ("partial", "full", "two-phase")


def settle(options: FitOptions) -> Settings:
    """Check the options against each other, and put in what was left open, but for "auto".

    Raises:
        OptionError: names the option, what was expected and found.
    """
    optimizer = options.optimizer
    _check_choice("--optimizer", optimizer, OPTIMISERS)
    _check_choice("--schedule", options.schedule, SCHEDULES)
    strategy = options.strategy or ("scratch" if options.weights is None else "auto")
    _check_choice("--strategy", strategy, STRATEGIES)
    _check_choice("--norms", options.norms, NORMS_CHOICES)
    _check_fine_tuning(options, strategy)
    _check_weights(strategy, options.weights)
    if options.batch_size < ROWS_MIN:
        raise augd.OptionError(
            f"--batch-size: expected {ROWS_MIN} or more, got {options.batch_size}: a single row "
            "has no statistics that BatchNorm could learn from"
        )
    lr, weight_decay = _DEFAULTS[optimizer]
    if optimizer == "sgd":
        lr *= options.batch_size / _SGD_BATCH
    lr = lr if options.lr is None else options.lr
    weight_decay = weight_decay if options.weight_decay is None else options.weight_decay
    if not 0 < lr < math.inf:
        raise augd.OptionError(f"--lr: expected a positive number, got {lr!r}")
    if not 0 <= weight_decay < math.inf:
        raise augd.OptionError(f"--weight-decay: expected 0 or more, got {weight_decay!r}")
    _check_shares(options)
    settled = {
        "strategy": strategy,
        "head_epochs": _head_epochs(options, strategy),
        "lr": lr,
        "weight_decay": weight_decay,
        "warmup_epochs": _warmup(options),
        "class_weights": None,
        "norms": _norms(options, strategy),
        **_constants(options),
    }
    names = {field.name for field in fields(Settings)} - settled.keys()
    return Settings(**{name: getattr(options, name) for name in names} | settled)


def _constants(options: FitOptions) -> dict[str, Any]:
    """Return mean and std: those given, those of published weights, or ImageNet's."""
    if options.mean is None and options.std is None and options.weights is not None:
        found = constants_of_weights(options.arch)
        if found is not None:
            return choose_constants(*found)._asdict()
    mean = parse_choice("--mean", options.mean)
    return choose_constants(mean, parse_choice("--std", options.std))._asdict()


def settle_strategy(
    settings: Settings, num_images: int, *, is_similar: bool
) -> tuple[Settings, list[str]]:
    """Choose where the strategy or the norms are "auto"; returns lines that say what and why."""
    settings, lines = _settle_auto(settings, num_images, is_similar=is_similar)
    if settings.strategy not in _TUNING:
        return replace(settings, norms="learn"), lines
    if settings.norms != "auto":
        return settings, lines
    is_many = num_images >= MANY_IMAGES and settings.strategy != "two-phase"
    if is_many:
        told = (
            f"Norms learn: {counted(num_images, 'image')} are enough for statistics of their own."
        )
    else:
        told = "Norms frozen: BatchNorm keeps the statistics of the weights (or --norms learn)."
    return replace(settings, norms="learn" if is_many else "frozen"), [*lines, told]


def _settle_auto(
    settings: Settings, num_images: int, *, is_similar: bool
) -> tuple[Settings, list[str]]:
    if settings.strategy != "auto":
        return settings, []
    if settings.weights is None:
        why = "there are no weights to begin with (--weights)"
        return replace(settings, strategy="scratch"), [f"Strategy scratch: {why}."]
    choice = choose_strategy(num_images, is_similar=is_similar)
    share = choice.stage_share if settings.stage_share is None else settings.stage_share
    # With a single epoch there is none left for a second phase.
    strategy = choice.strategy if settings.epochs > 1 or choice.strategy != "two-phase" else "head"
    chosen = replace(settings, strategy=strategy, stage_share=share)
    return chosen, [f"Strategy {strategy}: {choice.why}."]


def _norms(options: FitOptions, strategy: str) -> str:
    """Return what is settled of the norms before the images are counted."""
    return options.norms if strategy in (*_TUNING, "auto") else "learn"


def settle_classes(settings: Settings, given: Sequence[str], classes: list[str]) -> Settings:
    """Put in the weights of classes, as the loss takes them: 1 on the average.

    Raises:
        OptionError: no such class, or no such weight.
    """
    if not given:
        return settings
    weights = dict.fromkeys(classes, 1.0)
    for one in given:
        name, _, text = one.rpartition("=")
        if name not in weights:
            close = ", ".join(get_close_matches(name, classes, 3)) or ", ".join(classes[:8])
            raise augd.OptionError(
                f"--class-weight: expected NAME=W, with a class such as {close}; got {one!r}"
            )
        weights[name] = _positive(one, text)
    mean = sum(weights.values()) / len(weights)
    return replace(settings, class_weights=tuple(weight / mean for weight in weights.values()))


def _positive(given: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise augd.OptionError(f"--class-weight: expected a positive number, got {given!r}")
    return weight


def _check_fine_tuning(options: FitOptions, strategy: str) -> None:
    """Check options that are for some strategies, or exclude each other."""
    if options.norms != "auto" and strategy not in (*_TUNING, "auto"):
        raise augd.OptionError(
            f"--norms: {options.norms} is for {', '.join(_TUNING)}, got --strategy {strategy}, "
            "which decides it; leave --norms out"
        )
    if options.layer_decay is not None:
        if strategy not in ("full", "partial", "auto"):
            raise augd.OptionError(
                f"--layer-decay: is for full and partial, got --strategy {strategy}; leave it out"
            )
        if options.stage_share is not None:
            raise augd.OptionError(
                "--layer-decay: --stage-share says it by stages already; give one of the two"
            )
    if options.balance not in (None, "class"):
        raise augd.OptionError(f"--balance: expected class, got {options.balance!r}")


def _check_choice(option: str, found: str, expected: tuple[str, ...]) -> None:
    if found not in expected:
        names = f"{', '.join(expected[:-1])} or {expected[-1]}"
        raise augd.OptionError(f"{option}: expected {names}, got {found!r}")


def _check_weights(strategy: str, weights: str | None) -> None:
    if strategy == "scratch" and weights is not None:
        raise augd.OptionError(
            "--strategy: scratch starts from random weights; leave --weights out, or choose full"
        )
    if strategy in ("head", "partial", "full", "two-phase") and weights is None:
        raise augd.OptionError(
            f"--strategy: {strategy} builds on what a network has learnt; give --weights (DEFAULT "
            "are torchvision's best), or choose scratch"
        )


def _check_shares(options: FitOptions) -> None:
    """Check what must lie between 0 and 1; the second number says whether 1 is in."""
    shares = (
        ("--label-smoothing", options.label_smoothing, False),
        ("--dropout", options.dropout, False),
        ("--drop-connect", options.drop_connect, False),
        ("--ema", options.ema, False),
        ("--stage-share", options.stage_share, True),
        ("--layer-decay", options.layer_decay, True),
        ("--low-share", options.low_share, True),
    )
    for option, share, has_one in shares:
        if share is not None and not (0 <= share < 1 or (has_one and share == 1)):
            end = "1 at most" if has_one else "less than 1"
            raise augd.OptionError(f"{option}: expected 0 or more, and {end}, got {share:g}")
    for option, alpha in (("--mixup", options.mixup), ("--cutmix", options.cutmix)):
        if not 0 <= alpha < math.inf:
            raise augd.OptionError(f"{option}: expected 0 or more, got {alpha:g}")


def _head_epochs(options: FitOptions, strategy: str) -> int:
    """Return the length of the first of two phases, whether or not there are two."""
    if options.head_epochs is None:
        if strategy == "two-phase" and options.epochs < 2:
            raise augd.OptionError(
                f"--epochs: two-phase needs one for each phase, got {options.epochs}"
            )
        return options.epochs // 2
    if strategy not in ("two-phase", "auto"):
        raise augd.OptionError(
            f"--head-epochs: is for --strategy two-phase, got {strategy}; leave --head-epochs out"
        )
    if not 1 <= options.head_epochs < options.epochs:
        raise augd.OptionError(
            f"--head-epochs: expected 1 or more, and less than --epochs {options.epochs}, "
            f"got {options.head_epochs}"
        )
    return options.head_epochs


def _warmup(options: FitOptions) -> float:
    if options.warmup_epochs is None:
        return options.epochs * _WARMUP_SHARE[options.schedule]
    if not 0 <= options.warmup_epochs < options.epochs:
        raise augd.OptionError(
            f"--warmup-epochs: expected 0 or more, and less than --epochs {options.epochs}, "
            f"got {options.warmup_epochs:g}"
        )
    return options.warmup_epochs
