"""Gamma, Beta and Dirichlet numbers from a fixed number of words, without libm.

Used by the sampler of `aug_mix`, and for the shares of mixed images. A rejection method takes as
many numbers as it happens to need. So that a row always takes the same, the first of five tries
that is accepted is taken. None is in less than one of three million rows, which take the last try.

Source: Marsaglia and Tsang 2000, "A simple method for generating gamma variables", with Gamma(a)
from Gamma(a + 1) and a uniform number for a < 1.

Invariants: one number from its words, whatever the numbers before; no operation whose bits depend
on the processor.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from augd.plan.random.numerics import Floats, exp, log
from augd.plan.random.philox import Ints, Words, normals, uniforms

_TRIES: Final = 5
WORDS: Final = 2 * _TRIES + 1
"""Words for each number: a normal and a uniform one for each try, and one for a < 1."""

# Below it a number's share is 0 whatever the others are, and above it e**x is no denormal.
_LEAST: Final = 1e-290


class GammaLaw:
    """Draws Gamma(shape, 1)."""

    __slots__ = ("_is_raised", "_offset", "_scale", "_shape")

    def __init__(self, shape: float) -> None:
        self._shape = shape
        self._is_raised = shape < 1.0
        self._offset = (shape + 1.0 if self._is_raised else shape) - 1.0 / 3.0
        self._scale = float(1.0 / np.sqrt(9.0 * self._offset))

    def __call__(self, words: Words | Ints) -> Floats:
        """Return one number from each column of `words`, (WORDS, ...)."""
        d = self._offset
        x = normals(words[:_TRIES])
        v = 1.0 + self._scale * x
        v = v * v * v
        is_positive = v > 0.0
        v[~is_positive] = 1.0
        u = uniforms(words[_TRIES : 2 * _TRIES])
        is_accepted = is_positive & (log(u) < 0.5 * x * x + d - d * v + d * log(v))
        is_accepted[-1] = True
        first = is_accepted.argmax(axis=0)
        number: Floats = d * np.take_along_axis(v, first[None], axis=0)[0]
        if self._is_raised:
            power = log(uniforms(words[2 * _TRIES])) / self._shape
            number *= exp(np.maximum(power, -600.0))
        np.maximum(number, _LEAST, out=number)
        return number


def shares(numbers: Floats) -> Floats:
    """Divide gamma numbers, (k, ...), by their sum: Dirichlet numbers, of two a Beta number."""
    total: Floats = numbers[0]
    for number in numbers[1:]:
        total = total + number
    divided: Floats = numbers / total
    return divided
