"""`augd recipes --from-weights`: the recipes that published weights were made with.

torchvision or timm is asked by a process of its own, which has to answer within a deadline. The
constants belong to the trainer, so that they are printed as comments with the options that take
them.
"""

from __future__ import annotations

import json
import os
import subprocess
from importlib import metadata
from typing import Any, Final

from augd.errors import OptionError, install_extra
from augd.plan.recipe.evaluation import evaluation_recipe
from augd.plan.recipe.presets import PRESETS
from augd.process import interpreter

_ANSWER_S: Final = 180.0  # torch and timm take ten seconds from a slow disk
_FILTERS: Final = {"bilinear": "antialias", "bicubic": "bicubic"}

# By what torchvision calls the recipe of its weights: the last part of the address.
_TORCHVISION: Final = {
    "new-recipe": "torchvision-v2",
    "issuecomment-1013906621": "torchvision-v2",
    "resnet": "torchvision-v1",
    "resnext": "torchvision-v1",
    "alexnet-and-vgg": "torchvision-v1",
}
# By the tag of timm's weights, then by how the architecture's name begins.
_TIMM_TAGS: Final = {
    "a1_in1k": "timm-a1",
    "a2_in1k": "timm-a2",
    "a3_in1k": "timm-a3",
    "tv_in1k": "torchvision-v1",
    "tv2_in1k": "torchvision-v2",
    "mae": "mae",
    "dino": "dino",
    "lvd142m": "dinov2",
}
_TIMM_NAMES: Final = {
    ("deit_", "fb_in1k"): "deit",
    ("deit3_", "fb_in1k"): "deit3",
    ("swin_", "ms_in1k"): "swin",
    ("convnext_", "fb_in1k"): "convnext",
}

Facts = dict[str, Any]


def ask_library(name: str) -> Facts:
    """Return what torchvision or timm says of weights; see `augd.cli.weights.read`.

    Raises:
        OptionError: the library is not installed, does not know the name, or does not answer.
    """
    library = "timm" if name.startswith("timm:") else "torchvision"
    try:
        metadata.version(library)
    except metadata.PackageNotFoundError:
        advice = install_extra("timm" if library == "timm" else "trainer")
        raise OptionError(
            f"--from-weights: {name!r} is looked up in {library}, which is not installed here; "
            f"{advice}"
        ) from None
    facts = _run(name, library)
    if (closest := facts.get("unknown")) is not None:
        near = f"; closest: {', '.join(closest)}" if closest else ""
        raise OptionError(
            f"--from-weights: expected a name of {library}'s weights, got {name!r}{near}. "
            f"{_EXAMPLES[library]}"
        )
    if why := facts.get("error"):
        raise OptionError(
            f"--from-weights: expected weights of a classifier of images, got {name!r}: {why}"
        )
    return facts


_EXAMPLES: Final = {
    "torchvision": "Names are such as resnet50 or ResNet50_Weights.IMAGENET1K_V1; those of timm "
    "begin with timm:.",
    "timm": "Names are such as timm:resnet50.a1_in1k.",
}


def _run(name: str, library: str) -> Facts:
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        done = interpreter.run(
            "augd.cli.weights.read",
            name,
            env=env,
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
        )
    except subprocess.TimeoutExpired:
        raise OptionError(
            f"--from-weights: {library} gave no answer within {_ANSWER_S:.0f} s; is the machine, "
            "or its disk, overloaded?"
        ) from None
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        facts: Facts = json.loads(lines[-1])
        return facts
    said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    raise OptionError(f"--from-weights: {library} could not be read: {said}; is it whole?")


def evaluation_of(facts: Facts) -> dict[str, Any]:
    """Make the recipe by which the weights are evaluated.

    Raises:
        OptionError: no recipe says that: another filter or form.
    """
    height, width = facts["size"]
    image_filter, mode = _FILTERS.get(facts["interpolation"]), facts["mode"]
    is_whole = facts["crop_pct"] == 1
    can_fit = mode in ("center", "squash") or (mode == "border" and is_whole)
    is_shape = height == width or (mode == "squash" and is_whole)
    if not is_shape or image_filter is None or not can_fit or facts["crop_pct"] > 1:
        raise OptionError(
            f"--from-weights: {facts['name']} wants {height} x {width} px, interpolation "
            f"{facts['interpolation']}, crop_pct {facts['crop_pct']:g} and crop mode {mode!r}; "
            "expected a square, bilinear or bicubic, a crop_pct up to 1, and center, squash, or "
            "border with crop_pct 1"
        )
    if mode == "squash" and is_whole:
        return {"filter": image_filter, "ops": [{"op": "resize", "size": [height, width]}]}
    if mode == "border":
        fill = [round(255 * mean) for mean in facts["mean"]]  # as timm pads
        letterbox = {"op": "resize", "longest": height}
        return {"filter": image_filter, "fill": "constant", "fill_value": fill, "ops": [letterbox]}
    plain = evaluation_recipe(height, facts["crop_pct"], image_filter, mode)
    if "short" in facts:  # torchvision says it, and a share of it could be rounded otherwise
        plain["ops"][0]["short"] = facts["short"]
    return plain


def training_of(facts: Facts) -> tuple[str, dict[str, Any]]:
    """Return the name of the preset by which the weights were trained, and its recipe.

    Raises:
        OptionError: it is not known.
    """
    preset = _training_preset(facts)
    if preset is None:
        where = facts["made_by"] or "no source"
        library = facts["library"]
        raise OptionError(
            f"--training: no preset is known for {facts['name']} ({library} says {where}); "
            "augd recipes lists the presets"
        )
    plain = PRESETS[preset]
    if facts["library"].startswith("timm ") and preset != "timm-a3":
        plain = _at_size(plain, facts["size"])
    return preset, plain


def _training_preset(facts: Facts) -> str | None:
    made_by = facts["made_by"]
    if not facts["library"].startswith("timm "):
        found = _TORCHVISION.get(made_by.rpartition("#")[2])
    else:
        found = _TIMM_TAGS.get(made_by) or next(
            (
                preset
                for (beginning, tag), preset in _TIMM_NAMES.items()
                if facts["name"].startswith(beginning) and made_by == tag
            ),
            None,
        )
    return found if found in PRESETS else None


def _at_size(plain: dict[str, Any], size: list[int]) -> dict[str, Any]:
    """Return a preset whose random crop has the size of the weights."""
    if "ops" not in plain:  # views have sizes of their own
        return plain
    ops = [
        {**op, "size": size[0]} if op["op"] == "random_resized_crop" else op for op in plain["ops"]
    ]
    return {**plain, "ops": ops}


def comments(facts: Facts, preset: str | None) -> str:
    """Say in TOML comments where a recipe is from, and which constants go with it."""
    mean, std = (",".join(map(repr, facts[name])) for name in ("mean", "std"))
    if preset is None:
        first = (
            f"Evaluation of {facts['name']}, as {facts['library']} has it: {facts['size'][0]} px, "
            f"crop_pct {facts['crop_pct']:.4g}, {facts['interpolation']}, {facts['mode']}."
        )
    else:
        first = f"Training of {facts['name']}: the preset {preset}."
    lines = [first]
    if preset is None and "tested" in facts:
        size, crop_pct = facts["tested"]
        image_filter = _FILTERS.get(facts["interpolation"], "antialias")
        squash = " --squash" if facts["mode"] == "squash" else ""
        lines.append(
            f"Its published accuracy may be of {size} px: augd recipes eval --size {size} "
            f"--crop-pct {crop_pct:g} --filter {image_filter}{squash}"
        )
    lines.append(f"Constants, for the trainer: --mean {mean} --std {std}")
    return "".join(f"# {line}\n" for line in lines)
