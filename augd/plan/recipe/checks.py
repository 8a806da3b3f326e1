"""Checks across the ops of one recipe: their order, one size of rows, and bounds together.

`Recipe` calls them when it is made, after each op has checked itself. A failed check raises
`ValueError("<path inside the recipe>: expected ..., got .... <what to do>")`.

Invariants: nothing here reads an image or imports NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from augd.plan.ops.base import BaseOp, Extent, name_of, walk_ops

# The op's place in the recipe takes 8 bits of the random counter; no real recipe is near it.
MAX_OPS = 64
# Of one sample: more than the tests of any paper use, and within the counter's 12 bits.
MAX_VIEWS = 256
# All views of a sample together: the limit that decoding has for an image.
MAX_SAMPLE_AREA_PX = 64_000_000

# Of all affine ops together: an image is a few pixels then, and positions stay far from overflow.
MAX_REDUCTION = 1000


def check_order(ops: Sequence[BaseOp]) -> None:
    """Reject too many ops, what follows a view op, and a second one of what the plan has one of."""
    if len(ops) > MAX_OPS:
        raise ValueError(
            f"ops: expected at most {MAX_OPS} ops, got {len(ops)}. Shorten the recipe."
        )
    for number, op in enumerate(ops):
        if op.num_views > 1 and number != len(ops) - 1:
            raise ValueError(
                f"ops[{number}].op: expected {name_of(op)} as the last op, got "
                f"{name_of(ops[number + 1])} after it. Put {name_of(op)} at the end."
            )
    seen: dict[type[BaseOp], str] = {}
    for path, op in walk_ops(ops):
        if op.is_unique and type(op) in seen:
            raise ValueError(
                f"{path}.op: expected one {name_of(op)} in a recipe, got a second after "
                f"{seen[type(op)]}. Take one of them out."
            )
        seen[type(op)] = path


def check_sized(ops: Sequence[BaseOp]) -> None:
    """Reject an op that acts on the finished crop before the op that makes it."""
    sizing = [number for number, op in enumerate(ops) if op.is_sizing]
    for number, op in enumerate(ops[: sizing[-1]] if sizing else ()):
        if op.needs_size:
            raise ValueError(
                f"ops[{number}].op: expected {name_of(op)} after the op that decides the size, got "
                f"{name_of(ops[sizing[-1]])} after it. Move {name_of(op)} behind it."
            )


def check_ends(ops: Sequence[BaseOp]) -> None:
    """Reject what acts before the end of a row's colours behind an op that needs them finished."""
    ending = next((number for number, op in enumerate(ops) if op.ends_colour), len(ops))
    for path, op in walk_ops(ops):
        place = int(path[len("ops[") : path.index("]")])
        if place > ending and not op.inner and not op.is_after_colour:
            raise ValueError(
                f"{path}.op: expected no {name_of(op)} after {name_of(ops[ending])}, which "
                f"blends finished rows, got {name_of(op)}. Move it before {name_of(ops[ending])}."
            )


def check_reduction(ops: Iterable[BaseOp]) -> None:
    """Reject affine ops that together leave nothing of the image."""
    reduction = math.prod(op.reduction for op in ops)
    if reduction > MAX_REDUCTION:
        raise ValueError(
            f"ops: expected ops that together shrink the image by at most {MAX_REDUCTION}, got "
            f"{reduction:.4g}. Take some of zoom, shear and stretch out, or make them weaker."
        )


def check_shuffle(ops: Iterable[BaseOp]) -> None:
    """Reject colour ops that are no matrix or in a group, where the others are shuffled."""
    for number, op in enumerate(ops):
        if any(one.is_pixel_step or (one.is_colour and op.inner) for _, one in walk_ops([op])):
            name = name_of(op)
            raise ValueError(
                f"ops[{number}].op: expected no {name} with shuffle_colour, got {name}. It "
                "shuffles single ops that compose to one matrix: take it out, and put the ops "
                "into an all_of with shuffle."
            )


def check_device(ops: Iterable[BaseOp]) -> None:
    """Reject what is no matrix or follows the colour pass, where the device does that pass."""
    for path, op in walk_ops(ops):
        if op.is_pixel_step:
            name = name_of(op)
            raise ValueError(
                f'{path}.op: expected no {name} with colour_on="device", got {name}. The '
                "device applies one matrix per image: take one of both out."
            )
        if op.is_after_colour:
            name = name_of(op)
            raise ValueError(
                f'{path}.op: expected no {name} with colour_on="device", got {name}. It '
                "acts after the colour pass, which the device would do later: take one of both "
                "out."
            )


def check_fills(ops: Iterable[BaseOp], fill: str) -> None:
    """Check each op against the recipe's fill."""
    for number, op in enumerate(ops):
        try:
            op.check_fill(fill)
        except ValueError as error:
            raise ValueError(f"ops[{number}].{error}") from None


def final_extent(ops: Sequence[BaseOp]) -> Extent:
    """Walk the ops and return the size of a row; not exact when no op decides the size.

    Raises ValueError when a second resample would be needed, when sizing ops leave the size to
    the image, or when an op does not fit the rows.
    """
    extent = Extent()
    for number, op in enumerate(ops):
        try:
            extent = op.extent(extent)
        except ValueError as error:
            raise ValueError(f"ops[{number}].{error}") from None
    if any(op.is_sizing for op in ops) and not extent.exact:
        raise ValueError(
            "ops: expected one size for all rows, got a long side that follows each image. "
            'Add {"op": "center_crop", "size": ...} after the resize, or give the resize a size.'
        )
    if extent.exact:
        check_rows(ops, extent.height, extent.width)
    return extent


def check_rows(ops: Iterable[BaseOp], height: int, width: int) -> None:
    """Check each op against the size of the finished rows."""
    for number, op in enumerate(ops):
        try:
            op.check_rows(height, width)
        except ValueError as error:
            raise ValueError(f"ops[{number}].{error}") from None


def check_views(ops: Sequence[BaseOp], views: int, height: int, width: int) -> None:
    """Reject views of views, and more of them than a slot should hold.

    A size that is not known yet is 1.
    """
    last = ops[-1] if ops else None
    if last is not None and last.num_views > 1 and views != 1:
        raise ValueError(
            f"views: expected 1 with {name_of(last)}, got {views}. {name_of(last)} makes "
            f"{last.num_views} views of its own: take one of both out."
        )
    num_views = views * (1 if last is None else last.num_views)
    if not 1 <= num_views <= MAX_VIEWS:
        path = "views" if views != 1 else f"ops[{len(ops) - 1}].short"
        raise ValueError(
            f"{path}: expected 1 to {MAX_VIEWS} views of a sample, got {num_views}. Ask for fewer."
        )
    if num_views > 1 and num_views * height * width > MAX_SAMPLE_AREA_PX:
        path = "views" if views != 1 else f"ops[{len(ops) - 1}].op"
        raise ValueError(
            f"{path}: expected at most {MAX_SAMPLE_AREA_PX // 1_000_000} megapixels for all views "
            f"of a sample, got {num_views} of {width}x{height}. Ask for fewer or smaller ones."
        )
