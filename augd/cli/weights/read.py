"""Reads how weights preprocess images from torchvision's enumerations or timm's configurations.

Runs as a process of its own (`augd.cli.weights.recipe` starts it), since augd loads neither of
them. Needs no network. Prints one line of JSON as its last line, `Facts` or an `error` of its own.
"""

from __future__ import annotations

import json
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Any

Facts = dict[str, Any]


def read_torchvision(name: str) -> Facts:
    """Read an enumeration's entry, or a model's default weights."""
    models = import_module("torchvision.models")
    known: dict[str, Any] = {}
    for model in models.list_models():
        weights = models.get_model_weights(model)
        known |= {str(one): one for one in weights} | {model: weights.DEFAULT}
    if name not in known:
        return {"unknown": get_close_matches(name, known, 4, 0.5)}
    entry = known[name]
    transform = entry.transforms()
    if type(transform).__name__ != "ImageClassification":
        return {"error": f"their transform is torchvision's {type(transform).__name__}"}
    (resize_px, *_), (crop_px, *_) = transform.resize_size, transform.crop_size
    return {
        "name": str(entry),
        "library": f"torchvision {import_module('torchvision').__version__}",
        "size": [crop_px, crop_px],
        "short": resize_px,
        "crop_pct": crop_px / resize_px,
        "mode": "center",
        "interpolation": transform.interpolation.value,
        "mean": list(transform.mean),
        "std": list(transform.std),
        "made_by": entry.meta.get("recipe", ""),
    }


def read_timm(name: str) -> Facts:
    """Read a model's pretrained configuration."""
    timm = import_module("timm")
    models, data = import_module("timm.models"), import_module("timm.data")
    try:
        found = models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        found = None
    if found is None or not timm.is_model(name):
        return {"unknown": get_close_matches(name, timm.list_models(pretrained=True), 4, 0.5)}
    raw = found.to_dict()
    usual, published = (
        data.resolve_data_config(pretrained_cfg=raw, use_test_size=is_test)
        for is_test in (False, True)
    )
    facts = {
        "name": f"{raw.get('architecture') or name.partition('.')[0]}.{raw.get('tag', '')}",
        "library": f"timm {timm.__version__}",
        "size": list(usual["input_size"][1:]),
        "crop_pct": usual["crop_pct"],
        "mode": usual["crop_mode"],
        "interpolation": usual["interpolation"],
        "mean": list(usual["mean"]),
        "std": list(usual["std"]),
        "made_by": raw.get("tag", ""),
    }
    if (published["input_size"], published["crop_pct"]) != (usual["input_size"], usual["crop_pct"]):
        facts["tested"] = [published["input_size"][1], published["crop_pct"]]
    return facts


def main(name: str) -> None:
    """Print the facts of "timm:NAME", or of a name of torchvision's."""
    library, _, rest = name.rpartition(":")
    read = read_timm if library == "timm" else read_torchvision
    print(json.dumps(read(rest)))


if __name__ == "__main__":
    main(sys.argv[1])
