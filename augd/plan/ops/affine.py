"""Ops that move the image's points in ways the exact path cannot: affine ops and warps.

Gathered by `all_ops`, sampled by `plan/samplers/affine.py`. All affine ops of a recipe compose to
one matrix, in the recipe's order, and the image is sampled once.

An op acts in the frame that the ops before it left, about its centre: after a crop, in the output.
Formulas move a point of the image, x to the right and y down, both from the centre; `zoom` alone is
defined on the sampling grid. Warps act last, wherever they stand.
"""

from __future__ import annotations

from typing import ClassVar

from augd.plan.ops.base import BaseOp, Range, check_number, check_probability


class Rotate(BaseOp, tag="rotate", frozen=True, kw_only=True):
    """Turn the image by an angle ~ U(-d, d), positive counter-clockwise.

    d is `degrees`, or `factor` times 360: 0.1 stands for 36 degrees to either side.
    x' = x cos + y sin, y' = y cos - x sin. Source: Keras, `RandomRotation`.
    """

    factor: float | None = None
    degrees: float | None = None
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        if (self.factor is None) == (self.degrees is None):
            found = "neither" if self.factor is None else "both"
            raise ValueError(
                f"factor: expected either factor or degrees, got {found}. "
                "Give degrees=36 or factor=0.1, which mean the same."
            )
        if self.factor is not None:
            check_number("factor", self.factor, 0, 1, "Give a share of a full turn.")
        if self.degrees is not None:
            check_number("degrees", self.degrees, 0, 360, "Give the largest angle to either side.")

    @property
    def turns(self) -> float:
        """Return the largest angle as a share of a full turn."""
        if self.factor is not None:
            return self.factor
        assert self.degrees is not None
        return self.degrees / 360


class Zoom(BaseOp, tag="zoom", frozen=True, kw_only=True):
    """Multiply the sampling grid by z ~ U(1-f, 1+f) about the centre: z > 1 shows more.

    f is `height` for y and `width` for x, drawn apart; without `width` both axes take the z of
    `height`, which keeps the aspect. source = centre + z (output - centre).
    Source: Keras, `RandomZoom` (positive is out).
    """

    height: float
    width: float | None = None
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        advice = "0.2 zooms by up to a fifth, out and in."
        check_number("height", self.height, 0, 0.99, advice)
        if self.width is not None:
            check_number("width", self.width, 0, 0.99, advice)

    @property
    def reduction(self) -> float:
        """Return the largest z."""
        return 1 + max(self.height, self.width or 0)


class Shear(BaseOp, tag="shear", frozen=True, kw_only=True):
    """Slant: x' = x + a y, y' = y + b x about the centre, a ~ U(-x, x), b ~ U(-y, y).

    `x` and `y` bound the entries of the matrix; they are no angles.
    Source: the affine family of Simard et al. 2003.
    """

    x: float = 0.0
    y: float = 0.0
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        for field, value in (("x", self.x), ("y", self.y)):
            check_number(field, value, 0, 10, "Give an entry of the matrix, not an angle.")
        if not self.x * self.y <= 0.9:
            raise ValueError(
                f"x: expected x * y <= 0.9, got {self.x} * {self.y}. "
                "At 1 the image collapses to a line: make one of them smaller."
            )

    @property
    def reduction(self) -> float:
        """Return a bound of the inverse matrix: its largest sum of a row."""
        return (1 + max(self.x, self.y)) / (1 - self.x * self.y)


class Stretch(BaseOp, tag="stretch", frozen=True, kw_only=True):
    """Enlarge each axis by a factor of its own, exp(U(-log(1+s), log(1+s))), about the centre.

    s is `x` for the width and `y` for the height. x' = f x, y' = g y.
    Source: log-uniform, so that enlarging and shrinking are alike, as the aspect of
    `random_resized_crop`.
    """

    x: float = 0.0
    y: float = 0.0
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        for field, value in (("x", self.x), ("y", self.y)):
            check_number(field, value, 0, 9, "0.1 stretches and shrinks by up to a tenth.")

    @property
    def reduction(self) -> float:
        """Return the inverse of the smallest factor."""
        return 1 + max(self.x, self.y)


class Translate(BaseOp, tag="translate", frozen=True, kw_only=True):
    """Move the image by U(-f W, f W) and U(-g H, g H) pixels of the frame, not rounded.

    f is `x`, g is `y`, shares of the frame's width and height; positive is right and down.
    x' = x + dx, y' = y + dy. Source: Keras, `RandomTranslation`.
    """

    x: float = 0.0
    y: float = 0.0
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        for field, value in (("x", self.x), ("y", self.y)):
            check_number(field, value, 0, 1, "Give a share of the frame's side.")


class Lens(BaseOp, tag="lens", frozen=True, kw_only=True):
    """Distort radially: source radius = r (1 + k (r / rmax)^2), k ~ U(k).

    About the output's centre, rmax half its diagonal: the centre stays, each point moves along
    its radius; k > 0 pulls the edges in (barrel), k < 0 pushes them out (pincushion).
    Source: the first radial term of Brown 1966.
    """

    is_unique: ClassVar[bool] = True

    k: Range = (-0.05, 0.05)
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        low, high = self.k
        # Below -1/3 the radius would turn back before it reaches the corner.
        if not -0.33 <= low <= high <= 1:
            raise ValueError(
                f"k: expected -0.33 <= low <= high <= 1, got [{low}, {high}]. "
                "Give the smaller one first; the edge folds over below -1/3."
            )


class LocalWarp(BaseOp, tag="local_warp", frozen=True, kw_only=True):
    """Displace each output pixel by smooth noise: alpha G_sigma * U[-1, 1], in x and y apart.

    Displacements are uniform per pixel and axis, smoothed by a Gaussian of `sigma` px whose
    weights sum to one, then multiplied by `alpha` px, which they never pass.
    Source: Simard et al. 2003, section 2.
    """

    is_unique: ClassVar[bool] = True

    alpha: float
    sigma: float
    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        check_number("alpha", self.alpha, 0, 1024, "Give the noise's scale in pixels.")
        check_number("sigma", self.sigma, 0.5, 256, "Give the width of the smoothing in pixels.")
