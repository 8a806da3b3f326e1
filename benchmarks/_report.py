"""Figures and their targets: a table for people, one JSON line at the end for programs.

Also the options that every benchmark takes, and the photos that it runs on when none are
given. Prints no figure without its range and no target without what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from augd.cli.bench import machine_facts
from augd.pixels.library_versions import describe_environment
from benchmarks._rounds import Score, Spread, spread

NUM_PHOTOS = 1000
JPEG_SUFFIXES = (".jpg", ".jpeg")
_WIDTH = 110  # also where there is no terminal


@dataclass(frozen=True, slots=True)
class Options:
    """How the benchmarks are run."""

    photos: Path
    rounds: int
    seconds: float
    workers: int


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that the median is held against."""

    sense: Literal["<=", ">="]
    value: float

    def is_met(self, found: float) -> bool:
        """Say whether the bound holds."""
        return found <= self.value if self.sense == "<=" else found >= self.value


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure."""

    name: str
    unit: str
    spread: Spread
    target: Target | None = None

    @property
    def is_met(self) -> bool | None:
        """Say whether the target is met; None without one."""
        return None if self.target is None else self.target.is_met(self.spread.median)


@dataclass(frozen=True, slots=True)
class Absent:
    """What could not be measured here, and what to do about it."""

    name: str
    why: str


Benchmark = Callable[[Options], Sequence[Figure | Absent]]


def rates(name: str, scores: Sequence[Score]) -> list[Figure]:
    """Give one side's own figures: speed, and what it costs."""
    return [
        Figure(name, "images/s", spread(score.images_per_s for score in scores)),
        Figure(name, "CPU-s/1,000", spread(score.cpu_s_per_1000 for score in scores)),
    ]


def run_alone(name: str, question: str, benchmark: Benchmark) -> None:
    """Be the `main` of one benchmark's file."""
    run_all({name: (question, benchmark)}, f"python -m benchmarks.{name}")


def run_all(benchmarks: Mapping[str, tuple[str, Benchmark]], program: str) -> None:
    """Run benchmarks one after another, print a table after each and one JSON line at the end."""
    options = _parse_options(program)
    found: dict[str, Sequence[Figure | Absent]] = {}
    with pinned(options.workers), lent_photos(options.photos) as photos:
        filled = Options(photos, options.rounds, options.seconds, options.workers)
        for name, (question, benchmark) in benchmarks.items():
            found[name] = benchmark(filled)
            show(question, found[name])
        facts = machine_facts(describe_environment())
    document = {
        "figures": {
            name: [_as_plain(figure) for figure in figures] for name, figures in found.items()
        },
        "rounds": options.rounds,
        "seconds": options.seconds,
        "workers": options.workers,
        "photos": name_photos(options.photos),
        "machine": facts,
    }
    print(json.dumps(document))


def _as_plain(figure: Figure | Absent) -> dict[str, Any]:
    if isinstance(figure, Absent):
        return asdict(figure)
    return {**asdict(figure), "is_met": figure.is_met}


def _parse_options(program: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=program)
    add_options(parser)
    options = parser.parse_args()
    check_options(parser, options)
    return options


def add_options(parser: argparse.ArgumentParser, *, seconds: float = 5.0) -> None:
    """Add what every benchmark takes."""
    parser.add_argument(
        *("--photos", "--data"), type=Path, help=f"a folder of JPEGs [{NUM_PHOTOS} are made]"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds per competitor [5]")
    parser.add_argument(
        "--seconds", type=float, default=seconds, help=f"length of a round [{seconds:g}]"
    )
    parser.add_argument("--workers", type=int, default=2, help="producers, or workers [2]")


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse what cannot be meant."""
    if options.photos is not None and not options.photos.is_dir():
        parser.error(f"--photos: {options.photos} is not a folder")
    if options.rounds < 1 or options.seconds <= 0 or options.workers < 1:
        parser.error("--rounds, --seconds and --workers: expected more than 0")


def name_photos(given: Path | None) -> str:
    """Say what was measured on; not where it lies."""
    if given is None:
        return f"{NUM_PHOTOS} photos made by demo.photos"
    count = sum(path.suffix.lower() in JPEG_SUFFIXES for path in given.rglob("*"))
    return f"{count} photos of a folder"


@contextmanager
def pinned(wanted: int) -> Iterator[list[int]]:
    """Keep everything that is measured on as many cores as there are workers, always the same."""
    before = os.sched_getaffinity(0)
    cores = sorted(before)[:wanted]
    os.sched_setaffinity(0, cores)
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def lent_photos(given: Path | None) -> Iterator[Path]:
    """Lend the folder that was given, or make photos that are gone afterwards."""
    if given is not None:
        yield given.resolve()
        return
    from demo.photos import make_photos

    with tempfile.TemporaryDirectory(prefix="augd-bench-") as folder:
        make_photos(folder, NUM_PHOTOS)
        yield Path(folder)


def show(question: str, figures: Sequence[Figure | Absent]) -> None:
    """Print a table of figures."""
    table = Table("", "median", "range", "target", "", title=question, box=None, title_style="bold")
    table.title_justify = "left"
    table.columns[0].no_wrap = True
    for column in table.columns[1:4]:
        column.justify = "right"
    absent = [figure for figure in figures if isinstance(figure, Absent)]
    for figure in figures:
        if isinstance(figure, Absent):
            continue
        found, target = figure.spread, figure.target
        table.add_row(
            figure.name,
            f"{_number(found.median)} {figure.unit}",
            f"{_number(found.low)}..{_number(found.high)}",
            "" if target is None else f"{target.sense} {target.value:g}",
            {None: "", True: "met", False: "missed"}[figure.is_met],
        )
    console = Console(highlight=False)
    console = Console(highlight=False, width=max(console.width, _WIDTH))
    # Below the table: a sentence in a cell would leave no room for the numbers.
    console.print(table, *(f" {figure.name}: {figure.why}" for figure in absent), "", sep="\n")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
