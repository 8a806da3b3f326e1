"""A recipe: the list of ops that every sample goes through, as validated plain data.

Where it stands: a trainer sends a preset's name or plain data; the daemon turns it into a
`Recipe` before anything acts on it, and its expanded form is part of the stream's content.
Producers plan and render from the same structs.

Invariants: a `Recipe` that exists gives rows of one size with at most one resample per image;
`expand` writes every default out, so that two ways of saying the same have one digest. Nothing
here draws a number, reads a file or imports NumPy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from reprlib import repr as brief
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from augd.errors import RecipeError
from augd.plan.ops import OPS_BY_NAME, Extent, Op, list_parameters
from augd.plan.presets import PRESETS

__all__ = [
    "PRESETS",
    "Recipe",
    "expand",
    "output_size",
    "parse_recipe",
    "recipe_from_toml",
    "recipe_to_toml",
]

# The op's place in the recipe takes 8 bits of the random counter; no real recipe is near it.
MAX_OPS = 64


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to each sample: `ops` in their order, and the `filter` of the one resample.

    `antialias` is a triangle whose support grows with the reduction (PIL, torchvision);
    `linear` is the faster 2x2 taps.
    """

    ops: tuple[Op, ...]
    filter: Literal["antialias", "linear"] = "antialias"

    def __post_init__(self) -> None:
        if len(self.ops) > MAX_OPS:
            raise ValueError(
                f"ops: expected at most {MAX_OPS} ops, got {len(self.ops)}. Shorten the recipe."
            )
        final_extent(self)


def final_extent(recipe: Recipe) -> Extent:
    """Walk the ops and return the size of a row; not exact when no op decides the size.

    Raises ValueError, with the path of the op inside the recipe, when a second resample would
    be needed or when sizing ops leave the size to the image.
    """
    extent = Extent()
    for number, op in enumerate(recipe.ops):
        try:
            extent = op.extent(extent)
        except ValueError as error:
            raise ValueError(f"ops[{number}].{error}") from None
    if any(op.is_sizing for op in recipe.ops) and not extent.exact:
        raise ValueError(
            "ops: expected one size for all rows, got a long side that follows each image. "
            'Add {"op": "center_crop", "size": ...} after the resize, or give the resize a size.'
        )
    return extent


def output_size(recipe: Recipe, first_size_px: tuple[int, int] | None) -> tuple[int, int]:
    """Return (height, width) of every row.

    `first_size_px` is (width, height) of the data set's first image: it decides when no op
    does. Raises RecipeError when it is needed and None.
    """
    extent = final_extent(recipe)
    if extent.exact:
        return extent.height, extent.width
    if first_size_px is None:
        raise RecipeError(
            "recipe.ops: expected an op that decides the size of the rows, or a first image "
            "whose size they take, got neither. Add a random_resized_crop or a center_crop."
        )
    width, height = first_size_px
    return height, width


def parse_recipe(recipe: str | Mapping[str, Any]) -> Recipe:
    """Validate a preset's name or plain data.

    Raises RecipeError: the path to the value, what was expected and found, and what to do.
    """
    if isinstance(recipe, str):
        if recipe not in PRESETS:
            raise RecipeError(
                f"recipe: expected one of {', '.join(sorted(PRESETS))}, got {brief(recipe)}. "
                'Use one of these names, or plain data such as {"ops": [...]}.'
            )
        recipe = PRESETS[recipe]
    _check_names(recipe)
    try:
        return msgspec.convert(recipe, Recipe)
    except msgspec.ValidationError as error:
        raise RecipeError(_explain(str(error), recipe)) from None


def expand(recipe: Recipe) -> dict[str, Any]:
    """Write the recipe as plain data with every default in it; what is None is left out.

    Equal recipes give equal data, and `parse_recipe(expand(recipe)) == recipe`.
    """
    plain: dict[str, Any] = msgspec.to_builtins(recipe)
    ops = [
        {key: _as_lists(value) for key, value in op.items() if value is not None}
        for op in plain["ops"]
    ]
    return {"filter": plain["filter"], "ops": ops}


def recipe_from_toml(text: str) -> Recipe:
    """Read a recipe from TOML. Raises RecipeError, also when the TOML itself is broken."""
    import tomllib  # producers never need it, and their start is part of the first batch

    try:
        plain = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(
            f"recipe: expected TOML, got text that does not parse: {error}. "
            "See `augd recipes imagenet` for an example."
        ) from None
    return parse_recipe(plain)


def recipe_to_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML with every default in it; `recipe_from_toml` reads it back equal."""
    plain = expand(recipe)
    lines = [f"filter = {json.dumps(plain['filter'])}"]
    if not plain["ops"]:
        lines.append("ops = []")
    for op in plain["ops"]:
        lines += ["", "[[ops]]"]
        # Strings, finite numbers and lists of them are written alike in JSON and TOML.
        lines += [f"{key} = {json.dumps(value)}" for key, value in op.items()]
    return "\n".join(lines) + "\n"


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple | list) else value


def _check_names(recipe: Any) -> None:
    """Refuse unknown keys and ops, naming the known ones, which msgspec's messages don't."""
    if not isinstance(recipe, Mapping):
        raise RecipeError(
            f"recipe: expected a preset's name or a mapping, got {type(recipe).__name__}. "
            'Give for example "imagenet" or {"ops": [...]}.'
        )
    _check_keys("recipe", recipe, Recipe.__struct_fields__)
    ops = recipe.get("ops")
    if not isinstance(ops, list | tuple):
        raise RecipeError(
            f"recipe.ops: expected a list of ops, got {brief(ops)}. "
            'Give {"ops": [...]}; the empty list leaves the pixels as they are.'
        )
    for number, op in enumerate(ops):
        _check_op_names(f"recipe.ops[{number}]", op)


def _check_op_names(path: str, op: Any) -> None:
    if not isinstance(op, Mapping):
        raise RecipeError(
            f'{path}: expected a mapping such as {{"op": "mirror", "p": 0.5}}, got {brief(op)}. '
            "Write each op as a mapping with its name under the key op."
        )
    name = op.get("op")
    if not isinstance(name, str) or name not in OPS_BY_NAME:
        raise RecipeError(
            f"{path}.op: expected one of {', '.join(sorted(OPS_BY_NAME))}, got {brief(name)}."
            + (_suggest(name, OPS_BY_NAME) or " Use one of these names.")
        )
    _check_keys(path, op, ("op", *list_parameters(OPS_BY_NAME[name])))


def _check_keys(path: str, plain: Mapping[Any, Any], known: tuple[str, ...]) -> None:
    for key in plain:
        if key not in known:
            keys = ", ".join(known)
            raise RecipeError(
                f"{path}.{str(key)[:40]}: expected one of the keys {keys}, got {brief(key)}."
                + (_suggest(key, known) or " Take it out.")
            )


def _suggest(name: Any, known: Any) -> str:
    import difflib

    close = difflib.get_close_matches(str(name)[:40], list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def _explain(message: str, recipe: Mapping[str, Any]) -> str:
    """Turn msgspec's message into the house's: path, expected, got, what to do."""
    text, _, path = message.partition(" - at `$")
    path = "recipe" + path.rstrip("`")
    field = re.match(r"(ops\S*|[a-z_]+): ", text)
    if field:
        return f"{path}.{text}"
    missing = re.fullmatch(r"Object missing required field `(\w+)`", text)
    if missing:
        return f"{path}.{missing[1]}: expected a value, got none. Add {missing[1]}."
    found = brief(_value_at(path, recipe))
    return f"{path}: expected {_wanted(text, path, recipe)}, got {found}. Change the value."


def _wanted(text: str, path: str, recipe: Mapping[str, Any]) -> str:
    """Say what msgspec wanted at `path`, in words."""
    parent, _, field = path.rpartition(".")
    owner: Any = Recipe if parent == "recipe" else OPS_BY_NAME[_value_at(parent, recipe)["op"]]
    annotation = get_type_hints(owner).get(field)
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(repr, get_args(annotation)))
    expected = re.match(r"Expected `(.*?)`( of length \d+)?", text)
    if not expected:
        return "a value within range"
    names = {"array": "list", "object": "mapping", "null": "nothing"}
    kinds = [names.get(kind, kind) for kind in expected[1].split(" | ")]
    return " or ".join(kinds) + (expected[2] or "")


def _value_at(path: str, recipe: Mapping[str, Any]) -> Any:
    value: Any = recipe
    for key, number in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        value = value[int(number)] if number else value[key]
    return value
