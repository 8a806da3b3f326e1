"""How tests are dealt out to the processes that run them, and what is left to `make soak`.

A file is run by one process, so that what its tests share is made once: most of the time of a
suite like this one is the start of daemons and of torch. Files that wait for deadlines come first,
beside those that compute; small ones last, so that all processes end at about the same time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    from xdist.scheduler.loadfile import LoadFileScheduling
except ImportError:  # where a wheel is tried, its tests run in one process
    LoadFileScheduling = object

HERE = Path(__file__).parents[1]
# The longest waits first, the smallest tests last.
KINDS = (
    "attacks",
    "fault",
    "e2e",
    "simulation",
    "protocol",
    "hostile",
    "property",
    "fuzz",
    "docs",
    "unit",
)
# Their tests share nothing and compute long, each by itself.
APART = ("tests/simulation/test_rules.py",)
# One daemon for all files of the folder.
TOGETHER = ("tests/protocol/",)


class ByFile(LoadFileScheduling):  # type: ignore[misc]
    """Give each file to one process, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path in APART:
            return nodeid
        return next((folder for folder in TOGETHER if path.startswith(folder)), path)

    def _reschedule(self, node: Any) -> None:
        # A process runs a test when it knows of another. More ahead would keep a whole file
        # waiting behind a long test, while other processes have nothing left.
        if self.workqueue and self._pending_of(self.assigned_work[node]) > 1:
            return
        super()._reschedule(node)


def put_in_order(items: list[pytest.Item], order: str | None) -> None:
    """Sort by kinds; or reverse or shuffle files, and the tests of each: what they share stays."""
    if order == "reversed":
        items.reverse()
    elif order is not None:
        shuffled = random.Random(order)
        files = dict.fromkeys(item.path for item in items)
        places = dict(zip(files, shuffled.sample(range(len(files)), len(files)), strict=True))
        ranks = {id(item): (places[item.path], shuffled.random()) for item in items}
        items.sort(key=lambda item: ranks[id(item)])
    else:
        items.sort(key=lambda item: KINDS.index(item.path.relative_to(HERE).parts[0]))


def leave_to_soak(items: list[pytest.Item]) -> None:
    """Skip the long forms."""
    for item in items:
        if (mark := item.get_closest_marker("soak")) is not None:
            item.add_marker(pytest.mark.skip(reason=f"left to `make soak`: {mark.args[0]}"))


def longer_forms(items: list[pytest.Item]) -> Iterator[str]:
    """Say in words which tests `make soak` runs longer."""
    for item in items:
        if (mark := item.get_closest_marker("longer")) is not None:
            yield mark.args[0]
        elif getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            yield "twenty times as many examples of every property"
