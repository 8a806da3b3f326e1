"""`trainer fit`: open a daemon, two streams and a network, and run the training loop on them.

The command rejects options that cannot work before anything long begins. It leaves no process and
no unfinished file.
"""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch

import augd
from augd.errors import counted

from ..data.constants import constants_of
from ..data.recipes import Recipes, choose_recipes, with_mix
from ..data.splits import Splits, open_splits
from ..models.build_network import build_staged_network, check_arch
from ..models.pretrained_weights import find_weights, put_weights
from ..models.weights_files import Weights
from ..training.checkpoint import State, check_same_run, load_checkpoint
from ..training.distributed import Ranks, join_ranks
from ..training.interrupt import Interrupt
from ..training.loop import Training, settings_dict
from ..training.options import FitOptions
from ..training.progress import Display
from ..training.settings import Settings
from ..training.settle import settle, settle_classes, settle_strategy

EXIT_INTERRUPTED = 128 + signal.SIGINT

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
    check_place(options.path, options.connect, options.producers)
    settings = settle(options)
    check_arch(settings.arch)
    _check_place(options)
    last = options.out / "last.pt"
    state = load_checkpoint(last) if options.resume else None
    weights = None
    if settings.weights is not None and state is None:
        weights = find_weights(settings.arch, settings.weights)
    recipes = with_mix(
        choose_recipes(options.recipe, options.size),
        *(options.mixup, options.cutmix, options.label_smoothing),
    )
    with ExitStack() as cleaning:
        ranks = cleaning.enter_context(join_ranks())
        display = Display(settings.epochs, is_json=options.as_json, is_silent=not ranks.is_first)
        splits = open_run(options, settings, recipes, ranks, cleaning)
        num_images = sum_of_images(splits, ranks)
        settings, why = settle_strategy(settings, num_images, is_similar=options.similar)
        settings = settle_classes(settings, options.class_weight, splits.training.classes)
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
        balance=options.balance,
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
        recipe = recipes.training
        if not isinstance(recipe, str):
            file = options.out / "training.toml"
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(augd.recipe_toml(recipe), encoding="utf-8")
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
