"""`augd bench`: images per second at a client, their CPU time, and which side waits.

Starts a daemon or connects to one, measures (`augd.diagnostics.measure`), and prints tables for
people or one JSON object for programs. It leaves nothing in memory or on disk.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from augd.cli.options import BenchOptions
from augd.cli.recipes import load_plain_recipe
from augd.client.serve import serve
from augd.client.stream import Stream
from augd.diagnostics.formatting import say_cache
from augd.diagnostics.measure import Measurement, measure, memory_bytes, opened, verdict_on
from augd.diagnostics.procfs import cpu_model
from augd.diagnostics.tuning import Setting, explain, find_step, say
from augd.errors import OptionError, counted, verb
from augd.plan.recipe.phases import plain_at
from augd.process.resource_limits import num_cores
from augd.server.supervision.arguments import count_producers
from augd.version import __version__

_SECONDS_MAX = 86_400.0


def machine_facts(environment: Mapping[str, str]) -> dict[str, Any]:
    """Name the machine and the versions that decide speed."""
    return {
        "cores": num_cores(),
        "cpu": cpu_model(),
        "linux": platform.release(),
        "python": platform.python_version(),
        "augd": __version__,
        **environment,
    }


def check_options(options: BenchOptions) -> None:
    """Reject options that don't fit together, before anything is started."""
    if (options.path is None) == (options.connect is None):
        found = "neither" if options.path is None else "both"
        raise OptionError(
            f"PATH: expected a folder or --connect ADDR, got {found}; "
            "`augd bench photos/` measures a daemon of its own"
        )
    if options.explain and options.connect is not None:
        raise OptionError(
            f"--explain: it tries other settings with daemons of its own, expected PATH; "
            f"`augd status {options.connect}` says which side waits there"
        )
    if options.step is not None and not options.explain:
        raise OptionError("--step: expected --explain with it; it stands for the training")
    if options.connect is not None and options.producers is not None:
        raise OptionError(
            f"--producers: the daemon at {options.connect} has its own; leave the option out, "
            "or give a folder instead of --connect"
        )
    count_producers(options.producers, is_forced=options.force)
    if options.producers == 0:
        raise OptionError("--producers: expected 1 or more, got 0: nothing would be made")
    if options.connect is not None and options.cache is not None:
        raise OptionError(
            f"--cache: the daemon at {options.connect} has its own or none; leave the option out, "
            "or give a folder instead of --connect"
        )
    if not 0.1 <= options.seconds <= _SECONDS_MAX:
        raise OptionError(
            f"--seconds: expected 0.1..{_SECONDS_MAX:.0f}, got {options.seconds:g}; 10 is plenty"
        )


def run_bench(options: BenchOptions) -> None:
    """Measure and print: tables for people, or one JSON object.

    Raises:
        AugdError: an option is wrong, or the daemon or the dataset is refused.
    """
    check_options(options)
    recipe = load_plain_recipe(options.recipe)
    if options.explain:
        _explain(options, recipe)
        return
    report = _measure_daemon(options, recipe)
    if options.as_json:
        print(json.dumps(report))
    else:
        print_report(report)


def _explain(options: BenchOptions, recipe: dict[str, Any]) -> None:
    assert options.path is not None
    cores = num_cores()
    num_producers = options.producers or cores
    asked = options.batch_size, num_producers, options.plugins, options.cache
    setting = Setting(options.path, recipe, *asked)
    tried = list(explain(setting, find_step(options.step), options.seconds))
    if options.as_json:
        print(json.dumps({"tried": [one.as_plain(tried) for one in tried], "cores": cores}))
    else:
        print("\n".join(say(tried, cores)))


def _measure_daemon(options: BenchOptions, recipe: dict[str, Any]) -> dict[str, Any]:
    with ExitStack() as stack:
        address = options.connect
        if options.path is not None:
            daemon = stack.enter_context(
                serve(
                    options.path,
                    producers=options.producers,
                    plugins=options.plugins,
                    cache=options.cache,
                )
            )
            address = daemon.address
        asked = address, recipe, options.batch_size, options.keys
        stream, probe, batches = stack.enter_context(opened(*asked))
        measured = measure(batches, probe, options.seconds)
        return _report(options, recipe, stream, measured, probe.snapshot())


def _report(
    options: BenchOptions,
    recipe: dict[str, Any],
    stream: Stream,
    measured: Measurement,
    snapshot: Mapping[str, Any],
) -> dict[str, Any]:
    num_producers = len(snapshot["producers"])
    verdict = verdict_on(measured, num_producers)
    daemon, producers = memory_bytes(snapshot)
    return {
        **asdict(measured),
        "limit": verdict.limit,
        "who_waits": verdict.sentence,
        "enough_producers": verdict.enough,
        "daemon_anonymous_bytes": daemon,
        "producers_anonymous_bytes": producers,
        "dataset": stream.dataset,
        "num_samples": stream.num_samples,
        "recipe": options.recipe,
        "filter": plain_at(recipe, 0).get("filter", "antialias"),
        "batch_size": options.batch_size,
        "producers": num_producers,
        "content": stream.content,
        "cache": snapshot["cache"],
        "machine": machine_facts(snapshot["environment"]),
    }


def print_report(report: Mapping[str, Any]) -> None:
    """Print a report for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(
        f"[bold]{report['images_per_s']:,.0f} images/s[/bold] delivered: "
        f"{counted(report['images'], 'image')} "
        f"images of {report['dataset']!r} in {report['seconds']:.1f} s, recipe {report['recipe']} "
        f"({report['filter']}), batches of {report['batch_size']}, "
        f"{counted(report['producers'], 'producer')}"
    )
    table = Table("", "CPU-s per 1,000 images", "share", "own memory", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    costs = {name: report[f"{name}_cpu_s"] for name in ("producers", "daemon", "client")}
    largest = max(report["producers_anonymous_bytes"], default=0)  # 0: all are on other hosts
    memory = {
        "producers": f"{largest / 1e6:.0f} MB each",
        "daemon": f"{report['daemon_anonymous_bytes'] / 1e6:.0f} MB",
    }
    for name, cost in costs.items():
        share = f"{cost / sum(costs.values()):.1%}"
        table.add_row(name, f"{cost:.3f}", share, memory.get(name, ""))
    console.print(table)
    console.print(f"{report['who_waits']}\nplanning and order: {report['plan_us']:.1f} µs a sample")
    if report["cache"] is not None:
        console.print(say_cache(report["cache"]))
    for line in _remarks(report):
        console.print(line)
    facts = report["machine"]
    kernels = (
        "no native kernels" if facts["kernels"] == "none" else f"native kernels {facts['kernels']}"
    )
    console.print(
        f"machine: {counted(facts['cores'], 'core')}, {facts['cpu']}; Linux {facts['linux']}, "
        f"Python "
        f"{facts['python']}, augd {facts['augd']}, {kernels}, OpenCV {facts['opencv']}"
    )


def _remarks(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons to doubt the figures."""
    if report["bad"]:
        yield f"{report['bad']} bad samples were delivered as zeros"
    if report["restarts"]:
        were = verb(report["restarts"], "was", "were")
        yield f"{counted(report['restarts'], 'producer')} died and {were} replaced: measure again"
    if report["other_streams"]:
        yield f"{report['other_streams']} other streams took part: costs per image count theirs too"
