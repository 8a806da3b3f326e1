"""Recipes as users name them: a preset, plain data, or the path of a TOML file; and as TOML.

Runs in the client's process: files are read there, and no message names a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from augd.errors import RecipeError
from augd.plan.recipe.plain_ops import to_toml
from augd.plan.recipe.presets import PRESETS
from augd.plan.recipe.published_presets import (
    EVALUATION,
    TRAINING,
    PresetRecipes,
    published_recipes,
)
from augd.plan.recipe.recipe import read_toml


def read_recipe(
    recipe: str | os.PathLike[str] | Mapping[str, Any],
) -> str | Mapping[str, Any]:
    """Read the file that a path names; a preset's name and plain data stay as they are.

    A text is a path when it ends in `.toml`, or has a slash in it.

    Raises:
        RecipeError: the file cannot be read, or is no TOML.
    """
    if isinstance(recipe, Mapping) or not isinstance(recipe, str | os.PathLike):
        return recipe
    path = os.fspath(recipe)
    is_text = isinstance(recipe, str)
    if is_text and (path in PRESETS or not (path.endswith(".toml") or "/" in path)):
        return path
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RecipeError(
            f"recipe: {path} cannot be read ({why}); expected a preset's name "
            f"({', '.join(sorted(PRESETS))}) or a TOML file"
        ) from None
    return read_toml(text)


def recipe_toml(recipe: Mapping[str, Any]) -> str:
    """Write a recipe as TOML, for a file that `recipe=` and the commands' `--recipe` take.

    Args:
        recipe: plain data. They are written as they are: the ops may be those of plug-ins.
    """
    return to_toml(recipe)


def preset_recipes(name: str, size: int | None = None) -> PresetRecipes:
    """Return the recipes of a published preset, as plain data that can be changed.

    Args:
        name: `torchvision-v2`, `deit` or another that `augd recipes` prints with its source.
        size: side of the training rows instead of the preset's own; resizes and crops of both
            recipes keep their proportion to it.

    Returns:
        `training` and `evaluation`.

    Raises:
        RecipeError: there is no published preset of that name.
    """
    found = published_recipes(name, size)
    if found is None:
        known = ", ".join(sorted({*TRAINING, *EVALUATION}))
        raise RecipeError(f"name: expected a published preset ({known}), got {name!r}")
    return deepcopy(found)
