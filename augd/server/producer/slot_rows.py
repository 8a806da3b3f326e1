"""The rows of a slot as arrays, and what a chunk's plan tells of them.

Used by the stream renderer, which fills them. All arrays are views of the arena.

Invariant: a masked row is zeros, whatever was written into it before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augd.pixels.row_plan import RowPlans
from augd.plan.plan import Plan
from augd.plan.recipe.phases import Phase
from augd.protocol import messages as msg
from augd.protocol.row_digest import rows_digest
from augd.protocol.slot_layout import array_name, by_view

LABEL_OF_NO_SAMPLE = -100  # what torch's losses ignore by default
_UNTINTED = np.eye(3, 4, dtype=np.float32)


@dataclass(slots=True)
class GroupRows:
    """What one view group has of the rows: images (n, views, h, w, 3), and where wanted colour
    (n, views, 3, 4) and params (n, views, 30)."""

    images: NDArray[np.uint8]
    colour: NDArray[np.float32] | None = None
    params: NDArray[np.float64] | None = None

    def part(self, rows: slice) -> GroupRows:
        """Return the views of some of these rows."""
        return GroupRows(
            self.images[rows],
            None if self.colour is None else self.colour[rows],
            None if self.params is None else self.params[rows],
        )


@dataclass(slots=True)
class Rows:
    """A range of a slot's rows; see `augd.protocol.slot_layout`.

    `images` and `colour` are whole arrays, one for each name of views. `groups` are the parts of
    them that the view groups fill.
    """

    labels: NDArray[np.generic]
    ids: NDArray[np.int64]
    valid: NDArray[np.bool_]
    images: tuple[NDArray[np.uint8], ...]
    colour: tuple[NDArray[np.float32], ...]
    groups: tuple[GroupRows, ...]

    def part(self, rows: slice) -> Rows:
        """Return the views of some of these rows."""
        return Rows(
            self.labels[rows],
            self.ids[rows],
            self.valid[rows],
            tuple(array[rows] for array in self.images),
            tuple(array[rows] for array in self.colour),
            tuple(group.part(rows) for group in self.groups),
        )

    def mask(self, row: int) -> None:
        """Turn a row into one without a sample."""
        self.labels[row] = LABEL_OF_NO_SAMPLE
        self.valid[row] = False
        for group in self.groups:
            group.images[row] = 0
            if group.colour is not None:
                group.colour[row] = _UNTINTED
            if group.params is not None:
                group.params[row] = 0.0

    def digest(self) -> int:
        """Return the sum of the rows' digests."""
        return rows_digest(self.ids, self.labels, self.images, self.colour)


class SlotArrays:
    """Makes the rows of slots that lie one after another in memory."""

    def __init__(self, arrays: Sequence[msg.ArraySpec], phase: Phase) -> None:
        """Take the layout of the slots of a phase."""
        self._arrays = arrays
        self._groups = [(group.name, group.place, group.recipe.num_views) for group in phase.groups]

    def rows(self, memory: NDArray[np.uint8], start: int) -> Rows:
        """Return the rows of the slot at a byte of the memory."""
        arrays = {spec.name: _view(memory, start, spec) for spec in self._arrays}
        return Rows(
            labels=arrays["labels"],
            ids=arrays["ids"],
            valid=arrays["valid"],
            images=tuple(by_view(arrays, "images").values()),
            colour=tuple(by_view(arrays, "colour").values()),
            groups=tuple(self._group(arrays, *group) for group in self._groups),
        )

    @staticmethod
    def _group(arrays: dict[str, NDArray[Any]], name: str, place: int, count: int) -> GroupRows:
        parts = []
        for kind in ("images", "colour", "params"):
            array = arrays.get(array_name(kind, name))
            if array is not None and not name and count == 1:
                array = array[:, None]
            parts.append(None if array is None else array[:, place : place + count])
        return GroupRows(*parts)  # type: ignore[arg-type]


class GroupPlan:
    """A chunk's part of the plan of one view group, as plain Python numbers."""

    __slots__ = ("edits", "num_views", "params", "part", "plan", "row_plans")

    def __init__(
        self,
        plan: Plan,
        first: int,
        end: int,
        num_views: int,
        params: NDArray[np.float64] | None,
    ) -> None:
        """Take the samples `first` to `end` of a plan."""
        self.plan, self.num_views = plan, num_views
        self.part = slice(first * num_views, end * num_views)
        self.row_plans = RowPlans(plan, self.part.start, self.part.stop)
        self.params = None if params is None else params[first:end]
        self.edits = None if plan.edits is None else plan.edits[self.part]


class ChunkPlan:
    """One chunk's part of the plans of all view groups, read once per row."""

    __slots__ = ("groups", "impossible", "sizes")

    def __init__(
        self, groups: Sequence[GroupPlan], sizes: NDArray[np.int32], first: int, end: int
    ) -> None:
        """Take the parts of the samples `first` to `end`."""
        self.groups = groups
        self.sizes: list[list[int]] = sizes[first:end].tolist()
        self.impossible: dict[int, str] = {}
        for group in reversed(groups):  # a sample's reason is that of its first group
            for sample, why in group.plan.impossible.items():
                self.impossible[sample - first] = why

    def has_one_scale(self, first: int, end: int) -> bool:
        """Return whether the images of these samples are decoded at one scale."""
        group = self.groups[0]
        scales = group.row_plans.scale[first * group.num_views : end * group.num_views]
        return scales.count(scales[0]) == len(scales)


def _view(memory: NDArray[np.uint8], start: int, spec: msg.ArraySpec) -> NDArray[Any]:
    count = int(np.prod(spec.shape, dtype=object))
    dtype = np.dtype(spec.dtype)
    first = start + spec.offset
    return memory[first : first + count * dtype.itemsize].view(dtype).reshape(spec.shape)
