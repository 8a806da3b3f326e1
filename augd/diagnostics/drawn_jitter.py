"""What `color_jitter` drew for one row: its factors and their order.

Used by `drawn_params`: a plan holds only the four's combined effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from augd.diagnostics.row_words import draw_words
from augd.plan.ops.colour import ColorJitter
from augd.plan.samplers.colour import ColorJitterSampler

_NAMES: Final = ("brightness", "contrast", "saturation", "hue")
_UNJITTERED: Final = (1.0, 1.0, 1.0, 0.0)


class JitterReader:
    """Reads what the op draws whose blocks begin at draw `first` of a place of the recipe."""

    def __init__(self, op: ColorJitter, key: int, place: int, first: int) -> None:
        self._sampler = ColorJitterSampler(op)
        self._key, self._place = key, place
        self._draws = range(first, first + self._sampler.num_blocks)

    def read(self, sample: int, epoch: int, view: int) -> dict[str, Any]:
        """Return what was drawn, in the order of the row, where it changes anything."""
        words = draw_words(self._key, self._place, self._draws, sample, epoch, view)
        numbers, order = self._sampler.draw(*words)
        found = {
            _NAMES[number]: float(numbers[number, 0])
            for number in order[:, 0].tolist()
            if numbers[number, 0] != _UNJITTERED[number]
        }
        if "hue" in found:
            found["hue"] *= 360.0
        return found


def say_jittered(drawn: Mapping[str, Any]) -> str:
    """Say the factors, in their order."""
    said = [
        f"hue {number:+.1f}°" if name == "hue" else f"{name} {number:.2f}"
        for name, number in drawn.items()
    ]
    return f"jittered: {', '.join(said)}"
