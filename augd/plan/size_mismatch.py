"""Rows that a recipe cannot make of an image that is good: whose fault that is, by its reason.

Where it stands: the planner words such reasons, and the broker, which only reads them, tells a
recipe that does not fit from files that are bad. Pure; imports nothing.
"""

from __future__ import annotations

from typing import Final

ADD_A_SIZE: Final = "Add a resize or a crop to the recipe"
_RESIZE_FIRST: Final = "Put a resize before the "


def resize_first(op: str) -> str:
    """Say what to do where an op is larger than what it gets."""
    return f"{_RESIZE_FIRST}{op}, or make it smaller"


def is_misfit(reason: str) -> bool:
    """Say whether a row is masked by the recipe's fault, and no file is to be mended."""
    return reason.endswith(ADD_A_SIZE) or _RESIZE_FIRST in reason


def what_was_wanted(reason: str) -> str:
    """Leave out of such a reason what the image was: images of one recipe's differ in this."""
    return reason.partition(", got ")[0]
