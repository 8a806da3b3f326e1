"""The parameters drawn for a sample, as text and as plain data.

Used by `augd explain`, `augd preview` and the dashboard's sample viewer. The numbers come from
`augd.diagnostics.sample_renderer.Drawn`. Texts round them; nothing is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from augd.diagnostics.drawn_boxes import say_boxes
from augd.diagnostics.drawn_jitter import say_jittered
from augd.diagnostics.drawn_params import DrawnStep
from augd.diagnostics.drawn_pixel_steps import SAYINGS
from augd.diagnostics.policy_text import say_mixture, say_policy
from augd.diagnostics.sample_renderer import Drawn, View

Parameters = Mapping[str, Any]

SEPARATOR = " · "


def describe_crop(view: View) -> str:
    """Describe the part of the image that the row shows: `crop 312x280 at 12,40`.

    Counts crops and resizes alone; `describe_rest` describes rotations and zooms.
    """
    x, y, width, height = map(round, view.frame)
    return f"crop {width}x{height} at {x},{y}"


def describe_rest(view: View) -> str:
    """Describe what else was done; `nothing else` if nothing was."""
    said = ["mirrored"] if view.mirror else []
    for step in view.steps:
        if step.op != "mirror" and _is_to_be_said(step):
            said.append(say_step(step))
    if view.filter:
        said.append(f"filter {view.filter}")
    return SEPARATOR.join(said) or "nothing else"


def _is_to_be_said(step: DrawnStep) -> bool:
    """Say whether a step is worth a word: it was applied, and is not lost by rounding."""
    if step.drawn is None:
        return False
    return any(map(_whole, step.drawn["shift"])) if "shift" in step.drawn else True


def say_step(step: DrawnStep) -> str:
    """Describe what one op drew, in a few words."""
    if step.drawn is None:
        return "not applied"
    say = _SAYINGS.get(step.op)
    return step.op if say is None else say(step.drawn)


def _say_turn(drawn: Parameters) -> str:
    way = "left" if drawn["degrees"] >= 0 else "right"
    return f"turned {abs(drawn['degrees']):.1f}° {way}"


def _say_zoom(drawn: Parameters) -> str:
    high, wide = drawn["height"], drawn["width"]
    if high == wide:
        return f"zoomed {'out' if high > 1 else 'in'} {high:.2f}"
    return f"zoomed {wide:.2f} / {high:.2f}"


def _say_shear(drawn: Parameters) -> str:
    return "sheared " + ", ".join(f"{axis} {drawn[axis]:+.2f}" for axis in "xy" if drawn[axis])


def _say_stretch(drawn: Parameters) -> str:
    return f"stretched {drawn['x']:.2f} / {drawn['y']:.2f}"


def _say_translation(drawn: Parameters) -> str:
    return f"moved {drawn['x']:+.1%} / {drawn['y']:+.1%}"


def _say_lens(drawn: Parameters) -> str:
    return f"lens k {drawn['k']:+.3f}"


def _say_warp(drawn: Parameters) -> str:
    return "warped"


def _say_shift(drawn: Parameters) -> str:
    return "colour " + "/".join(map(_signed, drawn["shift"]))


def _say_hue(drawn: Parameters) -> str:
    return f"hue {drawn['degrees']:+.1f}°"


def _say_grey(drawn: Parameters) -> str:
    return "grey"


def _say_mirror(drawn: Parameters) -> str:
    return "mirrored"


def _say_vertical_flip(drawn: Parameters) -> str:
    return "upside down"


def _saying_factor(of: str) -> Callable[[Parameters], str]:
    return lambda drawn: f"{of} {drawn['factor']:.2f}"


_SAYINGS: dict[str, Callable[[Parameters], str]] = {
    "mirror": _say_mirror,
    "vertical_flip": _say_vertical_flip,
    "rotate": _say_turn,
    "zoom": _say_zoom,
    "shear": _say_shear,
    "stretch": _say_stretch,
    "translate": _say_translation,
    "lens": _say_lens,
    "local_warp": _say_warp,
    "pca": _say_shift,
    "rgb_shift": _say_shift,
    "brightness": _saying_factor("brightness"),
    "contrast": _saying_factor("contrast"),
    "saturation": _saying_factor("saturation"),
    "hue": _say_hue,
    "grayscale": _say_grey,
    "color_jitter": say_jittered,
    **SAYINGS,
    "erase": say_boxes,
    "coarse_dropout": say_boxes,
    "cutout": say_boxes,
    "rand_augment": say_policy,
    "trivial_augment": say_policy,
    "auto_augment": say_policy,
    "three_augment": say_policy,
    "aug_mix": say_mixture,
}


def _whole(level: float) -> int:
    return int(np.floor(level + 0.5))


def _signed(level: float) -> str:
    return f"{_whole(level):+d}" if _whole(level) else "0"


def as_plain(drawn: Drawn) -> dict[str, Any]:
    """Return the parameters as plain data, unrounded.

    A sample of one view has them at the top, one of several as a list in `views`.
    """
    views = [_view_as_plain(view) for view in drawn.views]
    of_views = views[0] if len(views) == 1 else {"views": views}
    return {"epoch": drawn.epoch, **of_views, "impossible": drawn.impossible or None}


def _view_as_plain(view: View) -> dict[str, Any]:
    return {
        "view": view.number,
        **({"name": view.name} if view.name else {}),
        "words": f"{describe_crop(view)}, {describe_rest(view)}",
        "crop": list(view.crop),
        "scaled": list(view.scaled),
        "window": list(view.window),
        "mirror": view.mirror,
        "ops": [step.as_plain() for step in view.steps],
        "colour_order": list(view.colour_order) or None,
        "filter": view.filter or None,
        "bent": view.is_bent,
        "seen": [list(corner) for corner in view.seen],
        "matrix": view.matrix.tolist(),
        "region": list(view.region),
        "halvings": view.halvings,
        "scale": view.scale,
        "colour": None if view.colour is None else view.colour.tolist(),
        "pivot": None if view.pivot is None else view.pivot.tolist(),
        **({} if view.program is None else {"program": list(view.program)}),
    }
