"""`augd recipes`: print the presets, a recipe as TOML, or the JSON schema of recipes.

Also loads the recipes of other commands. A printed recipe, saved to a file, parses to the same one.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from augd.cli.options import RecipesOptions
from augd.client.recipe_file import read_recipe
from augd.plan.recipe.op_catalogue import Catalogue
from augd.plan.recipe.recipe import PRESETS, Recipe, parse_recipe, plain_recipe, recipe_to_toml


def run_recipes(options: RecipesOptions) -> None:
    """Print what the options ask for.

    Raises:
        RecipeError: as `load_recipe`.
    """
    if options.schema:
        print_schema()
    elif options.name is None:
        print_recipes()
    else:
        print_recipe(load_recipe(options.name))


def load_recipe(text: str, catalogue: Catalogue | None = None) -> Recipe:
    """Parse the name of a preset, or the TOML file at a path.

    Raises:
        RecipeError: neither, or the file does not hold a valid recipe of the catalogue's ops,
            which without one are the built-in ones.
    """
    return parse_recipe(read_recipe(text), catalogue)


def load_plain_recipe(text: str) -> dict[str, Any]:
    """Read the same as plain data for a daemon, whose plug-ins' ops it may name.

    Raises:
        RecipeError: as `load_recipe`, but for the names that only the daemon can judge.
    """
    return plain_recipe(read_recipe(text))


def print_recipes() -> None:
    """Print each preset in one line, as short as it can be written."""
    width = max(map(len, PRESETS))
    for name, plain in PRESETS.items():
        print(f"{name:{width}}  {summarise(plain)}")


def print_recipe(recipe: Recipe) -> None:
    """Print a recipe as TOML with every default in it, ready to be changed."""
    print(recipe_to_toml(recipe), end="")


def print_schema() -> None:
    """Print the JSON schema of a recipe, by which editors complete and check one."""
    print(json.dumps(recipe_schema(), indent=2))


def recipe_schema() -> dict[str, Any]:
    """Make the schema: names, types and defaults of all ops.

    What ranges and combinations are allowed, `parse_recipe` alone knows.
    """
    schema = msgspec.json.schema(Recipe)
    text = json.dumps(schema)
    for name in schema["$defs"]:
        # A group's name has those of all ops in it behind its own.
        text = text.replace(f'"#/$defs/{name}"', f'"#/$defs/{_short(name)}"')
    schema = json.loads(text)
    schema["$defs"] = {_short(name): one for name, one in schema["$defs"].items()}
    for name, definition in schema["$defs"].items():
        definition["title"] = name
        definition["description"] = inspect.cleandoc(definition["description"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _short(name: str) -> str:
    return name.partition("_")[0]


def summarise(plain: Mapping[str, Any]) -> str:
    """Say in one line what a recipe's plain data does, without its defaults."""
    if not plain["ops"]:
        return "pixels as decoded; all images must have the size of the first"
    said = ", then ".join(map(_summarise_op, plain["ops"]))
    settings = [f"{key}={_brief(value)}" for key, value in plain.items() if key != "ops"]
    return "; ".join([said, *settings])


def _summarise_op(op: Mapping[str, Any]) -> str:
    said = [f"{key}={_brief(value)}" for key, value in op.items() if key not in ("op", "ops")]
    if "ops" in op:
        said.insert(0, f"({', '.join(map(_summarise_op, op['ops']))})")
    return " ".join([op["op"], *said])


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
