"""The pages of docs/ do what they say: their Python and their shell lines run, as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.photos import make_photos

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [
    "index.md",
    "tutorial.md",
    "guides/resume.md",
    "guides/several-gpus.md",
    "guides/bad-epoch.md",
    "augmentation/view-groups.md",
    "augmentation/phases.md",
]


@pytest.fixture(scope="module")
def working_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    make_photos(folder / "photos", 100, classes=["bricks", "leaves", "waves"])
    return folder


def blocks() -> list[tuple[str, str, str]]:
    found = []
    for page in PAGES:
        text = (DOCS / page).read_text()
        for kind, code in re.findall(r"```(python|sh)\n(.*?)```", text, re.DOTALL):
            found.append((page, kind, code))
    return found


@pytest.mark.parametrize(
    ("page", "kind", "code"), blocks(), ids=lambda value: value[:24] if len(value) < 30 else ""
)
def test_a_block_runs_as_it_is_written(page, kind, code, working_folder):
    if "augd.torch" in code:
        pytest.importorskip("torch")
    if kind == "sh":
        command = ["sh", "-e", "-c", code]
    else:
        (working_folder / "script.py").write_text(code)
        command = [sys.executable, "script.py"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=working_folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_every_page_is_in_the_sites_menu():
    menu = (DOCS.parent / "mkdocs.yml").read_text()
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert pages == set(re.findall(r": (\S+\.md)$", menu, re.M)) - {
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    }


def test_a_page_is_short_enough_for_one_task():
    """The protocol is one specification, and the changelog one list."""
    pages = [page for page in DOCS.rglob("*.md") if page.name != "protocol.md"]
    lengths = {page.name: len(page.read_text().splitlines()) for page in pages}
    assert {name: lines for name, lines in lengths.items() if lines > 200} == {}
    assert len((DOCS / "protocol.md").read_text().splitlines()) > 200, "it would be noticed"


def heading_names(page: Path) -> set[str]:
    """The anchors of a page, as the site and code hosts make them of its headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()).strip() for title in titles]
    return {re.sub(r"[ ]+", "-", title) for title in plain}


def test_every_link_between_pages_leads_somewhere():
    pages = [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        if not re.match(r"https?:|mailto:", target)
    ]
    assert len(links) > 100
    for page, target in links:
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        where = f"{page.relative_to(DOCS.parent)}: {target}"
        assert found.exists(), where
        assert not anchor or anchor in heading_names(found), where


@pytest.mark.slow
def test_the_site_is_made_without_a_fault(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=DOCS.parent,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text()
    for name in (
        "augd.client.connect.connect",
        "augd.client.stream.Stream",
        "trainer.data.stream.connect",
    ):
        assert f'id="{name}"' in reference
    assert "https://fonts.googleapis.com" not in (tmp_path / "site" / "index.html").read_text()
