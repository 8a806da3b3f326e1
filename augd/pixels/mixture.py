"""Blends a finished row with chains of ops that begin at the row itself, for `aug_mix`.

The renderer calls it after the row's colours and before erasing. A chain is rendered as a row is:
bent if its plan says so, then run through its program. The row takes the place of the image.

Invariants: weights and sums are whole numbers, and the result is rounded once, halves up, so that
no processor gives other bytes. A row that is not blended pays nothing. Nothing of a row's size is
allocated once the buffers exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from augd.pixels.decode import Pixels
from augd.pixels.row_plan import RowMixture, RowPlan
from augd.pixels.warp import AffineWarp
from augd.plan.plan import MIX_UNIT

_SHIFT: Final = MIX_UNIT.bit_length() - 1
Recolour = Callable[[RowPlan, Pixels], None]


class MixturePass:
    """Blends rows of one size in place. Owns its buffers; for one thread at a time."""

    __slots__ = ("_chain", "_product", "_recolour", "_row", "_sum", "_warp")

    def __init__(self, warp: AffineWarp, recolour: Recolour) -> None:
        self._warp, self._recolour = warp, recolour
        self._row: Pixels | None = None
        self._chain: Pixels
        self._sum: NDArray[np.uint32]
        self._product: NDArray[np.uint32]

    def run(self, mixture: RowMixture, number: int, out: Pixels, is_bicubic: bool) -> None:
        """Blend the row `number` of a mixture, which is C-contiguous uint8 (h, w, 3)."""
        weights = mixture.weights[number]
        if weights[0] == MIX_UNIT:
            return
        row = self._keep(out)
        total, product = self._sum, self._product
        np.multiply(row, np.uint32(weights[0]), out=total, dtype=np.uint32)
        for chain, weight in zip(mixture.chains, weights[1:], strict=True):
            if weight:
                self._render(chain.crop[number], chain[number], row, is_bicubic)
                np.multiply(self._chain, np.uint32(weight), out=product, dtype=np.uint32)
                total += product
        total += np.uint32(MIX_UNIT // 2)
        total >>= np.uint32(_SHIFT)
        np.copyto(out, total, casting="unsafe")

    def _keep(self, out: Pixels) -> Pixels:
        """Copy the row, as the chains' image. Makes the buffers at the first call."""
        if self._row is None:
            self._row, self._chain = np.empty_like(out), np.empty_like(out)
            self._sum, self._product = (np.empty(out.shape, np.uint32) for _ in range(2))
        np.copyto(self._row, out)
        return self._row

    def _render(
        self, crop: tuple[int, int, int, int], plan: RowPlan, row: Pixels, is_bicubic: bool
    ) -> None:
        if plan.matrix is None:
            np.copyto(self._chain, row)
        else:
            x, y, width, height = crop
            self._warp.warp(row[y : y + height, x : x + width], plan, self._chain, is_bicubic)
        self._recolour(plan, self._chain)
