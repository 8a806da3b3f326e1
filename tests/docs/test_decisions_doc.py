"""The pages of decisions: each decision has its date; ARCHITECTURE.md links every page."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def undated(text: str) -> list[str]:
    """Return the titles of the decisions whose text does not begin with a date."""
    sections = re.findall(r"^## (.+)\n\n(.+)$", text, re.M)
    assert len(sections) == len(re.findall(r"^## ", text, re.M))
    return [title for title, first in sections if not re.match(r"\*\d{4}-\d\d-\d\d\.\*", first)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_decision_has_its_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert undated(text) == []
    for day in re.findall(r"^\*(\d{4}-\d\d-\d\d)\.\*", text, re.M):
        date.fromisoformat(day)
    assert undated(text + "\n## Something new\n\nBecause.\n") == ["Something new"]


def test_the_architecture_links_each_page() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\(docs/decisions/(\w+\.md)\)", text))
    assert linked == {page.name for page in PAGES}


@pytest.mark.parametrize("page", [ROOT / "ARCHITECTURE.md", *PAGES], ids=lambda page: page.stem)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:augd|trainer)/[\w/.]+)`", page.read_text(encoding="utf-8"))
    assert all((ROOT / name).exists() for name in named), named
