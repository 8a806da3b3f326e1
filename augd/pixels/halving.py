"""Halves images: means of 2x2 pixels, so that one bilinear sample is enough to reduce an image.

Runs before the resample of a row that takes the matrix path. Bilinear taps read two pixels per
axis, whatever the reduction, and would skip those between. The plan gives the number of halvings.
The native kernel or OpenCV does it, with the same bytes.

Invariants: exact whole numbers, halves rounded up. An odd side's last pixels count twice, so that
every pixel of the region counts. Nothing is allocated once the scratch buffers have grown.
"""

from __future__ import annotations

import cv2
import numpy as np

from augd.pixels import native
from augd.pixels.decode import Pixels


class Halver:
    """Halves regions. Owns its scratch buffers; for one thread at a time."""

    __slots__ = ("_buffers", "_halve")

    def __init__(self) -> None:
        self._halve = _halve if native.kernels is None else native.kernels.halve
        self._buffers = [np.empty(0, np.uint8), np.empty(0, np.uint8)]

    def halve(self, region: Pixels, times: int) -> Pixels:
        """Return uint8 (h, w, 3) `region` halved `times` times, sides rounded up.

        The result is the region itself for 0, else valid until the next call.
        """
        for number in range(times):
            height, width = (region.shape[0] + 1) // 2, (region.shape[1] + 1) // 2
            halved = self._scratch(number % 2, height, width)
            self._halve(region, halved)
            region = halved
        return region

    def _scratch(self, number: int, height: int, width: int) -> Pixels:
        size = height * width * 3
        if self._buffers[number].size < size:
            self._buffers[number] = np.empty(size, np.uint8)
        return self._buffers[number][:size].reshape(height, width, 3)


def _halve(region: Pixels, out: Pixels) -> None:
    height, width = region.shape[0] // 2, region.shape[1] // 2
    if height and width:
        # For exactly 2 to 1, OpenCV's area filter is (a + b + c + d + 2) >> 2.
        even = region[: 2 * height, : 2 * width]
        inner = out[:height, :width]
        cv2.resize(even, (width, height), dst=inner, interpolation=cv2.INTER_AREA)
    if region.shape[1] % 2:
        _halve_line(region[: 2 * height, -1], out[:height, -1])
    if region.shape[0] % 2:
        _halve_line(region[-1, : 2 * width], out[-1, :width])
    if region.shape[0] % 2 and region.shape[1] % 2:
        out[-1, -1] = region[-1, -1]


def _halve_line(line: Pixels, out: Pixels) -> None:
    """Halve a row or a column that stands for two: (2a + 2b + 2) >> 2."""
    sums = line[0::2].astype(np.uint16)
    sums += line[1::2]
    sums += 1
    sums >>= 1
    out[...] = sums
