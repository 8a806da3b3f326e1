"""The law of the crops that every loader is measured with: torchvision's RandomResizedCrop.

For the sides whose library draws none itself. The standard library only: peers run it in
environments of their own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

SIDE_PX = 224
SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
MIRROR_P = 0.5
_TRIES = 10


def draw_crop(
    width: int, height: int, uniform: Callable[[float, float], float] = random.uniform
) -> tuple[int, int, int, int]:
    """Draw x, y, w, h as torchvision's RandomResizedCrop does, from `uniform(low, high)`."""
    low, high = (math.log(ratio) for ratio in RATIO)
    for _ in range(_TRIES):
        area = width * height * uniform(*SCALE)
        ratio = math.exp(uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return _place(uniform, width - w), _place(uniform, height - h), w, h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    return (width - w) // 2, (height - h) // 2, w, h


def _place(uniform: Callable[[float, float], float], room: int) -> int:
    return min(int(uniform(0, room + 1)), room)  # `random.uniform` may return its upper end
