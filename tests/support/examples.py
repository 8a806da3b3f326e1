"""How many examples Hypothesis draws: the same few while one waits, others and many in a soak."""

from __future__ import annotations

from hypothesis import settings

from tests.support.budget import SOAK

_TIMES = 20


def examples(usual: int) -> settings:
    """Decorate a test that draws so many examples in `make test`, and twenty times in `make soak`.

    Those of `make test` follow from the test's own code, so that its verdict is always the same.
    """
    if SOAK:
        return settings(max_examples=_TIMES * usual, deadline=None)
    return settings(max_examples=usual, deadline=None, derandomize=True)
