"""Measure augd beside its peers; see the package."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from augd.cli.bench import machine_facts
from augd.pixels.library_versions import describe_environment
from benchmarks._docs import add_document_options, document_of, write_section
from benchmarks._report import add_options, check_options, lent_photos, name_photos, pinned, show
from benchmarks.peers.catalogue import SIDES_BY_NAME
from benchmarks.peers.compare import Course, compare
from benchmarks.peers.figures import Measured, aims
from benchmarks.peers.plots import write_plots
from benchmarks.peers.table import HEADER, LEFT, rows, section

_NAME = "peers"
_SECONDS = 10.0  # 20 batches of a slow side: a DataLoader's workers deliver theirs in bursts


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    add_options(parser, seconds=_SECONDS)
    parser.add_argument("--batch-size", type=int, default=256, help="rows of a batch [256]")
    parser.add_argument("--sides", nargs="+", metavar="NAME", help="only these rows of the table")
    add_document_options(parser)
    options = parser.parse_args(arguments)
    check_options(parser, options)
    if options.batch_size < 1:
        parser.error(f"--batch-size: expected 1 or more, got {options.batch_size}")
    unknown = [name for name in options.sides or [] if name not in SIDES_BY_NAME]
    if unknown:
        known = ", ".join(f"'{name}'" for name in SIDES_BY_NAME)
        parser.error(f"--sides: unknown '{unknown[0]}'; there are {known}")
    return options


def main() -> None:
    """Measure or load, print, keep, and write what was asked for."""
    options = parse_options(sys.argv[1:])
    document = document_of(_NAME, options, _measure)
    measured = {name: Measured(**side) for name, side in document["sides"].items()}
    _print(measured)
    if options.write_docs:
        write_section(_NAME, section(document, measured, write_plots(measured)))
    if not options.render:
        print(json.dumps(document))


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    chosen = [SIDES_BY_NAME[name] for name in options.sides or SIDES_BY_NAME]
    with lent_photos(options.photos) as photos, pinned(options.workers) as cores:
        course = Course(
            photos,
            options.rounds,
            options.seconds,
            options.workers,
            options.batch_size,
            cores,
            tell=lambda line: print(f"benchmarks.peers: {line}", file=sys.stderr, flush=True),
        )
        measured, left_out = compare(chosen, course)
        facts = machine_facts(describe_environment())
    return {
        "command": _command(options),
        "photos": name_photos(options.photos),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "workers": options.workers,
        "batch_size": options.batch_size,
        "sides": {name: asdict(side) for name, side in measured.items()},
        "left_out": left_out,
        "machine": facts,
    }


def _command(options: argparse.Namespace) -> str:
    """Write the command again, without where the photos lie."""
    words = ["python", "-m", "benchmarks.peers"]
    if options.photos is not None:
        words += ["--data", "FOLDER"]
    words += ["--rounds", f"{options.rounds}", "--seconds", f"{options.seconds:g}"]
    words += ["--workers", f"{options.workers}", "--batch-size", f"{options.batch_size}"]
    if options.sides:
        words += ["--sides", *options.sides]
    return shlex.join(words)


def _print(measured: dict[str, Measured]) -> None:
    table = Table(*HEADER, box=None)
    for column in table.columns[LEFT:]:
        column.justify = "right"
    for row in rows(measured):
        table.add_row(*row)
    Console(highlight=False, width=max(Console().width, 200)).print(table, "")
    show("What is aimed at", aims(measured))


if __name__ == "__main__":
    main()
