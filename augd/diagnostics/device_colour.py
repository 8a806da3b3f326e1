"""Applies the colour matrices that are left to the device, so that rows can be shown.

Used by the commands that show rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def recoloured(row: NDArray[np.uint8], colour: NDArray[Any]) -> NDArray[np.uint8]:
    """Apply a matrix (3, 4) to a row (H, W, 3), in grey levels; clipped and rounded."""
    made = row @ colour[:, :3].T + colour[:, 3]
    shown: NDArray[np.uint8] = np.clip(np.rint(made), 0, 255).astype(np.uint8)
    return shown
