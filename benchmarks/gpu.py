"""What a GPU gets: images/s by producers, its share of waiting, pinned against pageable arena.

    python -m benchmarks.gpu [--photos DIR] [--parts NAME ...] [--json FILE]
    python -m benchmarks.gpu --render FILE --write-docs

Parts: `delivery`, batches that are normalised on the GPU and let go, by number of producers;
`training`, a network trained on them, with the share of the time in which the GPU had no step to
do; `arena`, all producers, with the arena registered with CUDA and with it left pageable, and how
fast each can be copied from. Needs a CUDA device and no network; without one it says so and ends.
A machine with a GPU seldom holds the checkout for long: `--json` keeps the figures elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from augd.cli.bench import machine_facts
from augd.pixels.library_versions import describe_environment
from benchmarks._docs import PLOTS, describe_machine, markdown_table, write_section
from benchmarks._plots import lines, load_pyplot
from benchmarks._report import (
    Figure,
    Options,
    add_options,
    check_options,
    lent_photos,
    name_photos,
    show,
)
from benchmarks._rounds import Competitor, Score, Spread, alternate, ratios, spread
from benchmarks.peers.catalogue import recipe
from benchmarks.scaling import steps

QUESTION = "What does a GPU get?"
_NAME = "gpu"
_BATCH_SIZE = 256


@dataclass(frozen=True, slots=True)
class Found:
    """One figure; `x` is the number of producers."""

    series: str
    x: int
    unit: str
    found: Spread


def _start(
    options: Options, filter: str, workers: int, step: str, *, is_pinned: bool = True
) -> Callable[[], Competitor]:
    name = f"{workers}, {'pinned' if is_pinned else 'pageable'}"
    arguments = {
        "photos": str(options.photos),
        "recipe": recipe(filter),
        "batch_size": _BATCH_SIZE,
        "workers": workers,
        "step": step,
        "is_pinned": is_pinned,
    }

    def start() -> Competitor:
        competitor = Competitor(name, "gpu_trainer", arguments=arguments, ready_s=300.0)
        if is_pinned and not competitor.ready["is_pinned"]:
            competitor.close()
            raise RuntimeError(
                "CUDA did not register the arena (the warning above says why), so nothing would be "
                "pinned here; raise the limit on locked memory: ulimit -l unlimited"
            )
        return competitor

    return start


def _of(scores: Iterable[Score], extra: str, factor: float = 1.0) -> Spread:
    return spread(factor * score.extras[extra] for score in scores)


def _by_producers(options: Options, filter: str, step: str) -> dict[int, list[Score]]:
    counts = steps(options.workers)
    starts = [_start(options, filter, count, step) for count in counts]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    return {count: scores[f"{count}, pinned"] for count in counts}


def _delivery(options: Options, filter: str, network: str) -> list[Found]:
    found = []
    for count, scores in _by_producers(options, filter, "none").items():
        speed = spread(score.images_per_s for score in scores)
        cost = spread(score.cpu_s_per_1000 for score in scores)
        found.append(Found("delivered", count, "images/s", speed))
        found.append(Found("CPU, all processes", count, "CPU-s/1,000", cost))
    return found


def _training(options: Options, filter: str, network: str) -> list[Found]:
    found = []
    for count, scores in _by_producers(options, filter, network).items():
        speed = spread(score.images_per_s for score in scores)
        found.append(Found(f"{network} trained", count, "images/s", speed))
        found.append(Found("GPU waits", count, "%", _of(scores, "gpu_waits", 100)))
    return found


def _arena(options: Options, filter: str, network: str) -> list[Found]:
    count = options.workers
    starts = [_start(options, filter, count, "none", is_pinned=pinned) for pinned in (True, False)]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    ours, theirs = scores[f"{count}, pinned"], scores[f"{count}, pageable"]
    found = [Found("pinned / pageable, images/s", count, "x", ratios(ours, theirs))]
    for name, one in (("pinned", ours), ("pageable", theirs)):
        found += [
            Found(name, count, "images/s", spread(score.images_per_s for score in one)),
            Found(f"{name}: trainer", count, "CPU-s/1,000", _of(one, "trainer_cpu_s_per_1000")),
            Found(f"{name}: copies from the arena", count, "GB/s", _of(one, "arena_gb_per_s")),
        ]
    own = _of(ours, "torch_pinned_gb_per_s")
    return [*found, Found("copies from torch's pinned memory", count, "GB/s", own)]


PARTS = {"delivery": _delivery, "training": _training, "arena": _arena}


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    add_options(parser)
    parser.set_defaults(workers=len(os.sched_getaffinity(0)))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--filter", choices=("antialias", "linear"), default="antialias")
    parser.add_argument("--network", default="resnet50", help="of torchvision [resnet50]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--render", type=Path, metavar="FILE", help="show those, measure nothing")
    parser.add_argument(
        "--write-docs", action="store_true", help="write them into docs/performance/"
    )
    options = parser.parse_args(arguments)
    check_options(parser, options)
    if options.render is not None and not options.render.is_file():
        parser.error(f"--render: {options.render} is not a file; `--json FILE` writes one")
    return options


def main() -> None:
    """Measure or load, print, and write what was asked for."""
    options = parse_options(sys.argv[1:])
    if options.render is None and not torch.cuda.is_available():
        print(f"benchmarks.gpu: skipped: torch {torch.__version__} finds no CUDA device here")
        return
    if options.write_docs:
        load_pyplot()
    if options.render is not None:
        document = json.loads(options.render.read_text(encoding="utf-8"))
    else:
        document = _measure(options)
    if options.json is not None:
        options.json.write_text(json.dumps(document), encoding="utf-8")
    found = {part: read_part(figures) for part, figures in document["parts"].items()}
    for part, figures in found.items():
        show(
            f"{QUESTION} {part}",
            [Figure(f"{one.series}, {one.x} producers", one.unit, one.found) for one in figures],
        )
    if options.write_docs:
        _plot(found)
        write_section(_NAME, section(document, found))
    print(json.dumps(document))


def read_part(figures: Sequence[dict[str, Any]]) -> list[Found]:
    """Read back what was written as JSON."""
    return [Found(**{**figure, "found": Spread(**figure["found"])}) for figure in figures]


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    parts: dict[str, list[dict[str, Any]]] = {}
    with lent_photos(options.photos) as photos:
        filled = Options(photos, options.rounds, options.seconds, options.workers)
        for part in options.parts:
            print(f"benchmarks.gpu: {part}", file=sys.stderr, flush=True)
            found = PARTS[part](filled, options.filter, options.network)
            parts[part] = [asdict(one) for one in found]
    return {
        "parts": parts,
        "filter": options.filter,
        "network": options.network,
        "photos": name_photos(options.photos),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "workers": options.workers,
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "machine": machine_facts(describe_environment()),
    }


def _plot(parts: dict[str, list[Found]]) -> None:
    for part, unit, label in (
        ("delivery", "images/s", "images/s"),
        ("training", "%", "share of the time that the GPU waits, %"),
    ):
        points = [(float(one.x), one.found) for one in parts.get(part, []) if one.unit == unit]
        if points:
            lines(PLOTS / f"gpu-{part}.png", {part: points}, ("producers", label))


def section(document: dict[str, Any], parts: dict[str, list[Found]]) -> str:
    """Write the section of docs/performance/scaling.md."""
    texts = [
        f"`python -m benchmarks.gpu`: {document['gpu']}, torch {document['torch']}, "
        f"{document['photos']}, `{document['filter']}`, batches of {_BATCH_SIZE}, "
        f"{document['rounds']} rounds of {document['seconds']:g} s in turns. "
        f"{describe_machine(document['machine'])}."
    ]
    for part, figures in parts.items():
        texts.append(
            markdown_table(
                [part, "producers", "found"],
                [[one.series, f"{one.x}", _cell(one)] for one in figures],
            )
        )
        if part in ("delivery", "training"):
            texts.append(f"![{part} by producers](gpu-{part}.png)")
    return "\n\n".join(texts)


def _cell(one: Found) -> str:
    found = one.found
    form = ",.0f" if abs(found.median) >= 100 else ".3g"
    return f"{found.median:{form}} {one.unit} ({found.low:{form}}..{found.high:{form}})"


if __name__ == "__main__":
    main()
