"""A stream's recipe as TOML, with every default in it: what `augd recipes` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from augd.plan.recipe.plain_ops import to_toml
from augd.plan.recipe.recipe import plain_settings, read_toml, recipe_to_toml
from augd.plan.recipe.stream_recipe import StreamRecipe, expand_stream, parse_stream_recipe

_LISTS = ("ops", "views", "phases")


def stream_recipe_from_toml(text: str) -> StreamRecipe:
    """Read a recipe from TOML. Raises RecipeError, also when the TOML itself is broken."""
    return parse_stream_recipe(read_toml(text))


def stream_recipe_to_toml(recipe: StreamRecipe) -> str:
    """Write a recipe as TOML; `stream_recipe_from_toml` reads it back equal."""
    phase, plain = recipe.phases[0], expand_stream(recipe)
    if len(recipe.phases) > 1:
        plain["phases"] = [
            {"from_epoch": one.from_epoch, **plain_settings(one.shared), **expanded}
            for one, expanded in zip(recipe.phases, plain["phases"], strict=True)
        ]
    elif not phase.is_grouped:
        return recipe_to_toml(phase.shared)
    else:
        plain = {**plain_settings(phase.shared), **plain}
    return "\n".join(_lines(plain, "")) + "\n"


def _lines(plain: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Yield the lines of a table: its values, then its lists of tables."""
    lists = {
        key: value
        for key, value in plain.items()
        if key in _LISTS and isinstance(value, list | tuple) and value
    }
    for key, value in plain.items():
        if key not in lists and value is not None:
            yield f"{key} = {to_toml(value)}"
    for key, tables in lists.items():
        for table in tables:
            yield ""
            yield f"[[{prefix}{key}]]"
            if key == "ops":
                yield from (f"{name} = {to_toml(value)}" for name, value in table.items())
            else:
                yield from _lines(table, f"{prefix}{key}.")


def plain_to_toml(plain: Mapping[str, Any]) -> str:
    """Write a recipe's plain data as TOML, as they are."""
    return "\n".join(_lines(plain, "")).lstrip() + "\n"
