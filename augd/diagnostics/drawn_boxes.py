"""Which boxes of a row were filled, as numbers by name and as a few words.

Used by `drawn_params` and `drawn_text`. The boxes are those of `augd/plan/boxes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from augd.plan.plan import Plan

Parameters = Mapping[str, Any]


def read_boxes(plan: Plan, row: int) -> dict[str, Any] | None:
    """Read the boxes of a plan of one op: the only one by its numbers, several as `boxes`.

    None if there is none.
    """
    assert plan.erase is not None
    boxes = [
        dict(zip(("x", "y", "width", "height"), box, strict=True))
        for box in plan.erase[row].tolist()
        if box[2]
    ]
    if len(boxes) == 1:
        return boxes[0]
    return {"boxes": boxes} if boxes else None


def say_boxes(drawn: Parameters) -> str:
    """Say which boxes were filled."""
    boxes = drawn.get("boxes") or [drawn]
    return "erased " + " and ".join(
        f"{box['width']}x{box['height']} at {box['x']},{box['y']}" for box in boxes
    )
