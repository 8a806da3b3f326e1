"""`trainer evaluate`: measure checkpoints on samples that they were not trained on.

Calls `trainer.evaluation.predict`. Writes results.json, confusion.png and TensorBoard's events into
the folder of `--out`, and nothing else.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, cast

import augd
from augd.errors import counted, verb

from ..data.recipes import views_recipe
from ..data.splits import refuse_unlabelled
from ..data.stream import Stream, connect
from ..evaluation.charts import draw_confusion
from ..evaluation.images import save_png
from ..evaluation.predict import evaluate
from ..training.load_trained import Trained, check_ensemble, read_trained
from ..training.progress import Display, Pace
from ..training.tensorboard import TensorBoardLog
from .fit import check_place
from .options import EvaluateOptions

VIEWS = ("none", "ten-crop", "multi-scale")
# Held back from training where the dataset records it, else drawn by a hash of each path.
Split = Literal["train", "val", "test"]
_SPLITS: tuple[Split, ...] = ("test", "val")
# Classes that a person is shown one by one: the worst.
_CLASSES_SHOWN = 10
_TOP = 5
# Where `trainer fit` puts a run unless told otherwise.
_RUN = Path("run")


def run_evaluate(options: EvaluateOptions) -> int:
    """Evaluate; returns the exit status 0.

    Raises:
        AugdError: an option, a checkpoint or the dataset does not fit.
    """
    check_place(options.path, options.connect, options.producers)
    if options.views not in VIEWS:
        raise augd.OptionError(f"--views: expected {', '.join(VIEWS)}, got {options.views!r}")
    trained = [read_trained(path, options.arch) for path in options.checkpoint or [_RUN]]
    check_ensemble(trained)
    with ExitStack() as cleaning:
        stream, split = _open(options, trained[0], cleaning)
        display = cleaning.enter_context(Display(1, is_json=options.as_json))
        networks = [one.staged.network.to(stream.device) for one in trained]
        display.begin("evaluating", 0, len(stream))
        pace = Pace(stream)
        together, alone = evaluate(
            networks, stream, options.batch_size, lambda rows: display.advance(None, None, pace)
        )
        scores = together.as_data()
        result = {
            "checkpoints": [str(one.path) for one in trained],
            "dataset": stream.dataset,
            "split": split,
            "views": options.views,
            "masked": stream.num_samples - scores["samples"],
            **scores,
        }
        if len(trained) > 1:
            result["alone"] = [one.as_data()["accuracy"] for one in alone]
        _write(options.out, result, trained[0].epoch)
        for line in _told(result, options.out):
            display.say(line)
    if options.as_json:
        print(json.dumps(result), flush=True)
    return 0


def recipe_of(trained: Trained, views: str) -> str | dict[str, Any]:
    """Return the recipe that a network was validated with, or one with views of the same size.

    Raises:
        OptionError: views of images that come as they are.
    """
    if views == "none":
        return trained.validation
    if trained.size_px is None or isinstance(trained.validation, str):
        raise augd.OptionError(
            f"--views: {trained.path} was trained on images as they are, which have no size to cut "
            "views of; leave --views out"
        )
    image_filter = trained.validation.get("filter", "antialias")
    return views_recipe(views, trained.size_px, image_filter)


def open_for(
    trained: Trained,
    cleaning: ExitStack,
    *,
    path: str | None,
    address: str | None,
    producers: int | None,
    split: str | None,
    **options: Any,
) -> tuple[Stream, Split]:
    """Open a stream of samples that the network can classify; its labels are the network's.

    `split` None is "test", or "val" of a dataset that has no other.

    Raises:
        DatasetError: the dataset has other classes than the network.
        AugdError: as `augd.torch.connect` says.
    """
    if path is not None:
        address = cleaning.enter_context(augd.serve(path, producers=producers)).address
    options |= {"shuffle": False, "val_fraction": trained.val_fraction}
    if options.get("normalize", True):
        options |= trained.constants._asdict()
    opened = _open_first(_SPLITS if split is None else (cast(Split, split),), address, options)
    stream = cleaning.enter_context(opened[0])
    if stream.classes == trained.classes:
        return opened
    if sorted(stream.classes) == sorted(trained.classes):  # a manifest may list them otherwise
        stream.close()
        options["classes"] = trained.classes
        return cleaning.enter_context(connect(address, split=opened[1], **options)), opened[1]
    raise augd.DatasetError(
        f"dataset {stream.dataset!r} has the classes {_few(stream.classes)}, and {trained.path} "
        f"tells {_few(trained.classes)} apart: give the dataset that it was trained for"
    )


def _open_first(
    splits: tuple[Split, ...], address: str | None, options: dict[str, Any]
) -> tuple[Stream, Split]:
    """Open the first of these splits that the dataset has."""
    for name in splits[:-1]:
        try:
            return connect(address, split=name, **options), name
        except augd.OptionError as error:
            if not str(error).startswith("split:"):
                raise
    return connect(address, split=splits[-1], **options), splits[-1]


def _open(options: EvaluateOptions, trained: Trained, cleaning: ExitStack) -> tuple[Stream, Split]:
    stream, split = open_for(
        trained,
        cleaning,
        path=options.path,
        address=options.connect,
        producers=options.producers,
        split=options.split,
        dataset=options.dataset,
        max_bad_fraction=options.max_bad_fraction,
        keys=options.keys,
        recipe=recipe_of(trained, options.views),
        batch_size=options.batch_size,
        device=options.device,
    )
    refuse_unlabelled(stream, split)
    return stream, split


def _write(out: Path, result: dict[str, Any], step: int) -> None:
    image = draw_confusion(result["confusion"], [one["name"] for one in result["classes"]])
    save_png(out / "confusion.png", image)
    try:
        (out / "results.json").write_text(as_text(result), encoding="utf-8")
    except OSError as error:
        raise augd.AugdError(
            f"{out} cannot be written to ({error}); choose another --out"
        ) from None
    with TensorBoardLog(out / "tensorboard") as log:
        names = ("accuracy", "top5", "loss")
        log.numbers(step, {f"evaluation/{name}": result[name] for name in names})
        log.image(step, "evaluation/confusion", image)


def as_text(result: dict[str, Any]) -> str:
    """Write results as JSON: last the confusion matrix, a row per line."""
    rest = {name: value for name, value in result.items() if name != "confusion"}
    rows = ",\n".join(f"    {json.dumps(row)}" for row in result["confusion"])
    return f'{json.dumps(rest, indent=2)[:-2]},\n  "confusion": [\n{rows}\n  ]\n}}\n'


def _told(result: dict[str, Any], out: Path) -> list[str]:
    # Of five classes or fewer, the label always is among the five likeliest.
    top = f"top-5 {result['top5']:.1%}, " if len(result["classes"]) > _TOP else ""
    lines = [
        f"{counted(result['samples'], 'image')} of split {result['split']!r}, views: "
        f"{result['views']}: "
        f"accuracy {result['accuracy']:.1%}, {top}loss {result['loss']:.4f}"
    ]
    if result["masked"]:
        lines.append(
            f"{counted(result['masked'], 'image')} could not be read, and "
            f"{verb(result['masked'], 'does', 'do')} not count."
        )
    if "alone" in result:
        alone = ", ".join(f"{accuracy:.1%}" for accuracy in result["alone"])
        lines.append(f"Each network alone: {alone}.")
    known = [one for one in result["classes"] if one["samples"]]
    worst = sorted(known, key=lambda one: float(one["accuracy"]))[:_CLASSES_SHOWN]
    lines += [
        f"  {one['accuracy']:6.1%} of {one['samples']} {_plain(one['name'])}" for one in worst
    ]
    if len(known) > len(worst):
        lines.append(f"  and {counted(len(known) - len(worst), 'class', 'classes')} above these")
    if empty := [one["name"] for one in result["classes"] if not one["samples"]]:
        lines.append(f"No image of: {_few(empty)}.")
    return [*lines, f"Written: {out / 'results.json'}, {out / 'confusion.png'}"]


def _plain(name: str) -> str:
    """Escape a class's name for one line of a terminal, whatever its characters."""
    return name if name.isprintable() else ascii(name)[1:-1]


def _few(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:4]))
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
