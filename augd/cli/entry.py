"""The entry of the `augd` command: `augd serve` starts without loading a command-line library.

It is the supervisor that starts first, which starts the daemon (augd/server/supervisor/loop.py).

The time to the first batch begins when the command is typed, and typer takes a tenth of a second
of it. Plain `augd serve` lines are read here; whatever this doesn't understand (a typo, --help)
is left to `augd/cli/app.py`, which knows everything and explains it. A test holds the two together.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING

from augd.errors import AugdError
from augd.process.command import run
from augd.process.interpreter import leave_working_directory

if TYPE_CHECKING:
    from augd.server.daemon.startup import ServeOptions

_FLAGS = {"--quiet": "is_quiet", "--insecure": "is_insecure", "--pin": "is_pinned"}
_WORDS = {"--keys": "keys", "--http": "http", "--http-token": "http_token"}
_WORDS |= {"--again": "again", "--named": "named"}
_WORDS |= {"--log-format": "log_format", "--cache": "cache", "--shard-cache": "shard_cache"}
_NUMBERS = {
    "--producers": "num_producers",
    "--patience": "patience_s",
    "--lifeline-fd": "lifeline_fd",
    "--ready-fd": "ready_fd",
    "--supervisor": "supervisor",
}


def train(*, is_module: bool = False) -> None:
    """Run the trainer's command line, whatever else has the name `trainer` here."""
    leave_working_directory(is_module=is_module)
    run("trainer", lambda: import_module("augd.torch.cli.app").main())


def main() -> None:
    """Run the command line; errors that are the user's to mend are one line on stderr."""
    leave_working_directory()
    run("augd", lambda: _main(sys.argv[1:]))


def _main(words: list[str]) -> None:
    if words[:1] == ["serve"] and "--supervisor" not in words:
        from augd.server.supervisor.loop import supervise

        sys.exit(supervise(words))  # which starts this program again, with that word
    understood = read_serve(words)
    if understood is None:
        from augd.cli import app

        try:
            app.app(args=words, prog_name="augd")
        except AugdError as error:
            if (ready_fd := _ready_fd_of(words)) is None:
                raise
            from augd.server.daemon.startup import refuse

            sys.exit(refuse(error, ready_fd))
        return
    from augd.server.daemon.startup import serve_forever

    sys.exit(serve_forever(*understood))


def _ready_fd_of(words: Sequence[str]) -> int | None:
    """Find to whom it is told that a daemon cannot serve, before its options were read."""
    after = dict(pairwise(words)).get("--ready-fd", "")
    return int(after) if words[:1] == ["serve"] and after.isdecimal() else None


def read_serve(words: Sequence[str]) -> tuple[list[str], ServeOptions] | None:
    """Read a plain `serve` line; None when there is anything in it that needs explaining."""
    if not words or words[0] != "serve":
        return None
    paths: list[str] = []
    listen: list[str] = []
    plugins: list[str] = []
    options: dict[str, bool | int | str] = {}
    rest = iter(words[1:])
    for word in rest:
        name, separator, value = word.partition("=")
        if word in _FLAGS:
            options[_FLAGS[word]] = True
        elif name in _NUMBERS or name in _WORDS or name in ("--listen", "--plugin"):
            value = value if separator else next(rest, "")
            if name == "--listen" and value and not value.startswith("-"):
                listen.append(value)
            elif name == "--plugin" and value and not value.startswith("-"):
                plugins.append(value)
            elif name in _WORDS and value and not value.startswith("-"):
                options[_WORDS[name]] = value
            elif name in _NUMBERS and value.isascii() and value.isdigit():
                options[_NUMBERS[name]] = int(value)
            else:
                return None
        elif word.startswith("-"):
            return None
        else:
            paths.append(word)
    if not paths and "named" not in options:
        return None
    from augd.server.daemon.startup import ServeOptions

    return paths, ServeOptions(listen=tuple(listen), plugins=tuple(plugins), **options)  # type: ignore[arg-type]
