"""`augd explain`: all parameters that are drawn for one sample in one epoch.

Renders the sample as a producer does, without a daemon. Writes nothing but the file of `--out`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from augd.cli.options import ExplainOptions
from augd.cli.preview import make_sheet, make_strip, save
from augd.dataset.decoder_packages import package_formats
from augd.dataset.scan_result import shown
from augd.diagnostics.drawn_text import as_plain
from augd.diagnostics.sample_renderer import SampleRenderer, check_epoch
from augd.errors import OptionError
from augd.pixels.headers.formats import DECODER
from augd.pixels.headers.read_header import BadImage
from augd.pixels.library_versions import describe_environment
from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.plan.recipe.phases import StreamRecipe
from augd.server.daemon.broker.dataset_facts import relevant

_SAID = ("op", "group", "applied")


def run_explain(
    options: ExplainOptions, recipe: StreamRecipe, catalogue: Catalogue = BUILT_IN
) -> None:
    """Print the drawn parameters, and draw the crop on its photo beside the row.

    Raises:
        AugdError: an option is wrong, there is no dataset, or the file cannot be written.
    """
    check_epoch(options.epoch)
    with SampleRenderer(options.path, recipe, options.seed, split=options.split) as renderer:
        last = renderer.index.num_samples - 1
        if not 0 <= options.sample <= last:
            raise OptionError(f"--id: expected 0..{last} in this dataset, got {options.sample}")
        environment = {**describe_environment(), **catalogue.environment}
        decoders = {DECODER + kind for kind in package_formats(renderer.index.fd)}
        environment = relevant(recipe.environment_of(catalogue, environment), decoders)
        report = _explain(renderer, options.sample, options.epoch, environment)
        if options.out is not None:
            sheet = make_sheet(renderer, [options.epoch])
            strip = make_strip(renderer, options.sample, [options.epoch])
            title = f"sample {options.sample} · seed {options.seed}"
            save(sheet.draw(title, [f"epoch {options.epoch}"], [strip]), options.out)
    print(json.dumps(report) if options.as_json else _in_words(report, options))


def _explain(
    renderer: SampleRenderer, sample: int, epoch: int, environment: Mapping[str, str]
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "id": sample,
        "path": renderer.arrays.path(sample),
        "label": renderer.label_of(sample),
        "position": renderer.position_of(sample, epoch),
        "seed": renderer.seed,
        "epoch": epoch,
        "environment": environment,
    }
    try:
        header = renderer.read(sample).header
    except BadImage as bad:
        return {**report, "bad": str(bad)}
    size = [header.width, header.height]
    drawn = renderer.drawn(sample, epoch, header)
    if len(renderer.recipe.phases) > 1:
        report["phase"] = renderer.recipe.at(epoch).from_epoch
    return {**report, "format": header.format, "size": size, **as_plain(drawn)}


def _in_words(report: dict[str, Any], options: ExplainOptions) -> str:
    lines = [
        f"sample    {report['id']}: {shown(os.fsencode(report['path']))}",
        f"label     {shown(report['label'].encode()) or 'none'}",
        _say_position(report),
    ]
    if "phase" in report:
        lines.append(f"phase     the one from epoch {report['phase']} on")
    if "bad" in report:
        return "\n".join([*lines, f"bad       {report['bad']}"])
    width, height = report["size"]
    lines.append(f"photo     {report['format']}, {width}x{height}")
    if report["impossible"] is not None:
        return "\n".join([*lines, f"masked    {report['impossible']}"])
    for view in report.get("views", [report]):
        lines += _view_in_words(view, "views" in report)
    if options.out is not None:
        lines.append(f"image     {options.out}")
    return "\n".join(lines)


def _say_position(report: Mapping[str, Any]) -> str:
    if report["position"] is None:
        return f"position  none: the split has not this sample, seed {report['seed']}"
    return f"position  {report['position']} of epoch {report['epoch']}, seed {report['seed']}"


def _view_in_words(view: dict[str, Any], is_one_of_many: bool) -> list[str]:
    title = view.get("name") or (f"view {view['view']}" if is_one_of_many else "drawn")
    lines = [f"{title:9} {view['words']}"]
    for name in ("crop", "scaled", "window"):
        lines.append(f"  {name:18} {_brief(view[name])}")
    lines += [_op_in_words(op) for op in view["ops"]]
    if view["scale"] != 1:
        lines.append(f"  {'decoded at':18} 1/{view['scale']}")
    for name in ("colour_order", "matrix", "region", "halvings"):
        if view[name] and (view["bent"] or name == "colour_order"):
            lines.append(f"  {name:18} {_brief(view[name])}")
    for name in ("colour", "pivot"):
        if view[name] is not None:
            lines.append(f"  {name:18} {_brief(view[name])}")
    return lines


def _op_in_words(op: dict[str, Any]) -> str:
    drawn = [
        _chains_in_words(value)
        if name == "chains"
        else _layers_in_words(value)
        if name == "layers"
        else f"{name} {_brief(value)}"
        for name, value in op.items()
        if name not in _SAID
    ]
    said = ", ".join(drawn) or "applied" if op["applied"] else "not applied"
    name = f"{op['group']} {op['op']}" if "group" in op else op["op"]
    return f"  {name:18} {said}"


def _layers_in_words(layers: Sequence[Mapping[str, Any]]) -> str:
    """Write what a policy applied: each op's name, then its numbers by name."""
    return " + ".join(
        " ".join(
            [layer["op"], *(f"{name} {_brief(layer[name])}" for name in layer if name != "op")]
        )
        for layer in layers
    )


def _chains_in_words(chains: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{chain['weight']:.4f} {_layers_in_words(chain['layers'])}" for chain in chains
    )


def _brief(value: Any) -> str:
    """Write numbers with five digits, and lists of them in brackets."""
    if isinstance(value, list):
        return f"[{', '.join(map(_brief, value))}]"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
