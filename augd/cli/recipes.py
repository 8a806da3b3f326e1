"""`augd recipes`: print the presets, a recipe as TOML, or the JSON schema of recipes.

Also loads the recipes of other commands. A printed recipe, saved to a file, parses to the same one.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from augd.cli.options import RecipesOptions
from augd.client.recipe_file import read_recipe
from augd.errors import OptionError
from augd.plan.recipe.evaluation import Mode, evaluation_recipe
from augd.plan.recipe.op_catalogue import Catalogue
from augd.plan.recipe.phases import (
    SHARED_KEYS,
    StreamRecipe,
    as_stream_recipe,
    parse_stream_recipe,
    plain_recipe,
)
from augd.plan.recipe.presets import PRESETS
from augd.plan.recipe.published_presets import EVALUATION_OF, NOTES, timm_recipe
from augd.plan.recipe.recipe import Recipe
from augd.plan.recipe.recipe_toml import stream_recipe_to_toml

_DEFAULT_SIZE = 224
_LISTS = ("ops", "views", "phases")
_PAIR = {"minItems": 2, "maxItems": 2, "items": {"type": "integer"}}
_SIZE_SCHEMA = {"anyOf": [{"type": "integer"}, {"type": "array", **_PAIR}]}


def run_recipes(options: RecipesOptions) -> None:
    """Print what the options ask for.

    Raises:
        RecipeError: as `load_recipe`.
        OptionError: options that do not go together, or weights that are not known.
    """
    if options.from_weights is not None:
        _refuse_beside("--from-weights", options.name, options.schema or _shapes(options))
        _print_weights(options.from_weights, is_training=options.training)
    elif options.from_timm is not None:
        _refuse_beside("--from-timm", options.name, options.schema or _shapes(options))
        plain = timm_recipe(_DEFAULT_SIZE, options.from_timm)
        print_recipe(parse_stream_recipe(plain))
    elif options.training:
        raise OptionError("--training: belongs to --from-weights, which is missing")
    elif _shapes(options):
        _refuse_beside("--schema", None, options.schema)
        print_recipe(parse_stream_recipe(_shaped(options)))
    elif options.schema:
        print_schema()
    elif options.name is None:
        print_recipes()
    else:
        recipe = load_recipe(options.name)
        print(_note(options.name), end="")
        print_recipe(recipe)


def _note(name: str) -> str:
    """Say in TOML comments where a preset is from, and which evaluation belongs to it."""
    lines = textwrap.wrap(NOTES.get(name, ""), 98, break_on_hyphens=False)
    if name in EVALUATION_OF:
        lines.append(f"Evaluation: the preset {EVALUATION_OF[name]}.")
    return "".join(f"# {line}\n" for line in lines)


def _shapes(options: RecipesOptions) -> bool:
    """Return whether an option says what an evaluation recipe looks like."""
    given = (options.size, options.crop_pct, options.filter)
    return options.squash or any(one is not None for one in given)


def _refuse_beside(option: str, name: str | None, has_more: bool) -> None:
    if name is not None or has_more:
        raise OptionError(f"{option}: stands alone, without a NAME and other options")


def _shaped(options: RecipesOptions) -> dict[str, Any]:
    """Return the evaluation recipe of these options."""
    if options.name not in (None, "eval"):
        raise OptionError(
            f"--size, --crop-pct, --filter and --squash make an evaluation recipe: expected the "
            f"NAME eval, got {options.name!r}; edit what augd recipes {options.name} prints"
        )
    crop_pct = 0.875 if options.crop_pct is None else options.crop_pct
    if not 0 < crop_pct <= 1:
        raise OptionError(f"--crop-pct: expected above 0, and 1 at most, got {crop_pct:g}")
    size = _DEFAULT_SIZE if options.size is None else options.size
    mode: Mode = "squash" if options.squash else "center"
    return evaluation_recipe(size, crop_pct, options.filter or "antialias", mode)


def _print_weights(name: str, *, is_training: bool) -> None:
    """Print a recipe of published weights; imported here, since little else needs it."""
    from augd.cli.weights.recipe import ask_library, comments, evaluation_of, training_of

    facts = ask_library(name)
    preset, plain = training_of(facts) if is_training else (None, evaluation_of(facts))
    recipe = parse_stream_recipe(plain)
    print(comments(facts, preset), end="")
    print_recipe(recipe)


def load_recipe(text: str, catalogue: Catalogue | None = None) -> StreamRecipe:
    """Parse the name of a preset, or the TOML file at a path.

    Raises:
        RecipeError: neither, or the file does not hold a valid recipe of the catalogue's ops,
            which without one are the built-in ones.
    """
    return parse_stream_recipe(read_recipe(text), catalogue)


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


def print_recipe(recipe: Recipe | StreamRecipe) -> None:
    """Print a recipe as TOML with every default in it, ready to be changed."""
    whole = as_stream_recipe(recipe) if isinstance(recipe, Recipe) else recipe
    print(stream_recipe_to_toml(whole), end="")


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
    definitions = schema["$defs"]
    definitions |= _views_schema(definitions["Recipe"])
    definitions |= _phases_schema(definitions)
    kinds = "Recipe", "RecipeOfViews", "Schedule"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in kinds],
        "$defs": definitions,
    }


def _phases_schema(definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Make the definitions of a recipe with phases from those of a phase's recipe."""
    begins = {"from_epoch": {"type": "integer"}}
    phases = {}
    for name, phase in (("Recipe", "Phase"), ("RecipeOfViews", "PhaseOfViews")):
        whole = definitions[name]
        phases[phase] = {
            **whole,
            "title": phase,
            "description": "A whole recipe, which holds from an epoch on.",
            "properties": {**begins, **whole["properties"]},
            "required": ["from_epoch", *whole["required"]],
        }
    items = {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in phases]}
    schedule = {
        "title": "Schedule",
        "description": "Recipes that follow each other, each from its epoch on.",
        "type": "object",
        "properties": {"phases": {"type": "array", "minItems": 1, "items": items}},
        "required": ["phases"],
        "additionalProperties": False,
    }
    return {**phases, "Schedule": schedule}


def _views_schema(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Make the definitions of a recipe with view groups from that of one without."""
    properties = recipe["properties"]
    settings = {key: of for key, of in properties.items() if key not in (*_LISTS, "mix")}
    own = {key: of for key, of in settings.items() if key not in SHARED_KEYS}
    group = {
        "title": "ViewGroup",
        "description": "Views of one name: their number and their ops.",
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "count": {"type": "integer", "default": 1},
            "size": _SIZE_SCHEMA,
            "ops": properties["ops"],
            **own,
        },
        "required": ["name", "ops"],
        "additionalProperties": False,
    }
    of_views = {
        "title": "RecipeOfViews",
        "description": "Several rows of each image, made by the ops of their view groups.",
        "type": "object",
        "properties": {
            "views": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/ViewGroup"}},
            **settings,
        },
        "required": ["views"],
        "additionalProperties": False,
    }
    return {"ViewGroup": group, "RecipeOfViews": of_views}


def _short(name: str) -> str:
    return name.partition("_")[0]


def summarise(plain: Mapping[str, Any]) -> str:
    """Say in one line what a recipe's plain data does, without its defaults."""
    if "phases" in plain:
        return "; ".join(f"from {one['from_epoch']}: {summarise(one)}" for one in plain["phases"])
    if isinstance(plain.get("views"), list):
        said = "; ".join(map(_summarise_group, plain["views"]))
    elif not plain["ops"]:
        return "pixels as decoded; all images must have the size of the first"
    else:
        said = _summarise_ops(plain["ops"])
    settings = [
        f"{key}={_brief(value)}"
        for key, value in plain.items()
        if key != "from_epoch" and (key not in _LISTS or isinstance(value, int))
    ]
    return "; ".join([said, *settings])


def _summarise_group(group: Mapping[str, Any]) -> str:
    return f"{group.get('count', 1)} {group['name']}: {_summarise_ops(group['ops'])}"


def _summarise_ops(ops: Sequence[Mapping[str, Any]]) -> str:
    return ", then ".join(map(_summarise_op, ops))


def _summarise_op(op: Mapping[str, Any]) -> str:
    said = [f"{key}={_brief(value)}" for key, value in op.items() if key not in ("op", "ops")]
    if "ops" in op:
        said.insert(0, f"({', '.join(map(_summarise_op, op['ops']))})")
    return " ".join([op["op"], *said])


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
