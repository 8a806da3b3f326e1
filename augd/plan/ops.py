"""The ops of a recipe: one struct each, holding what may be asked and what is refused.

Where it stands: a trainer's plain data becomes these structs (`recipe.py`); the planner pairs
each with a sampler that draws its parameters (`planner.py`). A new op is one struct here, added
to `Op`, and one sampler there.

Invariants: an instance that exists is valid, because every check runs when it is made; a size
is stored as (height, width), however it was written; nothing here touches pixels, draws a
number or imports NumPy, since the daemon validates recipes without it.

A failed check raises `ValueError("<field>: expected ..., got .... <what to do>")`; `recipe.py`
puts the path of the op in front.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import msgspec

Size = int | tuple[int, int]

# Above this side a row would be larger than any network takes, and products could pass int32.
MAX_SIDE_PX = 16384

# Of RGB in [0, 1]: torchvision's and fb.resnet.torch's constants for ImageNet.
IMAGENET_EIGVAL = (0.2175, 0.0188, 0.0045)
IMAGENET_EIGVEC = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


class Extent(NamedTuple):
    """What is known about the frame's size before an image is seen, between two ops.

    `height` and `width` hold for every image when `exact`, and are the least that can be when
    not. `resampled` says that the one resample of the recipe was already spent.
    """

    height: int = 1
    width: int = 1
    exact: bool = False
    resampled: bool = False


class BaseOp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    """What every op shares: it is applied with probability `p`, drawn once per image."""

    is_sizing: ClassVar[bool] = False

    def extent(self, before: Extent) -> Extent:
        """Tell the frame's size after this op; the base leaves it as it is."""
        return before


class RandomResizedCrop(BaseOp, tag="random_resized_crop", frozen=True, kw_only=True):
    """Draw a box by area and aspect ratio, and resize it to `size`.

    `scale` bounds the area as a share of the image, `ratio` the width over the height, drawn
    log-uniformly. Source: Szegedy et al. 2015; the law is torchvision's.
    """

    is_sizing: ClassVar[bool] = True

    size: Size = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    p: float = 1.0

    def __post_init__(self) -> None:
        _store_size(self, self.size)
        _check_always("random_resized_crop", self.p)
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"scale: expected 0 < low <= high <= 1, got [{low}, {high}]. "
                "Give shares of the image's area, the smaller one first."
            )
        low, high = self.ratio
        if not 0.001 <= low <= high <= 1000:
            raise ValueError(
                f"ratio: expected 0.001 <= low <= high <= 1000, got [{low}, {high}]. "
                "Give width over height, the smaller one first."
            )

    @property
    def size_px(self) -> tuple[int, int]:
        """Return (height, width)."""
        return _pair(self.size)

    def extent(self, before: Extent) -> Extent:
        _check_first_resample("random_resized_crop", before)
        return Extent(*self.size_px, exact=True, resampled=True)


class Resize(BaseOp, tag="resize", frozen=True, kw_only=True):
    """Resize the whole frame: its short side to `short`, or both sides to `size` (squashes).

    With `short` the long side is `short * long // short_side`, as torchvision truncates it.
    """

    is_sizing: ClassVar[bool] = True

    short: int | None = None
    size: Size | None = None
    p: float = 1.0

    def __post_init__(self) -> None:
        _check_always("resize", self.p)
        if (self.short is None) == (self.size is None):
            found = "neither" if self.size is None else "both"
            raise ValueError(
                f"short: expected either short or size, got {found}. "
                "Give short=S to keep the aspect, or size=[height, width] to squash."
            )
        if self.size is not None:
            _store_size(self, self.size)
        if self.short is not None:
            _check_side("short", self.short)

    @property
    def size_px(self) -> tuple[int, int] | None:
        """Return (height, width), or None when `short` decides."""
        return None if self.size is None else _pair(self.size)

    def extent(self, before: Extent) -> Extent:
        _check_first_resample("resize", before)
        if self.size is not None:
            return Extent(*_pair(self.size), exact=True, resampled=True)
        assert self.short is not None
        if not before.exact:
            return Extent(self.short, self.short, exact=False, resampled=True)
        shortest = min(before.height, before.width)
        height, width = (self.short * side // shortest for side in (before.height, before.width))
        _check_side("short", self.short, longest_px=max(height, width))
        return Extent(height, width, exact=True, resampled=True)


class CenterCrop(BaseOp, tag="center_crop", frozen=True, kw_only=True):
    """Cut the window of `size` out of the frame's middle.

    The offset is half the difference, rounded half to even (torchvision). On an image that was
    not resized before and is smaller than the window, the row cannot be made and is masked.
    """

    is_sizing: ClassVar[bool] = True

    size: Size
    p: float = 1.0

    def __post_init__(self) -> None:
        _store_size(self, self.size)
        _check_always("center_crop", self.p)

    @property
    def size_px(self) -> tuple[int, int]:
        """Return (height, width)."""
        return _pair(self.size)

    def extent(self, before: Extent) -> Extent:
        height, width = self.size_px
        is_known = before.exact or before.resampled
        if is_known and (height > before.height or width > before.width):
            at_most = f"[{before.height}, {before.width}]"
            raise ValueError(
                f"size: expected at most {at_most}, which the ops before it leave, "
                f"got [{height}, {width}]. Make the crop smaller or the resize larger."
            )
        return Extent(height, width, exact=True, resampled=before.resampled)


class Mirror(BaseOp, tag="mirror", frozen=True, kw_only=True):
    """Flip left and right. Exact; only where the label survives it."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _check_probability(self.p)


class Pca(BaseOp, tag="pca", frozen=True, kw_only=True):
    """Add noise along the principal components of the data set's RGB.

    Adds V (alpha * lambda) to every pixel, with one alpha ~ N(0, alpha_std) per component.
    `eigval` are eigenvalues of the covariance of RGB in [0, 1]; column i of `eigvec` (rows R,
    G, B) is the vector of eigval[i]. `mode="eigval"` uses the eigenvalues themselves
    (fb.resnet.torch), `"stdev"` their square roots (MatConvNet, cuda-convnet2).
    Source: Krizhevsky et al. 2012, section 4.1.
    """

    alpha_std: float = 0.1
    mode: Literal["eigval", "stdev"] = "eigval"
    eigval: tuple[float, float, float] = IMAGENET_EIGVAL
    eigvec: tuple[
        tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]
    ] = IMAGENET_EIGVEC
    p: float = 1.0

    def __post_init__(self) -> None:
        _check_probability(self.p)
        if not 0 <= self.alpha_std <= 1000:
            raise ValueError(
                f"alpha_std: expected 0 <= alpha_std <= 1000, got {self.alpha_std}. "
                "Krizhevsky et al. use 0.1."
            )
        self._check_eigval()
        self._check_eigvec()

    def _check_eigval(self) -> None:
        # Three channels in [0, 1] have a variance of at most 1/4 each, and the eigenvalues sum
        # to the same trace: anything above was measured on 0..255 or is no variance.
        total = sum(self.eigval)
        if not (all(value >= 0 for value in self.eigval) and total <= 0.75):
            raise ValueError(
                f"eigval: expected three numbers >= 0 with a sum <= 0.75, got {list(self.eigval)}. "
                "Give eigenvalues of the covariance of RGB in [0, 1]; "
                "divide those of RGB in 0..255 by 255**2."
            )

    def _check_eigvec(self) -> None:
        for component in range(3):
            length = math.sqrt(sum(row[component] ** 2 for row in self.eigvec))
            if not abs(length - 1) <= 0.01:
                raise ValueError(
                    "eigvec: expected rows R, G, B whose columns are vectors of length 1, "
                    f"got column {component} of length {length:.4g}. "
                    "Divide each column by its length."
                )


Op = RandomResizedCrop | Resize | CenterCrop | Mirror | Pca

OP_CLASSES: tuple[type[BaseOp], ...] = (RandomResizedCrop, Resize, CenterCrop, Mirror, Pca)

OPS_BY_NAME: dict[str, type[BaseOp]] = {str(cls.__struct_config__.tag): cls for cls in OP_CLASSES}


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _store_size(op: BaseOp, size: Size) -> None:
    """Check both sides and store them as (height, width), so that equal recipes are equal."""
    pair = _pair(size)
    for side_px in pair:
        _check_side("size", side_px)
    msgspec.structs.force_setattr(op, "size", pair)


def _check_side(field: str, side_px: int, longest_px: int | None = None) -> None:
    """Check a side, or where it entails a longer one, that one."""
    found = side_px if longest_px is None else longest_px
    if not 1 <= found <= MAX_SIDE_PX:
        raise ValueError(
            f"{field}: expected a side of 1 to {MAX_SIDE_PX} pixels, got {found}. "
            "Give a side that your network takes."
        )


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"p: expected 0 <= p <= 1, got {p}. Give a probability.")


def _check_always(name: str, p: float) -> None:
    _check_probability(p)
    if p != 1:
        raise ValueError(
            f"p: expected 1, got {p}. {name} decides the size of the row, and every row of a "
            "batch has the same size: leave p out."
        )


def _check_first_resample(name: str, before: Extent) -> None:
    if before.resampled:
        raise ValueError(
            f"op: expected no second resample, got {name} after the image was resized. "
            "Each image is resampled once, because twice blurs twice: keep one of "
            "random_resized_crop and resize, and put center_crop after it."
        )


def list_parameters(op_class: type[BaseOp]) -> Sequence[str]:
    """Name the parameters of an op, in the order of its definition."""
    return op_class.__struct_fields__
