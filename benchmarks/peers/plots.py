"""The comparison as images."""

from __future__ import annotations

from benchmarks._docs import PLOTS
from benchmarks._plots import bars
from benchmarks._rounds import Spread, spread
from benchmarks.peers.catalogue import SAME_JPEGS
from benchmarks.peers.figures import Measured, Sides


def write_plots(measured: Sides) -> list[str]:
    """Write them below docs/performance; returns their names."""
    drawn = {_label(name, side): side for name, side in measured.items() if side.has_images}
    speeds = {name: spread(side.images_per_s) for name, side in drawn.items()}
    costs = {name: spread(side.cpu_s_per_1000) for name, side in drawn.items()}
    sizes = {name: _exact(side.memory_bytes / 1e6) for name, side in drawn.items()}
    bars(PLOTS / "peers-speed.png", speeds, "images/s", best="high")
    bars(PLOTS / "peers-cost.png", costs, "CPU-seconds per 1,000 images", best="low")
    bars(PLOTS / "peers-memory.png", sizes, "MB owned by all processes, at most", best="low")
    return ["peers-speed", "peers-cost", "peers-memory"]


def _label(name: str, side: Measured) -> str:
    """Name a side with what differs from the others' work."""
    rewritten = "" if side.files in SAME_JPEGS else ", other files"
    return f"{name} ({side.resize}{rewritten})"


def _exact(value: float) -> Spread:
    return Spread(value, value, value)
