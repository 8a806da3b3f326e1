"""The order of tests, what is left to a soak, and which process gets which file."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import conftest
from tests.support import scheduling
from tests.support.examples import examples
from tests.support.scheduling import HERE, KINDS, leave_to_soak, longer_forms, put_in_order


@dataclass
class Item:
    """As much of a test as is looked at."""

    path: Path
    number: int
    marks: list[Any] = field(default_factory=list)

    def get_closest_marker(self, name: str) -> Any:
        return next((mark.mark for mark in self.marks if mark.name == name), None)

    def add_marker(self, mark: Any) -> None:
        self.marks.append(mark)


def some() -> list[Any]:
    kinds = ("unit", "e2e", "attacks", "fault")
    return [
        Item(HERE / kind / f"test_{name}.py", n)
        for kind in kinds
        for name in "ab"
        for n in (0, 1, 2)
    ]


def test_every_room_has_its_place() -> None:
    kinds = {path.relative_to(HERE).parts[0] for path in HERE.rglob("test_*.py")}
    assert kinds == set(KINDS)


def test_what_waits_long_comes_first_and_small_tests_last() -> None:
    items = some()
    put_in_order(items, None)
    assert [key for key, _ in groupby(items, lambda item: item.path.parent.name)] == [
        "attacks", "fault", "e2e", "unit"
    ]  # fmt: skip
    assert [item.number for item in items] == 8 * [0, 1, 2]


@pytest.mark.parametrize("order", ["reversed", "1", "2"])
def test_another_order_keeps_files_together(order: str) -> None:
    usual, items = some(), some()
    put_in_order(items, order)
    assert sorted(map(repr, items)) == sorted(map(repr, usual))
    assert list(map(repr, items)) != list(map(repr, usual))
    assert len([key for key, _ in groupby(items, lambda item: item.path)]) == 8
    again = some()
    put_in_order(again, order)
    assert list(map(repr, again)) == list(map(repr, items)), "a seed gives one order"


def test_long_forms_are_left_out_and_named() -> None:
    soak, longer, usual = some()[:3]
    soak.add_marker(pytest.mark.soak("a flood of an hour"))
    longer.add_marker(pytest.mark.longer("ten times as many"))
    leave_to_soak([soak, longer, usual])
    skipped = soak.get_closest_marker("skip")
    assert skipped.kwargs["reason"] == "left to `make soak`: a flood of an hour"
    assert longer.get_closest_marker("skip") is usual.get_closest_marker("skip") is None
    assert list(longer_forms([soak, longer, usual])) == ["ten times as many"]


def test_make_soak_runs_what_make_test_leaves() -> None:
    makefile = (HERE.parent / "Makefile").read_text()
    assert (
        'AUGD_SOAK=1 $(BIN)/python -m pytest -q --timeout 0 -m "soak or longer or hypothesis"'
        in makefile
    )


def test_examples_are_the_same_each_time() -> None:
    assert examples(7).derandomize and examples(7).max_examples == 7


@pytest.mark.parametrize(("ties", "expected"), [("first", [2, 0, 1, 3]), ("last", [2, 3, 1, 0])])
def test_equal_values_are_put_in_either_order(ties: str, expected: list[int]) -> None:
    values = np.array([5, 5, 1, 5])
    unstable = np.argsort if not hasattr(np.argsort, "func") else np.argsort.args[1]
    assert conftest._argsort(ties, unstable, values).tolist() == expected
    rows = conftest._argsort(ties, unstable, np.stack([values, values]), axis=1)
    assert rows.tolist() == [expected, expected]
    assert conftest._argsort(ties, unstable, values, kind="stable").tolist() == [2, 0, 1, 3]


def test_a_file_is_one_processs_and_a_folder_with_one_daemon_too() -> None:
    pytest.importorskip("xdist")
    deal = scheduling.ByFile._split_scope
    one = deal(None, "tests/e2e/test_fit.py::TestErrors::test_options[a::b]")  # type: ignore[arg-type]
    assert one == "tests/e2e/test_fit.py"
    assert deal(None, "tests/protocol/test_sharing.py::test_x") == "tests/protocol/"  # type: ignore[arg-type]
    apart = f"{scheduling.APART[0]}::test_x[rule]"
    assert deal(None, apart) == apart  # type: ignore[arg-type]
