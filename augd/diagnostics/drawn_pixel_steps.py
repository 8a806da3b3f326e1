"""What the steps of a row's program drew, as numbers by name and as a few words.

Used by `drawn_params` and `drawn_text`. The steps are those of `augd/plan/program.py`; matrices are
read elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from augd.plan.program import Program, StepKind

Parameters = Mapping[str, Any]


def read_step(program: Program, row: int) -> dict[str, Any] | None:
    """Read the numbers of a row's first step; None if it has none."""
    if not program.kinds.shape[1] or not program.kinds[row, 0]:
        return None
    kind = StepKind(int(program.kinds[row, 0]))
    values = program.values[row, 0].tolist()
    names = _NAMES.get(kind, ())
    return {
        name: int(value) if name in _WHOLE else value
        for name, value in zip(names, values, strict=False)
        if name
    }


def list_steps(program: Program, row: int) -> list[dict[str, Any]]:
    """Return the steps of a row, in their order, with their values or their matrix."""
    steps = []
    for kind, values in zip(program.kinds[row], program.values[row].tolist(), strict=True):
        if kind == StepKind.MATRIX:
            flat = program.matrices[row, int(values[0])].tolist()
            steps.append({"step": "matrix", "colour": flat[:12], "pivot": flat[12:]})
        elif kind:
            steps.append({"step": StepKind(int(kind)).name.lower(), "values": values})
    return steps


_WHOLE = frozenset(("bits", "add", "quality"))
_NAMES: Mapping[StepKind, tuple[str, ...]] = {
    StepKind.TABLE: ("", "gamma"),
    StepKind.POSTERIZE: ("bits",),
    StepKind.SOLARIZE: ("threshold",),
    StepKind.SOLARIZE_ADD: ("add", "threshold"),
    StepKind.SHARPNESS: ("factor",),
    StepKind.BLUR: ("sigma",),
    StepKind.NOISE: ("std",),
    StepKind.JPEG: ("quality",),
}


def say_posterized(drawn: Parameters) -> str:
    """Say how many bits were kept."""
    return f"posterized to {drawn['bits']} bit{'s' if drawn['bits'] != 1 else ''}"


def say_solarized(drawn: Parameters) -> str:
    """Say above which grey level values were inverted; the threshold itself is inverted, too."""
    above = math.ceil(drawn["threshold"]) - 1
    return f"solarized above {above}" if above >= 0 else "inverted"


def say_solarized_add(drawn: Parameters) -> str:
    """Say what was added, and below which level."""
    return f"{drawn['add']:+d} below {drawn['threshold']:.4g}"


def say_inverted(drawn: Parameters) -> str:
    """Say that values were inverted."""
    return "inverted"


def say_gamma(drawn: Parameters) -> str:
    """Say the exponent."""
    return f"gamma {drawn['gamma']:.2f}"


def say_equalized(drawn: Parameters) -> str:
    """Say that the histogram was made even."""
    return "equalized"


def say_autocontrast(drawn: Parameters) -> str:
    """Say that the levels were stretched."""
    return "levels stretched"


def say_sharpness(drawn: Parameters) -> str:
    """Say the factor."""
    return f"sharpness {drawn['factor']:.2f}"


def say_blurred(drawn: Parameters) -> str:
    """Say sigma."""
    return f"blurred, sigma {drawn['sigma']:.2g} px"


def say_noise(drawn: Parameters) -> str:
    """Say the standard deviation."""
    return f"noise of {drawn['std']:.1f}"


def say_jpeg(drawn: Parameters) -> str:
    """Say the quality."""
    return f"JPEG of quality {drawn['quality']}"


SAYINGS: Mapping[str, Callable[[Parameters], str]] = {
    "posterize": say_posterized,
    "solarize": say_solarized,
    "solarize_add": say_solarized_add,
    "invert": say_inverted,
    "gamma": say_gamma,
    "equalize": say_equalized,
    "autocontrast": say_autocontrast,
    "sharpness": say_sharpness,
    "gaussian_blur": say_blurred,
    "gaussian_noise": say_noise,
    "jpeg": say_jpeg,
}
"""Of the ops that are pixel steps, by name."""
