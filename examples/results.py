"""Make docs/results.md: what augmentation, views and transfer are worth on a small set of photos.

    python -m examples.results --data FOLDER --work WORK --out docs/results.md

FOLDER has train/ and test/, each with a folder per class. Every figure comes from a run that this
program makes, through the same commands that a user types; the page names them. Runs are kept in
WORK by name and not repeated, so an interrupted program continues. With --jobs 2 two seeds train
side by side on a thread each, which takes less time than one after the other on two. Timed runs
run alone, at the end. Accuracies are those on test/, averaged over the last quarter of a run's
epochs. At a constant rate they go up and down from epoch to epoch, and none is chosen. A gain is
paired by seed, with a 95 % interval after Student.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

# Two-sided 95 % quantiles of Student's t by degrees of freedom.
_STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
_TURNS = (0, 90, 180, 270)
_Found = TypeVar("_Found")
_TRANSFER_SEEDS_MAX = 3  # each of them trains six times
_STRATEGIES = ("scratch", "head", "partial", "full", "two-phase")


@dataclass(frozen=True, slots=True)
class Lab:
    """Where runs are made, and how long they are.

    Attributes:
        data: the photos.
        work: folder of runs and of what they printed.
        size: side of the images, in pixels.
        epochs: of a run from scratch; transfer takes a quarter of them, and so does pretraining,
            whose photos are four times as many.
        seeds: how many, from 0 on.
        producers: producer processes of each run; None is one per core.
        jobs: how many runs are made at the same time.
    """

    data: Path
    work: Path
    size: int
    epochs: int
    seeds: int
    producers: int | None
    jobs: int

    def by_seed(self, one: Callable[[int], _Found]) -> list[_Found]:
        """Return what `one` finds for every seed."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(one, range(self.seeds)))

    def run(self, name: str, command: str, data: Path | None, *options: object) -> dict[str, Any]:
        """Run a command of `trainer`, or read what it printed when it was run before."""
        kept = self.work / f"{name}.json"
        if not kept.exists():
            where = [] if data is None else [str(data)]
            arguments = [command, *where, *map(str, options), "--json"]
            if self.producers is not None:
                arguments += ["--producers", str(self.producers)]
            print(f"{name}: trainer {shlex.join(arguments)}", flush=True)
            started_s = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "trainer", *arguments],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env=os.environ | ({"OMP_NUM_THREADS": "1"} if self.jobs > 1 else {}),
            )
            result = json.loads(done.stdout)
            result["seconds"] = time.perf_counter() - started_s
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(result), encoding="utf-8")
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found

    def fit(self, name: str, *options: object, data: Path | None = None) -> dict[str, Any]:
        """Train the small convnet with Chollet's optimiser; unfinished runs go on."""
        out = self.work / "runs" / name
        resume = ["--resume"] if (out / "last.pt").exists() else []
        return self.run(
            name, "fit", data or self.data, *self.common(), *options, "--out", out, *resume
        )

    def common(self) -> list[object]:
        """Return the options of every run."""
        return [
            *("--arch", "small-convnet", "--batch-size", 32, "--optimizer", "rmsprop"),
            *("--schedule", "constant"),
        ]

    def checkpoint(self, name: str) -> Path:
        """Return the last checkpoint of a run."""
        return self.work / "runs" / name / "last.pt"


def late_accuracy(result: dict[str, Any]) -> float:
    """Return the accuracy, 0..1, averaged over the last quarter of the epochs."""
    values = [float(epoch["val_accuracy"]) for epoch in result["epochs"]]
    return statistics.fmean(values[-max(1, len(values) // 4) :])


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, and lower and upper end of its 95 % interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan, math.nan
    reach = _STUDENT.get(len(values) - 1, 1.96) * statistics.stdev(values)
    reach /= math.sqrt(len(values))
    return mean, mean - reach, mean + reach


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def share(value: float) -> str:
    """Write an accuracy as a per cent."""
    return f"{100 * value:.1f} %"


def gain(values: Sequence[float]) -> str:
    """Write a paired gain with its interval, in percentage points."""
    mean, low, high = (100 * value for value in interval(values))
    if math.isnan(low):
        return f"{mean:+.1f} points (one seed, no interval)"
    return f"{mean:+.1f} points (95 %: {low:+.1f} to {high:+.1f}, {len(values)} seeds)"


def plain_recipe(lab: Lab) -> Path:
    """Write the recipe that only resizes."""
    path = lab.work / "plain.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'[[ops]]\nop = "resize"\nsize = [{lab.size}, {lab.size}]\n', encoding="utf-8")
    return path


def augmentation(lab: Lab) -> Iterator[str]:
    """Compare training with augmentation and dropout to training without, seed by seed."""
    with_it = ["--recipe", "keras-small", "--size", lab.size]
    without = ["--recipe", plain_recipe(lab), "--dropout", 0]
    few = max(1, lab.epochs * 3 // 5)  # enough to know the photos by heart

    def one(seed: int) -> tuple[float, float, float, float]:
        bare = late_accuracy(lab.fit(f"plain-{seed}", *without, "--epochs", few, "--seed", seed))
        full = lab.fit(f"augmented-{seed}", *with_it, "--epochs", lab.epochs, "--seed", seed)
        last = float(full["epochs"][-1]["val_accuracy"])
        return bare, late_accuracy(full), last, evaluate(lab, f"augmented-{seed}", "ten-crop")

    found = lab.by_seed(one)
    rows = [[str(seed), *map(share, values)] for seed, values in enumerate(found)]
    yield "## From scratch: augmentation and dropout, one view and ten\n"
    yield (
        f"The small convnet at {lab.size} px, RMSprop at 0.001, batches of 32. Without: the photos "
        f"as they are, no dropout, {few} epochs, after which it has memorised them. With: mirror, "
        f"rotation, zoom, dropout 0.5, {lab.epochs} epochs.\n"
    )
    yield from table(["seed", "without", "with", "with: last epoch", "the same, ten-crop"], rows)
    yield f"\nGain of augmentation and dropout: {gain([full - bare for bare, full, *_ in found])}."
    yield f"Gain of ten views over one: {gain([crops - one for *_, one, crops in found])}.\n"
    yield from commands(
        f"fit DATA --arch small-convnet --recipe plain.toml --dropout 0 --epochs {few} ...",
        "fit DATA --arch small-convnet --recipe keras-small "
        f"--size {lab.size} --optimizer rmsprop --schedule constant --batch-size 32 "
        f"--epochs {lab.epochs} --seed SEED --out RUN",
        "evaluate DATA --checkpoint RUN/last.pt --views ten-crop",
    )


def evaluate(lab: Lab, name: str, views: str) -> float:
    """Return the accuracy of a run's last checkpoint on test/ by some views."""
    out = lab.work / "evaluations" / f"{name}-{views}"
    options = ["--checkpoint", lab.checkpoint(name), "--views", views, "--split", "test"]
    found = lab.run(f"{name}-{views}", "evaluate", lab.data, *options, "--out", out)
    return float(found["accuracy"])


def make_rotations(data: Path, out: Path) -> None:
    """Write photos turned by 0, 90, 180, 270 degrees, into train/ and val/ with a class per turn.

    A task that needs no labels, and the shapes of things to be solved (Gidaris et al. 2018). A
    quarter of test/ says how well it is solved: no photo is on both sides.
    """
    for split, source, step in (("train", "train", 1), ("val", "test", 4)):
        photos = sorted(path for path in (data / source).rglob("*") if path.is_file())[::step]
        for turn in _TURNS:
            folder = out / split / f"turned-{turn}"
            folder.mkdir(parents=True, exist_ok=True)
            for number, path in enumerate(photos):
                target = folder / f"{number:05}.jpg"
                if not target.exists():
                    with Image.open(path) as photo:
                        photo.convert("RGB").rotate(turn, expand=True).save(target, quality=95)


def transfer(lab: Lab) -> Iterator[str]:
    """Pretrain on turned photos, then move to the classes, by every strategy and by features."""
    turned, alone = lab.work / "turned", replace(lab, jobs=1)
    make_rotations(lab.data, turned)
    recipe = ["--recipe", plain_recipe(lab)]
    epochs = max(2, lab.epochs // 4)
    pretrained = alone.fit("pretrained", *recipe, "--epochs", epochs, data=turned)
    weights = ["--weights", lab.checkpoint("pretrained")]

    def strategy(lab: Lab, name: str, seed: int, run: str) -> dict[str, Any]:
        start = [] if name == "scratch" else weights
        return lab.fit(
            f"{run}-{seed}",
            *(*recipe, *start, "--strategy", name, "--unfreeze", 2, "--low-share", 0.1),
            *("--epochs", epochs, "--seed", seed, "--dropout", 0),
        )

    def features(lab: Lab, seed: int, run: str) -> dict[str, Any]:
        return lab.run(
            f"{run}-{seed}",
            "features",
            lab.data,
            *(*lab.common(), *recipe, *weights, "--dropout", 0),
            *("--epochs", epochs, "--seed", seed, "--out", lab.work / "features" / run / str(seed)),
        )

    def one(seed: int) -> dict[str, float]:
        found = {name: late_accuracy(strategy(lab, name, seed, name)) for name in _STRATEGIES}
        return found | {"features": late_accuracy(features(lab, seed, "features"))}

    found = replace(lab, seeds=min(lab.seeds, _TRANSFER_SEEDS_MAX)).by_seed(one)
    yield "## Transfer: from turned photos to classes\n"
    yield (
        "No weights are downloaded. The small convnet first learns by how much a training photo is "
        f"turned (four classes, no labels needed; {share(late_accuracy(pretrained))} of other "
        f"photos after {epochs} epochs). It then moves to the classes for as many epochs. "
        "`features` is `head` on stored activations.\n"
    )
    rows = []
    is_shown = False
    for name in found[0]:
        values = [accuracies[name] for accuracies in found]
        against = [accuracies[name] - accuracies["scratch"] for accuracies in found]
        told = "" if name == "scratch" else gain(against)
        is_shown = is_shown or interval(against)[1] > 0
        rows.append([name, share(statistics.fmean(values)), told])
    yield from table(["strategy", "accuracy", "against scratch"], rows)
    if not is_shown:
        yield (
            "\nNo interval lies above 0: these seeds cannot show what so short a pretraining on so "
            "few photos is worth for the classes."
        )
    online = strategy(alone, "head", 0, "alone-head")["seconds"]
    stored = features(alone, 0, "alone-features")["seconds"]
    yield (
        f"\nThe head alone, {epochs} epochs, whole commands with nothing beside them: online "
        f"{online:.0f} s, on features {stored:.0f} s ({online / stored:.1f} x).\n"
    )
    yield from commands(
        f"fit TURNED --arch small-convnet --recipe plain.toml --epochs {epochs} ... "
        "--out pretrained",
        "fit DATA --weights pretrained/last.pt --strategy STRATEGY --unfreeze 2 --low-share 0.1 "
        f"--epochs {epochs} ...",
        "features DATA --weights pretrained/last.pt ...",
    )


def commands(*lines: str) -> Iterator[str]:
    """Write commands of `trainer` as a block."""
    yield "```"
    yield from (f"trainer {line}" for line in lines)
    yield "```\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make all runs that are not there yet, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m examples.results", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--size", type=int, default=180, help="side of the images, px")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--producers", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    given = parser.parse_args(arguments)
    lab = Lab(
        given.data,
        given.work,
        given.size,
        given.epochs,
        given.seeds,
        given.producers,
        given.jobs,
    )
    lines = [
        "# Results\n",
        f"Made by `python -m examples.results --data DATA --size {lab.size} --epochs {lab.epochs} "
        f"--seeds {lab.seeds}`, which makes every run that is named here. Accuracies are "
        "those of photos that took no part in training, averaged over the last quarter of the "
        "epochs. At a constant rate they go up and down, and none was chosen.\n",
        *augmentation(lab),
        *transfer(lab),
    ]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(f"Written: {given.out}")


if __name__ == "__main__":
    main()
