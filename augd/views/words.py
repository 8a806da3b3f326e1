"""What was drawn for a sample, in words and as plain data.

Beside the way of a batch; the numbers come from `sample.Drawn`. Rounds for reading, and says
nothing that was not drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from augd.views.sample import Drawn


def describe_crop(drawn: Drawn) -> str:
    """Say which part of the photo the row shows: `crop 312x280 at 12,40`."""
    x, y, width, height = map(round, drawn.seen)
    return f"crop {width}x{height} at {x},{y}"


def describe_rest(drawn: Drawn) -> str:
    """Say what else was done; `as it is` when nothing was."""
    said = ["mirrored"] if drawn.mirror else []
    if (shift := shift_of(drawn)) is not None and any(shift):
        said.append("colour " + "/".join(map(_signed, shift)))
    elif shift is None and drawn.colour is not None:
        said.append("colours mixed")
    return " · ".join(said) or "not mirrored"


def shift_of(drawn: Drawn) -> tuple[int, int, int] | None:
    """Return what is added to R, G and B in whole grey levels; None when colours are mixed too."""
    if drawn.colour is None or not np.array_equal(drawn.colour[:, :3], np.eye(3)):
        return None
    red, green, blue = np.floor(drawn.colour[:, 3] + 0.5).astype(int).tolist()
    return red, green, blue


def _signed(level: int) -> str:
    return f"{level:+d}" if level else "0"


def as_plain(drawn: Drawn) -> dict[str, Any]:
    """Write the parameters as plain data, unrounded."""
    return {
        "epoch": drawn.epoch,
        "crop": list(drawn.crop),
        "scaled": list(drawn.scaled),
        "window": list(drawn.window),
        "seen": list(drawn.seen),
        "mirror": drawn.mirror,
        "colour": None if drawn.colour is None else drawn.colour.tolist(),
        "impossible": drawn.impossible or None,
    }
