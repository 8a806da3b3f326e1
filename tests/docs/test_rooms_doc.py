"""ARCHITECTURE.md's table of rooms is the one that `make check` enforces."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# No room: the package itself, its program, the name of the torch side, and the version's one line.
NO_ROOMS = {"__init__", "__main__", "torch", "version"}


def layers() -> list[set[str]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (rooms,) = (
        contract
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["id"] == "rooms"
    )
    return [set(re.findall(r"\w+", layer)) for layer in rooms["layers"]]


def rows() -> list[set[str]]:
    """The rooms of each row; a room within another (`views/page/`) is no layer of its own."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = text[text.index("\n## Rooms\n") : text.index("\n## Processes")]
    found = [re.match(r"\| (`.*?) \|", line) for line in table.splitlines()]
    names = [re.findall(r"`(\w+)/?`", row.group(1)) for row in found if row]
    return [set(row) for row in names if row]


def test_each_module_has_a_layer() -> None:
    modules = {
        path.stem
        for path in (ROOT / "augd").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert modules - NO_ROOMS == set().union(*layers())


def test_the_table_has_each_room_once_and_from_above() -> None:
    height = {room: at for at, layer in enumerate(layers()) for room in layer}
    listed = [room for row in rows() for room in row]
    assert sorted(listed) == sorted(height)
    heights = [[height[room] for room in row] for row in rows()]
    for above, row in pairwise(heights):
        assert max(above) <= min(row), f"{above} stands above {row}"
