"""Plots as PNG files. matplotlib comes with the extra `bench`; nothing else needs it.

Every plot says what its bars are: medians, with the range of the rounds.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._rounds import Spread

_OURS = "#c2410c"
_THEIRS = "#64748b"
_DPI = 110


def load_pyplot() -> Any:
    """Return matplotlib's pyplot, drawing into files only.

    Raises:
        SystemExit: it isn't installed; the message says how to.
    """
    try:
        importlib.import_module("matplotlib").use("Agg")
        return importlib.import_module("matplotlib.pyplot")
    except ModuleNotFoundError:
        raise SystemExit(
            "plots need matplotlib: .venv/bin/python -m pip install -e '.[bench]'"
        ) from None


def bars(path: Path, values: Mapping[str, Spread], label: str, *, best: str) -> None:
    """Draw one bar per name, the best on top; `best` is "high" or "low"."""
    pyplot = load_pyplot()
    names = sorted(values, key=lambda name: values[name].median, reverse=best == "low")
    figure, axes = pyplot.subplots(figsize=(8, 0.36 * len(names) + 1.0), layout="constrained")
    axes.barh(
        names,
        [values[name].median for name in names],
        xerr=[
            [values[name].median - values[name].low for name in names],
            [values[name].high - values[name].median for name in names],
        ],
        color=[_OURS if name.startswith("augd") else _THEIRS for name in names],
        ecolor="black",
        capsize=2,
    )
    axes.set_xlabel(label)
    axes.set_xlim(left=0)
    _finish(pyplot, figure, axes, path)


def lines(
    path: Path,
    series: Mapping[str, Sequence[tuple[float, Spread]]],
    labels: tuple[str, str],
    *,
    log: str = "",
) -> None:
    """Draw medians over x with their ranges; `log` names the axes that are logarithmic."""
    pyplot = load_pyplot()
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, points in series.items():
        middles = [found.median for _, found in points]
        axes.errorbar(
            [x for x, _ in points],
            middles,
            yerr=[
                [found.median - found.low for _, found in points],
                [found.high - found.median for _, found in points],
            ],
            marker="o",
            capsize=2,
            label=name,
        )
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    if "x" in log:
        axes.set_xscale("log")
    if "y" in log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    if len(series) > 1:
        axes.legend(frameon=False)
    _finish(pyplot, figure, axes, path)


def _finish(pyplot: Any, figure: Any, axes: Any, path: Path) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of matplotlib in it: equal figures give equal files.
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
    pyplot.close(figure)
