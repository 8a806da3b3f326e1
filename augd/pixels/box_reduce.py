"""Reduces images by whole numbers: means of scale x scale pixels, where no decoder scales.

Called by the decoder if a plan needs an image at 1/2, 1/4 or 1/8 and its file is no JPEG that the
inverse DCT can scale. The geometry is that of a scaled JPEG: pixel k stands for pixels k s to (k +
1) s - 1. If the last one reaches beyond the edge, the edge is repeated, as JPEG encoders do.

Invariants: sums of whole numbers and one rounding to nearest, so that no processor gives other
bytes.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def reduce(pixels: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Return uint8 (h, w, 3) `pixels` at 1/`scale`, sides rounded up; the array itself for 1."""
    if scale == 1:
        return pixels
    height, width = pixels.shape[:2]
    below, right = -height % scale, -width % scale
    if below or right:
        pixels = np.asarray(
            cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8
        )
    size = (width + right) // scale, (height + below) // scale
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
