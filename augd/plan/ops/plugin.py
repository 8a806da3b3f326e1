"""Own ops: the class that a plug-in module's ops derive from, and what they get for each row.

The operator registers a module (`augd serve --plugin MODULE`), every producer imports it, and
recipes name its ops like the built-in ones. `plan/samplers/plugin.py` calls the methods while a
chunk is planned. Producers edit finished rows by what was drawn. See docs/own-ops.md.

Invariants: the daemon never imports a plug-in. It knows a class of the same parameters, whose
methods do nothing (`op_catalogue`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from augd.plan.ops.base import BaseOp, check_probability, name_of
from augd.plan.random.op_random import OpRandom

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SampleInfo(NamedTuple):
    """What an own op gets for the row that it draws for; sizes in pixels."""

    sample: int
    """The sample's position in the index."""
    epoch: int
    """Of the draws: a stream with balance="class" draws a random number in its place."""
    view: int
    """From 0, where the recipe makes several rows of a sample."""
    width: int
    """Of the stored image."""
    height: int
    frame_width: int
    """Of the image as the ops before this one left it: the output's, after the last crop."""
    frame_height: int
    out_width: int
    """Of the finished row."""
    out_height: int


def _name(class_name: str) -> str:
    """Turn EdgeGlow into edge_glow, the op's name in recipes."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name.rpartition(".")[2]).lower()


class Plugin(BaseOp, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=_name):
    """An own op. Derive from it, and write either `matrix` or `pixels`.

    The fields of the class are the parameters of the op, with their types and defaults. Bounds are
    written as `Annotated[float, msgspec.Meta(ge=0, le=1)]`. Its name in recipes is that of the
    class in snake case. `p`, the probability that the op is applied, exists already.

    One instance serves all rows of a stream in each producer. It must keep nothing between calls.
    Its results may depend only on its parameters, `rng` and `info`: not on time, files, or a
    generator of its own.
    """

    p: float = 1.0

    def __post_init__(self) -> None:
        check_probability(self.p)
        for field in self.__struct_fields__:
            for number in _numbers(getattr(self, field)):
                if not math.isfinite(number):
                    raise ValueError(f"{field}: expected finite numbers, got {number}.")

    @property
    def is_after_colour(self) -> bool:
        """Whether it edits finished rows."""
        return type(self).pixels is not Plugin.pixels

    def sample(self, rng: OpRandom, info: SampleInfo) -> Any:
        """Draw the parameters of one row; called only for rows that the op is applied to.

        Returns anything: it is passed to `matrix` or `pixels` as `params`. The base draws nothing.
        """
        return None

    def matrix(self, params: Any, info: SampleInfo) -> Any:
        """Return where the pixels of the image come from, as 3x3 numbers; their last row 0, 0, 1.

        It maps positions (x, y, 1) of the image after the op to positions before it, in a frame of
        `info.frame_width` x `info.frame_height` with pixel centres at +0.5. All geometric ops of
        the recipe compose with it to one resample.
        """
        raise NotImplementedError

    def pixels(self, row: NDArray[np.uint8], params: Any) -> None:
        """Edit a finished row in place: uint8 (height, width, 3), RGB.

        Called after everything else, erase included; several such ops in the recipe's order. The
        row is the batch's own memory: it must not be kept beyond the call.
        """
        raise NotImplementedError


class OwnOpError(Exception):
    """An own op raised, which is then the cause, or returned an invalid result."""

    def __init__(self, op: str, sample: int, epoch: int, what: str) -> None:
        """Name the op and the sample; `what` tells what happened."""
        super().__init__(f"{op}: {what}")
        self.op, self.sample, self.epoch, self.what = op, sample, epoch, what


def is_geometric(op_class: type[Plugin]) -> bool:
    """Return whether a class gives matrices; else it edits pixels. It must do one of both.

    Raises:
        ValueError: it does neither, or both.
    """
    has_matrix = op_class.matrix is not Plugin.matrix
    has_pixels = op_class.pixels is not Plugin.pixels
    if has_matrix == has_pixels:
        raise ValueError(
            f"{op_class.__name__}: expected a method matrix or a method pixels, got "
            f"{'both' if has_matrix else 'neither'}. Write one of them; two classes make two ops."
        )
    return has_matrix


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)


class Edit(NamedTuple):
    """The edit of an own op on a finished row."""

    op: Plugin
    params: Any
    sample: int
    epoch: int

    def apply(self, row: Any) -> None:
        """Edit a row, uint8 (height, width, 3). Raises OwnOpError."""
        try:
            returned: object = self.op.pixels(row, self.params)  # type: ignore[func-returns-value]
        except Exception as error:
            raise own_op_error(self.op, "pixels", self.sample, self.epoch, error) from error
        if returned is not None:
            what = (
                f"pixels: expected None, since it edits the row in place, got {type_name(returned)}"
            )
            raise OwnOpError(name_of(self.op), self.sample, self.epoch, what)


def type_name(value: object) -> str:
    """Return the name of a value's type, for an error."""
    return type(value).__name__


def own_op_error(op: Plugin, method: str, sample: int, epoch: int, error: Exception) -> OwnOpError:
    """Return the error that names an op, its method and the sample, and what it raised."""
    if error.__traceback__ is not None:
        error.__traceback__ = error.__traceback__.tb_next  # begin with the plug-in's own frame
    what = f"{method} raised {type_name(error)}: {error}"
    return OwnOpError(name_of(op), sample, epoch, what)
