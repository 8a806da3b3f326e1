"""Ops as plain data: their names, also of those in groups, their expanded form, and their TOML.

Imports no NumPy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def list_names(ops: Any) -> Iterator[str]:
    """Yield the names of ops as a client wrote them, and of those in groups, which are one deep.

    What is no list, no mapping or no name is passed over: whoever parses it says so.
    """
    for op in _mappings(ops):
        yield from _name_of(op)
        for inner in _mappings(op.get("ops")):
            yield from _name_of(inner)


def _mappings(ops: Any) -> Iterator[Mapping[str, Any]]:
    return (op for op in (ops if isinstance(ops, list | tuple) else ()) if isinstance(op, Mapping))


def _name_of(op: Mapping[str, Any]) -> Iterator[str]:
    name = op.get("op")
    if isinstance(name, str):
        yield name


def expand_op(op: Mapping[str, Any]) -> dict[str, Any]:
    """Return an op with lists for tuples, without what is None."""
    return {key: _as_data(value) for key, value in op.items() if value is not None}


def _as_data(value: Any) -> Any:
    if isinstance(value, Mapping):
        return expand_op(value)
    return [_as_data(item) for item in value] if isinstance(value, tuple | list) else value


def to_toml(plain: Mapping[str, Any]) -> str:
    """Write a recipe's plain data as TOML: values, then tables, then lists of tables."""
    return "\n".join(_lines(plain, "")).lstrip() + "\n"


def _lines(table: Mapping[str, Any], prefix: str) -> Iterator[str]:
    given = {key: value for key, value in table.items() if value is not None}
    lists = {key: value for key, value in given.items() if _is_list_of_tables(value)}
    tables = {key: value for key, value in given.items() if isinstance(value, Mapping)}
    for key, value in given.items():
        if key not in lists and key not in tables:
            yield f"{key} = {_value(value)}"
    for key, value in tables.items():
        yield from ("", f"[{prefix}{key}]", *_lines(value, f"{prefix}{key}."))
    for key, items in lists.items():
        for item in items:
            yield from ("", f"[[{prefix}{key}]]")
            if key == "ops":  # those of a group are tables within its line
                yield from (f"{name} = {_value(value)}" for name, value in item.items())
            else:
                yield from _lines(item, f"{prefix}{key}.")


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value)


def _value(value: Any) -> str:
    """Write a value in one line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_value(item)}' for key, item in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    # Strings, booleans and finite numbers are written alike in JSON and TOML.
    return json.dumps(value)
