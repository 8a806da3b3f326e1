"""README's and the quick start's lines, typed as they stand, in an empty environment.

The environment borrows the libraries that this one has, so that pip finds all that the pages' lines
ask for. augd itself, its commands and `python` are there by what the pages say, or not at all.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README": ROOT / "README.md", "quick-start": ROOT / "docs" / "quick-start.md"}
ACTIVATE = ". .venv/bin/activate"
LENDERS = {Path(module.__file__ or "").parents[1] for module in (np, zmq)}
STEP_S = 240


def blocks(page: str) -> list[tuple[str, str]]:
    return re.findall(r"```(sh|python)\n(.*?)```", PAGES[page].read_text(), re.DOTALL)


def lines(page: str) -> list[str]:
    """What is typed into a shell, without the comments."""
    typed = "".join(code for kind, code in blocks(page) if kind == "sh").splitlines()
    return [line.partition(" #")[0].rstrip() for line in typed]


def first_of_all(page: str) -> int:
    """The number of lines up to the one that makes photos."""
    (at,) = (i for i, line in enumerate(lines(page)) if line.startswith("python -m demo.photos "))
    return at + 1


class Checkout:
    """A copy of the checkout, where somebody types."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        ignore = shutil.ignore_patterns("__pycache__", "*.so")
        for name in ("augd", "trainer", "demo"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=ignore)
        for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "NOTICE"):
            shutil.copy(ROOT / name, self.folder)
        (folder / "tools").mkdir()
        python3 = folder / "tools" / "python3"
        python3.write_text(f'#!/bin/sh\nexec "{sys._base_executable}" "$@"\n')
        python3.chmod(0o755)
        self.environment = {
            "HOME": str(folder),
            "PATH": f"{folder}/tools:/usr/bin:/bin",
            "AUGD_RUNTIME_DIR": str(folder / "run"),
            "AUGD_BUILD_KERNELS": "off",  # they have tests of their own
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_WARN_CONFLICTS": "1",  # it would read what all packages here ask for
            "PIP_NO_COMPILE": "1",
            "OMP_NUM_THREADS": "1",  # more would wait for each other by spinning
            **{name: text for name, text in os.environ.items() if name.startswith("PIP_")},
        }

    def start(self, code: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-e", "-c", code],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def type(self, code: str) -> str:
        """Type it into a shell of its own; returns what was printed."""
        shell = self.start(code)
        try:
            said, complained = shell.communicate(timeout=STEP_S)
        finally:
            shell.kill()
        assert shell.returncode == 0, f"{code}\n{said}\n{complained}"
        assert "Traceback" not in complained, complained
        return said

    def install(self, code: str) -> None:
        """Type it, with a pip that finds what this environment has, so that it fetches nothing."""
        lent = self.folder.with_name("lent")
        _lend(lent)
        self.environment["PYTHONPATH"] = str(lent)
        self.type(code)
        del self.environment["PYTHONPATH"]
        # From now on by their own paths: not every package can be loaded through a link.
        (packages,) = self.folder.glob(".venv/lib/python3*/site-packages")
        (packages / "borrowed.pth").write_text("\n".join(map(str, LENDERS)))


def _lend(folder: Path) -> None:
    """Link to what this environment has, but augd and pip, which the empty one gets by itself."""
    folder.mkdir()
    for place in LENDERS:
        for entry in place.iterdir():
            if not re.match(
                r"augd|trainer|pip\b|pip-|__pycache__|.*\.(?:pth|egg-link)$", entry.name
            ):
                (folder / entry.name).symlink_to(entry)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """One in which README was followed up to the photos; the quick start says the same lines."""
    made = Checkout(tmp_path_factory.mktemp("first"))
    *installing, photos = lines("README")[: first_of_all("README")]
    made.install("\n".join(installing))
    made.type(f"{ACTIVATE}\n{photos}")
    return made


@pytest.fixture
def daemons(checkout: Checkout) -> Iterator[list[subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []
    yield running
    for shell in running:
        shell.terminate()
        shell.communicate(timeout=30)


def test_both_pages_install_alike() -> None:
    typed = {page: lines(page)[: first_of_all(page)] for page in PAGES}
    assert typed["README"] == typed["quick-start"]
    assert ACTIVATE in typed["README"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_followed_as_it_stands(
    page: str, checkout: Checkout, daemons: list[subprocess.Popen[str]]
) -> None:
    assert len(list((checkout.folder / "photos").glob("*/*.jpg"))) == 300
    num_typed, before = 0, first_of_all(page)
    for kind, code in blocks(page):
        if kind == "python":
            (checkout.folder / "script.py").write_text(code)
            checkout.type(f"{ACTIVATE}\npython script.py")
            continue
        typed = code.splitlines()
        left = typed[max(0, before - num_typed) :]
        num_typed += len(typed)
        if left and left[0].startswith("augd serve "):
            daemons.append(shell := checkout.start(f"{ACTIVATE}\nexec {left[0]}"))
            assert "serving photos (300 images, 6 classes) at ipc://" in first_line(shell)
        elif left:
            checkout.type("\n".join([ACTIVATE, *left]))
    assert len(daemons) == 1
    for shell in daemons:
        shell.terminate()
        assert shell.wait(30) == 0


def first_line(shell: subprocess.Popen[str]) -> str:
    assert shell.stdout is not None and shell.stderr is not None
    deadline = time.monotonic() + STEP_S
    while time.monotonic() < deadline and shell.poll() is None:
        if select.select([shell.stdout], [], [], 1)[0]:
            return shell.stdout.readline()
    raise AssertionError(f"it did not serve: {shell.stderr.read() if shell.poll() else 'silence'}")
