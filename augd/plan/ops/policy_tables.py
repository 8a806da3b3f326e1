"""What the published policies draw from: their ops, the ranges of each op's number, the lists.

Pure data. `policies` names the tables in its structs, and `plan/samplers/policies.py` draws from
them.

A level is turned into a share s of a table's range: 0 at the least level, 1 at the greatest. An
op's number is then `base` +/- round(`slope` * s), within `low` and `high`:

    shear_x, shear_y          m of x_in = x + m y, from the top left corner
    translate_x, translate_y  pixels of the frame, to the right and down; a share of the side if
                              `is_of_side`
    rotate                    degrees, counter-clockwise, about the centre
    brightness, color, contrast, sharpness   the factor f of d + f (x - d); 1 changes nothing
    posterize                 the bits that are kept
    solarize                  the threshold: values from it on are inverted
    solarize_add              what is added to values below 128
    cutout                    half the side of the square, pixels
    blur                      sigma, pixels

Sources: torchvision 0.29, `transforms/autoaugment.py`; timm 1.0, `data/auto_augment.py`;
big_vision, `pp/autoaugment.py`; Cubuk et al. 2019 (AutoAugment) and 2020 (RandAugment).
"""

from __future__ import annotations

from enum import IntEnum
from math import inf
from typing import Final, NamedTuple


class PolicyOp(IntEnum):
    """An op that a policy applies to a row."""

    IDENTITY = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    ROTATE = 5
    BRIGHTNESS = 6
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10
    SOLARIZE = 11
    SOLARIZE_ADD = 12
    AUTOCONTRAST = 13
    EQUALIZE = 14
    INVERT = 15
    CUTOUT = 16
    BLUR = 17


GEOMETRIC: Final = frozenset(
    {
        PolicyOp.SHEAR_X,
        PolicyOp.SHEAR_Y,
        PolicyOp.TRANSLATE_X,
        PolicyOp.TRANSLATE_Y,
        PolicyOp.ROTATE,
    }
)


class Rounding(IntEnum):
    """How slope * s becomes a whole number, if it does."""

    NONE = 0
    DOWN = 1
    NEAREST = 2


class Rule(NamedTuple):
    """How one op of a table gets its number from the share s of its range."""

    op: PolicyOp
    slope: float = 0.0
    base: float = 0.0
    is_signed: bool = False
    """Added or taken away, with probability 1/2 each; added if not."""
    rounding: Rounding = Rounding.NONE
    low: float = -inf
    high: float = inf
    is_of_side: bool = False


_O = PolicyOp

_AUTOCONTRAST = Rule(_O.AUTOCONTRAST)
_EQUALIZE = Rule(_O.EQUALIZE)
_INVERT = Rule(_O.INVERT)
_IDENTITY = Rule(_O.IDENTITY)

# The published tables go down to 0 bits, which leave black, and which Pillow refuses.
_BITS_MIN: Final = 1


def _signed(op: PolicyOp, slope: float) -> Rule:
    return Rule(op, slope, is_signed=True)


def _enhance(slope: float, low: float = -inf) -> tuple[Rule, ...]:
    return tuple(
        Rule(op, slope, 1.0, is_signed=True, low=low)
        for op in (_O.BRIGHTNESS, _O.COLOR, _O.CONTRAST, _O.SHARPNESS)
    )


def _translate(
    slope: float, rounding: Rounding = Rounding.DOWN, *, is_of_side: bool = True
) -> tuple[Rule, ...]:
    return tuple(
        Rule(op, slope, is_signed=True, rounding=rounding, is_of_side=is_of_side)
        for op in (_O.TRANSLATE_X, _O.TRANSLATE_Y)
    )


def _posterize(most: int, slope: float, rounding: Rounding) -> Rule:
    return Rule(_O.POSTERIZE, slope, most, rounding=rounding, low=_BITS_MIN, high=8)


# torchvision's thresholds are no whole numbers: a value of at least the threshold is inverted.
_SOLARIZE = Rule(_O.SOLARIZE, -255.0, 255.0)


def _torchvision(
    shear: float, translate: tuple[Rule, ...], degrees: float, enhance: float, bits: float
) -> tuple[Rule, ...]:
    return (
        _IDENTITY,
        _signed(_O.SHEAR_X, shear),
        _signed(_O.SHEAR_Y, shear),
        *translate,
        _signed(_O.ROTATE, degrees),
        *_enhance(enhance),
        _posterize(8, -bits, Rounding.NEAREST),
        _SOLARIZE,
        _AUTOCONTRAST,
        _EQUALIZE,
    )


TORCHVISION: Final = _torchvision(0.3, _translate(150.0 / 331.0), 30.0, 0.9, 4.0)
"""RandAugment's fourteen ops."""

TRIVIAL_WIDE: Final = _torchvision(0.99, _translate(32.0, is_of_side=False), 135.0, 0.99, 6.0)
"""TrivialAugment's wide space, as torchvision has it."""

AUTO: Final = (*TORCHVISION[1:], _INVERT)
"""AutoAugment's fourteen ops, as torchvision has them; its lists name which."""

AUG_MIX_PAPER: Final = (
    _signed(_O.SHEAR_X, 0.3),
    _signed(_O.SHEAR_Y, 0.3),
    *_translate(1.0 / 3.0),
    _signed(_O.ROTATE, 30.0),
    _posterize(4, -4.0, Rounding.NEAREST),
    _SOLARIZE,
    _AUTOCONTRAST,
    _EQUALIZE,
)
"""AugMix's nine ops, which share none with the corruptions of ImageNet-C."""

AUG_MIX_ALL: Final = (*AUG_MIX_PAPER, *_enhance(0.9))
"""torchvision's default for AugMix."""

_TIMM_LAST: Final = (
    _signed(_O.SHEAR_X, 0.3),
    _signed(_O.SHEAR_Y, 0.3),
    *_translate(0.45, Rounding.NONE),
)
_TIMM_FIRST: Final = (_AUTOCONTRAST, _EQUALIZE, _INVERT, _signed(_O.ROTATE, 30.0))
_SOLARIZE_ADD = Rule(_O.SOLARIZE_ADD, 110.0, rounding=Rounding.DOWN, high=128.0)
_SOLARIZE_UP = Rule(_O.SOLARIZE, -256.0, 256.0, rounding=Rounding.DOWN, low=0.0)
_POSTERIZE_UP = _posterize(4, -4.0, Rounding.DOWN)

TIMM_INCREASING: Final = (
    *_TIMM_FIRST,
    _POSTERIZE_UP,
    _SOLARIZE_UP,
    _SOLARIZE_ADD,
    *(_enhance(0.9, low=0.1)[at] for at in (1, 2, 0, 3)),
    *_TIMM_LAST,
)
"""timm's fifteen ops with inc1: all become stronger with the level."""

# From 0.1 at level 0 to 1.9 at level 10, so that the middle changes nothing.
_UNSIGNED_ENHANCE: Final = tuple(
    Rule(op, 1.8, 0.1) for op in (_O.COLOR, _O.CONTRAST, _O.BRIGHTNESS, _O.SHARPNESS)
)
_SOLARIZE_DOWN = Rule(_O.SOLARIZE, 256.0, rounding=Rounding.DOWN, high=256.0)
_POSTERIZE_DOWN = _posterize(0, 4.0, Rounding.DOWN)

TIMM: Final = (
    *_TIMM_FIRST,
    _POSTERIZE_DOWN,
    _SOLARIZE_DOWN,
    _SOLARIZE_ADD,
    *_UNSIGNED_ENHANCE,
    *_TIMM_LAST,
)
"""timm's fifteen ops without inc1: those of TF's code."""

TF: Final = (
    *_TIMM_FIRST,
    _POSTERIZE_DOWN,
    _SOLARIZE_DOWN,
    *_UNSIGNED_ENHANCE,
    _signed(_O.SHEAR_X, 0.3),
    _signed(_O.SHEAR_Y, 0.3),
    *_translate(100.0, Rounding.NONE, is_of_side=False),
    Rule(_O.CUTOUT, 40.0, rounding=Rounding.DOWN),
    _SOLARIZE_ADD._replace(high=255.0),
)
"""The sixteen ops of big_vision's `randaug`."""

_DESATURATE = Rule(_O.COLOR, -0.5, 0.5, low=0.0, high=0.5)
_BLUR = Rule(_O.BLUR, 1.9, 0.1, low=0.1, high=2.0)

TIMM_3A: Final = (_SOLARIZE_UP, _DESATURATE, _BLUR)
"""timm's `t3a`: 3-Augment with levels."""


def _of(rules: tuple[Rule, ...], op: PolicyOp) -> Rule:
    return next(rule for rule in rules if rule.op == op)


def _weighted(
    weights: tuple[tuple[Rule | PolicyOp, int], ...],
) -> tuple[tuple[Rule, ...], tuple[int, ...]]:
    rules = tuple(one if isinstance(one, Rule) else _of(TIMM_INCREASING, one) for one, _ in weights)
    return rules, tuple(weight for _, weight in weights)


# timm's weights are 3 to 0.05; twenty times as much are whole numbers.
TIMM_WEIGHTS: Final = _weighted(
    (
        (_O.ROTATE, 60),
        (_O.SHEAR_X, 40),
        (_O.SHEAR_Y, 40),
        (_O.TRANSLATE_X, 20),
        (_O.TRANSLATE_Y, 20),
        (_O.COLOR, 5),
        (_O.SHARPNESS, 5),
        (_O.AUTOCONTRAST, 5),
        (_O.SOLARIZE, 1),
        (_O.SOLARIZE_ADD, 1),
        (_O.CONTRAST, 1),
        (_O.BRIGHTNESS, 1),
        (_O.EQUALIZE, 1),
        (_O.POSTERIZE, 1),
        (_O.INVERT, 1),
    )
)
"""timm's `tweights`: the rules, and what each weighs. Chosen without replacement."""

TIMM_3A_WEIGHTS: Final = _weighted(
    (
        (_SOLARIZE_UP, 6),
        (_DESATURATE, 6),
        (_BLUR, 6),
        (_O.ROTATE, 3),
        (_O.SHEAR_X, 2),
        (_O.SHEAR_Y, 2),
        (_O.POSTERIZE, 1),
        (_O.AUTOCONTRAST, 1),
        (_O.COLOR, 1),
        (_O.SHARPNESS, 1),
        (_O.CONTRAST, 1),
        (_O.BRIGHTNESS, 1),
        (_O.EQUALIZE, 1),
        (_O.INVERT, 1),
    )
)
"""timm's `t3aw`."""
