"""The arithmetic of the comparison: quantiles, ratios round by round, and what is aimed at.

Pure: measurements in, figures out. Measurements are kept as they came, round by round, so that a
saved run can be shown again without being measured again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks._report import Figure, Target
from benchmarks._rounds import Spread, spread
from benchmarks.peers import catalogue as sides
from benchmarks.peers.catalogue import SAME_JPEGS


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one side; lists have one number per round, in the order of rounds.

    Attributes:
        resize: the filter, for the table.
        files: what was read, for the table.
        versions: of what decides its speed.
        images_per_s: delivered.
        cpu_s_per_1000: CPU-seconds of the whole tree of processes per 1,000 images delivered.
        waits_s: for each batch of all rounds, from asking to having it.
        memory_bytes: most that the tree owned at one moment of a round of its own.
        first_batch_s: from the start of the process to the first batch.
        has_images: whether it made any; else it is in no ratio.
    """

    resize: str
    files: str
    versions: Mapping[str, str]
    images_per_s: Sequence[float]
    cpu_s_per_1000: Sequence[float]
    waits_s: Sequence[float]
    memory_bytes: int
    first_batch_s: float
    has_images: bool = True


Sides = Mapping[str, Measured]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all doesn't exceed."""
    if not values:
        raise ValueError("a quantile of no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def speed_ratios(one: Measured, other: Measured) -> Spread:
    """Compare images/s round by round: neighbours in time saw the same machine."""
    pairs = zip(one.images_per_s, other.images_per_s, strict=True)
    return spread(mine / theirs for mine, theirs in pairs)


def cost_ratios(one: Measured, other: Measured) -> Spread:
    """Compare CPU-seconds per image round by round."""
    pairs = zip(one.cpu_s_per_1000, other.cpu_s_per_1000, strict=True)
    return spread(mine / theirs for mine, theirs in pairs)


def best_peer(measured: Sides) -> str | None:
    """Name the fastest of those who are not augd and read the photos' own JPEGs."""
    medians = {
        name: spread(side.images_per_s).median
        for name, side in measured.items()
        if not name.startswith("augd") and side.files in SAME_JPEGS and side.has_images
    }
    return max(medians, key=medians.__getitem__) if medians else None


def aims(measured: Sides) -> list[Figure]:
    """Hold augd against what is aimed at, as far as both sides of an aim were measured."""
    best = best_peer(measured)
    wanted = [
        (sides.AUGD_LINEAR, best, 1.1),
        (sides.AUGD_ANTIALIAS, best, 1.0),
        (sides.AUGD_LINEAR, sides.DALI_LINEAR, 1.6),
        (sides.AUGD_LINEAR, sides.FFCV_JPG, 1.6),
        (sides.AUGD_LINEAR, sides.IO, 1.6),
        (sides.AUGD_ANTIALIAS, sides.PIL, 2.5),
    ]
    figures = [
        Figure(f"{ours} / {theirs}", "x", speed_ratios(measured[ours], measured[theirs]), bound)
        for ours, theirs, bound in (
            (ours, theirs, Target(">=", at_least)) for ours, theirs, at_least in wanted
        )
        if theirs is not None and ours in measured and theirs in measured
    ]
    ours, theirs = sides.AUGD_LINEAR, sides.OPENCV
    if ours in measured and theirs in measured:
        ratio = cost_ratios(measured[ours], measured[theirs])
        name = f"CPU per image, {ours} / {theirs}"
        figures.append(Figure(name, "x", ratio, Target("<=", 0.7)))
    return figures
