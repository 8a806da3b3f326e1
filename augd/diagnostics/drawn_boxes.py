"""Which boxes of a row were filled, as numbers by name and as a few words.

Used by `drawn_params` and `drawn_text`. The boxes are those of `augd/plan/boxes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from augd.plan.ops.base import BaseOp
from augd.plan.plan import Plan

Parameters = Mapping[str, Any]


def read_boxes(op: BaseOp, plan: Plan, row: int) -> dict[str, Any] | None:
    """Read the boxes of a plan of one op: the only one by its numbers, several as `boxes`.

    A colour that was drawn is among them. None if there is no box.
    """
    assert plan.erase is not None
    boxes: list[dict[str, Any]] = [
        dict(zip(("x", "y", "width", "height"), box, strict=True))
        for box in plan.erase[row].tolist()
    ]
    if plan.erase_fill is not None and getattr(op, "fill", None) == "random":
        for box, colour in zip(boxes, plan.erase_fill.colours[row].tolist(), strict=True):
            box["colour"] = colour
    boxes = [box for box in boxes if box["width"]]
    if len(boxes) == 1:
        return boxes[0]
    return {"boxes": boxes} if boxes else None


def say_boxes(drawn: Parameters) -> str:
    """Say which boxes were filled."""
    boxes = drawn.get("boxes") or [drawn]
    return "erased " + " and ".join(map(_say_box, boxes))


def _say_box(box: Parameters) -> str:
    said = f"{box['width']}x{box['height']} at {box['x']},{box['y']}"
    return said + " in " + "/".join(map(str, box["colour"])) if "colour" in box else said
