"""docs/guarantees.md names tests: they exist, and every fault of its matrix has one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")


def rows_of_the_matrix() -> list[str]:
    section = TEXT.partition("## The fault matrix")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| .+ \|$", section, re.MULTILINE)
    return [row for row in rows if row != "fault"]


def marked_faults() -> set[str]:
    """Names that tests are marked with, wherever they lie."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found.update(re.findall(r'mark\.fault\(\s*"([^"]+)"', path.read_text(encoding="utf-8")))
    return found


def test_every_promise_is_there() -> None:
    assert re.findall(r"^\| \*\*(G\d+)\*\*", TEXT, re.MULTILINE) == [
        f"G{number}" for number in range(1, 11)
    ]


def test_every_test_that_is_named_exists() -> None:
    names = re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", TEXT)
    assert len(names) > 20
    for path, function in names:
        found = ROOT / path
        assert found.exists(), path
        if function:
            assert f"def {function}(" in found.read_text(encoding="utf-8"), function


def test_every_fault_has_a_test_and_every_marked_one_is_in_the_matrix() -> None:
    rows = rows_of_the_matrix()
    assert len(rows) == len(set(rows)) > 12
    assert set(rows) == marked_faults()
