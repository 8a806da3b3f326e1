"""The options of `augd.connect` and `augd.torch.connect`: each one's type and default, once.

Type checkers and editors read `ConnectOptions` through `**options: Unpack[ConnectOptions]` (PEP
692). `takes_connect_options` shows `help` and notebooks the same options with their defaults.
"""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Default:
    """What an option is where it is left out."""

    value: Any


class ConnectOptions(TypedDict, total=False):
    """What a stream is made of, and how its batches come; `augd.connect` explains each."""

    dataset: Annotated[str | None, Default(None)]
    recipe: Annotated[str | os.PathLike[str] | Mapping[str, Any], Default("imagenet")]
    batch_size: Annotated[int, Default(256)]
    seed: Annotated[int, Default(0)]
    shuffle: Annotated[bool | str, Default(True)]
    repeats: Annotated[int | str, Default(1)]
    drop_last: Annotated[bool, Default(False)]
    rank: Annotated[int, Default(0)]
    world: Annotated[int, Default(1)]
    split: Annotated[Literal["train", "val", "test", "all"] | None, Default(None)]
    val_fraction: Annotated[float, Default(0.1)]
    classes: Annotated[Sequence[str] | None, Default(None)]
    limit: Annotated[int | None, Default(None)]
    balance: Annotated[Literal["class"] | None, Default(None)]
    bad: Annotated[Literal["mask", "fail"], Default("mask")]
    max_bad_fraction: Annotated[float, Default(0.01)]
    params: Annotated[bool, Default(False)]
    verify: Annotated[bool, Default(False)]
    shared: Annotated[bool | int, Default(False)]
    max_lag: Annotated[int | None, Default(None)]
    prefetch: Annotated[int, Default(4)]
    transport: Annotated[Literal["auto", "memfd", "frames"], Default("auto")]
    timeout_s: Annotated[float, Default(60.0)]
    keys: Annotated[str | os.PathLike[str] | None, Default(None)]


def complete(given: ConnectOptions) -> ConnectOptions:
    """Return all options: those that were given, and the defaults of the others.

    Raises:
        TypeError: a name is no option, in the words of Python.
    """
    for name in given:
        if name not in _DEFAULTS:
            raise TypeError(f"connect() got an unexpected keyword argument {name!r}")
    return cast(ConnectOptions, {**_DEFAULTS, **given})


def takes_connect_options(function: Function) -> Function:
    """Show the options in the signature of a function that takes them as `**options`."""
    signature = inspect.signature(function)
    address, *own, _ = signature.parameters.values()
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_TYPES[name]
        )
        for name, default in _DEFAULTS.items()
    ]
    function.__signature__ = signature.replace(parameters=[address, *options, *own])  # type: ignore[attr-defined]
    return function


# The annotations are no texts in this module: `get_type_hints` would take milliseconds.
_DECLARED: dict[str, Any] = ConnectOptions.__annotations__
_TYPES = {name: one.__origin__ for name, one in _DECLARED.items()}
_DEFAULTS = {name: one.__metadata__[0].value for name, one in _DECLARED.items()}
