"""Evaluation recipes: from the size and the share of the image that published accuracies used.

`augd recipes` prints them, and the presets `eval...` are made by them. Plain data, which
`parse_recipe` checks.
"""

from __future__ import annotations

import math
from typing import Any, Literal

Mode = Literal["center", "squash"]


def evaluation_recipe(
    size: int,
    crop_pct: float = 0.875,
    image_filter: str = "antialias",
    mode: Mode = "center",
) -> dict[str, Any]:
    """Resize to floor(size / crop_pct) and cut a square of `size` from the centre.

    With "center" the short side is resized, and the aspect is kept; with "squash" both sides are.
    Source: timm, `transforms_imagenet_eval`. A crop_pct of 0.875 at 224 px is 256 to 224.
    """
    side_px = math.floor(size / crop_pct)
    target = {"short": side_px} if mode == "center" else {"size": [side_px, side_px]}
    ops: list[dict[str, Any]] = [{"op": "resize", **target}]
    if mode == "center" or side_px != size:
        ops.append({"op": "center_crop", "size": size})
    return {"filter": image_filter, "ops": ops}
