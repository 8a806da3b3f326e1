"""`augd status`: what a daemon does at the moment, as a table for people or JSON for programs.

Requests two snapshots half a second apart and shows the rates between them
(`augd.diagnostics.rates`). Opens no stream, and waits a few seconds at most for an answer.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from augd.cli.options import StatusOptions
from augd.client.status import StatusClient
from augd.dataset.scan_result import say_splits
from augd.diagnostics.formatting import say_cache
from augd.diagnostics.rates import compare
from augd.errors import counted, verb

_BETWEEN_S = 0.5
_REFRESH_S = 1.0
_ANSWER_S = 3.0
_PIPED_COLUMNS = 160  # a table in a file is not folded
_REASONS_SHOWN = 3
_SLOTS = ("filling", "ready", "sent", "draining", "free")


def run_status(options: StatusOptions) -> None:
    """Print what a daemon does, once or repeatedly until Ctrl-C.

    Raises:
        ConnectError: no daemon answers.
        Forbidden: the daemon wants a key, or doesn't know this one.
    """
    inquirer = StatusClient(options.address, _ANSWER_S, options.keys)
    try:
        if options.watch:
            _watch(inquirer, options.as_json)
        else:
            _print(next(reports(inquirer, _BETWEEN_S)), options.as_json)
    except KeyboardInterrupt:
        if not options.watch:
            raise
    finally:
        inquirer.close()


def reports(inquirer: StatusClient, every_s: float) -> Iterator[dict[str, Any]]:
    """Yield a report every `every_s` seconds, each on the time since the last, without end."""
    before, since = inquirer.status(), time.monotonic()
    while True:
        time.sleep(every_s)
        after, now = inquirer.status(), time.monotonic()
        yield {"address": str(inquirer.address), **compare(before, after, now - since)}
        before, since = after, now


def _watch(inquirer: StatusClient, as_json: bool) -> None:
    if as_json or not sys.stdout.isatty():  # only a terminal can redraw a table
        for report in reports(inquirer, _REFRESH_S):
            _print(report, as_json)
        return
    with Live(console=_console(), auto_refresh=False, screen=False) as live:
        for report in reports(inquirer, _BETWEEN_S):
            live.update(draw(report), refresh=True)


def _print(report: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report), flush=True)
    else:
        _console().print(draw(report))
        sys.stdout.flush()


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_COLUMNS)


def draw(report: Mapping[str, Any]) -> Group:
    """Lay out a report: a headline, two tables, a sentence."""
    parts: list[RenderableType] = [
        Text(_headline(report), style="bold"),
        Text(),
        _draw_producers(report),
        *(Text(line, style="dim") for line in _confinements(report)),
        *(() if report.get("cache") is None else (Text(say_cache(report["cache"])),)),
    ]
    if report["streams"]:
        parts += [Text(), _draw_streams(report)]
        parts += [Text(line, style="dim") for line in _chunks(report)]
    parts += [Text(line, style="yellow") for line in _troubles(report)]
    if report["needed_producers"] is not None and report["enough_producers"] is None:
        said = f"Needed at this pace: {counted(report['needed_producers'], 'producer')}."
        parts.append(Text(said, style="dim"))
    return Group(*parts, Text(), Text(report["who_waits"]))


def _headline(report: Mapping[str, Any]) -> str:
    served = ", ".join(_say_dataset(name, one) for name, one in report["datasets"].items())
    return f"{report['address']} serves {served}"


def _say_dataset(name: str, facts: Mapping[str, Any]) -> str:
    splits = say_splits(facts.get("splits", {}))
    return f"{name} ({counted(facts['num_samples'], 'image')}{'; ' if splits else ''}{splits})"


def _table(*titles: str) -> Table:
    """Make a table whose first two columns are names and states, and the others numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if number < 2 else "right")
    return table


def _draw_producers(report: Mapping[str, Any]) -> Table:
    are_remote = any(one["host"] for one in report["producers"])
    hosts = ("host",) if are_remote else ()
    titles = ("pid", "images", "images/s", "busy", "chunks waiting")
    table = _table("producer", "state", *hosts, *titles)
    for one in report["producers"]:
        cells = (
            str(one["number"]),
            one["state"],
            *((one["host"] or "here",) if are_remote else ()),
            str(one["pid"] or ""),
            f"{one['rows']:,}",
            f"{one['images_per_s']:,.0f}",
            f"{one['busy_share']:.0%}",
            str(one["leases"]),
        )
        table.add_row(*map(Text, cells))
    return table


def _confinements(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line per kind of confinement: one, unless producers differ."""
    numbers: dict[str, list[str]] = {}
    for one in report["producers"]:
        if one["state"] != "starting":
            numbers.setdefault(one["confinement"], []).append(str(one["number"]))
    for kind, places in numbers.items():
        which = "The producers" if len(numbers) == 1 else f"Producers {', '.join(places)}"
        how = f"confined by {kind.replace('+', ' and ')}" if kind else "not confined"
        yield f"{which} are {how}."


def _draw_streams(report: Mapping[str, Any]) -> Table:
    titles = (
        "stream",
        "dataset",
        "epoch",
        "made up to",
        "batch",
        "images/s",
        "waits",
        "slots",
        "lag",
        "bad",
    )
    table = _table(*titles)
    for one in report["streams"]:
        slots = ", ".join(f"{one['slots'][s]} {s}" for s in _SLOTS if one["slots"].get(s))
        cells = (
            str(one["session"]),
            one["dataset"],
            str(one["epoch"]),
            f"{one['position']:,}",
            str(one["batch_size"]),
            f"{one['images_per_s']:,.0f}",
            f"{one['waited_share']:.0%}",
            slots,
            str(max((reader[4] for reader in one["readers"]), default=0)),
            f"{one['bad']:,}",
        )
        table.add_row(*map(Text, cells))
    return table


def _chunks(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the chunk size of each stream, once the time of a row is known."""
    for one in report["streams"]:
        if one["row_s"]:
            yield (
                f"stream {one['session']}: a row takes {1e3 * one['row_s']:.2g} ms of CPU time: "
                f"chunks of about {counted(one['chunk_rows'], 'row')}"
            )


def _troubles(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield warnings, one per line."""
    if report["is_draining"]:
        yield "The daemon is draining: it ends, and opens no more streams."
    if report.get("daemon_deaths"):  # a daemon of an older release may not count them
        yield (
            "The daemon was started again, as it ended unasked: deaths so far "
            f"{report['daemon_deaths']}, the last by {report['last_daemon_death']}"
        )
    if report["unhealthy"]:
        yield f"Producers keep dying: {report['unhealthy']}"
    if report["restarts"]:
        yield (
            f"{counted(report['restarts'], 'producer')} died and "
            f"{verb(report['restarts'], 'was', 'were')} "
            f"replaced since the daemon started; "
            f"the last: {report['last_death']}"
        )
    for name, dataset in report["datasets"].items():
        if dataset["num_quarantined"]:
            yield _say_quarantined(name, dataset)
    for stream in report["streams"]:
        if set(stream["slots"]) == {"sent"} and not stream["images_per_s"]:
            yield (
                f"stream {stream['session']}: slow: its trainer has every slot and takes nothing "
                "just now (a long step, or it is stopped)."
            )
        for said in list(dict.fromkeys(map(_say_bad, stream["last_bad"])))[-_REASONS_SHOWN:]:
            yield f"stream {stream['session']}: {said}"
    if report["is_cut"]:
        yield "There is more than the daemon's answer holds: some of it is left out here."


def _say_quarantined(name: str, dataset: Mapping[str, Any]) -> str:
    shown = ", ".join(map(str, dataset["quarantined"]))
    more = ", ..." if len(dataset["quarantined"]) < dataset["num_quarantined"] else ""
    return f"{name}: samples that killed their decoder are masked: {shown}{more}"


def _say_bad(row: Sequence[Any]) -> str:
    sample, path, reason = row
    return f"bad sample {sample} ({path}): {reason}"
