"""Figures into a document: what a command measured, between two markers that name it.

Also where a run's figures are kept, so that they can be shown again without measuring again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks._plots import load_pyplot

ROOT = Path(__file__).resolve().parents[1]
PLOTS = ROOT / "docs" / "performance"
# The page of each section.
DOCUMENTS = {
    "peers": PLOTS / "peers.md",
    "scaling": PLOTS / "scaling.md",
    "gpu": PLOTS / "scaling.md",
}
RESULTS = ROOT / "benchmarks" / "results"  # not in git


def replace_section(text: str, name: str, body: str) -> str:
    """Put `body` between the markers of section `name`, in place of what stands there.

    Raises:
        ValueError: the markers aren't there, once each and in order.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(
            f"section {name}: expected {begin} and {end} in its page of {PLOTS.name}/, once each "
            "and in this order; put them where the figures belong"
        )
    head, tail = text[: text.index(begin)], text[text.index(end) + len(end) :]
    return f"{head}{begin}\n\n{body.strip()}\n\n{end}{tail}"


def write_section(name: str, body: str) -> None:
    """Do so in the page that has the section."""
    page = DOCUMENTS[name]
    text = page.read_text(encoding="utf-8")
    page.write_text(replace_section(text, name, body), encoding="utf-8")


def keep(name: str, document: Mapping[str, Any]) -> None:
    """Keep the figures of a run for `kept`."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")


def kept(name: str) -> dict[str, Any]:
    """Return the figures of the last run that was kept.

    Raises:
        FileNotFoundError: none was.
    """
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"no run of benchmarks.{name} is kept in {path.parent.relative_to(ROOT)}/: "
            "leave --render out to measure"
        )
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def add_document_options(parser: argparse.ArgumentParser) -> None:
    """Add what a benchmark takes that has a section of docs/performance/."""
    parser.add_argument(
        "--write-docs", action="store_true", help="write tables and plots into docs/performance/"
    )
    parser.add_argument("--render", action="store_true", help="show the last run, measure nothing")


def document_of(
    name: str,
    options: argparse.Namespace,
    measure: Callable[[argparse.Namespace], dict[str, Any]],
) -> dict[str, Any]:
    """Measure and keep what was found, or load the last run, as the options ask for."""
    if options.write_docs:
        load_pyplot()  # or say now that it is missing, not after half an hour
    if not options.render:
        document = measure(options)
        keep(name, document)
        return document
    try:
        return kept(name)
    except FileNotFoundError as error:
        sys.exit(str(error))


def markdown_table(header: list[str], rows: list[list[str]], left: int = 1) -> str:
    """Lay out a table: the first `left` columns to the left, the others to the right."""
    rule = ["---" if number < left else "--:" for number in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def describe_machine(machine: Mapping[str, Any]) -> str:
    """Say in a line what was measured on."""
    versions = ("python", "augd", "opencv", "pillow")
    known = ", ".join(f"{name} {machine[name]}" for name in versions if name in machine)
    return f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['linux']}, {known}"
