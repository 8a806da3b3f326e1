"""Rows that a recipe cannot make of a good image: whether the recipe is at fault, by the reason.

The planner words such reasons. The broker, which only reads them, tells a recipe that does not fit
from files that are bad. Pure; imports nothing.
"""

from __future__ import annotations

from typing import Final

ADD_A_SIZE: Final = "Add a resize or a crop to the recipe"
_RESIZE_FIRST: Final = "Put a resize before the "


def resize_first(op: str) -> str:
    """Return the advice for an op that is larger than its input."""
    return f"{_RESIZE_FIRST}{op}, or make it smaller"


def is_misfit(reason: str) -> bool:
    """Return whether a row is masked by the recipe's fault, so that no file must be repaired."""
    return reason.endswith(ADD_A_SIZE) or _RESIZE_FIRST in reason


def what_was_wanted(reason: str) -> str:
    """Remove the image's size from such a reason: it differs between the images of one recipe."""
    return reason.partition(", got ")[0]
