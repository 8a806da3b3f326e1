"""Why plain data is no recipe: the path to the value, what was expected and found, what to do.

`parse_recipe` calls it before and after msgspec converts the data, because msgspec's own messages
name neither the known keys nor what was found.

Invariants: a message quotes at most a few dozen characters of what a client sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from reprlib import repr as brief
from typing import Any, Literal, get_args, get_origin, get_type_hints

from augd.errors import RecipeError
from augd.plan.ops.all_ops import OPS_BY_NAME, AllOf, OneOf, list_parameters
from augd.plan.ops.base import BaseOp
from augd.plan.recipe.foreign_op_names import called_here
from augd.plan.recipe.mix import Mix

Ops = Mapping[str, type[BaseOp]]

_GROUPS = frozenset(name for name, op in OPS_BY_NAME.items() if op in (OneOf, AllOf))


def check_names(recipe: Any, fields: tuple[str, ...], known: Ops) -> None:
    """Reject unknown keys and ops, naming the known ones, which msgspec's messages don't."""
    if not isinstance(recipe, Mapping):
        raise RecipeError(
            f"recipe: expected a preset's name or a mapping, got {type(recipe).__name__}. "
            'Give for example "imagenet" or {"ops": [...]}.'
        )
    _check_keys("recipe", recipe, fields)
    if isinstance(mix := recipe.get("mix"), Mapping):
        _check_keys("recipe.mix", mix, Mix.__struct_fields__)
    ops = recipe.get("ops")
    if not isinstance(ops, list | tuple):
        raise RecipeError(
            f"recipe.ops: expected a list of ops, got {brief(ops)}. "
            'Give {"ops": [...]}; the empty list leaves the pixels as they are.'
        )
    for number, op in enumerate(ops):
        _check_op_names(f"recipe.ops[{number}]", op, known)
        if op["op"] in _GROUPS:
            _check_group(f"recipe.ops[{number}]", op, known)


def _check_group(path: str, group: Mapping[str, Any], known: Ops) -> None:
    name, ops = group["op"], group.get("ops")
    if not isinstance(ops, list | tuple):
        raise RecipeError(
            f"{path}.ops: expected a list of ops, got {brief(ops)}. "
            f'Give {{"op": "{name}", "ops": [...]}}.'
        )
    single = {name: op for name, op in known.items() if name not in _GROUPS}
    for number, op in enumerate(ops):
        here = f"{path}.ops[{number}]"
        inner = op.get("op") if isinstance(op, Mapping) else None
        if isinstance(inner, str) and inner in _GROUPS:
            raise RecipeError(
                f"{here}.op: expected no group in {name}, got {inner}. Groups are one deep: put "
                "its ops in its place, or the group beside this one."
            )
        _check_op_names(here, op, single)


def _check_op_names(path: str, op: Any, known: Ops) -> None:
    if not isinstance(op, Mapping):
        raise RecipeError(
            f'{path}: expected a mapping such as {{"op": "mirror", "p": 0.5}}, got {brief(op)}. '
            "Write each op as a mapping with its name under the key op."
        )
    name = op.get("op")
    if not isinstance(name, str) or name not in known:
        here = called_here(name)
        hint = f" {here}" if here else suggest(name, known) or " Use one of these names."
        raise RecipeError(
            f"{path}.op: expected one of {', '.join(sorted(known))}, got {brief(name)}.{hint}"
        )
    _check_keys(path, op, ("op", *list_parameters(known[name])))


def _check_keys(path: str, plain: Mapping[Any, Any], known: tuple[str, ...]) -> None:
    for key in plain:
        if key not in known:
            keys = ", ".join(known)
            raise RecipeError(
                f"{path}.{str(key)[:40]}: expected one of the keys {keys}, got {brief(key)}."
                + (suggest(key, known) or " Take it out.")
            )


def suggest(name: Any, known: Any) -> str:
    """Name the known one that is most like a name; empty if none is like it."""
    import difflib

    close = difflib.get_close_matches(str(name)[:40], list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def explain(message: str, recipe: Mapping[str, Any], recipe_class: type, known: Ops) -> str:
    """Turn msgspec's message into augd's form: path, expected, got, what to do."""
    text, _, path = message.partition(" - at `$")
    path = "recipe" + path.rstrip("`")
    field = re.match(r"(ops\S*|[a-z_]+): ", text)
    if field:
        return f"{path}.{text}"
    missing = re.fullmatch(r"Object missing required field `(\w+)`", text)
    if missing:
        return f"{path}.{missing[1]}: expected a value, got none. Add {missing[1]}."
    wanted, found = _wanted(text, path, recipe, recipe_class, known), brief(_value_at(path, recipe))
    return f"{path}: expected {wanted}, got {found}. Change the value."


def _wanted(text: str, path: str, recipe: Mapping[str, Any], recipe_class: type, known: Ops) -> str:
    """Describe what msgspec wanted at `path`."""
    parent, _, field = path.rpartition(".")
    owner: Any = recipe_class
    if parent == "recipe.mix":
        owner = Mix
    elif parent != "recipe":
        owner = known[_value_at(parent, recipe)["op"]]
    annotation = get_type_hints(owner).get(field)
    choices = _choices(annotation)
    if choices and (get_origin(annotation) is Literal or text.startswith("Invalid enum")):
        return "one of " + ", ".join(choices)
    expected = re.match(r"Expected `(.*?)`( (?:of length )?(?:[<>]=? )?-?[\d.]+)?", text)
    if not expected:
        return "a value within range"
    names = {"array": "list", "object": "mapping", "null": "nothing"}
    kinds = [names.get(kind, kind) for kind in expected[1].split(" | ")]
    return " or ".join(kinds) + (expected[2] or "")


def _choices(annotation: Any) -> list[str]:
    """List the values of a `Literal`, and what else a union with one takes."""
    if get_origin(annotation) is Literal:
        return [repr(value) for value in get_args(annotation)]
    names = {tuple: "a list", int: "a whole number"}
    parts = get_args(annotation)
    literals = [
        choice for part in parts if get_origin(part) is Literal for choice in _choices(part)
    ]
    others = [names.get(get_origin(part) or part, "") for part in parts]
    return literals + [name for name in others if name] if literals else []


def _value_at(path: str, recipe: Mapping[str, Any]) -> Any:
    value: Any = recipe
    for key, number in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        value = value[int(number)] if number else value[key]
    return value
