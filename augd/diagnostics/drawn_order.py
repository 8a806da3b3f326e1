"""In which order the colour ops of a shuffled group came for one row.

Used by `drawn_params`, which reads what each op drew by itself, in the recipe's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from augd.diagnostics.row_words import draw_words
from augd.plan.ops.groups import AllOf
from augd.plan.random.philox import Purpose, mix
from augd.plan.recipe.recipe import Recipe
from augd.plan.samplers.groups import draw_order, order_draws

Said = TypeVar("Said")


@dataclass(frozen=True, slots=True)
class Shuffle:
    """The order of one group: `places` are those of its colour ops among all that are said."""

    key: int
    place: int
    num_ops: int
    places: list[int]

    def apply(self, steps: list[Said], sample: int, epoch: int, view: int) -> None:
        """Put the steps of the group into the order of the row, in place."""
        draws = order_draws(self.num_ops)
        words = draw_words(self.key, self.place, draws, sample, epoch, view)
        order = draw_order(*words, len(self.places))[:, 0].tolist()
        said = [steps[place] for place in self.places]
        for place, number in zip(self.places, order, strict=True):
            steps[place] = said[number]


def shuffles_of(recipe: Recipe, seed: int) -> Iterator[Shuffle]:
    """Yield what is shuffled in each group. Ops that decide the size are not said."""
    key, first = mix(seed, Purpose.PARAMS), 0
    for place, op in enumerate(recipe.ops):
        if op.is_sizing:
            continue
        if isinstance(op, AllOf) and op.shuffle:
            yield Shuffle(key, place, len(op.ops), _colour_places(op, first))
        first += len(op.inner) or 1


def _colour_places(group: AllOf[Any], first: int) -> list[int]:
    return [
        first + number for number, op in enumerate(group.ops) if op.is_colour or op.is_pixel_step
    ]
