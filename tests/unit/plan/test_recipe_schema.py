"""The JSON schema that editors get: it takes what is a recipe, and refuses wrong names and types.

Checked by a reader of the few keywords that the schema uses, so that no package is needed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from augd.cli.recipes import recipe_schema
from augd.plan.ops.all_ops import OPS_BY_NAME
from augd.plan.recipe.recipe import PRESETS, expand, parse_recipe

SCHEMA = recipe_schema()
KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
KNOWN = {
    *("$ref", "$defs", "$schema", "title", "description", "default", "discriminator"),
    *("type", "enum", "anyOf", "properties", "required", "additionalProperties"),
    *("items", "prefixItems", "minItems", "maxItems"),
}


def is_valid(value: Any, schema: Any) -> bool:
    assert schema is False or set(schema) <= KNOWN, schema
    if schema is False:
        return False
    if "$ref" in schema:
        return is_valid(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema and not any(is_valid(value, branch) for branch in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "type" in schema:
        is_bool = isinstance(value, bool)
        if not isinstance(value, KINDS[schema["type"]]) or is_bool != (schema["type"] == "boolean"):
            return False
    if isinstance(value, dict):
        return is_valid_object(value, schema)
    return not isinstance(value, list) or is_valid_list(value, schema)


def is_valid_object(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    known = schema.get("properties", {name: {} for name in value})
    return (
        all(name in value for name in schema.get("required", []))
        and (schema.get("additionalProperties", True) or set(value) <= set(known))
        and all(is_valid(value[name], known[name]) for name in value)
    )


def is_valid_list(value: list[Any], schema: dict[str, Any]) -> bool:
    first = schema.get("prefixItems", [])
    rest = schema.get("items", {})
    return (
        schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        and all(is_valid(item, part) for item, part in zip(value, first, strict=False))
        and all(is_valid(item, rest) for item in value[len(first) :])
    )


@pytest.mark.parametrize("name", sorted(name for name in PRESETS if "ops" in PRESETS[name]))
def test_the_schema_takes_every_preset_as_written_and_expanded(name):
    assert is_valid(json.loads(json.dumps(PRESETS[name])), SCHEMA)
    assert is_valid(json.loads(json.dumps(expand(parse_recipe(name)))), SCHEMA)


def test_the_schema_takes_groups_and_names_them_shortly():
    groups = [
        {"op": "one_of", "ops": [{"op": "mirror"}, {"op": "invert"}], "weights": [1, 0.5]},
        {"op": "all_of", "ops": [{"op": "posterize", "bits": [1, 4]}], "shuffle": True},
    ]
    assert is_valid({"ops": groups}, SCHEMA)
    assert all(name.isalnum() for name in SCHEMA["$defs"])


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"ops": {}},
        {"ops": [{"op": "mirr"}]},
        {"ops": [{"p": 0.5}]},
        {"ops": [{"op": "mirror", "q": 0.5}]},
        {"ops": [{"op": "one_of", "ops": [{"op": "mirr"}]}]},
        {"ops": [{"op": "one_of", "ops": [{"op": "all_of", "ops": []}]}]},
        {"ops": [{"op": "all_of"}]},
        {"ops": [{"op": "mirror", "p": "often"}]},
        {"ops": [{"op": "center_crop"}]},
        {"ops": [{"op": "lens", "k": [0.1]}]},
        {"ops": [{"op": "random_crop", "size": 1.5}]},
        {"ops": [], "views": "two"},
        {"ops": [], "fill": "mirror"},
        {"ops": [], "shuffle": True},
    ],
)
def test_the_schema_refuses_wrong_names_types_and_lengths(recipe):
    assert not is_valid(recipe, SCHEMA)


def test_the_schema_names_and_describes_every_op():
    names = {
        definition["properties"]["op"]["enum"][0]
        for definition in SCHEMA["$defs"].values()
        if "op" in definition["properties"]
    }
    assert names == set(OPS_BY_NAME)
    for definition in SCHEMA["$defs"].values():
        assert len(definition["description"]) > 40
        assert "\n    " not in definition["description"]


def test_the_command_prints_the_schema():
    command = [sys.executable, "-m", "augd", "recipes", "--schema"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(json.dumps(SCHEMA))
