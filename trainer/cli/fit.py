"""`trainer fit`: open a daemon, two streams and a network, and run the training loop on them.

The command rejects options that cannot work before anything long begins. It leaves no process and
no unfinished file.
"""

from __future__ import annotations

import json
import math
import shlex
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from typing import Any

import torch

import augd
from augd.errors import counted

from ..data.constants import choose_constants, constants_of, parse_choice
from ..data.recipes import Recipes, as_toml, choose_recipes
from ..data.splits import Splits, open_splits
from ..models.pretrained_weights import find_weights, put_weights
from ..models.registry import build_staged_network, check_arch
from ..models.weights_files import Weights
from ..training.checkpoint import State, check_same_run, load_checkpoint
from ..training.distributed import Ranks, join_ranks
from ..training.finetune import STRATEGIES, choose_strategy
from ..training.interrupt import Interrupt
from ..training.learner import ROWS_MIN
from ..training.loop import Training, settings_dict
from ..training.optimizers import OPTIMISERS, SCHEDULES
from ..training.progress import Display
from ..training.settings import Settings
from .options import FitOptions

EXIT_INTERRUPTED = 128 + signal.SIGINT

# (learning rate, weight decay): of SGD for 256 images a batch, scaled with the batch.
_DEFAULTS = {"sgd": (0.1, 1e-4), "adamw": (1e-3, 0.05), "rmsprop": (1e-3, 0.0)}
_SGD_BATCH = 256
# Share of the run that warms up unless told otherwise; a constant rate has none, as in Keras.
_WARMUP_SHARE = {"cosine": 0.05, "constant": 0.0}
# What `augd replay` assumes of a dataset without splits of its own.
_VAL_FRACTION = 0.1
# Errors of the stream, between two steps: all that was learnt is worth keeping.
_STREAM_ENDED = (
    augd.ConnectError,
    augd.Forbidden,
    augd.ProducersUnhealthy,
    augd.ReceiptMismatch,
    augd.SampleFailed,
)


def run_fit(options: FitOptions) -> int:
    """Train; returns the exit status: 0, or 130 after Ctrl-C."""
    settings = settle(options)
    check_arch(settings.arch)
    _check_place(options)
    last = options.out / "last.pt"
    state = load_checkpoint(last) if options.resume else None
    weights = None
    if settings.weights is not None and state is None:
        weights = find_weights(settings.arch, settings.weights)
    recipes = choose_recipes(options.recipe, options.size)
    with ExitStack() as cleaning:
        ranks = cleaning.enter_context(join_ranks())
        display = Display(settings.epochs, is_json=options.as_json, is_silent=not ranks.is_first)
        splits = open_run(options, settings, recipes, ranks, cleaning)
        num_images = sum_of_images(splits, ranks)
        settings, why = settle_strategy(settings, num_images, is_similar=options.similar)
        training, notes = _prepare(
            options, settings, splits, state, weights, display=display, ranks=ranks
        )
        cleaning.enter_context(display)
        for line in (_introduce(training, splits, num_images), *why, *notes, *_plan(training)):
            display.say(line)
        status = _train(training, cleaning.enter_context(Interrupt()))
        if status == 0:
            ranks.wait()  # the daemon of rank 0 serves all of them
    if status == 0 and ranks.is_first:
        _conclude(training, display, as_json=options.as_json)
    return status


def settle(options: FitOptions) -> Settings:
    """Check the options against each other, and put in what was left open, but for "auto".

    Raises:
        OptionError: names the option, what was expected and found.
    """
    check_place(options.path, options.connect, options.producers)
    optimizer = options.optimizer
    _check_choice("--optimizer", optimizer, OPTIMISERS)
    _check_choice("--schedule", options.schedule, SCHEDULES)
    strategy = options.strategy or ("scratch" if options.weights is None else "auto")
    _check_choice("--strategy", strategy, STRATEGIES)
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
        **_constants(options),
    }
    names = [field.name for field in fields(Settings)]
    return Settings(**{name: getattr(options, name) for name in names} | settled)


def _constants(options: FitOptions) -> dict[str, Any]:
    mean = parse_choice("--mean", options.mean)
    return choose_constants(mean, parse_choice("--std", options.std))._asdict()


def check_place(path: str | None, connect: str | None, producers: int | None) -> None:
    """Check that there is one place to get samples from.

    Raises:
        OptionError: neither or both, or producers for a daemon that runs already.
    """
    if (path is None) == (connect is None):
        found = "neither" if path is None else "both"
        raise augd.OptionError(f"expected either PATH or --connect ADDR, got {found}")
    if connect is not None and producers is not None:
        raise augd.OptionError(
            "--producers: a running daemon has its own; leave --producers out with --connect"
        )


def settle_strategy(
    settings: Settings, num_images: int, *, is_similar: bool
) -> tuple[Settings, list[str]]:
    """Choose where the strategy is "auto"; returns lines that say what and why, too."""
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
        ("--low-share", options.low_share, True),
    )
    for option, share, has_one in shares:
        if share is not None and not (0 <= share < 1 or (has_one and share == 1)):
            end = "1 at most" if has_one else "less than 1"
            raise augd.OptionError(f"{option}: expected 0 or more, and {end}, got {share:g}")
    if not 0 <= options.mixup < math.inf:
        raise augd.OptionError(f"--mixup: expected 0 or more, got {options.mixup:g}")


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


def _check_place(options: FitOptions) -> None:
    last = options.out / "last.pt"
    if not options.resume and last.exists():
        raise augd.OptionError(
            f"--out: {last} exists already. Go on with that run by --resume, or choose another "
            "--out."
        )


def open_run(
    options: FitOptions,
    settings: Settings,
    recipes: Recipes,
    ranks: Ranks,
    cleaning: ExitStack,
) -> Splits:
    """Open both streams, of a daemon of our own unless there is one."""
    address = options.connect or ""
    if options.path is not None and ranks.is_first:
        served = augd.serve(options.path, producers=options.producers)
        address = cleaning.enter_context(served).address
    address = ranks.text_of_first(address)
    device = options.device
    if ranks.world > 1 and torch.cuda.is_available() and device in (None, "cuda"):
        device = f"cuda:{ranks.local_rank}"
    splits = open_splits(
        address,
        recipes,
        dataset=options.dataset,
        max_bad_fraction=options.max_bad_fraction,
        batch_size=settings.batch_size,
        seed=settings.seed,
        val_fraction=options.val_fraction,
        device=device,
        mean=settings.mean,
        std=settings.std,
        keys=options.keys,
        rank=ranks.rank,
        world=ranks.world,
    )
    cleaning.callback(splits.close)
    if settings.amp and splits.training.device.type != "cuda":
        raise augd.OptionError("--amp: is for CUDA devices, and this run is on the CPU")
    return splits


def sum_of_images(splits: Splits, ranks: Ranks) -> int:
    """Count the images to train on, of all ranks."""
    return int(ranks.sums(splits.training.num_samples)[0])


def _prepare(
    options: FitOptions,
    settings: Settings,
    splits: Splits,
    state: State | None,
    weights: Weights | None,
    *,
    display: Display,
    ranks: Ranks,
) -> tuple[Training, list[str]]:
    """Build the network and stand where the run begins, or was left."""
    classes = splits.training.classes
    if state is not None:
        here = settings_dict(settings, classes, ranks)
        saved = state["settings"] | constants_of(state["settings"])._asdict()
        check_same_run(options.out / "last.pt", saved, here)
    torch.manual_seed(settings.seed)
    subject = build_staged_network(
        settings.arch,
        len(classes),
        splits.recipes.size_px,
        head=settings.head,
        dropout=settings.dropout,
        drop_connect=settings.drop_connect,
    )
    notes = [] if weights is None else [put_weights(subject, weights, classes)]
    if ranks.world > 1:
        torch.manual_seed(settings.seed + ranks.rank)  # equal weights, dropout of one's own
    training = Training(
        settings,
        splits.training,
        splits.validation,
        subject,
        display,
        options.out,
        recipes=splits.recipes._asdict(),
        checkpoint_every=options.checkpoint_every,
        ranks=ranks,
        replay=_replayer(options, settings, splits.recipes, ranks),
    )
    if state is not None:
        training.load_state_dict(state)
    return training, notes


def _replayer(
    options: FitOptions, settings: Settings, recipes: Recipes, ranks: Ranks
) -> Callable[[int, int], str]:
    """Return a function that says how a batch of the training stream is made again."""

    def say(epoch: int, number: int) -> str:
        def in_python() -> str:
            arguments = {
                **{"recipe": recipes.training, "batch_size": settings.batch_size},
                **{"seed": settings.seed, "split": "train", "rank": ranks.rank},
                **{"world": ranks.world, "val_fraction": options.val_fraction},
            }
            told = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            return f"batch {number} of augd.connect(..., {told}).epoch({epoch})"

        if options.val_fraction != _VAL_FRACTION:  # which the command has no option for
            return in_python()
        where: list[Any] = [options.path] if options.path else ["--connect", options.connect]
        if options.dataset is not None:
            where += ["--dataset", options.dataset]
        recipe: str = recipes.training if isinstance(recipes.training, str) else ""
        if not recipe:
            file = options.out / "training.toml"
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(as_toml(recipes.training), encoding="utf-8")
            except OSError:  # what is to be told is the loss, not this
                return in_python()
            recipe = str(file)
        parts = [
            *("augd", "replay", *where, "--epoch", epoch, "--batch", number),
            *("--batch-size", settings.batch_size, "--seed", settings.seed),
            *("--split", "train", "--recipe", recipe, "--out", "batch.npz"),
            *(("--rank", ranks.rank, "--world", ranks.world) if ranks.world > 1 else ()),
        ]
        return shlex.join(map(str, parts))

    return say


def _train(training: Training, interrupt: Interrupt) -> int:
    is_alone = training.ranks.world == 1
    try:
        training.run(interrupt)
    except KeyboardInterrupt:
        if not is_alone:  # the ranks stand at different steps
            training.display.say("Stopped. To go on from last.pt: the same command with --resume.")
            return EXIT_INTERRUPTED
        path = training.save("last.pt")  # no second Ctrl-C gets in here
        training.display.say(
            f"Stopped {_place(training)}; saved {path}. To go on: the same command with --resume."
        )
        return EXIT_INTERRUPTED
    except _STREAM_ENDED as error:
        # Damaged files that are found in the first epoch: the same command, with a larger
        # --max-bad-fraction, begins again.
        is_early = isinstance(error, augd.SampleFailed) and not training.epoch
        if not is_alone or not training.num_steps or is_early:
            raise
        path = training.save("last.pt")
        raise type(error)(
            f"{error} Saved {path} {_place(training)}; to go on: the same command with --resume."
        ) from error
    return 0


def _place(training: Training) -> str:
    if training.batch:
        batch = f"batch {training.batch} of {training.batches_per_epoch}"
        return f"in epoch {training.epoch + 1}, after {batch}"
    return f"after epoch {training.epoch}" if training.epoch else "before the first step"


def _introduce(training: Training, splits: Splits, num_images: int) -> str:
    settings, learner = training.settings, training.learner
    num_weights = sum(parameter.numel() for parameter in learner.network.parameters())
    (num_validating,) = training.ranks.sums(splits.validation.num_samples)
    ranks = f", {training.ranks.world} ranks" if training.ranks.world > 1 else ""
    line = (
        f"{settings.arch}, {num_weights / 1e6:.1f} million weights, "
        f"{len(splits.training.classes)} classes, on {training.device}{ranks}: "
        f"{counted(num_images, 'image')} to train on, "
        f"{num_validating:.0f} to validate with (split {splits.validation_name!r})"
    )
    if training.epoch or training.batch:
        line += f"\nResumed {_place(training)}."
    return line


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


def _conclude(training: Training, display: Display, *, as_json: bool) -> None:
    best = max(training.history, key=lambda record: float(record["val_accuracy"]))
    display.say(
        f"Best: {best['val_accuracy']:.1%} after epoch {best['epoch']}: {training.out / 'best.pt'}"
    )
    if as_json:
        result = {
            "settings": asdict(training.settings),
            "classes": training.training.classes,
            "device": str(training.device),
            "best_epoch": best["epoch"],
            "best_val_accuracy": best["val_accuracy"],
            "out": str(training.out),
            "epochs": training.history,
        }
        print(json.dumps(result), flush=True)
