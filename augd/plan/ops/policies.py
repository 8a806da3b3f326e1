"""Policies: ops that draw, for each image, which of many ops to apply, and how strongly.

Gathered by `all_ops`, sampled by `plan/samplers/policies.py`. What they draw from stands in
`policy_tables` and `auto_augment_lists`.

A policy acts on the crop, and stands after the op that decides the size. With `bounded` the crop is
an image of its own, as in the published code: outside of it is the recipe's fill. Without, a
rotated crop shows the image around it. All geometric ops of a row compose to one resample, and come
before the others.

Numbers are those of the published code, except that `posterize` always keeps a bit at least: with 0
rows would be black, and Pillow raises.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal

import msgspec

from augd.plan.ops.base import BaseOp, check_number, check_probability
from augd.plan.ops.policy_tables import TIMM_3A_WEIGHTS, TIMM_WEIGHTS
from augd.plan.ops.timm_spec import parse_timm_spec

# More than any paper has; each layer takes a block of the counter, and may shear the row again.
_LAYERS_MAX: Final = 16
_LEVEL_MAX: Final = 100.0
_BINS: Final = 31  # torchvision's, of which the first is 0
# timm: above 100, levels are uniform. One number for all of these, so that equal recipes are equal.
UNIFORM_STD: Final = 101.0
# Of aug_mix: what it draws for a row, chains and weights, is 62 blocks of the counter then.
_WIDTH_MAX: Final = 8
_DEPTH_MAX: Final = 4
_SHEAR: Final = 0.3
_WIDE_SHEAR: Final = 0.99


class Policy(BaseOp, frozen=True, kw_only=True):
    """What chooses ops by itself."""

    needs_size: ClassVar[bool] = True
    is_pixel_step: ClassVar[bool] = True


class RandAugment(Policy, tag="rand_augment", frozen=True, kw_only=True):
    """Apply `layers` ops, each drawn uniformly, at one `level`, each with probability `p`.

    `style` says whose ops, ranges and defaults: `torchvision` (14 ops, levels 0..30, 9, p 1),
    `timm` (15 ops, levels 0..10, 10, p 0.5) or `tf` (big_vision's 16, levels 0..10 and beyond, 10,
    p 1). In `timm`, levels are N(`level`, `std`), clipped to 0..`level_max` (10), or uniform from 0
    to `level` if `std` is above 100; `increasing` makes all ops stronger with the level; `choice`
    takes timm's other sets of ops. `spec` says all of it as timm does: "rand-m9-mstd0.5-inc1".
    Source: Cubuk et al. 2020; torchvision, `RandAugment`; timm, `rand_augment_transform`;
    big_vision, `randaug`.
    """

    style: Literal["torchvision", "timm", "tf"] = "torchvision"
    layers: int | None = None
    level: float | None = None
    std: float | None = None
    p: float | None = None
    increasing: bool | None = None
    spec: str | None = None
    level_max: float | None = None
    choice: Literal["all", "weights", "3a", "3aw"] = "all"
    bounded: bool = True

    def __post_init__(self) -> None:
        if self.spec is not None:
            self._read_spec(self.spec)
        is_timm = self.style == "timm"
        self._check_timm_only()
        self._default("layers", 2)
        self._default("level", 9.0 if self.style == "torchvision" else 10.0)
        self._default("p", 0.5 if is_timm else 1.0)
        if is_timm:
            self._default("std", 0.0)
            self._default("increasing", False)
            self._default("level_max", 10.0)
        self._check_layers()
        self._check_levels()
        check_probability(self.layer_p)

    @property
    def num_layers(self) -> int:
        """Return how many ops may be applied to a row."""
        assert self.layers is not None
        return self.layers

    @property
    def num_said(self) -> int:
        """Return the layers."""
        return self.num_layers

    @property
    def layer_p(self) -> float:
        """Return the probability that a layer is applied."""
        assert self.p is not None
        return self.p

    @property
    def level_number(self) -> float:
        """Return the level, or the mean of levels."""
        assert self.level is not None
        return self.level

    @property
    def reduction(self) -> float:
        """Return a bound: each layer a shear, at the highest level."""
        level = self.level_number / (_BINS - 1 if self.style == "torchvision" else 10.0)
        share = level if self.level_max is None else self.level_max / 10.0
        return (1.0 + _SHEAR * share) ** self.num_layers

    def _read_spec(self, spec: str) -> None:
        """Replace the spec by what it says, so that two spellings of one recipe are equal."""
        for field in ("layers", "level", "std", "p", "increasing", "level_max"):
            found = getattr(self, field)
            if found is not None:
                raise ValueError(
                    f"{field}: expected none beside spec, got {found}. The spec says it: take one "
                    "of both out."
                )
        if self.style == "tf" or self.choice != "all":
            field = "style" if self.style == "tf" else "choice"
            raise ValueError(
                f'{field}: expected none beside spec, got "{getattr(self, field)}". A spec is '
                "timm's: take one of both out."
            )
        said = parse_timm_spec(spec)
        for field, value in (
            ("style", "timm"),
            ("layers", said.n),
            ("level", float(said.m)),
            ("std", said.mstd),
            ("p", said.p),
            ("increasing", said.inc),
            ("level_max", float(said.mmax)),
            ("choice", said.t),
            ("spec", None),
        ):
            msgspec.structs.force_setattr(self, field, value)

    def _default(self, field: str, value: object) -> None:
        if getattr(self, field) is None:
            msgspec.structs.force_setattr(self, field, value)

    def _check_timm_only(self) -> None:
        """Reject what only timm's code has, beside another style."""
        if self.style == "timm":
            return
        for field in ("std", "increasing", "level_max"):
            found = getattr(self, field)
            if found:
                raise ValueError(
                    f'{field}: expected none with style="{self.style}", got {found}. Take it out, '
                    'or set style="timm".'
                )
            msgspec.structs.force_setattr(self, field, None)
        if self.choice != "all":
            raise ValueError(
                f'choice: expected "all" with style="{self.style}", got "{self.choice}". Take it '
                'out, or set style="timm".'
            )

    def _check_layers(self) -> None:
        sets = {"weights": TIMM_WEIGHTS, "3aw": TIMM_3A_WEIGHTS}
        most = len(sets[self.choice][0]) if self.choice in sets else _LAYERS_MAX
        check_number("layers", self.num_layers, 1, most, "RandAugment has 2 in most recipes.")

    def _check_levels(self) -> None:
        level = self.level_number
        if self.style == "torchvision":
            check_number("level", level, 0, _BINS - 1, "torchvision has the levels 0 to 30.")
            if level != int(level):
                raise ValueError(
                    f'level: expected a whole number with style="torchvision", got {level}. '
                    "Its levels are bins of a range: 0 to 30."
                )
            return
        check_number("level", level, 0, _LEVEL_MAX, "At 10 an op's range ends.")
        if self.style != "timm":
            return
        assert self.std is not None and self.level_max is not None
        check_number("level_max", self.level_max, 1, _LEVEL_MAX, "timm clips levels at 10.")
        if not self.std >= 0:
            raise ValueError(
                f"std: expected std >= 0, got {self.std}. 0.5 is the usual standard deviation of "
                "levels."
            )
        if self.std > 100:
            msgspec.structs.force_setattr(self, "std", UNIFORM_STD)


class TrivialAugment(Policy, tag="trivial_augment", frozen=True, kw_only=True):
    """Apply one of 14 ops, drawn uniformly, at one of `bins` levels, drawn uniformly.

    The wide ranges: shears to 0.99, moves by 32 px, rotations by 135 degrees, factors of 0.01 to
    1.99, posterize down to 2 bits. There is nothing to tune.
    Source: Müller and Hutter 2021; torchvision, `TrivialAugmentWide`.
    """

    bins: int = _BINS
    bounded: bool = True
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        check_number("bins", self.bins, 2, 1000, "torchvision has 31 levels, of which one is 0.")

    @property
    def reduction(self) -> float:
        """Return that of the strongest shear."""
        return 1.0 + _WIDE_SHEAR


class AutoAugment(Policy, tag="auto_augment", frozen=True, kw_only=True):
    """Apply one of 25 learned pairs of ops, drawn uniformly; each op with its own probability.

    `policy` says on which images the pairs were learned: `imagenet`, `cifar10` or `svhn`. Levels
    are those of torchvision: posterize becomes stronger with them.
    Source: Cubuk et al. 2019; torchvision, `AutoAugment`.
    """

    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    bounded: bool = True
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)

    @property
    def num_said(self) -> int:
        """Return 2, for the pair."""
        return 2

    @property
    def reduction(self) -> float:
        """Return that of two shears."""
        return (1.0 + _SHEAR) ** 2


class ThreeAugment(Policy, tag="three_augment", frozen=True, kw_only=True):
    """Apply one of three: grey, values from 128 on inverted, or blurred by sigma ~ U(0.1, 2) px.

    DeiT III has a color_jitter of 0.3, 0.3 and 0.3 after it, which is an op of its own here.
    Source: Touvron et al. 2022 (DeiT III), section 3; its code, `augment.py`.
    """

    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)


class AugMix(Policy, tag="aug_mix", frozen=True, kw_only=True):
    """Blend the row with `width` chains of ops: y = (1 - m) x + m sum(w_i chain_i(x)).

    m ~ Beta(`alpha`, `alpha`), w ~ Dirichlet(`alpha`, ...). Each chain begins at the finished row x
    and has `depth` ops, or 1 to 3 with -1, each drawn uniformly at a level from 0 to `severity` - 1
    of 9. `all_ops` adds brightness, color, contrast and sharpness to the paper's nine.
    Source: Hendrycks et al. 2020, section 3; torchvision, `AugMix`.
    """

    is_unique: ClassVar[bool] = True
    ends_colour: ClassVar[bool] = True

    severity: int = 3
    width: int = 3
    depth: int = -1
    alpha: float = 1.0
    all_ops: bool = True
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        check_number("severity", self.severity, 1, 10, "The paper has 3.")
        check_number("width", self.width, 1, _WIDTH_MAX, "The paper has 3 chains.")
        check_number("alpha", self.alpha, 0.1, 100, "The paper has 1.")
        if self.depth != -1 and not 1 <= self.depth <= _DEPTH_MAX:
            raise ValueError(
                f"depth: expected -1 or 1 to {_DEPTH_MAX}, got {self.depth}. -1 draws 1, 2 or 3 "
                "ops for each chain."
            )

    @property
    def num_said(self) -> int:
        """Return the chains."""
        return self.width
