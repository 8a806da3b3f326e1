"""Shows the options of both `connect` functions in the reference, with types and defaults.

An extension of mkdocstrings' Griffe, named in mkdocs.yml. Griffe reads source and runs none of it,
so it sees `**options: Unpack[ConnectOptions]` where `help` shows each option.
"""

from __future__ import annotations

from typing import Any

from griffe import Extension, Function, Parameter, ParameterKind, Parameters

_OPTIONS = "augd.client.connect_options.ConnectOptions"


class ConnectSignature(Extension):
    """Puts `NAME: Annotated[TYPE, Default(VALUE)]` into signatures as `NAME: TYPE = VALUE`."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Expand the options of a function that takes them."""
        *named, last = func.parameters or [None]
        if last is None or not str(last.annotation).endswith("ConnectOptions]"):
            return
        options = []
        for name, attribute in func.modules_collection[_OPTIONS].attributes.items():
            kind, default = attribute.annotation.slice.elements
            options.append(
                Parameter(
                    name,
                    kind=ParameterKind.keyword_only,
                    annotation=kind,
                    default=_as_written(str(default.arguments[0])),
                )
            )
        address, *own = named
        func.parameters = Parameters(address, *options, *own)


def _as_written(value: str) -> str:
    """Give a text its quotes again: Griffe takes one in an annotation for a name."""
    is_plain = value in ("None", "True", "False") or value[0].isdigit()
    return value if is_plain else f'"{value}"'
