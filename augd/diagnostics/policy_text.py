"""What a policy drew, in words: `rotated 12.3° left (level 5 of 30), solarized above 170`.

Used by `drawn_text`. The numbers come from `drawn_policies`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from augd.diagnostics.drawn_pixel_steps import say_solarized

Layer = Mapping[str, Any]


def say_policy(drawn: Mapping[str, Any]) -> str:
    """Name the applied ops in their order."""
    return ", ".join(map(_say_layer, drawn["layers"]))


def say_mixture(drawn: Mapping[str, Any]) -> str:
    """Say which share of a row each chain has: `62 % as it was, 38 % equalized + inverted`."""
    shares = [f"{drawn['image']:.0%} as it was"]
    for chain in drawn["chains"]:
        ops = " + ".join(map(_say_layer, chain["layers"]))
        shares.append(f"{chain['weight']:.0%} {ops}")
    return ", ".join(shares)


def _say_layer(layer: Layer) -> str:
    words = _SAYINGS[layer["op"]](layer)
    if "level" not in layer:
        return words
    return f"{words} (level {layer['level']:.3g} of {layer['top_level']:.3g})"


def _say_rotation(layer: Layer) -> str:
    return f"rotated {abs(layer['degrees']):.1f}° {'left' if layer['degrees'] >= 0 else 'right'}"


def _say_shear(layer: Layer) -> str:
    return f"sheared {layer['op'][-1]} {layer['shear']:+.2f}"


def _say_translation(layer: Layer) -> str:
    ways = ("right", "left") if layer["op"] == "translate_x" else ("down", "up")
    return f"moved {ways[layer['pixels'] < 0]} {abs(layer['pixels']):.3g} px"


def _say_color(layer: Layer) -> str:
    return f"saturation {layer['factor']:.2f}" if layer["factor"] else "grey"


def _say_factor(layer: Layer) -> str:
    return f"{layer['op']} {layer['factor']:.2f}"


def _say_bits(layer: Layer) -> str:
    bits = round(layer["bits"])
    return f"posterized to {bits} bit{'s' if bits != 1 else ''}"


def _say_added(layer: Layer) -> str:
    return f"{layer['add']:.0f} added below 128"


def _say_cutout(layer: Layer) -> str:
    x, y = layer["centre"]
    return f"cut out {2 * layer['half_side']:.0f} px at {x:.0f},{y:.0f}"


def _say_blur(layer: Layer) -> str:
    return f"blurred by {layer['sigma']:.2f} px"


def _saying(words: str) -> Callable[[Layer], str]:
    return lambda layer: words


_SAYINGS: Final[Mapping[str, Callable[[Layer], str]]] = {
    "shear_x": _say_shear,
    "shear_y": _say_shear,
    "translate_x": _say_translation,
    "translate_y": _say_translation,
    "rotate": _say_rotation,
    "brightness": _say_factor,
    "color": _say_color,
    "contrast": _say_factor,
    "sharpness": _say_factor,
    "posterize": _say_bits,
    "solarize": say_solarized,
    "solarize_add": _say_added,
    "autocontrast": _saying("autocontrast"),
    "equalize": _saying("equalized"),
    "invert": _saying("inverted"),
    "cutout": _say_cutout,
    "blur": _say_blur,
}
