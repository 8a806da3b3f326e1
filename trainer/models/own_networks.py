"""Networks of a person's own code (`--arch MODULE:CALLABLE?arg=value&arg=value`).

The callable gives an `nn.Module`. It gets `num_classes`, if it takes that; else the head of what it
gives is replaced by one for the classes at hand.

Invariants: a module is imported by the name that stands on the command line, never by the one in a
checkpoint (`trainer.training.load_trained`).
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

import augd
from augd.process.interpreter import HOW_NAMED, import_named, is_absence_of

from .network_source import Built

_NAMED_MAX = 8


class _Call(NamedTuple):
    module: str
    name: str
    arguments: dict[str, Any]


def is_own(arch: str) -> bool:
    """Say whether a name is one of own code."""
    return ":" in arch


def check(arch: str) -> None:
    """Check that the module and the callable are there; imports the module.

    Raises:
        OptionError: one of them is missing, or an argument is none of the callable's.
    """
    call = _parse(arch)
    function = _function(arch, call)
    taken = _parameters(function)
    if taken is not None:
        unknown = [name for name in call.arguments if name not in taken]
        if unknown:
            raise augd.OptionError(
                f"--arch: {call.module}:{call.name} takes no {unknown[0]!r}; it takes "
                f"{', '.join(taken) or 'nothing'}"
            )


def build(arch: str, num_classes: int, size_px: tuple[int, int] | None) -> Built:
    """Call the callable.

    Raises:
        OptionError: as `check` says, or the callable fails, or gives no network.
    """
    check(arch)
    call = _parse(arch)
    function = _function(arch, call)
    taken = _parameters(function)
    has_classes = "num_classes" not in call.arguments and (taken is None or "num_classes" in taken)
    given = {**call.arguments, "num_classes": num_classes} if has_classes else call.arguments
    try:
        network = function(**given)
    except Exception as error:  # own code fails in any way
        told = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise augd.OptionError(
            f"--arch: {call.module}:{call.name}({told}) raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise augd.OptionError(
            f"--arch: {call.module}:{call.name} gives {type(network).__name__}, expected an "
            "nn.Module that gives logits (B, K) of images (B, 3, H, W)"
        )
    sizes = ((224, 224),) if size_px is None else (size_px, (224, 224))
    return Built(network, (), sizes, has_classes)


def _parse(arch: str) -> _Call:
    path, _, query = arch.partition("?")
    module, _, name = path.partition(":")
    arguments = {}
    for part in filter(None, query.split("&")):
        key, has_value, text = part.partition("=")
        if not has_value or not key.isidentifier():
            raise augd.OptionError(
                f"--arch: expected MODULE:CALLABLE?arg=value&arg=value, got {part!r} in {arch!r}"
            )
        arguments[key] = _value(text)
    if not module or not name or not all(part.isidentifier() for part in module.split(".")):
        raise augd.OptionError(
            f"--arch: expected NAME of torchvision, timm:NAME, hf:DIR or MODULE:CALLABLE, "
            f"got {arch!r}"
        )
    return _Call(module, name, arguments)


def _value(text: str) -> Any:
    """Return a literal of Python, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _function(arch: str, call: _Call) -> Callable[..., Any]:
    try:
        module = import_named(call.module)
    except Exception as error:  # own code fails in any way
        how = f" {HOW_NAMED}." if is_absence_of(call.module, error) else ""
        raise augd.OptionError(
            f"--arch: {call.module} cannot be imported: {type(error).__name__}: {error}.{how}"
        ) from error
    found: Any = module
    for part in call.name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        names = [
            name
            for name, one in vars(module).items()
            if callable(one) and getattr(one, "__module__", None) == call.module
        ]
        raise augd.OptionError(
            f"--arch: {call.module} has no callable {call.name!r}; it has "
            f"{', '.join(names[:_NAMED_MAX]) or 'none'}"
        )
    function: Callable[..., Any] = found
    return function


def _parameters(function: Callable[..., Any]) -> list[str] | None:
    """Return the names of what a callable takes; None if it takes any, or does not say."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return None
    return [one.name for one in parameters if one.kind is not one.VAR_POSITIONAL]
