"""`augd explain`: everything that is drawn for one sample in one epoch.

After the way of a batch, without one, like `preview`. Changes nothing but the file it writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from augd.errors import OptionError
from augd.pixels.environment import describe_environment
from augd.pixels.header import BadImage
from augd.plan.recipe import Recipe
from augd.views.preview import make_strip, save
from augd.views.sample import Darkroom, check_epoch
from augd.views.sheet import Sheet
from augd.views.words import as_plain, describe_crop, describe_rest


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    """What `augd explain` was asked for."""

    path: str
    sample: int
    epoch: int
    seed: int
    out: str | None
    as_json: bool


def run_explain(options: ExplainOptions, recipe: Recipe) -> None:
    """Print the drawn parameters, and draw the crop on its photo beside the row.

    Raises:
        AugdError: an option is wrong, there is no data set, or the file cannot be written.
    """
    check_epoch(options.epoch)
    with Darkroom(options.path, recipe, options.seed) as room:
        last = room.index.num_samples - 1
        if not 0 <= options.sample <= last:
            raise OptionError(f"--id: expected 0..{last} in this data set, got {options.sample}")
        report = _explain(room, options.sample, options.epoch)
        if options.out is not None:
            sheet = Sheet((room.height, room.width), 1)
            strip = make_strip(room, options.sample, [options.epoch])
            title = f"sample {options.sample} · seed {options.seed}"
            save(sheet.draw(title, [f"epoch {options.epoch}"], [strip]), options.out)
    print(json.dumps(report) if options.as_json else _in_words(report, options))


def _explain(room: Darkroom, sample: int, epoch: int) -> dict[str, Any]:
    report: dict[str, Any] = {
        "id": sample,
        "path": room.arrays.path(sample),
        "label": room.label_of(sample),
        "position": room.position_of(sample, epoch),
        "seed": room.seed,
        "epoch": epoch,
        "environment": describe_environment(),
    }
    try:
        header = room.read(sample).header
    except BadImage as bad:
        return {**report, "bad": str(bad)}
    (drawn,) = room.drawn(sample, [epoch], header)
    words = f"{describe_crop(drawn)}, {describe_rest(drawn)}"
    size = [header.width, header.height]
    return {**report, "format": header.format, "size": size, "words": words, **as_plain(drawn)}


def _in_words(report: dict[str, Any], options: ExplainOptions) -> str:
    lines = [
        f"sample    {report['id']}: {report['path']}",
        f"label     {report['label'] or 'none'}",
        f"position  {report['position']} of epoch {report['epoch']}, seed {report['seed']}",
    ]
    if "bad" in report:
        return "\n".join([*lines, f"bad       {report['bad']}"])
    width, height = report["size"]
    lines += [f"photo     {report['format']}, {width}x{height}", f"drawn     {report['words']}"]
    for name in ("crop", "scaled", "window", "mirror", "colour", "impossible"):
        if report[name] not in (None, False):
            lines.append(f"  {name:10} {report[name]}")
    if options.out is not None:
        lines.append(f"picture   {options.out}")
    return "\n".join(lines)
