"""The planner: what will happen to each sample of a chunk, computed for all its rows at once.

A producer calls it with the ids from the order and their sizes from the index. Then `pixels`
decodes and renders by the plan.

A row's random words come from the counter (id, epoch, op, view, draw). With `views` in the recipe
each view draws its own. Those of a view op share what the ops before it drew, as view 0. A planner
of one group of views begins at the number of its first view.

Invariants: a row's plan depends only on (recipe, seed, its id, its epoch, its size, its view),
neither on the rows beside it nor on earlier calls. All random words of a chunk are drawn in one
pass. Nothing is computed per sample in Python unless a sample is exceptional or an op is a
plug-in's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from augd.plan.geometry.frame import Frame
from augd.plan.ops.base import BaseOp, walk_ops
from augd.plan.ops.groups import AllOf, OneOf
from augd.plan.ops.plugin import Plugin
from augd.plan.plan import Int32s, LocalWarpField, Plan
from augd.plan.planner.build_plan import finish
from augd.plan.random.philox import Ints, Philox, Purpose, mix, stream_counter
from augd.plan.recipe.recipe import Recipe
from augd.plan.samplers.all_samplers import sampler_of
from augd.plan.samplers.colour import ColourOrderSampler
from augd.plan.samplers.distributions import Sampler
from augd.plan.samplers.filter import FilterSampler
from augd.plan.samplers.groups import GroupSampler
from augd.plan.samplers.plugin import OnDraw, PluginSampler
from augd.plan.size_mismatch import ADD_A_SIZE

__all__ = ["LocalWarpField", "Plan", "Planner"]

_SPACES_KEPT: Final = 4
_LOW = np.array(0xFFFFFFFF, np.int64)
_U32 = np.array(32, np.int64)

# Places in the counter of draws that belong to no op: the order of the colour ops, the filter.
ORDER_PLACE: Final = 255
FILTER_PLACE: Final = 254


class Planner:
    """Plans samples of one stream.

    `out_size` is (height, width) of every row, as `output_size` tells. Not for use by two
    threads at once: the work arrays are kept between calls.
    """

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        out_size: tuple[int, int],
        on_own_draw: OnDraw | None = None,
        *,
        first_view: int = 0,
        is_alone: bool = True,
    ) -> None:
        """Make the samplers.

        Args:
            recipe: of the rows.
            seed: of the random words.
            out_size: (height, width) of the rows.
            on_own_draw: called with what own ops draw.
            first_view: number of the first view in the random counter.
            is_alone: whether all views of a sample are planned here. Else the caller shares the
                scales of decoding among all of them (`augd.plan.planner.view_group_planner`).
        """
        self._first_view, self._is_alone = first_view, is_alone
        self._on_own_draw = on_own_draw
        self._key = mix(seed, Purpose.PARAMS)
        self._num_draws = recipe.views
        self.num_views = recipe.num_views
        self._has_plugins = any(isinstance(op, Plugin) for _, op in walk_ops(recipe.ops))
        self._samplers = [
            (place, self._sampler_of(op, place)) for place, op in enumerate(recipe.ops)
        ]
        num_colours = sum(op.is_colour for op in recipe.ops)
        if recipe.shuffle_colour and num_colours > 1:
            self._samplers.append((ORDER_PLACE, ColourOrderSampler(num_colours)))
        if recipe.filter == "random":
            self._samplers.append((FILTER_PLACE, FilterSampler()))
        self._spaces: dict[int, _Space] = {}
        height, width = out_size
        self._out_sides = np.array([[width], [height]], np.float64)
        self._is_sized_by_image = not any(op.is_sizing for op in recipe.ops)
        self._recipe = recipe

    def _sampler_of(self, op: BaseOp, place: int, number: int | None = None) -> Sampler:
        """Make the sampler of an op: that at `place`, or op `number` of the group there."""
        if isinstance(op, OneOf | AllOf):
            return GroupSampler(
                op, [self._sampler_of(one, place, j) for j, one in enumerate(op.inner)]
            )
        if isinstance(op, Plugin):
            return PluginSampler(
                op,
                self._key,
                place,
                self._num_draws,
                self.num_views,
                self._on_own_draw,
                number,
                first_view=self._first_view,
            )
        return sampler_of(op)

    def plan(self, ids: Ints, epochs: Ints, widths: Int32s, heights: Int32s) -> Plan:
        """Plan the `num_views` rows of each of n samples.

        `ids` and `epochs` are int64 (n,), epochs below 2**32; `widths` and `heights` are those of
        the images as decoded. A sample with id -1 is planned like any other, and its plan means
        nothing; its sizes may be 0. Raises OwnOpError if an own op fails.
        """
        sides = np.empty((2, len(ids)))
        sides[0] = widths
        sides[1] = heights
        np.maximum(sides, 1.0, out=sides)
        if self.num_views > 1:
            ids, epochs = np.repeat(ids, self.num_views), np.repeat(epochs, self.num_views)
            sides = np.repeat(sides, self.num_views, axis=1)
        space = self._spaces.get(len(ids)) or self._make_space(len(ids))
        space.draw(ids, epochs)
        frame = Frame(sides, self._out_sides)
        if self._has_plugins:
            frame.ids, frame.epochs = ids, epochs
            frame.is_known = np.repeat((widths > 0) & (heights > 0), self.num_views)
        for sampler, even, odd in space.parts:
            sampler.sample(frame, even, odd)
        if self._is_sized_by_image:
            self._check_size(frame)
        impossible = self._by_sample(frame.impossible, ids)
        num_sharing = self.num_views if self._is_alone else 0
        return finish(frame, self._recipe, num_sharing, impossible)

    def _by_sample(self, impossible: dict[int, str], ids: Ints) -> dict[int, str]:
        """Name each sample once that has a row that cannot be made. Padding is never named."""
        reasons: dict[int, str] = {}
        for row, reason in impossible.items():
            if ids[row] >= 0:
                reasons.setdefault(row // self.num_views, reason)
        return reasons

    def _make_space(self, num_rows: int) -> _Space:
        if len(self._spaces) >= _SPACES_KEPT:
            self._spaces.clear()
        drawn = range(self._first_view, self._first_view + self._num_draws)
        space = _Space(self._key, self._samplers, num_rows, drawn)
        self._spaces[num_rows] = space
        return space

    def _check_size(self, frame: Frame) -> None:
        is_other = (frame.sides != self._out_sides).any(axis=0)
        if is_other.any():
            frame.refuse(is_other, self._explain)

    def _explain(self, width: int, height: int) -> str:
        out_width, out_height = (int(side) for side in self._out_sides[:, 0])
        return (
            f"size: expected {out_width}x{out_height} as the dataset's first image, since the "
            f"recipe has no op that decides the size, got {width}x{height}. {ADD_A_SIZE}"
        )


class _Space:
    """The random words of one number of rows: a generator's arrays and each op's part of them."""

    __slots__ = ("_epochs", "_high", "_low", "_philox", "_stream", "_streams", "parts")

    def __init__(
        self, key: int, samplers: list[tuple[int, Sampler]], num_rows: int, drawn: range
    ) -> None:
        num_blocks = sum(sampler.num_blocks for _, sampler in samplers)
        self._philox = Philox(key, num_blocks * num_rows)
        even, odd = (
            words.view(np.int64).reshape(2, num_blocks, num_rows)
            for words in (self._philox.even, self._philox.odd)
        )
        self._low, self._epochs = even
        self._high, self._stream = odd
        streams: list[int] = []
        self.parts: list[tuple[Sampler, Ints, Ints]] = []
        for place, sampler in samplers:
            part = slice(len(streams), len(streams) + sampler.num_blocks)
            self.parts.append((sampler, even[:, part], odd[:, part]))
            draws: Sequence[int] = range(sampler.num_blocks)
            if isinstance(sampler, GroupSampler):
                draws = sampler.draws
            streams += [stream_counter(place, 0, draw) for draw in draws]
        views = [stream_counter(0, view, 0) for view in drawn]
        per_row = np.tile(np.array(views, np.int64), num_rows // len(views))
        self._streams: Ints = np.array(streams, np.int64)[:, None] + per_row

    def draw(self, ids: Ints, epochs: Ints) -> None:
        """Draw all blocks of all rows."""
        if self._streams.size:
            self._low[...] = ids & _LOW
            self._high[...] = ids >> _U32 & _LOW
            self._epochs[...] = epochs
            self._stream[...] = self._streams
            self._philox.run()
