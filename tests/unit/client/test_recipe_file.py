"""Recipes written as TOML read back as they were, whatever lies in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import augd
from augd.client.recipe_file import read_recipe
from augd.plan.recipe.presets import PRESETS

GROUP = {"op": "one_of", "ops": [{"op": "invert"}, {"op": "solarize", "threshold": 99}]}
OTHERS: dict[str, dict[str, Any]] = {
    "of a plug-in": {"ops": [{"op": "my_op", "name": 'a "quoted" \\ text', "on": True}]},
    "without ops": {"filter": "linear", "ops": []},
    "with a group": {"ops": [{"op": "resize", "size": [32, 48]}, GROUP]},
    "with a table": {"mix": {"mixup": 0.2}, "ops": [{"op": "mirror", "p": 0.5}]},
    "with views": {"views": [{"count": 2, "ops": [{"op": "mirror"}]}, {"ops": [GROUP]}]},
}


@pytest.mark.parametrize("plain", [*PRESETS.values(), *OTHERS.values()], ids=[*PRESETS, *OTHERS])
def test_a_recipe_reads_back_as_it_was(plain: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(augd.recipe_toml(plain), encoding="utf-8")
    found = read_recipe(path)
    assert found == as_lists(plain)


def as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: as_lists(one) for name, one in value.items()}
    return [as_lists(one) for one in value] if isinstance(value, tuple | list) else value
