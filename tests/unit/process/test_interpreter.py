"""How interpreters are started, in one place, and what named modules may be found where."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from augd.process import interpreter

ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted([*(ROOT / "augd").rglob("*.py"), *(ROOT / "trainer").rglob("*.py")])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_interpreter_is_started_in_one_place(path: Path) -> None:
    if path == ROOT / "augd" / "process" / "interpreter.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) != "sys.executable", f"line {node.lineno}"
        if isinstance(node, ast.Constant):
            assert node.value not in ("-m", "-c") or _is_of_a_shell(node, path)


def _is_of_a_shell(node: ast.Constant, path: Path) -> bool:
    return node.value == "-c" and path == ROOT / "augd" / "server" / "daemon" / "address_lock.py"


def test_the_environment_keeps_whole_places_only() -> None:
    places = os.pathsep.join([".", "", "/whole", "part/of"])
    made = interpreter.environment({"PYTHONPATH": places, "HOME": "/h"})
    assert made == {"PYTHONPATH": "/whole", "HOME": "/h", "PYTHONSAFEPATH": "1"}
    assert "PYTHONPATH" not in interpreter.environment({"PYTHONPATH": ""})


def test_a_started_module_is_of_this_package_and_sees_no_working_directory(tmp_path: Path) -> None:
    """Also where another augd lies in PYTHONPATH, which names its place in full."""
    (tmp_path / "augd").mkdir()
    (tmp_path / "augd" / "__init__.py").write_text("raise SystemExit('another augd')")
    done = interpreter.run(
        *("augd", "--version"),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


NAMED = """
import sys
from augd.process.interpreter import import_named, leave_working_directory
leave_working_directory()
before = list(sys.path)
mine = import_named("mine.inner")
assert mine.WORD == "inner" and sys.path == before, sys.path
import json, colorsys
for module in (json, colorsys): assert "set" not in module.__file__, module
for hidden in ("beside", "mine_too"):
    try: __import__(hidden)
    except ModuleNotFoundError: pass
    else: raise SystemExit(f"{hidden} was found")
assert import_named("colorsys") is colorsys, "what is installed comes first"
"""


def test_only_what_is_named_is_found_in_the_working_directory(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "__init__.py").write_text("import json, colorsys")
    (folder / "mine" / "inner.py").write_text("WORD = 'inner'")
    for name in ("json", "colorsys", "beside", "mine_too"):
        (folder / f"{name}.py").write_text("raise SystemExit('it was run')")
    script = tmp_path / "script.py"
    script.write_text(NAMED)
    done = subprocess.run(
        [sys.executable, script], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "start", [("-m", "augd"), ("-m", "trainer"), ("-m", "augd.torch")], ids=lambda start: start[1]
)
def test_a_command_leaves_the_working_directory_that_it_was_started_in(
    tmp_path: Path, start: tuple[str, ...]
) -> None:
    """`python -m` reads a few modules before augd has a word; what comes later is the real one."""
    for name in ("typer", "msgspec", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('it was run')")
    done = subprocess.run(
        [sys.executable, *start, "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("given", "passed_on"), [((), []), (("-I",), ["-E", "-s"]), (("-E", "-B"), ["-E"])]
)
def test_what_an_interpreter_ignores_its_helpers_ignore(
    given: tuple[str, ...], passed_on: list[str]
) -> None:
    """Else PYTHONPATH, which `python -I` is told to leave alone, chooses what helpers import."""
    program = "from augd.process.interpreter import command; print(*command('augd')[1:-2])"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, *given, "-c", program],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.split(), done.stderr) == (["-P", *passed_on], "")
