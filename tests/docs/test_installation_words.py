"""What pages and messages say of installing and importing augd can be typed as it stands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from augd.errors import install_extra

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - {ROOT / "CHANGELOG.md"})
PROGRAMS = sorted(
    path
    for folder in ("augd", "trainer", "demo", "examples")
    for ending in ("*.py", "*.ipynb")
    for path in (ROOT / folder).rglob(ending)
)
EXTRAS = set(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
)
# From an index: by the project's name, with options before it or none.
FROM_AN_INDEX = re.compile(r"pip install (?:-\S+ )*['\"]?augd(?![\w/.-])")
# The torch side by the name that a file of the user's can hide.
HIDDEN_NAME = re.compile(
    r"(?<![\w.])trainer\.(?:connect|Stream|Batch|as_dataloader|fit|splits|Splits)\b"
    r"|^\s*\"?(?:import trainer\b|from trainer[. ])",
    re.M,
)


def places(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {found.group()}"
        for path in paths
        for found in pattern.finditer(path.read_text())
    ]


def test_the_patterns_find_what_they_look_for() -> None:
    for text in ("pip install augd", "pip install 'augd[http]'", "pip install --upgrade augd"):
        assert FROM_AN_INDEX.search(text)
    for text in ("pip install -e '.[http]'", "pip install augd-0.1.0-py3-none-any.whl"):
        assert not FROM_AN_INDEX.search(text)
    for text in (
        "import trainer\n",
        "x = trainer.connect()",
        '    "from trainer.cli.app import main',
    ):
        assert HIDDEN_NAME.search(text)
    assert not HIDDEN_NAME.search("import augd.torch\nstream = augd.torch.connect()")


def test_nothing_says_that_augd_is_installed_from_an_index() -> None:
    assert places(FROM_AN_INDEX, PAGES + PROGRAMS) == []


def test_the_torch_side_is_called_by_the_name_that_nothing_hides() -> None:
    # The package itself, for type checkers, and the import hook that explains the other name.
    own = {ROOT / "augd/torch/__init__.py", ROOT / "trainer/alias.py"}
    assert places(HIDDEN_NAME, [path for path in PAGES + PROGRAMS if path not in own]) == []


def test_every_extra_that_is_named_is_there() -> None:
    called = re.compile(r"install_extra\([\"'](\w+)[\"']\)")
    named = {name for path in PROGRAMS for name in called.findall(path.read_text())}
    assert named and named <= EXTRAS
    written = re.compile(r"pip install (?:-\S+ )*['\"]\.\[([\w,]+)\]")
    listed = [names for path in PAGES for names in written.findall(path.read_text())]
    assert {name for names in listed for name in names.split(",")} <= EXTRAS


@pytest.mark.parametrize("name", ["http", "trainer"])
def test_one_place_says_how_an_extra_is_installed(name: str) -> None:
    assert install_extra(name) == (f"python -m pip install -e '.[{name}]' in the checkout of augd")
    spelled = re.compile(r"\.\[\{?\w+\}?\]'")
    code = [path for path in PROGRAMS if path.parts[len(ROOT.parts)] in ("augd", "trainer")]
    assert len(places(spelled, code)) == 1
