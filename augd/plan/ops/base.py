"""The base of every op of a recipe: its fields, how it changes a frame's size, its checks.

The structs of the ops (`crop`, `affine`, `colour`, `views`) derive from it; `all_ops` gathers
them.

Invariants: an instance that exists is valid, because every check runs when it is made; a size is
stored as (height, width), however it was written; nothing here touches pixels, draws a number or
imports NumPy, since the daemon validates recipes without it.

A failed check raises `ValueError("<field>: expected ..., got .... <what to do>")`. `recipe.py` puts
the path of the op in front. Every bound is written so that NaN fails it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, NamedTuple

import msgspec

Size = int | tuple[int, int]
Range = tuple[float, float]
Number = float | Range
"""Fixed, or drawn from U(low, high)."""
WholeNumber = int | tuple[int, int]
"""Fixed, or drawn from the whole numbers low..high, both included."""

# Above this side a row would be larger than any network takes, and products could pass int32.
MAX_SIDE_PX = 16384


class Extent(NamedTuple):
    """What is known about the frame's size before an image is seen, between two ops.

    `height` and `width` hold for every image when `exact`, and are the least that can be when
    not. `resampled` says that the one resample of the recipe was already spent, `padded` that bars
    stand around the image.
    """

    height: int = 1
    width: int = 1
    exact: bool = False
    resampled: bool = False
    padded: bool = False


class BaseOp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    """What every op shares: it is applied with probability `p`, drawn once per image."""

    is_sizing: ClassVar[bool] = False
    """Decides the size of the row."""
    is_colour: ClassVar[bool] = False
    """Acts on each pixel's colour; `shuffle_colour` permutes these."""
    is_pixel_step: ClassVar[bool] = False
    """Changes colours by more than a matrix: its rows have a program (`augd/plan/program.py`)."""
    needs_size: ClassVar[bool] = False
    """Stands after the op that decides the size of the row, if there is one."""
    ends_colour: ClassVar[bool] = False
    """Acts on the row as the ops before it left it: only ops after the colour pass may follow."""
    is_unique: ClassVar[bool] = False
    """May stand in a recipe once, because the plan has room for one."""

    @property
    def inner(self) -> tuple[BaseOp, ...]:
        """Return the ops of a group; the base is none."""
        return ()

    @property
    def num_views(self) -> int:
        """Return how many rows the op makes of one sample."""
        return 1

    @property
    def num_said(self) -> int:
        """Return how many things it draws for a row that take words of their own."""
        return 1

    @property
    def reduction(self) -> float:
        """Return by how much the op may reduce the image at most, beside crop and resize."""
        return 1.0

    @property
    def is_after_colour(self) -> bool:
        """Whether the op changes pixels after the colour pass."""
        return False

    def extent(self, before: Extent) -> Extent:
        """Return the frame's size after this op; the base leaves it as it is."""
        return before

    def check_fill(self, fill: str) -> None:
        """Check what depends on the recipe's fill; the base has nothing to check."""

    def check_rows(self, height: int, width: int) -> None:
        """Check what depends on the size of the finished rows; the base has nothing to check."""


def name_of(op: BaseOp | type[BaseOp]) -> str:
    """Return the op's name, as it stands in a recipe."""
    return str(op.__struct_config__.tag)


def walk_ops(ops: Iterable[BaseOp], path: str = "ops") -> Iterator[tuple[str, BaseOp]]:
    """Yield each op with its path, and after a group the ops in it."""
    for number, op in enumerate(ops):
        here = f"{path}[{number}]"
        yield here, op
        yield from walk_ops(op.inner, f"{here}.ops")


def pair(size: Size) -> tuple[int, int]:
    """Return (height, width) of a size as it was written."""
    return (size, size) if isinstance(size, int) else size


def store_size(op: BaseOp, field: str, size: Size) -> None:
    """Check both sides and store them as (height, width), so that equal recipes are equal."""
    sides = pair(size)
    for side_px in sides:
        check_side(field, side_px)
    msgspec.structs.force_setattr(op, field, sides)


def check_side(field: str, side_px: int, longest_px: int | None = None) -> None:
    """Check a side, or where it entails a longer one, that one."""
    found = side_px if longest_px is None else longest_px
    if not 1 <= found <= MAX_SIDE_PX:
        raise ValueError(
            f"{field}: expected a side of 1 to {MAX_SIDE_PX} pixels, got {found}. "
            "Give a side that your network takes."
        )


def shorten(short: int, before: Extent) -> Extent:
    """Return the frame's size after its short side was resized to `short`, and check the long
    one."""
    if not before.exact:
        return Extent(short, short, exact=False, resampled=True)
    shortest = min(before.height, before.width)
    height, width = (short * side // shortest for side in (before.height, before.width))
    check_side("short", short, longest_px=max(height, width))
    return Extent(height, width, exact=True, resampled=True)


def check_probability(p: float) -> None:
    """Reject what is no probability."""
    if not 0 <= p <= 1:
        raise ValueError(f"p: expected 0 <= p <= 1, got {p}. Give a probability.")


def check_always(op: BaseOp, p: float) -> None:
    """Reject to skip an op without which rows would differ in size."""
    check_probability(p)
    if p != 1:
        raise ValueError(
            f"p: expected 1, got {p}. {name_of(op)} decides the size of the row, and every row of "
            "a batch has the same size: leave p out."
        )


def check_number(field: str, value: float, low: float, high: float, advice: str) -> None:
    """Check that a number lies from `low` to `high`."""
    if not low <= value <= high:
        raise ValueError(f"{field}: expected {low} <= {field} <= {high}, got {value}. {advice}")


def store_range(op: BaseOp, field: str, low: float, high: float, advice: str) -> None:
    """Check a number, or a range [least, most] that it is drawn from, within `low` to `high`.

    A range of one number is stored as that number, so that equal recipes are equal.
    """
    least, most = check_range(field, getattr(op, field), low, high, advice)
    if least == most:
        msgspec.structs.force_setattr(op, field, least)


def check_range(field: str, value: Number, low: float, high: float, advice: str) -> Range:
    """Check a number or a range, and return its ends."""
    least, most = value if isinstance(value, tuple) else (value, value)
    if not low <= least <= most <= high:
        got = f"[{least}, {most}]" if isinstance(value, tuple) else str(value)
        raise ValueError(
            f"{field}: expected a number from {low} to {high}, or two of them, the smaller one "
            f"first, got {got}. {advice}"
        )
    return least, most


def check_area(field: str, area: Range, advice: str) -> None:
    """Check shares of an area."""
    low, high = area
    if not 0 < low <= high <= 1:
        raise ValueError(f"{field}: expected 0 < low <= high <= 1, got [{low}, {high}]. {advice}")


def check_ratio(ratio: Range) -> None:
    """Check a range of width over height."""
    low, high = ratio
    if not 0.001 <= low <= high <= 1000:
        raise ValueError(
            f"ratio: expected 0.001 <= low <= high <= 1000, got [{low}, {high}]. "
            "Give width over height, the smaller one first."
        )


def check_first_resample(op: BaseOp, before: Extent) -> None:
    """Reject a resize of what was resized."""
    if before.resampled:
        raise ValueError(
            f"op: expected no second resample, got {name_of(op)} after the image was resized. "
            "Each image is resampled once, because twice blurs twice: keep one of "
            "random_resized_crop and resize, and put center_crop after it."
        )


def check_unpadded(op: BaseOp, before: Extent) -> None:
    """Reject a window of what bars were put around."""
    if before.padded:
        raise ValueError(
            f"op: expected no crop of a padded image, got {name_of(op)} after resize with longest. "
            "Its window could lie in the padding alone: take one of both out."
        )


def check_fits(field: str, size: tuple[int, int], before: Extent, pad: int = 0) -> None:
    """Reject a window that is larger than what the ops before it leave."""
    height, width = size
    if height > before.height + 2 * pad or width > before.width + 2 * pad:
        at_most = f"[{before.height + 2 * pad}, {before.width + 2 * pad}]"
        raise ValueError(
            f"{field}: expected at most {at_most}, which the ops before it leave, "
            f"got [{height}, {width}]. Make the crop smaller or the resize larger."
        )
