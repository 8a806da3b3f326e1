"""Plans all view groups of one phase, each by a planner of its own.

A plain recipe has one group, and this adds nothing to its planner. With several groups one decode
serves the views of all, so that they share the scale of decoding: the least reduced of all.

Invariant: a row's plan depends on the other groups through that scale alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from augd.plan.geometry.decode_scale import round_crops
from augd.plan.plan import Int8s, Int32s, Plan
from augd.plan.planner.planner import Planner
from augd.plan.random.philox import Ints
from augd.plan.recipe.phases import Phase, Size
from augd.plan.samplers.plugin import OnDraw


class ViewGroupPlanner:
    """Plans samples in all view groups of a phase; for one thread at a time."""

    def __init__(
        self,
        phase: Phase,
        seed: int,
        sizes: Sequence[Size],
        on_own_draw: Sequence[OnDraw] | None = None,
    ) -> None:
        """Make the planners.

        Args:
            phase: the view groups.
            seed: of the random words.
            sizes: (height, width) of each group's rows.
            on_own_draw: for each group, called with what own ops draw.
        """
        is_alone = len(phase.groups) == 1
        listeners: Sequence[OnDraw | None] = on_own_draw or [None] * len(phase.groups)
        self.planners = [
            Planner(
                group.recipe,
                seed,
                size,
                on_draw,
                first_view=group.first_view,
                is_alone=is_alone,
            )
            for group, size, on_draw in zip(phase.groups, sizes, listeners, strict=True)
        ]
        self._counts = [planner.num_views for planner in self.planners]

    def plan(self, ids: Ints, epochs: Ints, widths: Int32s, heights: Int32s) -> list[Plan]:
        """Plan the rows of n samples, a plan per group; see `Planner.plan`."""
        plans = [planner.plan(ids, epochs, widths, heights) for planner in self.planners]
        if len(plans) > 1 and plans[0].scale is not None:
            least = np.min(
                [
                    plan.scale.reshape(-1, count).min(axis=1)
                    for plan, count in zip(plans, self._counts, strict=True)
                    if plan.scale is not None
                ],
                axis=0,
            )
            sides = np.maximum(np.stack([widths, heights]), 1)
            plans = [
                _at_scale(plan, np.repeat(least, count), np.repeat(sides, count, axis=1))
                for plan, count in zip(plans, self._counts, strict=True)
            ]
        return plans


def _at_scale(plan: Plan, scale: Int8s, sides: Int32s) -> Plan:
    """Return a plan whose rows are decoded at these scales; its crops are moved in place."""
    round_crops(plan.crop.T, scale, sides.astype(np.float64), plan.bent)
    return replace(plan, scale=scale)
