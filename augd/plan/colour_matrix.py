"""Colour of many rows at once: the ops' steps, and their composition.

Samplers hand their steps to the frame. The planner composes them, in the recipe's order or in one
drawn for each row.

A step is y = L x + P m + l, where m is the mean of x over the row; contrast alone has a P. Since
the mean of y follows linearly from that of x, any number of steps compose to

    y = A x + b + C mean     with     A' = L A,  b' = (L + P) b + l,  C' = L C + P (A + C)

Invariants: nothing is rounded or clipped between two steps. Sums are written out in a fixed order,
never a matrix product, so that the bits are the same on every processor.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from augd.plan.random.numerics import Floats
from augd.plan.random.philox import Ints

# ITU-R BT.601, as PIL and torchvision take them.
GREY_WEIGHTS: Final = (0.299, 0.587, 0.114)

# As (3, 3, 1), to be multiplied by one number per row.
IDENTITY: Floats = np.eye(3)[:, :, None]
_UNCHANGED: Floats = np.eye(3, 4)
GREY: Floats = np.tile(np.array(GREY_WEIGHTS), (3, 1))[:, :, None]


class ColourStep(NamedTuple):
    """One op's part for n rows; None where it is the identity (`linear`) or nothing.

    A step with a `pivot` has a `linear`, too.
    """

    linear: Floats | None = None
    """(3, 3, n)"""
    shift: Floats | None = None
    """(3, n), grey levels"""
    pivot: Floats | None = None
    """(3, 3, n)"""


class ColourMatrix:
    """A (3, 3, n), b (3, n) and C (3, 3, n) of all steps so far; None while nothing has set them.

    Without A it is the identity, without the others there is nothing to add.
    """

    __slots__ = ("linear", "num_rows", "pivot", "shift")

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self.linear: Floats | None = None
        self.shift: Floats | None = None
        self.pivot: Floats | None = None

    def apply(self, step: ColourStep) -> None:
        """Put a step after those so far."""
        linear, added, pivot = step
        fresh = None if pivot is None else _multiply(pivot, self._of_mean())
        if linear is not None:
            self.linear = linear if self.linear is None else _multiply(linear, self.linear)
            if self.pivot is not None:
                self.pivot = _multiply(linear, self.pivot)
            if self.shift is not None:
                whole = linear if pivot is None else linear + pivot
                self.shift = _transform(whole, self.shift)
        if fresh is not None:
            self.pivot = fresh if self.pivot is None else self.pivot + fresh
        if added is not None:
            self.shift = added if self.shift is None else self.shift + added

    def _of_mean(self) -> Floats:
        """Return the factor of the mean, wherever it stands: A + C."""
        linear = IDENTITY if self.linear is None else self.linear
        return linear if self.pivot is None else linear + self.pivot

    def stack(self) -> Floats:
        """Write A and b out as (n, 3, 4)."""
        colour = np.empty((self.num_rows, 3, 4))
        colour[...] = _UNCHANGED
        if self.linear is not None:
            colour[:, :, :3] = self.linear.transpose(2, 0, 1)
        if self.shift is not None:
            colour[:, :, 3] = self.shift.T
        return colour

    def stack_pivot(self) -> Floats | None:
        """Write C out as (n, 3, 3)."""
        if self.pivot is None:
            return None
        return np.ascontiguousarray(self.pivot.transpose(2, 0, 1))


def compose(steps: list[ColourStep], order: Ints | None, num_rows: int) -> ColourMatrix:
    """Compose the steps as listed, or by `order`, (k, n): which step comes at each place."""
    matrix = ColourMatrix(num_rows)
    for step in steps if order is None else reorder(steps, order):
        matrix.apply(step)
    return matrix


def reorder(steps: list[ColourStep], order: Ints) -> list[ColourStep]:
    """Make the steps of each place, where rows differ in which op stands there."""
    num_rows = order.shape[1]
    has_pivot = any(step.pivot is not None for step in steps)
    linear = np.empty((len(steps), 3, 3, num_rows))
    shift = np.zeros((len(steps), 3, num_rows))
    pivot = np.zeros((len(steps), 3, 3, num_rows))
    for number, step in enumerate(steps):
        linear[number] = IDENTITY if step.linear is None else step.linear
        if step.shift is not None:
            shift[number] = step.shift
        if step.pivot is not None:
            pivot[number] = step.pivot
    return [
        ColourStep(
            np.take_along_axis(linear, chosen[None, None, None], axis=0)[0],
            np.take_along_axis(shift, chosen[None, None], axis=0)[0],
            np.take_along_axis(pivot, chosen[None, None, None], axis=0)[0] if has_pivot else None,
        )
        for chosen in order
    ]


def _multiply(a: Floats, b: Floats) -> Floats:
    """Multiply 3x3 matrices, (3, 3, n) each."""
    product: Floats = a[:, 0, None] * b[None, 0]
    product += a[:, 1, None] * b[None, 1]
    product += a[:, 2, None] * b[None, 2]
    return product


def _transform(a: Floats, v: Floats) -> Floats:
    """Multiply vectors, (3, n), by matrices, (3, 3, n)."""
    product: Floats = a[:, 0] * v[0]
    product += a[:, 1] * v[1]
    product += a[:, 2] * v[2]
    return product
