"""A stream's recipe as TOML, with every default in it: what `augd recipes` prints."""

from __future__ import annotations

from augd.plan.recipe.phases import StreamRecipe, expand_stream, parse_stream_recipe
from augd.plan.recipe.plain_ops import to_toml
from augd.plan.recipe.recipe import plain_settings, read_toml, recipe_to_toml


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
    return to_toml(plain)
