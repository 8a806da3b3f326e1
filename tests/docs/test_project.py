"""What the linters cannot say about the project itself."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import augd

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "augd").rglob("*.py"), *(ROOT / "trainer").rglob("*.py")])
FORBIDDEN_CALLS = {
    "send_pyobj", "recv_pyobj", "fork", "forkpty", "SharedMemory", "pickle", "unpickle"
}  # fmt: skip
RANKING = ("np.argsort", "np.argpartition", "np.partition")


def loaded_by(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after this code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import augd",
        "import augd.server.daemon.loop, augd.server.daemon.startup",
        "import augd.cli.app",
        "import augd.server.producer",
    ],
)
def test_nothing_slow_is_loaded(code: str) -> None:
    assert not loaded_by(code) & {"numpy", "cv2", "torch", "PIL"}


def test_producers_start_before_anything_slow() -> None:
    """`spawn_producer` is loaded before the daemon: NumPy and OpenCV load while it scans the
    folder."""
    assert not loaded_by("import augd.server.supervision.producer_process") & {
        "zmq",
        "msgspec",
        "rich",
        "numpy",
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_pickles_forks_or_loads_weights_unsafely(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert node.attr not in FORBIDDEN_CALLS, f"line {node.lineno}: {node.attr}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            safe = [word for word in node.keywords if word.arg == "weights_only"]
            assert safe, f"line {node.lineno}: torch.load without weights_only=True"


@pytest.mark.parametrize("room", ["augd", "trainer", "demo", "benchmarks", "examples", "tests"])
def test_equal_values_are_sorted_alike_on_every_processor(room: str) -> None:
    """NumPy's usual ranks put ties in an order that hangs on the width of vectors."""
    for path in sorted((ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in RANKING:
                kinds = [ast.unparse(word.value) for word in node.keywords if word.arg == "kind"]
                where = f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)}"
                assert kinds == ["'stable'"], f"{where} without kind='stable'"


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its `def` to its end, without its docstring."""
    assert node.end_lineno is not None
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is None:
        return lines
    docstring = node.body[0]
    assert docstring.end_lineno is not None
    return lines - (docstring.end_lineno - docstring.lineno + 1)


@pytest.mark.parametrize("folder", ["augd", "trainer", "demo", "benchmarks"])
def test_nothing_is_too_long_to_be_read(folder: str) -> None:
    """A file has 500 lines at most, a class 350, a function 60 without its docstring.

    `make check` bounds the complexity of a function (C901).
    """
    for path in sorted((ROOT / folder).rglob("*.[pch]*")):
        if path.suffix not in (".py", ".c", ".h"):
            continue
        text = path.read_text()
        assert text.count("\n") <= 500, path
        for node in ast.walk(ast.parse(text)) if path.suffix == ".py" else ():
            if isinstance(node, ast.ClassDef):
                assert (node.end_lineno or 0) - node.lineno + 1 <= 350, (path, node.name)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert _code_lines(node) <= 60, (path, node.name)


def test_every_module_says_what_it_is() -> None:
    for path in SOURCES:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == augd.__version__
    assert f"## {augd.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_core_dependency_is_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules = {"opencv-python-headless": "cv2", "pillow": "PIL", "pyzmq": "zmq"}
    text = "\n".join(path.read_text() for path in SOURCES)
    for requirement in project["dependencies"]:
        name = requirement.partition(">")[0]
        module = modules.get(name, name)
        assert f"import {module}" in text or f"from {module}" in text, requirement
