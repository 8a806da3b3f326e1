"""Numbers of things in sentences: "1 image", "2 images".

Asked by whatever says a number to people: commands, messages, errors.

Invariants: pure; imports nothing.
"""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Say a number, and of what: `counted(1, "image")`; thousands are set apart by commas."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def verb(number: int, one: str, many: str) -> str:
    """Choose the verb that goes with a number: `verb(1, "is", "are")`."""
    return one if number == 1 else many
