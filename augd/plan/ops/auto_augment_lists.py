"""AutoAugment's learned lists: 25 sub-policies each, for ImageNet, CIFAR-10 and SVHN.

Pure data, drawn from by `plan/samplers/policies.py`. Source: Cubuk et al. 2019, tables 7 to 9, with
the levels of torchvision 0.29, `transforms/autoaugment.py`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from augd.plan.ops.policy_tables import PolicyOp


class Choice(NamedTuple):
    """One op of a sub-policy: applied with probability `tenths` / 10, at a level of 0 to 9."""

    op: PolicyOp
    tenths: int
    level: int = 0


# Each line is a sub-policy: op, probability in tenths, level; twice.
_IMAGENET: Final = """
posterize 4 8; rotate 6 9
solarize 6 5; autocontrast 6
equalize 8; equalize 6
posterize 6 7; posterize 6 6
equalize 4; solarize 2 4
equalize 4; rotate 8 8
solarize 6 3; equalize 6
posterize 8 5; equalize 10
rotate 2 3; solarize 6 8
equalize 6; posterize 4 6
rotate 8 8; color 4 0
rotate 4 9; equalize 6
equalize 0; equalize 8
invert 6; equalize 10
color 6 4; contrast 10 8
rotate 8 8; color 10 2
color 8 8; solarize 8 7
sharpness 4 7; invert 6
shear_x 6 5; equalize 10
color 4 0; equalize 6
equalize 4; solarize 2 4
solarize 6 5; autocontrast 6
invert 6; equalize 10
color 6 4; contrast 10 8
equalize 8; equalize 6
"""

_CIFAR10: Final = """
invert 1; contrast 2 6
rotate 7 2; translate_x 3 9
sharpness 8 1; sharpness 9 3
shear_y 5 8; translate_y 7 9
autocontrast 5; equalize 9
shear_y 2 7; posterize 3 7
color 4 3; brightness 6 7
sharpness 3 9; brightness 7 9
equalize 6; equalize 5
contrast 6 7; sharpness 6 5
color 7 7; translate_x 5 8
equalize 3; autocontrast 4
translate_y 4 3; sharpness 2 6
brightness 9 6; color 2 8
solarize 5 2; invert 0
equalize 2; autocontrast 6
equalize 2; equalize 6
color 9 9; equalize 6
autocontrast 8; solarize 2 8
brightness 1 3; color 7 0
solarize 4 5; autocontrast 9
translate_y 9 9; translate_y 7 9
autocontrast 9; solarize 8 3
equalize 8; invert 1
translate_y 7 9; autocontrast 9
"""

_SVHN: Final = """
shear_x 9 4; invert 2
shear_y 9 8; invert 7
equalize 6; solarize 6 6
invert 9; equalize 6
equalize 6; rotate 9 3
shear_x 9 4; autocontrast 8
shear_y 9 8; invert 4
shear_y 9 5; solarize 2 6
invert 9; autocontrast 8
equalize 6; rotate 9 3
shear_x 9 4; solarize 3 3
shear_y 8 8; invert 7
equalize 9; translate_y 6 6
invert 9; equalize 6
contrast 3 3; rotate 8 4
invert 8; translate_y 0 2
shear_y 7 6; solarize 4 8
invert 6; rotate 8 4
shear_y 3 7; translate_x 9 3
shear_x 1 6; invert 6
solarize 7 2; translate_y 6 7
shear_y 8 4; invert 8
shear_x 7 9; translate_y 8 3
shear_y 8 5; autocontrast 7
shear_x 7 2; invert 1
"""


def _read(lines: str) -> tuple[tuple[Choice, Choice], ...]:
    return tuple(
        (first, second)
        for first, second in (
            map(_read_choice, line.split("; ")) for line in lines.split("\n")[1:-1]
        )
    )


def _read_choice(text: str) -> Choice:
    name, *numbers = text.split()
    return Choice(PolicyOp[name.upper()], *map(int, numbers))


AUTO_POLICIES: Final = {
    "imagenet": _read(_IMAGENET),
    "cifar10": _read(_CIFAR10),
    "svhn": _read(_SVHN),
}
"""The lists by name; each sub-policy is a pair, applied in this order."""
