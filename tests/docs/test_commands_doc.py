"""docs/commands.md and docs/commands/ are made from the options of the commands.

`python -m tests.docs.test_commands_doc` writes them again.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path

import pytest
from typer.models import CommandInfo

import augd.cli.app
import trainer.cli.app
from augd.cli.command_line import options_of
from augd.process.options import Argument, Field, Option, fields_of

DOCS = Path(__file__).parents[2] / "docs"
_MADE = "Made from the declarations of the options; `COMMAND --help` prints the same.\n"
PAGES = {
    "commands.md": (
        "Commands: serve and watch",
        ("augd serve", "augd produce", "augd status", "augd doctor", "augd bench"),
    ),
    "commands/look.md": (
        "Commands: look at datasets and batches",
        (
            *("augd check", "augd preview", "augd explain", "augd pca", "augd recipes"),
            "augd replay",
        ),
    ),
    "commands/pack.md": (
        "Commands: pack, index and keys",
        (
            *("augd pack", "augd index"),
            *("augd keys new", "augd keys add", "augd keys list", "augd keys remove"),
        ),
    ),
    "commands/trainer.md": ("Commands: train", ("trainer fit", "trainer features")),
    "commands/trained.md": (
        "Commands: after training",
        ("trainer evaluate", "trainer predict", "trainer export", "trainer inspect"),
    ),
}
PROGRAMS = {"augd": augd.cli.app.app, "trainer": trainer.cli.app.app}


def commands() -> dict[str, CommandInfo]:
    """Return all commands by their names."""
    found = {}
    for name, app in PROGRAMS.items():
        found |= {f"{name} {one.name}": one for one in app.registered_commands}
        for group in app.registered_groups:
            assert group.typer_instance is not None
            of = f"{name} {group.typer_instance.info.name}"
            found |= {f"{of} {one.name}": one for one in group.typer_instance.registered_commands}
    return found


def render(title: str, names: tuple[str, ...]) -> str:
    """Write a page."""
    known = commands()
    return "\n".join(
        [f"# {title}\n", _MADE, *(line for name in names for line in _lines(name, known[name]))]
    )


def _lines(name: str, command: CommandInfo) -> Iterator[str]:
    work = inspect.unwrap(command.callback)  # type: ignore[arg-type]
    yield from (f"## {name}", "", inspect.cleandoc(command.help or ""), "")
    fields = [one for one in fields_of(options_of(work)) if not _is_hidden(one)]
    arguments = [one for one in fields if isinstance(one.declared, Argument)]
    options = [one for one in fields if isinstance(one.declared, Option)]
    for title, found in (("argument", arguments), ("option", options)):
        if found:
            yield from (f"| {title} | meaning | default |", "|---|---|---|")
            yield from map(_row, found)
            yield ""
    if command.epilog:
        line, _, then = command.epilog.removeprefix("Example: ").partition("   ")
        yield f"Example: `{line}`" + (f" {then}" if then else "")
        yield ""


def _is_hidden(field: Field) -> bool:
    return isinstance(field.declared, Option) and field.declared.is_hidden


def _row(field: Field) -> str:
    name = ", ".join(field.words) or field.declared.metavar or field.name
    if field.words and field.kind is not bool:
        name += f" {field.declared.metavar or field.kind.__name__.upper()}"
    if field.default is MISSING:
        default = "required"
    elif field.default in (None, (), False):
        default = ""
    elif field.kind is bool:
        default = f"`{field.words[0]}`"
    else:
        default = f"`{field.default}`"
    return f"| `{_cell(name)}` | {_cell(field.declared.help)}{_bounds(field)} | {default} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _bounds(field: Field) -> str:
    if not isinstance(field.declared, Option) or field.declared.least is None:
        return ""
    least, most = field.declared.least, field.declared.most
    return f" {least:g} or more." if most is None else f" {least:g} to {most:g}."


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_made_from_the_options(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == render(*PAGES[page]), (
        "the options changed: python -m tests.docs.test_commands_doc"
    )


def test_every_command_is_on_one_page() -> None:
    assert sorted(commands()) == sorted(name for _, names in PAGES.values() for name in names)


@pytest.mark.parametrize("name", commands())
def test_every_option_of_a_command_says_what_it_does(name: str) -> None:
    command = commands()[name]
    assert re.match(r"[A-Z][^\n]*\.", command.help or "")
    fields = fields_of(options_of(inspect.unwrap(command.callback)))  # type: ignore[arg-type]
    assert [one.name for one in fields if not _is_hidden(one) and not one.declared.help] == []


if __name__ == "__main__":
    for page, content in PAGES.items():
        (DOCS / page).parent.mkdir(exist_ok=True)
        (DOCS / page).write_text(render(*content), encoding="utf-8")
