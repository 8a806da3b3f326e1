"""Make docs/results.md: what augmentation, views and transfer are worth on a small set of photos.

    python -m examples.results --data FOLDER --work WORK --out docs/results.md

FOLDER has train/ and test/, each with a folder per class. Every figure comes from a run that this
program makes, through the same commands that anybody would type; the page names them. Runs are
kept in WORK by name and not made again, so that what was interrupted goes on. Accuracies are those
of the last epoch on test/: no epoch is chosen by them. A gain is paired by seed, with a 95 %
interval after Student.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

# Two-sided 95 % quantiles of Student's t by degrees of freedom.
_STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
_TURNS = (0, 90, 180, 270)
_STRATEGIES = ("scratch", "head", "partial", "full", "two-phase")


@dataclass(frozen=True, slots=True)
class Lab:
    """Where runs are made, and how long they are.

    Attributes:
        data: the photos.
        work: folder of runs and of what they printed.
        size: side of the images, in pixels.
        epochs: of a run from scratch; transfer takes a third of them.
        seeds: how many, from 0 on.
        producers: producer processes of each run; None is one per core.
    """

    data: Path
    work: Path
    size: int
    epochs: int
    seeds: int
    producers: int | None

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


def last_accuracy(result: dict[str, Any]) -> float:
    """Return the accuracy after the last epoch, 0..1."""
    return float(result["epochs"][-1]["val_accuracy"])


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
    rows, gains, views = [], [], []
    for seed in range(lab.seeds):
        more = ["--epochs", lab.epochs, "--seed", seed]
        bare = last_accuracy(lab.fit(f"plain-{seed}", *without, *more))
        full = last_accuracy(lab.fit(f"augmented-{seed}", *with_it, *more))
        crops = evaluate(lab, f"augmented-{seed}", "ten-crop")
        gains.append(full - bare)
        views.append(crops - full)
        rows.append([str(seed), share(bare), share(full), share(crops)])
    yield "## From scratch: augmentation and dropout, one view and ten\n"
    yield (
        f"The small convnet at {lab.size} px, RMSprop at 0.001, batches of 32, {lab.epochs} "
        "epochs. Without: the photos as they are, no dropout. With: mirror, rotation, zoom, "
        "dropout 0.5.\n"
    )
    yield from table(["seed", "without", "with", "with, ten-crop"], rows)
    yield f"\nGain of augmentation and dropout: {gain(gains)}."
    yield f"Gain of ten views over one: {gain(views)}.\n"
    yield from commands(
        "fit DATA --arch small-convnet --recipe plain.toml --dropout 0 ...",
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
    """Write every training photo turned by 0, 90, 180 and 270 degrees, into a folder per turn.

    A task that needs no labels, and the shapes of things to be solved (Gidaris et al. 2018).
    """
    photos = sorted(path for path in (data / "train").rglob("*") if path.is_file())
    for turn in _TURNS:
        folder = out / f"turned-{turn}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(photos):
            target = folder / f"{number:05}.jpg"
            if not target.exists():
                with Image.open(path) as photo:
                    photo.convert("RGB").rotate(turn, expand=True).save(target, quality=95)


def transfer(lab: Lab) -> Iterator[str]:
    """Pretrain on turned photos, then move to the classes, by every strategy and by features."""
    turned = lab.work / "turned"
    make_rotations(lab.data, turned)
    recipe = ["--recipe", plain_recipe(lab)]
    pretrained = lab.fit("pretrained", *recipe, "--epochs", lab.epochs, data=turned)
    weights = ["--weights", lab.checkpoint("pretrained")]
    epochs = max(2, lab.epochs // 3)
    found: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in range(lab.seeds):
        for strategy in _STRATEGIES:
            start = [] if strategy == "scratch" else weights
            result = lab.fit(
                f"{strategy}-{seed}",
                *(*recipe, *start, "--strategy", strategy, "--unfreeze", 2, "--low-share", 0.1),
                *("--epochs", epochs, "--seed", seed, "--dropout", 0),
            )
            found.setdefault(strategy, []).append(last_accuracy(result))
            seconds.setdefault(strategy, []).append(result["seconds"])
        result = lab.run(
            f"features-{seed}",
            "features",
            lab.data,
            *(*lab.common(), *recipe, *weights, "--dropout", 0),
            *("--epochs", epochs, "--seed", seed, "--out", lab.work / "features" / str(seed)),
        )
        found.setdefault("features", []).append(result["last_val_accuracy"])
        seconds.setdefault("features", []).append(result["seconds"])
    yield "## Transfer: from turned photos to classes\n"
    yield (
        "No weights are downloaded: the small convnet first learns by how much a training photo is "
        f"turned (four classes, no labels needed; {share(last_accuracy(pretrained))} of held-back "
        f"photos after {lab.epochs} epochs), then moves to the classes for {epochs} epochs. "
        "`features` is `head` on stored activations; seconds are those of whole commands.\n"
    )
    rows = []
    for name, values in found.items():
        against = [a - b for a, b in zip(values, found["scratch"], strict=True)]
        told = "" if name == "scratch" else gain(against)
        taken = f"{statistics.fmean(seconds[name]):.0f} s"
        rows.append([name, share(statistics.fmean(values)), told, taken])
    yield from table(["strategy", "accuracy", "against scratch", "time"], rows)
    yield ""
    yield from commands(
        "fit TURNED --arch small-convnet --recipe plain.toml ... --out pretrained",
        "fit DATA --weights pretrained/last.pt --strategy STRATEGY --unfreeze 2 --low-share 0.1 "
        "...",
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
    given = parser.parse_args(arguments)
    lab = Lab(given.data, given.work, given.size, given.epochs, given.seeds, given.producers)
    lines = [
        "# Results\n",
        f"Made by `python -m examples.results --data DATA --size {lab.size} --epochs {lab.epochs} "
        f"--seeds {lab.seeds}`, which makes every run that is named here. Accuracies are of the "
        "last epoch, on photos that took no part in training.\n",
        *augmentation(lab),
        *transfer(lab),
    ]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(f"Written: {given.out}")


if __name__ == "__main__":
    main()
