"""The planner: what will happen to each sample of a chunk, computed for all its rows at once.

Where it stands: a producer asks it after the order gave the ids and the index their sizes; then
`pixels` decodes and renders what the plan says.

Invariants: a row's plan depends on (recipe, seed, its id, its epoch, its size) and on nothing
else, neither on the rows beside it nor on earlier calls; all random words of a chunk are drawn
in one pass; nothing is computed per sample in Python unless a sample is exceptional.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from augd.plan.frame import Frame
from augd.plan.plan import Int32s, LocalWarp, Plan
from augd.plan.recipe import Recipe
from augd.plan.rng import Ints, Philox, Purpose, mix, stream_counter
from augd.plan.samplers import Sampler, sampler_of

__all__ = ["LocalWarp", "Plan", "Planner"]

_SPACES_KEPT: Final = 4
_LOW = np.array(0xFFFFFFFF, np.int64)
_U32 = np.array(32, np.int64)


class Planner:
    """Plans samples of one stream.

    `out_size` is (height, width) of every row, as `output_size` tells. Not for use by two
    threads at once: the work arrays are kept between calls.
    """

    def __init__(self, recipe: Recipe, seed: int, out_size: tuple[int, int]) -> None:
        self._samplers = [sampler_of(op) for op in recipe.ops]
        self._key = mix(seed, Purpose.PARAMS)
        self._spaces: dict[int, _Space] = {}
        height, width = out_size
        self._out_sides = np.array([[width], [height]], np.float64)
        self._is_sized_by_image = not any(op.is_sizing for op in recipe.ops)

    def plan(self, ids: Ints, epochs: Ints, widths: Int32s, heights: Int32s) -> Plan:
        """Plan n rows.

        `ids` and `epochs` are int64 (n,), epochs below 2**32; `widths` and `heights` are those
        of the images as decoded. A row with id -1 is planned like any other, and its plan
        means nothing; its sizes may be 0.
        """
        num_rows = len(ids)
        space = self._spaces.get(num_rows) or self._make_space(num_rows)
        space.draw(ids, epochs)
        sides = np.empty((2, num_rows))
        sides[0] = widths
        sides[1] = heights
        frame = Frame(np.maximum(sides, 1.0, out=sides))
        for sampler, even, odd in space.parts:
            sampler.sample(frame, even, odd)
        if self._is_sized_by_image:
            self._check_size(frame)
        if frame.impossible:
            frame.impossible = {r: why for r, why in frame.impossible.items() if ids[r] >= 0}
        return _finish(frame)

    def _make_space(self, num_rows: int) -> _Space:
        if len(self._spaces) >= _SPACES_KEPT:
            self._spaces.clear()
        space = self._spaces[num_rows] = _Space(self._key, self._samplers, num_rows)
        return space

    def _check_size(self, frame: Frame) -> None:
        is_other = (frame.sides != self._out_sides).any(axis=0)
        if is_other.any():
            frame.refuse(is_other, self._explain)

    def _explain(self, width: int, height: int) -> str:
        out_width, out_height = (int(side) for side in self._out_sides[:, 0])
        return (
            f"size: expected {out_width}x{out_height} as the data set's first image, since the "
            f"recipe has no op that decides the size, got {width}x{height}. "
            "Add a resize or a crop to the recipe"
        )


class _Space:
    """The random words of one number of rows: a generator's arrays and each op's part of them."""

    __slots__ = ("_epochs", "_high", "_low", "_philox", "_stream", "_streams", "parts")

    def __init__(self, key: int, samplers: list[Sampler], num_rows: int) -> None:
        num_blocks = sum(sampler.num_blocks for sampler in samplers)
        self._philox = Philox(key, num_blocks * num_rows)
        even, odd = (
            words.view(np.int64).reshape(2, num_blocks, num_rows)
            for words in (self._philox.even, self._philox.odd)
        )
        self._low, self._epochs = even
        self._high, self._stream = odd
        streams: list[int] = []
        self.parts: list[tuple[Sampler, Ints, Ints]] = []
        for number, sampler in enumerate(samplers):
            part = slice(len(streams), len(streams) + sampler.num_blocks)
            self.parts.append((sampler, even[:, part], odd[:, part]))
            streams += [stream_counter(number, 0, draw) for draw in range(sampler.num_blocks)]
        self._streams = np.repeat(np.array(streams, np.int64), num_rows).reshape(
            num_blocks, num_rows
        )

    def draw(self, ids: Ints, epochs: Ints) -> None:
        """Draw all blocks of all rows."""
        if self._streams.size:
            self._low[...] = ids & _LOW
            self._high[...] = ids >> _U32 & _LOW
            self._epochs[...] = epochs
            self._stream[...] = self._streams
            self._philox.run()


def _finish(frame: Frame) -> Plan:
    """Write the frame out as a plan."""
    num_rows = frame.num_rows
    is_resampled = frame.resampled_crop is not None
    offset, sides = frame.resampled_crop or (frame.offset, frame.sides)
    crop = np.zeros((4, num_rows), np.int32)
    if offset is not None:
        crop[:2] = offset
    crop[2:] = sides
    scaled = np.empty((2, num_rows), np.int32)
    scaled[...] = frame.scaled if is_resampled else frame.sides
    window = np.zeros((2, num_rows), np.int32)
    if is_resampled and frame.offset is not None:
        window[...] = frame.offset
    mirror = np.zeros(num_rows, np.bool_) if frame.mirror is None else frame.mirror
    return Plan(crop.T, scaled.T, window.T, mirror, frame.colour, frame.impossible)
