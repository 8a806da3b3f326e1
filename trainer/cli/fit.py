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

from ..data.recipes import Recipes, choose_recipes, with_mix
from ..data.splits import Splits, open_splits
from ..models.build_network import build_staged_network, check_arch
from ..models.pretrained_weights import find_weights, put_weights
from ..training.distributed import Ranks, join_ranks
from ..training.interrupt import Interrupt
from ..training.loop import Training
from ..training.options import FitOptions
from ..training.progress import Display
from ..training.run import begin, best_of, find_place, introduction, settle_with, train
from ..training.settings import Settings
from ..training.settle import settle

# What `augd replay` assumes of a dataset without splits of its own.
_VAL_FRACTION = 0.1


def run_fit(options: FitOptions) -> int:
    """Train; returns the exit status: 0, or 130 after Ctrl-C and 143 after SIGTERM."""
    check_place(options.path, options.connect, options.producers)
    settings = settle(options)
    check_arch(settings.arch)
    place = find_place(options.out, resume=options.resume, resume_auto=options.resume_auto)
    weights = None
    if settings.weights is not None and place.state is None:
        weights = find_weights(settings.arch, settings.weights)
    recipes = with_mix(
        choose_recipes(options.recipe, options.size),
        *(options.mixup, options.cutmix, options.label_smoothing),
    )
    with ExitStack() as cleaning:
        ranks = cleaning.enter_context(join_ranks())
        display = Display(settings.epochs, is_json=options.as_json, is_silent=not ranks.is_first)
        splits = open_run(options, settings, recipes, ranks, cleaning)
        settings, why = settle_with(settings, options, splits, ranks)
        torch.manual_seed(settings.seed)
        staged = build_staged_network(
            settings.arch,
            len(splits.training.classes),
            splits.recipes.size_px,
            head=settings.head,
            dropout=settings.dropout,
            drop_connect=settings.drop_connect,
        )
        if weights is not None:
            why.append(put_weights(staged, weights, splits.training.classes))
        training = begin(
            settings,
            splits,
            staged,
            place,
            display=display,
            checkpoint_every=options.checkpoint_every,
            ranks=ranks,
            replay=_replayer(options, settings, splits.recipes, ranks),
        )
        cleaning.enter_context(display)
        for line in introduction(training, splits, why):
            display.say(line)
        ended_by = train(training, cleaning.enter_context(Interrupt(signal.SIGTERM)))
        if ended_by is None:
            ranks.wait()  # the daemon of rank 0 serves all of them
    if ended_by is not None:
        return 128 + ended_by
    if ranks.is_first:
        _conclude(training, display, as_json=options.as_json)
    return 0


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
    return splits


def _replayer(
    options: FitOptions, settings: Settings, recipes: Recipes, ranks: Ranks
) -> Callable[[int, int], str]:
    """Return a function that tells how to recompute a batch of the training stream."""

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


def _conclude(training: Training, display: Display, *, as_json: bool) -> None:
    best = best_of(training.history)
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
