"""How much a test may spend: little while one waits, much under `make soak`."""

from __future__ import annotations

import os

SOAK = os.environ.get("AUGD_SOAK", "") not in ("", "0")


def spend(usual: int, soak: int) -> int:
    """Return how many examples, rounds or schedules a test takes."""
    return soak if SOAK else usual
