"""How does it scale: producers, megapixels, batch size, number of samples, cold and warm disk.

    python -m benchmarks.scaling [--parts NAME ...] [--filter linear] [--write-docs]

Parts: `producers` from 1 to the cores there are; `sizes`, made photos of 0.2 to 12 megapixels;
`batches` of 1 to 1,024 rows; `samples`, order and plan alone for 10^3 to 10^9 of them; `disk`,
the first pass over photos that the page cache holds, or does not.

What `disk` cannot show: the kernel is asked to drop the photos' pages (posix_fadvise), and the
figure beside says how many were still there; but the disk's own cache and, in a virtual machine,
the host's page cache are out of reach and may still hold them. Pages on tmpfs cannot be dropped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from augd.cli.bench import machine_facts
from augd.pixels.library_versions import describe_environment
from benchmarks._docs import (
    PLOTS,
    add_document_options,
    describe_machine,
    document_of,
    markdown_table,
    write_section,
)
from benchmarks._plots import lines
from benchmarks._report import (
    Figure,
    Options,
    add_options,
    check_options,
    lent_photos,
    name_photos,
    pinned,
    show,
)
from benchmarks._rounds import Competitor, Score, Spread, alternate, spread
from benchmarks.peers.catalogue import recipe
from benchmarks.peers.figures import quantile
from demo.photos import make_photos

QUESTION = "How does it scale?"
_NAME = "scaling"
_MEGAPIXELS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0)
_NUM_SIZED = 48  # a 12-megapixel photo takes a second to make, and 5 MB to keep
_SIZED_BATCH = 16
_BATCHES = (1, 4, 16, 64, 256, 1024)
_NUM_SAMPLES = tuple(10**power for power in range(3, 10))
_DISK_BATCH = 64
_COLD_AT_MOST = 0.05  # of the pages may be left


@dataclass(frozen=True, slots=True)
class Point:
    """One figure at one place of one line. `series` holds its unit where lines differ in it."""

    series: str
    x: float
    found: Spread


@dataclass(frozen=True, slots=True)
class Part:
    """One question: what is varied, what is measured, which axes are logarithmic, on which cores.

    `all_cores`: else it runs on as many as there are workers.
    """

    title: str
    x_label: str
    y_label: str
    measure: Callable[[Options, str], list[Point]]
    log: str = ""
    all_cores: bool = False


def steps(most: int) -> list[int]:
    """Return 1, 2, 4, 8, ... up to `most`, and `most` itself."""
    powers = [1 << power for power in range(most.bit_length())]
    return sorted({power for power in powers if power <= most} | {most})


def _augd(name: str, photos: Path, filter: str, workers: int, batch_size: int) -> Competitor:
    arguments = {
        "photos": str(photos),
        "recipe": recipe(filter),
        "workers": workers,
        "batch_size": batch_size,
    }
    return Competitor(name, "peers.augd_stream", arguments=arguments)


def _in_turns(
    options: Options, starts: Mapping[float, Callable[[], Competitor]]
) -> dict[float, list[Score]]:
    """Run competitors that are named by their place on the x axis."""
    scores = alternate(list(starts.values()), rounds=options.rounds, seconds=options.seconds)
    return {x: scores[f"{x:g}"] for x in starts}


def _speeds(scores: Iterable[Score]) -> Spread:
    return spread(score.images_per_s for score in scores)


def _producers(options: Options, filter: str) -> list[Point]:
    """Give each number of producers all cores: client and daemon need one as well."""

    def start(count: int) -> Callable[[], Competitor]:
        return lambda: _augd(f"{count:g}", options.photos, filter, count, 256)

    counts = steps(len(os.sched_getaffinity(0)))
    found = _in_turns(options, {float(count): start(count) for count in counts})
    return [Point(filter, count, _speeds(scores)) for count, scores in found.items()]


def _sizes(options: Options, filter: str) -> list[Point]:
    """Make photos of one size each, and take small batches of them."""
    with tempfile.TemporaryDirectory(prefix="augd-bench-") as folder:
        for size in _MEGAPIXELS:
            make_photos(Path(folder, f"{size:g}"), _NUM_SIZED, megapixels=size)

        def start(size: float) -> Callable[[], Competitor]:
            photos = Path(folder, f"{size:g}")
            return lambda: _augd(f"{size:g}", photos, filter, options.workers, _SIZED_BATCH)

        found = _in_turns(options, {size: start(size) for size in _MEGAPIXELS})
    return [Point(filter, size, _speeds(scores)) for size, scores in found.items()]


def _batches(options: Options, filter: str) -> list[Point]:
    def start(rows: int) -> Callable[[], Competitor]:
        return lambda: _augd(f"{rows:g}", options.photos, filter, options.workers, rows)

    found = _in_turns(options, {float(rows): start(rows) for rows in _BATCHES})
    points = []
    for rows, scores in found.items():
        waits_ms = [[1000 * wait for wait in score.extras["waits_s"]] for score in scores]
        points += [
            Point("speed, images/s", rows, _speeds(scores)),
            Point("p50 wait, ms", rows, spread(quantile(waits, 0.5) for waits in waits_ms)),
            Point("p99 wait, ms", rows, spread(quantile(waits, 0.99) for waits in waits_ms)),
        ]
    return points


def _samples(options: Options, filter: str) -> list[Point]:
    def start(count: int) -> Callable[[], Competitor]:
        arguments = {"num_samples": count, "recipe": recipe(filter)}
        return lambda: Competitor(f"{count:g}", "plan_only", arguments=arguments)

    found = _in_turns(options, {float(count): start(count) for count in _NUM_SAMPLES})
    points = []
    for count, scores in found.items():
        owned = spread(score.extras["anonymous_bytes"] / 1e6 for score in scores)
        points += [
            Point("CPU per sample, µs", count, spread(1000 * one.cpu_s_per_1000 for one in scores)),
            Point("memory, MB", count, owned),
        ]
    return points


def _disk(options: Options, filter: str) -> list[Point]:
    def start(name: str) -> Callable[[], Competitor]:
        arguments = {
            "photos": str(options.photos),
            "recipe": recipe(filter),
            "batch_size": _DISK_BATCH,
            "workers": options.workers,
            "is_cold": name == "cold",
        }
        return lambda: Competitor(name, "epoch_reader", arguments=arguments)

    scores = alternate([start("cold"), start("warm")], rounds=options.rounds, seconds=1.0)
    resident = spread(score.extras["resident"] for score in scores["cold"])
    if resident.high > _COLD_AT_MOST:
        print(
            f"benchmarks.scaling: disk: {resident.high:.0%} of the photos' pages stayed in the "
            "page cache; they lie on tmpfs, or something else has them mapped: not cold, left out",
            file=sys.stderr,
        )
        return [Point("warm, images/s", 1.0, _speeds(scores["warm"]))]
    return [
        Point("warm, images/s", 1.0, _speeds(scores["warm"])),
        Point("cold, images/s", 1.0, _speeds(scores["cold"])),
        Point("cold: pages still in the cache, %", 1.0, _percent(resident)),
    ]


def _percent(share: Spread) -> Spread:
    return Spread(100 * share.median, 100 * share.low, 100 * share.high)


PARTS: dict[str, Part] = {
    "producers": Part("By producers", "producers", "images/s", _producers, all_cores=True),
    "sizes": Part("By the size of photos", "megapixels of a photo", "images/s", _sizes, "xy"),
    "batches": Part(
        "By the size of batches", "rows of a batch", "images/s, and ms", _batches, "xy"
    ),
    "samples": Part(
        "Order and plan alone, by the size of the dataset",
        "samples of a dataset",
        "µs, and MB",
        _samples,
        "x",
    ),
    "disk": Part("One epoch, the photos in the page cache and out of it", "", "images/s", _disk),
}


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    add_options(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--filter", choices=("antialias", "linear"), default="antialias")
    add_document_options(parser)
    options = parser.parse_args(arguments)
    check_options(parser, options)
    return options


def main() -> None:
    """Measure or load, print, keep, and write what was asked for."""
    options = parse_options(sys.argv[1:])
    document = document_of(_NAME, options, _measure)
    points = {
        part: [Point(one["series"], one["x"], Spread(**one["found"])) for one in found]
        for part, found in document["parts"].items()
    }
    if options.write_docs:
        for part, found in points.items():
            _plot(part, found)
        write_section(_NAME, section(document, points))
    if not options.render:
        print(json.dumps(document))


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, list[Point]] = {}
    num_cores = len(os.sched_getaffinity(0))
    with lent_photos(options.photos) as photos:
        filled = Options(photos, options.rounds, options.seconds, options.workers)
        for part in options.parts:
            print(f"benchmarks.scaling: {part}", file=sys.stderr, flush=True)
            with pinned(num_cores if PARTS[part].all_cores else options.workers):
                found[part] = PARTS[part].measure(filled, options.filter)
            show(
                f"{QUESTION} {part}",
                [Figure(_place(part, one), _unit(part, one), one.found) for one in found[part]],
            )
        facts = machine_facts(describe_environment())
    return {
        "parts": {part: [asdict(point) for point in points] for part, points in found.items()},
        "filter": options.filter,
        "photos": name_photos(options.photos),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "workers": options.workers,
        "machine": facts,
    }


def _place(part: str, point: Point) -> str:
    label = PARTS[part].x_label
    return f"{_number(point.x)} {label}, {point.series}" if label else point.series


def _number(x: float) -> str:
    return f"{x:,.0f}" if x >= 1 and x == int(x) else f"{x:g}"


def _unit(part: str, point: Point) -> str:
    """Tell the unit, where the series doesn't."""
    return "" if "," in point.series else PARTS[part].y_label


def _plot(part: str, points: Sequence[Point]) -> None:
    """Draw a part that has an x axis."""
    if not PARTS[part].x_label:
        return
    series: dict[str, list[tuple[float, Spread]]] = {}
    for point in points:
        series.setdefault(point.series, []).append((point.x, point.found))
    labels = (PARTS[part].x_label, PARTS[part].y_label)
    lines(PLOTS / f"scaling-{part}.png", series, labels, log=PARTS[part].log)


def section(document: Mapping[str, Any], parts: Mapping[str, Sequence[Point]]) -> str:
    """Write the section of docs/performance/scaling.md."""
    intro = (
        f"`python -m benchmarks.scaling`: {document['photos']}, `{document['filter']}`, "
        f"{document['workers']} producers on as many cores where their number isn't what varies, "
        f"{document['rounds']} rounds of {document['seconds']:g} s in turns. "
        f"{describe_machine(document['machine'])}."
    )
    return "\n\n".join([intro, *(_subsection(part, points) for part, points in parts.items())])


def _subsection(part: str, points: Sequence[Point]) -> str:
    names = list(dict.fromkeys(point.series for point in points))
    cells = {(point.x, point.series): _cell(point.found) for point in points}
    places = sorted({point.x for point in points})
    label = PARTS[part].x_label
    if not label:
        table = markdown_table(["", "found"], [[name, cells[places[0], name]] for name in names])
        return f"**{PARTS[part].title}**\n\n{table}"
    header = [label, *(name if "," in name else PARTS[part].y_label for name in names)]
    rows = [[_number(x), *(cells.get((x, name), "") for name in names)] for x in places]
    image = f"![{PARTS[part].y_label} over {label}](scaling-{part}.png)"
    return f"**{PARTS[part].title}**\n\n{markdown_table(header, rows)}\n\n{image}"


def _cell(found: Spread) -> str:
    form = ",.0f" if found.median >= 100 else ".3g"
    return f"{found.median:{form}} ({found.low:{form}}..{found.high:{form}})"


if __name__ == "__main__":
    main()
