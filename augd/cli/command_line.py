"""Command lines made from options structs, by typer; also the trainer's.

A function that takes one options struct becomes a command: its name and docstring are the
command's, and the struct's fields are its options. Commands import what they need when they run.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import MISSING
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from augd.client.shared_options import DatasetOptions
from augd.errors import AugdError
from augd.process.options import Argument, Field, Option, fields_of

__all__ = ["Argument", "Option", "add_command", "make_app", "options_of", "run_app"]

Options = TypeVar("Options")


def make_app(name: str, summary: str) -> typer.Typer:
    """Make a command line, or a group of commands, without commands."""
    return typer.Typer(
        name=name,
        help=summary,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def add_command(
    app: typer.Typer, example: str = "", *, name: str | None = None
) -> Callable[[Callable[[Options], int | None]], Callable[[Options], int | None]]:
    """Make a command of a function; what it returns is the exit status, None is 0.

    Args:
        app: gets the command.
        example: a line that the help ends with.
        name: of the command, where it is not the function's.
    """

    def add(work: Callable[[Options], int | None]) -> Callable[[Options], int | None]:
        run = _as_callback(work, options_of(work))
        app.command(
            name or work.__name__,
            help=inspect.getdoc(work),
            epilog=f"Example: {example}" if example else None,
        )(run)
        return work

    return add


def options_of(work: Callable[..., Any]) -> type:
    """Return the options struct that a command takes."""
    hints = get_type_hints(work)
    (name,) = inspect.signature(work).parameters
    found: type = hints[name]
    return found


def _as_callback(work: Callable[[Any], int | None], options: type) -> Callable[..., None]:
    """Make the function that typer calls: one parameter for each field."""
    fields = fields_of(options)

    def callback(**values: Any) -> None:
        given = {
            one.name: tuple(values[one.name] or ()) if one.is_many else values[one.name]
            for one in fields
        }
        struct = options(**given)
        if isinstance(struct, DatasetOptions):
            struct.apply()
        raise typer.Exit(work(struct) or 0)

    parameters = [_as_parameter(one) for one in fields]
    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    callback.__wrapped__ = work  # type: ignore[attr-defined]
    callback.__annotations__ = {one.name: one.annotation for one in parameters}
    return callback


def _as_parameter(field: Field) -> inspect.Parameter:
    kind: Any = field.kind
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    if field.is_many:
        kind, default = list[kind] | None, default or None
    elif field.is_optional:
        kind = kind | None
    annotation = Annotated[kind, _as_typer(field)]
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _as_typer(field: Field) -> Any:
    declared = field.declared
    if isinstance(declared, Argument):
        return typer.Argument(metavar=declared.metavar, help=declared.help)
    return typer.Option(
        "/".join(field.words),
        metavar=declared.metavar,
        help=declared.help,
        hidden=declared.is_hidden,
        min=declared.least,
        max=declared.most,
    )


def run_app(app: typer.Typer, program: str, arguments: list[str] | None = None) -> None:
    """Run a command line; an error that the user can mend is one line on stderr."""
    try:
        app(args=arguments, prog_name=program)
    except AugdError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
