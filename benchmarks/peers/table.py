"""The comparison as text: a table for the terminal's reader, and the same for the document."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._docs import describe_machine, markdown_table
from benchmarks._report import Figure
from benchmarks._rounds import Spread, spread
from benchmarks.peers.catalogue import AUGD_ANTIALIAS, AUGD_LINEAR
from benchmarks.peers.figures import Measured, Sides, aims, quantile, speed_ratios

HEADER = [
    "",
    "resize",
    "files",
    "images/s",
    "CPU-s per 1,000",
    "memory, MB",
    "wait p50 / p99, ms",
    "first batch, s",
    "augd linear / it",
    "augd antialias / it",
]
LEFT = 3  # columns of words


def rows(measured: Sides) -> list[list[str]]:
    """Make the table's rows, the fastest first."""
    fastest = sorted(measured, key=lambda name: -spread(measured[name].images_per_s).median)
    return [_row(name, measured) for name in fastest]


def _row(name: str, measured: Sides) -> list[str]:
    side = measured[name]
    waits_ms = [1000 * wait for wait in side.waits_s]
    return [
        name,
        side.resize if side.has_images else "none",
        side.files,
        with_range(spread(side.images_per_s), ",.0f"),
        with_range(spread(side.cpu_s_per_1000), ".2f"),
        f"{side.memory_bytes / 1e6:,.0f}",
        f"{quantile(waits_ms, 0.5):,.0f} / {quantile(waits_ms, 0.99):,.0f}",
        f"{side.first_batch_s:.1f}",
        *(_ratio(ours, name, measured) for ours in (AUGD_LINEAR, AUGD_ANTIALIAS)),
    ]


def _ratio(ours: str, theirs: str, measured: Sides) -> str:
    if ours == theirs or ours not in measured or not measured[theirs].has_images:
        return ""
    return with_range(speed_ratios(measured[ours], measured[theirs]), ".2f")


def with_range(found: Spread, form: str) -> str:
    """Write a median with its range."""
    return f"{found.median:{form}} ({found.low:{form}}..{found.high:{form}})"


def section(document: Mapping[str, Any], measured: Sides, plots: Sequence[str]) -> str:
    """Write the section of docs/performance/peers.md, with images of these names."""
    aimed = aims(measured)
    parts = [
        f"`{document['command']}`: {document['photos']}, {document['workers']} workers each on "
        f"{document['workers']} cores, batches of {document['batch_size']}, {document['rounds']} "
        f"rounds of {document['seconds']:g} s in turns. {describe_machine(document['machine'])}.",
        markdown_table(HEADER, rows(measured), LEFT),
        "\n".join(f"![{_caption(name)}]({name}.png)" for name in plots),
    ]
    if aimed:
        parts.append(markdown_table(["", "found", "aim", ""], [_aim_row(one) for one in aimed]))
    parts.append(
        "Versions: " + "; ".join(_versions(name, measured[name]) for name in measured) + "."
    )
    if document["left_out"]:
        parts.append(
            "Left out here:\n\n"
            + "\n".join(
                f"- {name}: {no_folders(why)}" for name, why in document["left_out"].items()
            )
        )
    return "\n\n".join(part for part in parts if part)


def no_folders(text: str) -> str:
    """Take the folders of this machine out of what a peer said; names of files stay."""
    return re.sub(r"(?<![\w.])/(?:[^\s/:'\"]+/)+", "", text)


def _aim_row(figure: Figure) -> list[str]:
    assert figure.target is not None
    return [
        figure.name,
        with_range(figure.spread, ".2f"),
        f"{figure.target.sense} {figure.target.value:g}",
        "met" if figure.is_met else "missed",
    ]


def _versions(name: str, side: Measured) -> str:
    known = ", ".join(f"{library} {version}" for library, version in side.versions.items())
    return f"{name} ({known})"


def _caption(plot: str) -> str:
    return {
        "peers-speed": "Images per second of each loader, with the range of the rounds",
        "peers-cost": "CPU-seconds per 1,000 images of each loader, with the range of the rounds",
        "peers-memory": "Memory that each loader's processes own at most",
    }[plot]
