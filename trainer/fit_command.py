"""`trainer fit`: a daemon, two streams and a network come together for one run.

Where it stands: around the loop. Refuses what cannot work before anything long begins, and
leaves neither a process nor half a file behind.
"""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import augd
from trainer.checkpoint import check_same_run, load_checkpoint
from trainer.fit import Settings, Training
from trainer.interrupt import Interrupt
from trainer.models import build_model, check_arch
from trainer.progress import Display
from trainer.recipes import Recipes, choose_recipes
from trainer.splits import Splits, open_splits

EXIT_INTERRUPTED = 128 + signal.SIGINT

# (learning rate, weight decay): of SGD for 256 images a batch, scaled with the batch.
_DEFAULTS = {"sgd": (0.1, 1e-4), "adamw": (1e-3, 0.05)}
_SGD_BATCH = 256
# Share of the run that warms up unless told otherwise.
_WARMUP_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What `trainer fit` was asked for. Exactly one of `path` and `connect` is given."""

    path: str | None
    connect: str | None
    dataset: str | None
    arch: str
    recipe: str
    size: int | None
    val_fraction: float
    batch_size: int
    epochs: int
    optimizer: str
    lr: float | None
    weight_decay: float | None
    warmup_epochs: float | None
    seed: int
    producers: int | None
    device: str | None
    amp: bool
    out: Path
    resume: bool
    checkpoint_every: int | None
    limit_train_batches: int | None
    as_json: bool
    keys: str | None = None


def run_fit(options: FitOptions) -> int:
    """Train; returns the exit status: 0, or 130 after Ctrl-C."""
    settings = settle(options)
    check_arch(settings.arch)
    _check_place(options)
    last = options.out / "last.pt"
    state = load_checkpoint(last) if options.resume else None
    recipes = choose_recipes(options.recipe, options.size)
    with ExitStack() as cleaning:
        display = Display(settings.epochs, is_json=options.as_json)
        splits = _open(options, settings, recipes, cleaning)
        torch.manual_seed(settings.seed)
        if state is not None:
            here = asdict(settings) | {"classes": splits.training.classes}
            check_same_run(last, state["settings"], here)
        network = build_model(settings.arch, len(splits.training.classes), recipes.size_px)
        every = options.checkpoint_every
        training = Training(settings, splits, network, display, options.out, every)
        if state is not None:
            training.load_state_dict(state)
        cleaning.enter_context(display)
        display.say(_introduce(training))
        status = _train(training, cleaning.enter_context(Interrupt()))
    if status == 0:
        _conclude(training, display, as_json=options.as_json)
    return status


def settle(options: FitOptions) -> Settings:
    """Check the options against each other, and put in what was left open.

    Raises:
        OptionError: names the option, what was expected and found.
    """
    if (options.path is None) == (options.connect is None):
        found = "neither" if options.path is None else "both"
        raise augd.OptionError(f"expected either PATH or --connect ADDR, got {found}")
    if options.connect is not None and options.producers is not None:
        raise augd.OptionError(
            "--producers: a running daemon has its own; leave --producers out with --connect"
        )
    optimizer = options.optimizer
    if optimizer not in ("sgd", "adamw"):
        raise augd.OptionError(f"--optimizer: expected sgd or adamw, got {optimizer!r}")
    lr, weight_decay = _DEFAULTS[optimizer]
    if optimizer == "sgd":
        lr *= options.batch_size / _SGD_BATCH
    lr = lr if options.lr is None else options.lr
    weight_decay = weight_decay if options.weight_decay is None else options.weight_decay
    if not 0 < lr < float("inf"):
        raise augd.OptionError(f"--lr: expected a positive number, got {lr!r}")
    if not 0 <= weight_decay < float("inf"):
        raise augd.OptionError(f"--weight-decay: expected 0 or more, got {weight_decay!r}")
    return Settings(
        arch=options.arch,
        batch_size=options.batch_size,
        epochs=options.epochs,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        warmup_epochs=_warmup(options),
        seed=options.seed,
        amp=options.amp,
        limit_train_batches=options.limit_train_batches,
    )


def _warmup(options: FitOptions) -> float:
    if options.warmup_epochs is None:
        return options.epochs * _WARMUP_SHARE
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


def _open(options: FitOptions, settings: Settings, recipes: Recipes, cleaning: ExitStack) -> Splits:
    """Open both streams, of a daemon of our own unless there is one."""
    address = options.connect
    if options.path is not None:
        served = augd.serve(options.path, producers=options.producers)
        address = cleaning.enter_context(served).address
    assert address is not None
    splits = open_splits(
        address,
        recipes,
        dataset=options.dataset,
        batch_size=settings.batch_size,
        seed=settings.seed,
        val_fraction=options.val_fraction,
        device=options.device,
        keys=options.keys,
    )
    cleaning.callback(splits.close)
    if settings.amp and splits.training.device.type != "cuda":
        raise augd.OptionError("--amp: is for CUDA devices, and this run is on the CPU")
    return splits


def _train(training: Training, interrupt: Interrupt) -> int:
    try:
        training.run(interrupt)
    except KeyboardInterrupt:
        path = training.save("last.pt")  # no second Ctrl-C gets in here
        training.display.say(
            f"Stopped {_place(training)}; saved {path}. To go on: the same command with --resume."
        )
        return EXIT_INTERRUPTED
    return 0


def _place(training: Training) -> str:
    if training.batch:
        batch = f"batch {training.batch} of {training.batches_per_epoch}"
        return f"in epoch {training.epoch + 1}, after {batch}"
    return f"after epoch {training.epoch}" if training.epoch else "before the first step"


def _introduce(training: Training) -> str:
    splits, settings = training.splits, training.settings
    num_weights = sum(parameter.numel() for parameter in training.network.parameters())
    line = (
        f"{settings.arch}, {num_weights / 1e6:.1f} million weights, {len(splits.training.classes)} "
        f"classes, on {training.device}: {splits.training.num_samples} images to train on, "
        f"{splits.validation.num_samples} to validate with (split {splits.validation_name!r})"
    )
    if training.epoch or training.batch:
        line += f"\nResumed {_place(training)}."
    return line


def _conclude(training: Training, display: Display, *, as_json: bool) -> None:
    best = max(training.history, key=lambda record: float(record["val_accuracy"]))
    display.say(
        f"Best: {best['val_accuracy']:.1%} after epoch {best['epoch']}: {training.out / 'best.pt'}"
    )
    if as_json:
        result = {
            "settings": asdict(training.settings),
            "classes": training.splits.training.classes,
            "device": str(training.device),
            "best_epoch": best["epoch"],
            "best_val_accuracy": best["val_accuracy"],
            "out": str(training.out),
            "epochs": training.history,
        }
        print(json.dumps(result), flush=True)
