"""The parameters that each op of a recipe drew for one row: an angle, a factor, a rectangle.

Used by `augd explain` and `augd preview`. A plan holds only the combined effect of all ops. So each
op is planned alone, at its own place in the recipe or its group. Random words belong to a place, so
they are the same. Crops and resizes decide together which part of the image a row shows:
`augd/diagnostics/sample_renderer.py` tells that.

Invariants: nothing is drawn here that the planner does not draw. No distribution of an op stands
here, only how its parameter is read from the numbers of a plan.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from augd.diagnostics.drawn_boxes import read_boxes
from augd.diagnostics.drawn_jitter import JitterReader
from augd.diagnostics.drawn_order import shuffles_of
from augd.diagnostics.drawn_pixel_steps import read_step
from augd.diagnostics.drawn_policies import PolicyReader
from augd.diagnostics.row_words import draw_words
from augd.plan.geometry.frame import Frame
from augd.plan.ops.all_ops import ColorJitter, Mirror, Pca, VerticalFlip
from augd.plan.ops.base import BaseOp, name_of
from augd.plan.ops.plugin import Plugin
from augd.plan.ops.policies import Policy
from augd.plan.plan import Plan
from augd.plan.planner.planner import ORDER_PLACE, Planner
from augd.plan.random.numerics import Floats
from augd.plan.random.philox import Purpose, mix
from augd.plan.recipe.recipe import Recipe
from augd.plan.samplers.colour import ColourOrderSampler
from augd.plan.samplers.groups import first_draw
from augd.plan.samplers.plugin import address_of

# Grey (BT.601) above I and Q (FCC 1953), with the digits of `hue`, which turns the last two.
_YIQ = np.array(
    [
        [0.299, 0.587, 0.114],
        [0.595716, -0.274453, -0.321263],
        [0.211456, -0.522591, 0.311135],
    ]
)


# Of an array that an own op drew: enough for a matrix, too few for a field.
_NUMBERS_SHOWN = 16

OwnDraws = Mapping[tuple[int, int], Any]
"""The parameters of own ops, by the op's address in the recipe and the view."""


@dataclass(frozen=True, slots=True)
class DrawnStep:
    """One op and its parameters; `drawn` is None if it was not applied."""

    op: str
    drawn: Mapping[str, Any] | None
    group: str = ""
    """The name of the group that it stands in."""

    def as_plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        group = {"group": self.group} if self.group else {}
        return {"op": self.op, **group, "applied": self.drawn is not None, **(self.drawn or {})}


class _Reader(NamedTuple):
    """How an op's parameters are read: off the plan of it alone, or as an own op noted them."""

    op: BaseOp
    group: str
    address: int
    planner: Planner | None
    numbers: JitterReader | PolicyReader | None = None
    """Reads them from the row's random words instead, where the plan has only their effect."""


class Draws:
    """Returns what the ops of one view group drew. Rows are of `out_size`, (height, width)."""

    def __init__(
        self, recipe: Recipe, seed: int, out_size: tuple[int, int], first_view: int = 0
    ) -> None:
        """Make a planner of each op; `first_view` is the number of the group's first view."""
        self._first_view = first_view
        height, width = out_size
        self._sides = np.full(1, width, np.int32), np.full(1, height, np.int32)
        self._readers = list(_make_readers(recipe, seed, out_size, first_view))
        self._shuffles = list(shuffles_of(recipe, seed))
        colours = [name_of(op) for op in recipe.ops if op.is_colour]
        self._shuffled = colours if recipe.shuffle_colour and len(colours) > 1 else []
        self._key = mix(seed, Purpose.PARAMS)
        self._num_draws, self._num_views = recipe.views, recipe.num_views

    def of(self, sample: int, epoch: int, own: OwnDraws | None = None) -> list[list[DrawnStep]]:
        """Return the steps of each view, in the recipe's order; crops left out.

        The colour ops of a shuffled group are in the order of the row.

        `own` holds the parameters of own ops from when the sample was planned. They may depend on
        its size, so they are not drawn again.
        """
        ids, epochs = np.array([sample], np.int64), np.array([epoch], np.int64)
        views: list[list[DrawnStep]] = [[] for _ in range(self._num_views)]
        for reader in self._readers:
            op, planner, numbers = reader.op, reader.planner, reader.numbers
            plan = None if planner is None else planner.plan(ids, epochs, *self._sides)
            for view, steps in enumerate(views):
                # The views of a view op share what was drawn.
                draw = view % self._num_draws
                drawn: dict[str, Any] | None = {}
                if isinstance(op, Plugin):
                    drawn = _own_drawn(own or {}, reader.address, view)
                elif plan is not None:
                    drawn = _read(op, plan, draw)
                if numbers is not None and drawn is not None:
                    drawn = numbers.read(sample, epoch, self._first_view + draw)
                steps.append(DrawnStep(name_of(op), drawn, reader.group))
        for shuffle in self._shuffles:
            for view, steps in enumerate(views):
                shuffle.apply(steps, sample, epoch, self._first_view + view % self._num_draws)
        return views

    def colour_order(self, sample: int, epoch: int, view: int) -> list[str]:
        """Return the colour ops in their drawn order; empty where it is the recipe's."""
        if not self._shuffled:
            return []
        sampler = ColourOrderSampler(len(self._shuffled))
        draws, first = range(sampler.num_blocks), self._first_view
        words = draw_words(self._key, ORDER_PLACE, draws, sample, epoch, first + view)
        frame = Frame(np.ones((2, 1)), np.ones((2, 1)))
        sampler.sample(frame, *words)
        assert frame.colour_order is not None
        return [self._shuffled[place] for place in frame.colour_order[:, 0].tolist()]


def _make_readers(
    recipe: Recipe, seed: int, out_size: tuple[int, int], first_view: int
) -> Iterator[_Reader]:
    """Make a reader of each op that stands alone, and of each op of a group."""
    for place, op in enumerate(recipe.ops):
        if op.is_sizing:
            continue
        for number, one in enumerate(op.inner or (op,)):
            planner = None
            if not isinstance(one, Plugin | Policy):
                alone = _alone(op, number) if op.inner else op
                planner = _planner(recipe, alone, place, seed, out_size, first_view)
            address = address_of(place, number if op.inner else None)
            numbers: JitterReader | PolicyReader | None = None
            key, first = mix(seed, Purpose.PARAMS), first_draw(number) if op.inner else 0
            if isinstance(one, ColorJitter):
                numbers = JitterReader(one, key, place, first)
            elif isinstance(one, Policy):
                numbers = PolicyReader(one, key, place, out_size)
            yield _Reader(one, name_of(op) if op.inner else "", address, planner, numbers)


_BLANK = Mirror(p=0.0)


def _alone(group: BaseOp, number: int) -> BaseOp:
    """Return a group of which one op is left, in its own place."""
    ops = tuple(op if place == number else _BLANK for place, op in enumerate(group.inner))
    return msgspec.structs.replace(group, ops=ops)


def _planner(
    recipe: Recipe, op: BaseOp, place: int, seed: int, out_size: tuple[int, int], first_view: int
) -> Planner:
    """Make a planner of one op alone, at its own place."""
    ops: Any = (*(_BLANK for _ in range(place)), op)
    alone = Recipe(ops=ops, views=recipe.views)
    return Planner(alone, seed, out_size, first_view=first_view)


def _own_drawn(own: OwnDraws, address: int, view: int) -> dict[str, Any] | None:
    """Return what an own op drew, by the name that its methods use."""
    if (address, view) not in own:
        return None
    params = own[address, view]
    return {} if params is None else {"params": _as_json(params)}


def _as_json(params: Any) -> Any:
    """Return parameters as JSON data; as Python's repr if they are large or no JSON."""
    if isinstance(params, np.generic | np.ndarray) and params.size <= _NUMBERS_SHOWN:
        params = params.tolist()
    try:
        json.dumps(params, allow_nan=False)
    except (TypeError, ValueError):
        return " ".join(reprlib.repr(params).split())
    return params


def _read(op: BaseOp, plan: Plan, row: int) -> dict[str, Any] | None:
    """Read what the only op of a plan drew for a row; None if it was not applied."""
    if op.is_pixel_step:
        assert plan.program is not None
        return read_step(plan.program, row)
    if op.is_colour:
        assert plan.colour is not None
        matrix = plan.colour[row]
        is_changed = not np.array_equal(matrix, np.eye(3, 4))
        read = _READERS_OF_COLOUR.get(name_of(op), _nothing)
        return read(op, matrix) if is_changed else None
    if isinstance(op, Mirror):
        return {} if plan.mirror[row] else None
    if isinstance(op, VerticalFlip):
        return {} if plan.flip is not None and plan.flip[row] else None
    if plan.erase is not None:
        return read_boxes(op, plan, row)
    if plan.bent is None or not plan.bent[row]:
        return None
    return _read_bend(op, plan, row)


def _read_bend(op: BaseOp, plan: Plan, row: int) -> dict[str, Any]:
    if plan.lens is not None:
        return {"k": float(plan.lens[row])}
    if plan.warp is not None and plan.warp_key is not None:
        alpha, sigma = plan.warp
        return {"alpha": alpha, "sigma": sigma, "key": f"{int(plan.warp_key[row]):016x}"}
    assert plan.matrix is not None
    reader = _READERS_OF_MATRIX.get(name_of(op))
    return {} if reader is None else reader(plan.matrix[row], plan.scaled[row])


def _rotation(matrix: Floats, sides: Floats) -> dict[str, Any]:
    return {"degrees": math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))}


def _zoom(matrix: Floats, sides: Floats) -> dict[str, Any]:
    return {"height": float(matrix[1, 1]), "width": float(matrix[0, 0])}


def _shear(matrix: Floats, sides: Floats) -> dict[str, Any]:
    return {
        "x": float(-matrix[0, 1] / matrix[0, 0]) + 0.0,
        "y": float(-matrix[1, 0] / matrix[0, 0]) + 0.0,
    }


def _stretch(matrix: Floats, sides: Floats) -> dict[str, Any]:
    return {"x": float(1.0 / matrix[0, 0]), "y": float(1.0 / matrix[1, 1])}


def _translation(matrix: Floats, sides: Floats) -> dict[str, Any]:
    x, y = (-matrix[:, 2] / sides + 0.0).tolist()
    return {"x": x, "y": y}


_READERS_OF_MATRIX: dict[str, Callable[[Floats, Floats], dict[str, Any]]] = {
    "rotate": _rotation,
    "zoom": _zoom,
    "shear": _shear,
    "stretch": _stretch,
    "translate": _translation,
}


def _components(op: BaseOp, colour: Floats) -> dict[str, Any]:
    """Solve the shift V (alpha * lambda) for alpha; the smallest one where lambda is 0."""
    assert isinstance(op, Pca)
    scale = np.array(op.eigval) ** (1.0 if op.mode == "eigval" else 0.5)
    added = colour[:, 3]
    alpha = np.linalg.lstsq(np.array(op.eigvec) * scale * 255.0, added, rcond=None)[0]
    return {"alpha": alpha.tolist(), "shift": added.tolist()}


def _shift(op: BaseOp, colour: Floats) -> dict[str, Any]:
    return {"shift": colour[:, 3].tolist()}


def _factor(op: BaseOp, colour: Floats) -> dict[str, Any]:
    return {"factor": float(colour[0, 0])}


def _saturation(op: BaseOp, colour: Floats) -> dict[str, Any]:
    return {"factor": float(colour[0, 0] - colour[1, 0])}


def _hue(op: BaseOp, colour: Floats) -> dict[str, Any]:
    turned = _YIQ @ colour[:, :3] @ np.linalg.inv(_YIQ)
    return {"degrees": math.degrees(math.atan2(turned[2, 1], turned[1, 1]))}


def _nothing(op: BaseOp, colour: Floats) -> dict[str, Any]:
    return {}


_READERS_OF_COLOUR: dict[str, Callable[[BaseOp, Floats], dict[str, Any]]] = {
    "pca": _components,
    "rgb_shift": _shift,
    "brightness": _factor,
    "contrast": _factor,
    "saturation": _saturation,
    "hue": _hue,
    "grayscale": _nothing,
}
