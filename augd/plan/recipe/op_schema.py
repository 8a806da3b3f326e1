"""A survey: own ops as plain data, from which a daemon makes classes that have no code.

A short-lived process imports the plug-ins and writes the survey (`augd/plugins/ops.py`). The daemon
reads it into a catalogue. Loaded only if there are plug-ins.

The types of parameters are plain data, too: a name ("bool", "int", "float", "str", "null"), or one
key of "literal", "tuple", "list" and "union" with what it is made of, beside bounds such as "ge".

Invariants: pure; nothing here imports a plug-in or NumPy; a type that cannot be written is
rejected, and never left for producers to check.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NoReturn, Union

import msgspec
from msgspec import inspect

from augd.plan.ops.plugin import Plugin, is_geometric
from augd.plan.recipe.op_catalogue import Catalogue

_BOUNDS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")
_PLAIN: dict[str, Any] = {"bool": bool, "int": int, "float": float, "str": str, "null": None}


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of an own op: its type as plain data, and its default."""

    name: str
    type: Any
    default: Any


class OwnOp(msgspec.Struct, frozen=True):
    """An own op as far as a recipe needs to know it."""

    name: str
    module: str
    is_geometric: bool
    parameters: tuple[Parameter, ...]


class Survey(msgspec.Struct, frozen=True):
    """What the daemon needs of its plug-ins: their ops, and the digests of their sources."""

    ops: tuple[OwnOp, ...] = ()
    digests: dict[str, str] = {}


def survey_of(catalogue: Catalogue) -> Survey:
    """Write the own ops of a catalogue for a daemon.

    Raises:
        ValueError: a parameter has no default, or is no plain data.
    """
    ops = [
        OwnOp(name, module, is_geometric(op_class), _parameters(op_class))
        for name, module in catalogue.module_of.items()
        if issubclass(op_class := catalogue.by_name[name], Plugin)
    ]
    return Survey(tuple(ops), dict(catalogue.digests))


def catalogue_of(survey: Survey) -> Catalogue:
    """Make a catalogue of classes that have the parameters of own ops and none of their code."""
    return Catalogue([(op.module, _stand_in(op)) for op in survey.ops], survey.digests)


_INHERITED = Parameter("p", "float", 1.0)


def _stand_in(op: OwnOp) -> type[Plugin]:
    fields = [
        (one.name, _read_type(one.type), _read_default(one))
        for one in op.parameters
        if one != _INHERITED
    ]
    method = "matrix" if op.is_geometric else "pixels"
    made: Any = msgspec.defstruct(
        op.name,
        fields,
        bases=(Plugin,),
        namespace={method: _runs_elsewhere},
        tag=op.name,
        frozen=True,
        forbid_unknown_fields=True,
    )
    return made  # type: ignore[no-any-return]


def _runs_elsewhere(*_: object) -> NoReturn:
    raise AssertionError("own ops run in producers")


def _read_default(parameter: Parameter) -> Any:
    found = parameter.default
    return tuple(found) if isinstance(found, list) else found


def _parameters(op_class: type[Plugin]) -> tuple[Parameter, ...]:
    return tuple(_parameter(op_class, field) for field in msgspec.structs.fields(op_class))


def _parameter(op_class: type[Plugin], field: msgspec.structs.FieldInfo) -> Parameter:
    path = f"{op_class.__name__}.{field.name}"
    if field.required:
        raise ValueError(f"{path}: expected a default, got none. Give the parameter one.")
    default = field.default
    if default is msgspec.NODEFAULT:
        default = field.default_factory()
    kind = _write_type(path, inspect.type_info(field.type))
    return Parameter(field.encode_name, kind, msgspec.to_builtins(default))


def _write_type(path: str, kind: inspect.Type) -> Any:
    bounds = {name: value for name in _BOUNDS if (value := getattr(kind, name, None)) is not None}
    match kind:
        case inspect.BoolType():
            return "bool"
        case inspect.IntType():
            return {"int": 0, **bounds} if bounds else "int"
        case inspect.FloatType():
            return {"float": 0, **bounds} if bounds else "float"
        case inspect.StrType():
            return {"str": 0, **bounds} if bounds else "str"
        case inspect.NoneType():
            return "null"
        case inspect.LiteralType(values=values):
            return {"literal": list(values)}
        case inspect.TupleType(item_types=items):
            return {"tuple": [_write_type(path, item) for item in items]}
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return {"list": _write_type(path, item), **bounds}
        case inspect.UnionType(types=types):
            return {"union": [_write_type(path, one) for one in types]}
    raise ValueError(
        f"{path}: expected bool, int, float, str, a Literal, or a tuple, list or union of these, "
        f"got {type(kind).__name__}. Recipes are plain data."
    )


def _read_type(written: Any) -> Any:
    if isinstance(written, str):
        return _PLAIN[written]
    bounds = {name: written[name] for name in _BOUNDS if name in written}
    (name,) = written.keys() - bounds.keys()
    of = written[name]
    kind: Any
    match name:
        case "literal":
            kind = Literal[tuple(of)]
        case "tuple":
            kind = tuple[tuple(_read_type(item) for item in of)]  # type: ignore[misc]
        case "list":
            kind = tuple[_read_type(of), ...]  # type: ignore[misc]
        case "union":
            kind = Union[tuple(_read_type(one) for one in of)]  # noqa: UP007  known when it runs
        case _:
            kind = _PLAIN[name]
    return Annotated[kind, msgspec.Meta(**bounds)] if bounds else kind
