"""`trainer features`: store the base's activations once, then train a head on them in seconds.

Calls `trainer.training.features` and the loop of `trainer fit`, with the same optimisers, schedules
and checkpoints. Writes into DIR: features/ (the store), head/ (the head's run) and best.pt (the
whole network, as `trainer fit` would have saved it).
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

import augd
from augd.errors import counted

from ..data.recipes import Recipes, choose_recipes
from ..data.splits import Splits
from ..models.build_network import build_staged_network, check_arch
from ..models.pretrained_weights import find_weights, put_weights
from ..training.checkpoint import load_checkpoint, save_checkpoint
from ..training.distributed import Ranks
from ..training.features import (
    Base,
    FeatureStore,
    HeadOnly,
    Key,
    StoredSource,
    digest_of_base,
    open_store,
    store_features,
)
from ..training.interrupt import Interrupt
from ..training.loop import Training
from ..training.options import FitOptions, LearningOptions
from ..training.progress import Display, Pace
from ..training.settings import Settings
from ..training.settle import settle
from .fit import check_place, open_run
from .options import FeaturesOptions


def run_features(options: FeaturesOptions) -> int:
    """Store the features that are missing, and train a head on them; returns the exit status 0.

    Raises:
        SpecMismatch: what is stored is of other weights, recipes or samples.
        AugdError: an option, the weights or the dataset does not fit.
    """
    check_place(options.path, options.connect, options.producers)
    online = _as_fit(options)
    settings = settle(online)
    check_out(options.out)
    check_arch(settings.arch)
    weights = find_weights(settings.arch, options.weights)
    recipes = choose_recipes(options.recipe, options.size)
    with ExitStack() as cleaning:
        display = cleaning.enter_context(Display(settings.epochs, is_json=options.as_json))
        splits = open_run(online, settings, recipes, Ranks(), cleaning)
        classes = splits.training.classes
        torch.manual_seed(settings.seed)
        subject = build_staged_network(
            settings.arch,
            len(classes),
            recipes.size_px,
            head=settings.head,
            dropout=settings.dropout,
            drop_connect=settings.drop_connect,
        )
        display.say(put_weights(subject, weights, classes))
        whole = {name: one.clone() for name, one in subject.network.state_dict().items()}
        head = HeadOnly(subject.network.get_submodule(subject.stages.head))
        key = _key(options, splits, digest_of_base(subject), settings)
        folder = options.out / "features"
        store = open_store(folder, key)
        is_new = store is None
        if store is None:
            base = Base(subject).to(splits.training.device).to(memory_format=torch.channels_last)
            store = _store(folder, key, base, splits, display)
        splits.close()
        training, head_s = _train(options, settings, recipes, store, head, display, cleaning)
        prefix = subject.stages.head
        _save_whole(options.out / "best.pt", training, whole, prefix)
    report = _report(training, store, head_s, is_new=is_new)
    for line in _told(report, options.out):
        display.say(line)
    if options.as_json:
        print(json.dumps(report), flush=True)
    return 0


def check_out(out: Path) -> None:
    """Check that only an earlier head on the same features would be written over in `out`.

    Raises:
        OptionError: a run of `trainer fit` is there, or a best.pt or head/ of something else.
    """
    last, best, head = out / "last.pt", out / "best.pt", out / "head"
    if last.exists():
        raise augd.OptionError(
            f"--out: {last} is of a run of trainer fit, whose best.pt would be written over; "
            "choose another --out"
        )
    if head.exists() and not _is_of_a_head(head):
        raise augd.OptionError(
            f"--out: {head} would be written over, and is not of trainer features: expected "
            "last.pt or best.pt in it; move it away, or choose another --out"
        )
    if best.exists() and not (out / "features").exists() and not head.exists():
        raise augd.OptionError(
            f"--out: {best} would be written over, and is not of trainer features: expected "
            "features/ or head/ beside it; move it away, or choose another --out"
        )


def _is_of_a_head(folder: Path) -> bool:
    """Say whether training a head left this; before its first checkpoint it has events at most."""
    if not folder.is_dir():
        return False
    names = {one.name for one in folder.iterdir()}
    return bool(names & {"last.pt", "best.pt"}) or names <= {"tensorboard"}


def _as_fit(options: FeaturesOptions) -> FitOptions:
    """Return the options of the run that does the same online."""
    shared = {field.name: getattr(options, field.name) for field in fields(LearningOptions)}
    return FitOptions(**shared, strategy="head")


def _key(options: FeaturesOptions, splits: Splits, base: str, settings: Settings) -> Key:
    """Return all that decides the features; digests last, since they say least."""
    return {
        "arch": settings.arch,
        "recipe": splits.recipes.training,
        "validation": splits.recipes.validation,
        "mean": settings.mean,
        "std": settings.std,
        "passes": options.passes,
        "seed": options.seed,
        "classes": splits.training.classes,
        "weights": base,
        "training samples": splits.training.content,
        "validation samples": splits.validation.content,
    }


def _store(folder: Path, key: Key, base: Base, splits: Splits, display: Display) -> FeatureStore:
    paces = {"": Pace(splits.training)}

    def told(name: str, rows: int) -> None:
        if name not in paces:
            source = splits.validation if name == "validation" else splits.training
            paces[name] = Pace(source)
            display.begin(f"features, {name}", 0, len(source))
        display.advance(None, None, paces[name])

    return store_features(folder, key, base, splits.training, splits.validation, told)


def _train(
    options: FeaturesOptions,
    settings: Settings,
    recipes: Recipes,
    store: FeatureStore,
    head: HeadOnly,
    display: Display,
    cleaning: ExitStack,
) -> tuple[Training, float]:
    """Train the head on what is stored; returns its run and the seconds that it took."""
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    folder = options.out / "head"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier head, as `check_out` saw
    dataset = options.dataset or "features"
    passes = [store.training(number) for number in range(options.passes)]
    common = {"dataset": dataset}
    training = Training(
        settings,
        StoredSource(
            passes, store.classes, settings.batch_size, device, shuffle_seed=settings.seed, **common
        ),
        StoredSource(
            [store.validation()],
            store.classes,
            settings.batch_size,
            device,
            shuffle_seed=None,
            **common,
        ),
        head.as_staged_network(settings.arch),
        display,
        folder,
        recipes=recipes._asdict(),
    )
    started_s = time.perf_counter()
    training.run(cleaning.enter_context(Interrupt()))
    return training, time.perf_counter() - started_s


def _save_whole(path: Path, training: Training, whole: dict[str, Any], prefix: str) -> None:
    """Put the best head onto the base, and save both as `trainer fit` would have."""
    state = load_checkpoint(training.out / "best.pt")
    best = state["model"] if state["ema"] is None else state["ema"]
    for name, one in best.items():
        whole[f"{prefix}.{name.removeprefix('head.')}"] = one
    kept = {name: state[name] for name in ("settings", "recipes", "history")}
    save_checkpoint(path, {**kept, "model": whole, "ema": None})


def _report(
    training: Training, store: FeatureStore, head_s: float, *, is_new: bool
) -> dict[str, Any]:
    """Report the time it took, and what training the head online would have taken.

    Online every epoch passes all images through the base again, at the pace at which the features
    were made here. The head's own time is left out of both.
    """
    best = max(training.history, key=lambda record: float(record["val_accuracy"]))
    features_s = sum(store.seconds.values())
    one_epoch_s = store.seconds["training-0"] + store.seconds["validation"]
    num_epochs = len(training.history)
    spent_s = features_s if is_new else 0.0
    return {
        "best_val_accuracy": best["val_accuracy"],
        "best_epoch": best["epoch"],
        "epochs": training.history,
        "passes": store.key["passes"],
        "images": training.training.num_samples,
        "is_new": is_new,
        "features_s": features_s,
        "head_s": head_s,
        "online_s": num_epochs * one_epoch_s,
        "saved_s": num_epochs * one_epoch_s - spent_s,
    }


def _told(report: dict[str, Any], out: Path) -> list[str]:
    made = "made" if report["is_new"] else "found stored (making them took as long)"
    if report["saved_s"] > 0:
        saved = f"{report['saved_s']:.1f} s saved"
    else:
        saved = "nothing saved: with so few epochs, trainer fit --strategy head is as fast"
    return [
        f"Features of {counted(report['images'], 'image')}, "
        f"{counted(report['passes'], 'pass', 'passes')}: "
        f"{report['features_s']:.1f} s, {made}. Head: {counted(len(report['epochs']), 'epoch')} in "
        f"{report['head_s']:.1f} s.",
        f"Passing the images through the base in each of these epochs would have taken about "
        f"{report['online_s']:.1f} s: {saved}.",
        f"Best: {report['best_val_accuracy']:.1%} after epoch {report['best_epoch']}: "
        f"{out / 'best.pt'}",
    ]
